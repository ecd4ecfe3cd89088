//! Versions, the horizon, and garbage.

use mesh_base::{CheckpointNo, Namespace, Revision};

use super::disk::Crash;
use super::driver::{Rig, USER, all, small};
use crate::*;

#[test]
fn a_key_is_what_it_was_at_every_revision() {
    let mut rig = Rig::with_store(1, small());
    let value = |revision: u64| vec![revision as u8; 200];
    for revision in (10..2000).step_by(10) {
        if revision % 70 == 0 {
            rig.delete(b"key", revision).unwrap();
        } else {
            rig.put(b"key", revision, &value(revision)).unwrap();
        }
        if revision % 300 == 0 {
            rig.checkpoint(revision).unwrap();
        }
    }
    for at in 0..2010 {
        let newest = (at / 10 * 10).min(1990);
        let expected = (newest > 0 && newest % 70 != 0).then(|| value(newest));
        assert_eq!(rig.get(b"key", at), expected, "at {at}");
    }
    assert_eq!(rig.get(b"kex", u64::MAX), None);
    assert_eq!(rig.get(b"key2", u64::MAX), None);
}

#[test]
fn a_tombstone_tells_when_the_key_was_deleted() {
    let mut rig = Rig::with_store(2, small());
    rig.put(b"key", 5, b"value").unwrap();
    rig.delete(b"key", 9).unwrap();
    let store = rig.store();
    let read = store.get(USER, b"key", Revision(20), Want::Head).unwrap().ready().unwrap();
    assert!(matches!(read, KeyAt::Deleted { revision: Revision(9) }));
    assert!(read.live().is_none());
    let read = store.get(USER, b"key", Revision(8), Want::Head).unwrap().ready().unwrap();
    assert_eq!(read.revision(), Some(Revision(5)));
}

#[test]
fn what_a_version_carries_comes_back() {
    let mut rig = Rig::with_store(3, small());
    let attributes = Attributes {
        create_revision: Revision(3),
        version: 300,
        lease: 77,
        type_tag: 2,
        expiry_ms: 1_800_000_000_000,
        flags: 0x8001,
    };
    let change = Change::Put { attributes, value: b"value" };
    let write = CellWrite { namespace: Namespace(70_000), key: b"key", revision: Revision(9), change };
    rig.write(&[write]).unwrap();
    let read =
        rig.store().get(Namespace(70_000), b"key", Revision::MAX, Want::Value).unwrap().ready().unwrap();
    let version = read.live().unwrap();
    assert_eq!((version.attributes, version.revision), (attributes, Revision(9)));
    assert_eq!(version.value.as_slice(), Some(b"value".as_slice()));
    assert_eq!(rig.get(b"key", u64::MAX), None, "namespaces are apart");
}

#[test]
fn below_the_horizon_reads_are_refused_and_versions_go_when_their_leaf_is_full() {
    let mut rig = Rig::with_store(4, small());
    for revision in 1..=10 {
        rig.put(b"key", revision, &[1; 300]).unwrap();
    }
    rig.store().set_horizon(Revision(7));
    rig.put(b"other", 11, b"value").unwrap();
    assert_eq!(rig.store().statistics().cells, 11, "there is room for it beside them");
    rig.put(b"other", 12, &[2; 900]).unwrap();
    // 7 is the newest at the horizon; 8, 9 and 10 are newer.
    assert_eq!((rig.store().statistics().cells, rig.store().statistics().leaves), (6, 1));
    assert!(rig.get(b"key", 7).is_some());
    let refused = rig.try_get(USER, b"key", 6).unwrap();
    assert_eq!(refused, Err(StoreError::Compacted { oldest: Revision(7) }));
    rig.store().set_horizon(Revision(5));
    assert_eq!(rig.store().horizon(), Revision(7), "it never sinks");
    rig.checkpoint(1).unwrap();
    rig.crash(Crash::LoseAll);
    rig.open(CheckpointNo(2)).unwrap().unwrap();
    assert_eq!(rig.store().horizon(), Revision(7), "and survives");
}

