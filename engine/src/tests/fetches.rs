//! Misses, fetches, and the life of pages in memory.

use mesh_base::io::{FileId, IoErrorKind};
use mesh_base::{CheckpointNo, Revision};

use super::disk::Crash;
use super::driver::{Rig, USER, all, put, small};
use crate::*;

fn key(number: u64) -> Vec<u8> {
    format!("key-{number:05}").into_bytes()
}

/// A store of three levels, with nothing in memory.
fn cold(seed: u64, options: StoreOptions) -> Rig {
    let mut rig = Rig::with_store(seed, options);
    for number in 0..3000 {
        rig.put(&key(number), 1, &[1; 400]).unwrap();
        if number % 300 == 0 {
            rig.checkpoint(1).unwrap();
        }
    }
    let no = rig.checkpoint(1).unwrap();
    rig.crash(Crash::LoseAll);
    rig.open(no).unwrap().unwrap();
    assert_eq!(rig.store().statistics().height, 2);
    rig
}

fn misses_of(rig: &mut Rig, number: u64) -> Option<Misses> {
    match rig.store().get(USER, &key(number), Revision::MAX, Want::Value).unwrap() {
        Lookup::Miss(misses) => Some(misses),
        Lookup::Ready(_) => None,
    }
}

fn fetch(rig: &mut Rig, misses: &Misses) -> FetchId {
    let mut io = std::mem::take(&mut rig.io);
    let id = rig.store().fetch(misses, &mut io);
    rig.disk.submit(&mut io);
    rig.io = io;
    id
}

#[test]
fn any_operation_gets_to_its_end_with_memory_for_a_single_page() {
    let mut rig = cold(1, StoreOptions { frame_bytes_max: 4096, ..small() });
    for number in (0..3000).step_by(301) {
        assert_eq!(rig.get(&key(number), 1), Some(vec![1; 400]));
    }
    let keys: Vec<Vec<u8>> = (0..3000).step_by(97).map(key).collect();
    let writes: Vec<CellWrite<'_>> = keys.iter().map(|key| put(key, 2, b"new")).collect();
    rig.write(&writes).unwrap();
    rig.checkpoint(2).unwrap();
    assert!(keys.iter().all(|key| rig.get(key, 2).as_deref() == Some(b"new")));
    rig.assert_sound();
}

#[test]
fn what_many_keys_miss_is_fetched_level_by_level() {
    let mut rig = cold(8, StoreOptions { frame_bytes_max: 300 * 4096, ..small() });
    let keys: Vec<Vec<u8>> = (0..3000).step_by(50).map(key).collect();
    let missing = |rig: &mut Rig, bytes_max| {
        let keys = keys.iter().map(Vec::as_slice);
        rig.store().missing_of(USER, keys, Revision::MAX, bytes_max).unwrap()
    };
    let mut rounds = Vec::new();
    loop {
        let misses = missing(&mut rig, usize::MAX);
        if misses.is_empty() {
            break;
        }
        rounds.push(misses.len());
        fetch(&mut rig, &misses);
        rig.settle();
    }
    // The root, what is under it, and a leaf for every key.
    assert_eq!(rounds.len(), 3, "{rounds:?}");
    assert!(rounds[0] == 1 && rounds[2] > 50);
    assert!(keys.iter().all(|key| rig.get(key, 1) == Some(vec![1; 400])));
    rig.crash(Crash::LoseAll);
    rig.open(CheckpointNo(1)).unwrap().unwrap();
    for bytes_max in [0, 4096] {
        assert_eq!(missing(&mut rig, bytes_max).len(), 1);
    }
}

