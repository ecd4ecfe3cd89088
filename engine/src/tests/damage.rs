//! Damage on the disk: every bit of it is noticed, or in a place that nothing refers to.

use mesh_base::io::{FileId, IoErrorKind};
use mesh_base::{CheckpointNo, ReplicaId, ShardId};

use super::driver::{Rig, all, small};
use crate::*;

const FILE: FileId = FileId::Store;

fn filled(seed: u64) -> Rig {
    let mut rig = Rig::with_store(seed, small());
    for round in 1..=3_u64 {
        for number in 0..60_u64 {
            let size = if number % 20 == 0 { 9000 } else { 300 };
            rig.put(format!("key-{number:03}").as_bytes(), round * 100 + number, &vec![round as u8; size])
                .unwrap();
        }
        rig.checkpoint(round).unwrap();
    }
    rig
}

/// Opens the store and looks at everything; the first error met.
fn look_at_everything(rig: &mut Rig) -> Result<VerifyReport, StoreError> {
    let warnings = rig.open(CheckpointNo(4)).unwrap()?;
    let mut from = None;
    let pin = rig.store().pin();
    loop {
        let chunk = rig
            .until_ready(|store| store.scan_cells(pin, KeyRange::starting_at(from.as_ref()), 100_000))
            .unwrap()?;
        from = chunk.next;
        if from.is_none() {
            break;
        }
    }
    rig.store().unpin(pin);
    let mut report = rig.verify().unwrap();
    report.problem_count += warnings.len() as u64;
    Ok(report)
}

#[test]
fn every_damaged_sector_is_noticed_or_belongs_to_nobody() {
    let mut rig = filled(1);
    let expected = rig.scan(&all(ScanDirection::Forward, u64::MAX)).unwrap();
    let bytes = rig.disk.bytes(FILE).len();
    let mut noticed = 0;
    for offset in (0..bytes).step_by(512) {
        let place = offset + offset / 512 * 31 % 512;
        rig.crash(super::disk::Crash::LoseAll);
        rig.disk.flip(FILE, place, 0x40);
        match look_at_everything(&mut rig) {
            Err(StoreError::Corrupt { offset, .. }) => {
                assert!(offset as usize / 4096 <= place / 4096, "{place} reported at {offset}");
                noticed += 1;
            }
            Ok(report) if report.is_sound() => {
                assert_eq!(rig.scan(&all(ScanDirection::Forward, u64::MAX)).unwrap(), expected);
            }
            Ok(_) | Err(StoreError::Stale { .. }) => noticed += 1,
            Err(error) => panic!("{error}"),
        }
        rig.store = None;
        rig.disk.flip(FILE, place, 0x40);
    }
    rig.open(CheckpointNo(4)).unwrap().unwrap();
    let used = rig.store().statistics().used_pages as usize;
    // All but the superblock's unused space, and the zeros behind it.
    assert!(noticed >= (used - 16) * 8, "{noticed} sectors noticed, {used} pages in use");
}

#[test]
fn verify_names_every_damaged_page_and_goes_on() {
    let mut rig = filled(2);
    let sound = rig.verify().unwrap();
    assert!(sound.is_sound());
    rig.store = None;
    rig.open(CheckpointNo(4)).unwrap().unwrap();
    // Extents are nobody's parents, so all of the damage is met.
    let extents: Vec<usize> = (16..rig.disk.bytes(FILE).len() / 4096)
        .filter(|page| rig.disk.bytes(FILE)[page * 4096] == 5 && rig.disk.bytes(FILE)[page * 4096 + 64] == 3)
        .collect();
    assert_eq!(extents.len(), 3);
    for page in &extents {
        rig.disk.flip(FILE, page * 4096 + 5000, 1);
    }
    let report = rig.verify().unwrap();
    let mut found: Vec<usize> = report.problems.iter().map(|problem| problem.page.get() as usize).collect();
    found.sort_unstable();
    assert_eq!(found, extents);
    // The store goes on with what is whole.
    assert_eq!(rig.get(b"key-001", u64::MAX), Some(vec![3; 300]));
}

#[test]
fn a_lost_write_is_noticed_though_the_old_page_is_whole() {
    let mut rig = filled(3);
    let old = rig.disk.bytes(FILE).to_vec();
    for number in 0..60_u64 {
        rig.put(format!("key-{number:03}").as_bytes(), 1000 + number, &[9; 300]).unwrap();
    }
    rig.checkpoint(9).unwrap();
    let new = rig.disk.bytes(FILE).to_vec();
    let page = (16..old.len() / 4096)
        .find(|page| {
            let range = page * 4096..(page + 1) * 4096;
            old[range.clone()] != new[range.clone()] && new[page * 4096] == 1 && old[page * 4096] == 1
        })
        .unwrap();
    rig.store = None;
    rig.disk.overwrite(FILE, page * 4096, &old[page * 4096..(page + 1) * 4096]);
    rig.open(CheckpointNo(5)).unwrap().unwrap();
    let report = rig.verify().unwrap();
    assert_eq!(report.problems[0].page.get() as usize, page);
}