#[test]
fn a_tombstone_does_not_go_before_the_versions_it_hides() {
    let mut rig = Rig::with_store(5, small());
    // One key's versions over many leaves, the newest a tombstone.
    for revision in 1..=60 {
        rig.put(b"key", revision, &[1; 900]).unwrap();
    }
    rig.delete(b"key", 61).unwrap();
    rig.put(b"before", 62, b"x").unwrap();
    rig.store().set_horizon(Revision(100));
    // Only the first leaf is touched: the tombstone is there, the versions it hides are in other leaves.
    rig.put(b"before", 101, b"x").unwrap();
    assert!(rig.store().statistics().cells > 10);
    assert_eq!(rig.get(b"key", u64::MAX), None);
    for round in 0..6 {
        let mut from = None;
        loop {
            let progress = rig.until_ready(|store| store.sweep(from.as_ref(), 1)).unwrap().unwrap();
            assert_eq!(rig.get(b"key", u64::MAX), None);
            from = progress.next;
            if from.is_none() {
                break;
            }
        }
        rig.store().set_horizon(Revision(200 + round));
    }
    assert_eq!(rig.store().statistics().cells, 1, "only `before` is left");
    rig.checkpoint(1).unwrap();
    rig.assert_sound();
}

#[test]
fn one_pass_of_the_sweep_drops_all_garbage_however_large_the_versions_are() {
    // A leaf with one version of the longest value that is kept in a leaf has no reason to join another.
    for bytes in [10, 300, 900, 1024] {
        let mut rig = Rig::with_store(9, small());
        for revision in 1..=300 {
            let key: &[u8] = if revision % 100 < 80 { b"often" } else { b"other" };
            rig.put(key, revision, &vec![1; bytes]).unwrap();
        }
        rig.delete(b"other", 301).unwrap();
        rig.put(b"often", 302, &vec![2; bytes]).unwrap();
        rig.put(b"often", 310, &vec![3; bytes]).unwrap();
        rig.store().set_horizon(Revision(305));
        let mut from = None;
        loop {
            let progress = rig.until_ready(|store| store.sweep(from.as_ref(), 2)).unwrap().unwrap();
            from = progress.next;
            assert_eq!(rig.get(b"often", 305), Some(vec![2; bytes]));
            assert_eq!(rig.get(b"other", 305), None);
            if from.is_none() {
                break;
            }
        }
        // Two of `often`, and of `other` at most the tombstone that hid the rest until it went.
        assert!(rig.store().statistics().cells <= 3, "{bytes}: {}", rig.store().statistics().cells);
        rig.checkpoint(1).unwrap();
        rig.assert_sound();
    }
}

#[test]
fn a_scan_passes_over_garbage_without_losing_its_way_however_small_the_memory() {
    let mut rig = Rig::with_store(6, StoreOptions { frame_bytes_max: 4096, ..small() });
    for number in 0..300_u64 {
        rig.put(format!("dead-{number:03}").as_bytes(), 1, &[1; 400]).unwrap();
        rig.delete(format!("dead-{number:03}").as_bytes(), 2).unwrap();
    }
    rig.put(b"a", 1, b"first").unwrap();
    rig.put(b"z", 1, b"last").unwrap();
    rig.checkpoint(1).unwrap();
    let keys = |items: Vec<(Vec<u8>, u64, Vec<u8>)>| items.into_iter().map(|item| item.0).collect::<Vec<_>>();
    let forward = rig.scan(&all(ScanDirection::Forward, u64::MAX)).unwrap();
    assert_eq!(keys(forward), [b"a", b"z"]);
    let reverse = rig.scan(&all(ScanDirection::Reverse, u64::MAX)).unwrap();
    assert_eq!(keys(reverse), [b"z", b"a"]);
    let one = ScanRequest { items_max: 1, ..all(ScanDirection::Reverse, 1) };
    assert_eq!(rig.scan(&one).unwrap().len(), 302);
}