#[test]
fn a_scan_reads_the_large_values_of_a_leaf_together() {
    let mut rig = Rig::with_store(9, StoreOptions { frame_bytes_max: 300 * 4096, ..small() });
    for number in 0..12 {
        // Of two versions a scan sees one.
        rig.put(&key(number), 1, &[3; 20_000]).unwrap();
        rig.put(&key(number), 2, &[4; 20_000]).unwrap();
    }
    let no = rig.checkpoint(1).unwrap();
    for direction in [ScanDirection::Forward, ScanDirection::Reverse] {
        for (bytes_max, items_max, expected) in [(usize::MAX, 100, 12), (70_000, 100, 4), (usize::MAX, 5, 5)]
        {
            rig.crash(Crash::LoseAll);
            rig.open(no).unwrap().unwrap();
            let request = ScanRequest { bytes_max, items_max, ..all(direction, 2) };
            let mut missed = Vec::new();
            loop {
                let end =
                    rig.store().scan(&request, |_, version| assert_eq!(version.value.to_vec(), [4; 20_000]));
                let ScanEnd::Miss { misses, .. } = end.unwrap().end else { break };
                missed.push(misses.len());
                fetch(&mut rig, &misses);
                rig.settle();
            }
            assert_eq!(missed.pop(), Some(expected), "{direction:?}, {bytes_max} bytes, {items_max} items");
        }
    }
}

#[test]
fn what_writes_make_dirty_takes_the_place_of_what_is_clean() {
    let budget = 128 * 4096;
    let mut rig = cold(7, StoreOptions { frame_bytes_max: budget, ..small() });
    // Memory is full of clean pages, and from then on nothing misses: writes go on in what is there.
    for number in (0..3000).step_by(3) {
        rig.get(&key(number), 1);
    }
    assert!(rig.store().resident_bytes() > budget - 2 * 4096);
    let mut written = 0;
    for number in 0..3000 {
        let done = rig.store().write(&[put(&key(number), 2, &[2; 400])]).unwrap().ready();
        written += usize::from(done.is_some());
        assert!(rig.store().resident_bytes() <= budget);
        if rig.store().dirty_bytes() > budget / 2 {
            break;
        }
    }
    assert!(written > 100 && rig.store().dirty_bytes() > budget / 2);
    rig.checkpoint(2).unwrap();
    rig.assert_sound();
}

#[test]
fn fetched_pages_stay_until_they_are_released() {
    let mut rig = cold(2, StoreOptions { frame_bytes_max: 4096, ..small() });
    let mut fetches = Vec::new();
    while let Some(misses) = misses_of(&mut rig, 5) {
        fetches.push(fetch(&mut rig, &misses));
        rig.settle();
    }
    for number in (100..3000).step_by(211) {
        assert!(rig.get(&key(number), 1).is_some());
    }
    assert!(misses_of(&mut rig, 5).is_none());
    assert_eq!(rig.store().fetches(), fetches.len());
    fetches.into_iter().for_each(|id| rig.store().release(id));
    assert!(rig.store().resident_bytes() <= 4096);
    assert!(misses_of(&mut rig, 5).is_some());
}

#[test]
fn what_a_sealed_store_still_had_to_read_may_fail() {
    for kind in [None, Some(IoErrorKind::Device)] {
        let mut rig = cold(8, small());
        let misses = misses_of(&mut rig, 5).unwrap();
        fetch(&mut rig, &misses);
        rig.store().seal();
        rig.disk.fail = kind.map(|kind| ("read", kind));
        if kind.is_none() {
            let length = rig.disk.bytes(FileId::Store).len();
            rig.disk.overwrite(FileId::Store, 0, &vec![7; length]);
        }
        assert!(!rig.store().is_quiet());
        rig.turn().unwrap().unwrap();
        assert!(rig.store().is_quiet() && rig.store().next_event().is_none());
    }
}

#[test]
fn the_steps_of_a_checkpoint_end_where_the_store_is_sealed() {
    for steps in 0..12 {
        let mut rig = cold(9, small());
        rig.put(&key(1), 2, b"new").unwrap();
        rig.begin_checkpoint(2);
        for _ in 0..steps {
            rig.turn().unwrap().unwrap();
        }
        rig.store().seal();
        let mut io = std::mem::take(&mut rig.io);
        while let Some(completion) = rig.disk.complete_one() {
            rig.store().complete(completion, &mut io).unwrap();
        }
        assert!(rig.store().is_quiet() && io.drain().next().is_none(), "after {steps} steps");
    }
}