#[test]
fn a_lost_superblock_copy_is_noticed_by_whoever_knows_a_newer_checkpoint() {
    let mut rig = filled(4);
    rig.store = None;
    // Checkpoint 4 is in copy 0.
    rig.disk.flip(FILE, 100, 1);
    let lost = rig.open(CheckpointNo(4)).unwrap();
    assert!(matches!(lost, Err(StoreError::Corrupt { offset: 0, .. })), "{lost:?}");
    rig.disk.flip(FILE, 100, 1);
    assert_eq!(rig.open(CheckpointNo(4)).unwrap(), Ok(vec![]));
    // One that was never written leaves nothing to point at.
    rig.store = None;
    let missing = rig.open(CheckpointNo(5)).unwrap();
    assert!(matches!(missing, Err(StoreError::Stale { found, least, .. }) if (found.0, least.0) == (4, 5)));
}

#[test]
fn a_damaged_copy_that_is_not_needed_is_a_warning() {
    let mut rig = filled(5);
    rig.store = None;
    rig.disk.flip(FILE, 2 * 16384 + 77, 1);
    let warnings = rig.open(CheckpointNo(4)).unwrap().unwrap();
    assert!(matches!(warnings[..], [OpenWarning::SuperblockCopy { offset: 32768, .. }]));
    rig.assert_sound();
}

#[test]
fn without_any_valid_copy_the_store_does_not_open() {
    let mut rig = filled(6);
    rig.store = None;
    (0..4).for_each(|copy| rig.disk.flip(FILE, copy * 16384, 1));
    assert!(matches!(rig.open(CheckpointNo(0)).unwrap(), Err(StoreError::Corrupt { offset: 0, .. })));
}

#[test]
fn a_store_of_another_replica_or_of_other_sizes_does_not_open() {
    let mut rig = filled(7);
    rig.store = None;
    for (shard, replica) in [(9, 42), (1, 43)] {
        let other = mesh_base::ReplicaIdentity {
            shard: ShardId(shard),
            replica: ReplicaId(replica),
            ..super::driver::IDENTITY
        };
        let opening = Opening::open(FILE, other, small(), CheckpointNo(0), &mut rig.io);
        assert!(matches!(rig.finish(opening).unwrap(), Err(StoreError::WrongIdentity { .. })));
    }
    rig.options.page_bytes = 8192;
    let refused = rig.open(CheckpointNo(0)).unwrap();
    assert!(matches!(refused, Err(StoreError::Size { found: 4096, expected: 8192, .. })));
    rig.options = StoreOptions { key_bytes_max: 601, ..small() };
    let refused = rig.open(CheckpointNo(0)).unwrap();
    assert!(matches!(refused, Err(StoreError::Size { found: 600, expected: 601, .. })));
}

#[test]
fn a_store_of_a_newer_format_says_so() {
    let mut rig = filled(8);
    rig.store = None;
    let mut copy = rig.disk.bytes(FILE)[..4096].to_vec();
    copy[8..12].copy_from_slice(&[9, 0, 8, 0]);
    let checksum = mesh_base::checksum::xxh3(&copy[..4088]).to_le_bytes();
    copy[4088..].copy_from_slice(&checksum);
    rig.disk.overwrite(FILE, 0, &copy);
    let refused = rig.open(CheckpointNo(0)).unwrap();
    assert!(matches!(refused, Err(StoreError::NewerFormat { version: 9, min_reader: 8, supported: 1, .. })));
}

#[test]
fn a_missing_store_is_missing_and_an_existing_one_is_not_replaced() {
    let mut rig = Rig::new(9, small());
    assert_eq!(rig.open(CheckpointNo(0)).unwrap(), Err(StoreError::Missing { file: FILE }));
    rig.create().unwrap();
    let opening = Opening::create(FILE, super::driver::IDENTITY, small(), &mut rig.io);
    let refused = rig.finish(opening).unwrap();
    assert!(matches!(refused, Err(StoreError::Io(error)) if error.kind == IoErrorKind::Exists));
}

#[test]
fn after_a_failed_write_or_sync_or_read_the_store_acknowledges_nothing_more() {
    for verb in ["write", "sync", "read"] {
        let mut rig = filled(10);
        rig.put(b"new", 5000, b"value").unwrap();
        rig.begin_checkpoint(9);
        rig.disk.fail = Some((verb, IoErrorKind::Device));
        let failure = loop {
            if verb == "read" {
                let read =
                    (0..60).map(|number| rig.try_get(USER, format!("key-{number:03}").as_bytes(), u64::MAX));
                let Some(error) = read.map(Result::unwrap).find_map(Result::err) else { continue };
                break error;
            }
            if let Err(error) = rig.turn().unwrap() {
                break error;
            }
        };
        assert!(matches!(failure, StoreError::Io(_)), "{failure}");
        let refused = rig.store().write(&[super::driver::put(b"k", 1, b"v")]);
        assert!(matches!(refused, Err(StoreError::Poisoned { .. })));
        assert!(matches!(
            rig.store().get(USER, b"k", mesh_base::Revision::MAX, Want::Head),
            Err(StoreError::Poisoned { .. })
        ));
        assert_eq!(rig.done.last(), Some(&CheckpointNo(4)));
    }
}

use super::driver::USER;