#[test]
fn a_scan_for_heads_reads_no_large_values() {
    let mut rig = Rig::with_store(7, small());
    for number in 0..20_u8 {
        rig.put(&[number], 1, &[number; 50_000]).unwrap();
    }
    rig.checkpoint(1).unwrap();
    rig.crash(Crash::LoseAll);
    rig.open(CheckpointNo(2)).unwrap().unwrap();
    let reads = rig.disk.reads;
    let heads = rig.scan(&ScanRequest { want: Want::Head, ..all(ScanDirection::Forward, 9) }).unwrap();
    assert_eq!(heads.len(), 20);
    assert!(rig.disk.reads - reads < 10);
    let mut lengths = Vec::new();
    let request = ScanRequest { want: Want::Head, ..all(ScanDirection::Forward, 9) };
    rig.store()
        .scan(&request, |_, version| lengths.push((version.value.len(), version.value.is_read())))
        .unwrap();
    assert_eq!(lengths, [(50_000, false); 20]);
}

#[test]
fn records_of_the_system_have_one_version_and_no_horizon() {
    let mut rig = Rig::with_store(8, small());
    let record = |value| CellWrite {
        namespace: Namespace::SYSTEM,
        key: b"conf",
        revision: Revision::ZERO,
        change: Change::Put { attributes: Attributes::SYSTEM, value },
    };
    rig.write(&[record(b"one")]).unwrap();
    rig.write(&[record(b"two")]).unwrap();
    rig.store().set_horizon(Revision(1000));
    rig.put(b"user", 1001, b"x").unwrap();
    let found = rig.try_get(Namespace::SYSTEM, b"conf", 0).unwrap().unwrap();
    assert_eq!(found, Some(b"two".to_vec()));
    assert_eq!(rig.store().statistics().cells, 2);
    rig.write(&[CellWrite { change: Change::Remove, ..record(b"") }]).unwrap();
    assert_eq!(rig.try_get(Namespace::SYSTEM, b"conf", 0).unwrap().unwrap(), None);
}

#[test]
fn live_keys_are_counted() {
    let mut rig = Rig::with_store(9, small());
    for number in 0..500_u64 {
        rig.put(&number.to_be_bytes(), 1 + number, &[0; 60]).unwrap();
        rig.put(&number.to_be_bytes(), 1000 + number, &[0; 60]).unwrap();
        if number % 5 == 0 {
            rig.delete(&number.to_be_bytes(), 2000 + number).unwrap();
        }
        if number % 10 == 0 {
            rig.put(&number.to_be_bytes(), 3000 + number, &[0; 60]).unwrap();
            rig.put(&number.to_be_bytes(), 3000 + number, &[1; 60]).unwrap();
        }
    }
    assert_eq!(rig.store().statistics().keys, 450);
    rig.store().set_horizon(Revision(9000));
    for number in 0..500_u64 {
        rig.delete(&number.to_be_bytes(), 10_000 + number).unwrap();
    }
    assert_eq!(rig.store().statistics().keys, 0);
}

#[test]
fn deleting_everything_gives_the_space_back() {
    let mut rig = Rig::with_store(10, small());
    for number in 0..2000_u64 {
        rig.put(format!("{number:05}").as_bytes(), 1 + number, &[1; 100]).unwrap();
    }
    rig.checkpoint(1).unwrap();
    let full = rig.store().statistics();
    for number in 0..2000_u64 {
        rig.delete(format!("{number:05}").as_bytes(), 3000 + number).unwrap();
    }
    rig.store().set_horizon(Revision(10_000));
    let mut from = None;
    loop {
        let progress = rig.until_ready(|store| store.sweep(from.as_ref(), 8)).unwrap().unwrap();
        from = progress.next;
        if from.is_none() {
            break;
        }
    }
    let statistics = rig.store().statistics();
    assert_eq!((statistics.cells, statistics.keys, statistics.height), (0, 0, 0));
    rig.checkpoint(2).unwrap();
    rig.checkpoint(3).unwrap();
    let statistics = rig.store().statistics();
    assert!(statistics.used_pages < 20 && full.used_pages > 60, "{statistics:?}");
    rig.assert_sound();
    assert!(rig.scan(&all(ScanDirection::Forward, u64::MAX)).unwrap().is_empty());
    assert!(rig.scan(&all(ScanDirection::Reverse, u64::MAX)).unwrap().is_empty());
}