#[test]
fn two_fetches_of_a_page_share_one_read_and_an_early_release_harms_neither() {
    let mut rig = cold(3, small());
    let misses = misses_of(&mut rig, 5).unwrap();
    let reads = rig.disk.reads;
    let ids: Vec<FetchId> = (0..3).map(|_| fetch(&mut rig, &misses)).collect();
    rig.store().release(ids[0]);
    rig.settle();
    assert_eq!(rig.disk.reads, reads + 1);
    assert_ne!(misses_of(&mut rig, 5).unwrap().wants, misses.wants, "it gets further");
    // A fetch of what is there already is done at once.
    let again = fetch(&mut rig, &misses);
    assert_eq!(rig.store().next_event(), Some(StoreEvent::Fetched(again)));
}

#[test]
fn a_read_in_flight_whose_page_is_put_to_another_use_is_thrown_away() {
    let mut rig = Rig::with_store(4, small());
    rig.put(b"large", 1, &[1; 30_000]).unwrap();
    rig.put(b"small", 1, b"x").unwrap();
    rig.checkpoint(1).unwrap();
    rig.crash(Crash::LoseAll);
    rig.open(CheckpointNo(2)).unwrap().unwrap();
    rig.get(b"small", 1);
    let Lookup::Miss(misses) = rig.store().get(USER, b"large", Revision(1), Want::Value).unwrap() else {
        panic!("the extents are not in memory")
    };
    rig.disk.hold_reads = true;
    let id = fetch(&mut rig, &misses);
    // The value is replaced, its space is freed and written again, all while the read is on its way.
    rig.store().write(&[put(b"large", 1, b"now small")]).unwrap().ready().unwrap();
    rig.checkpoint(2).unwrap();
    for number in 0..6 {
        rig.store().write(&[put(&[number], 3, &[2; 30_000])]).unwrap().ready().unwrap();
        rig.checkpoint(3).unwrap();
    }
    rig.disk.hold_reads = false;
    rig.settle();
    // Misses from before are not read for their old meaning either.
    let late = fetch(&mut rig, &misses);
    rig.settle();
    rig.store().release(id);
    rig.store().release(late);
    assert_eq!(rig.get(b"large", 1), Some(b"now small".to_vec()));
    for number in 0..6 {
        assert_eq!(rig.get(&[number], 3), Some(vec![2; 30_000]));
    }
    rig.assert_sound();
}

#[test]
fn a_write_that_misses_has_changed_nothing() {
    let mut rig = cold(5, small());
    let (near, far) = (key(0), key(2999));
    rig.get(&near, 1);
    let before = rig.store().statistics();
    let result = rig.store().write(&[put(&near, 2, b"new"), put(&far, 2, b"new")]).unwrap();
    let Lookup::Miss(misses) = result else { panic!("the far leaf is not in memory") };
    assert_eq!(misses.len(), 1);
    assert_eq!(rig.store().missing_for(&[put(&far, 2, b"new")]).unwrap().wants, misses.wants);
    assert_eq!(rig.store().statistics(), before);
    assert_eq!(rig.get(&near, 2), Some(vec![1; 400]));
}

#[test]
fn pages_changed_while_a_checkpoint_is_written_are_copied_and_both_are_right() {
    let mut rig = Rig::with_store(6, StoreOptions { frame_bytes_max: 1 << 20, ..small() });
    for number in 0..200 {
        rig.put(&key(number), 1, &[1; 400]).unwrap();
    }
    let first = rig.begin_checkpoint(1);
    for number in 0..200 {
        // A turn between writes, so that some pages are sealed and some are not.
        rig.turn().unwrap().unwrap();
        rig.put(&key(number), 2, &[2; 400]).unwrap();
    }
    rig.finish_checkpoint().unwrap();
    rig.crash(Crash::LoseAll);
    rig.open(first).unwrap().unwrap();
    assert!((0..200).all(|number| rig.get(&key(number), 9) == Some(vec![1; 400])));
    rig.assert_sound();
}

#[test]
fn a_scan_reads_ahead() {
    let mut rig = cold(7, StoreOptions { frame_bytes_max: 1 << 20, ..small() });
    rig.get(&key(0), 1);
    let request = all(ScanDirection::Forward, 9);
    let outcome = rig.store().scan(&request, |_, _| {}).unwrap();
    let ScanEnd::Miss { misses, .. } = outcome.end else { panic!("the next leaves are not in memory") };
    assert_eq!(misses.len(), 17);
}
