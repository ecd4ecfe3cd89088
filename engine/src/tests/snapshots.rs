//! Snapshots: from a pinned checkpoint into a staged store.

use mesh_base::io::{FileId, IoOp};
use mesh_base::{CheckpointNo, Namespace, Revision};
use quickcheck::{QuickCheck, TestResult};

use super::disk::Crash;
use super::driver::{Rig, SOURCE, all, small};
use crate::*;

fn key(number: u64) -> Vec<u8> {
    format!("key-{number:05}").into_bytes()
}

fn filled(seed: u64) -> Rig {
    let mut rig = Rig::with_store(seed, small());
    for number in 0..400 {
        let size = if number % 50 == 0 { 40_000 } else { 150 };
        rig.put(&key(number), 1 + number, &vec![number as u8; size]).unwrap();
        rig.put(&key(number), 1000 + number, b"newer").unwrap();
        if number % 3 == 0 {
            rig.delete(&key(number), 2000 + number).unwrap();
        }
        if number % 100 == 99 {
            rig.checkpoint(number).unwrap();
        }
    }
    rig
}

/// Where the versions of a key begin.
fn user(number: u64) -> CellKey {
    KeyRef::newest(super::driver::USER, &key(number)).to_owned()
}

fn staged(seed: u64) -> Rig {
    let mut rig = Rig::new(seed, small());
    rig.file = FileId::StagedStore;
    rig.create().unwrap();
    rig.store().begin_ingest(SOURCE);
    rig
}

fn chunks(rig: &mut Rig, bytes_max: usize) -> Vec<SnapshotChunk> {
    let pin = rig.store().pin();
    let mut chunks: Vec<SnapshotChunk> = Vec::new();
    loop {
        let from = chunks.last().and_then(|chunk| chunk.next.clone());
        chunks.push(
            rig.until_ready(|store| store.scan_cells(pin, KeyRange::starting_at(from.as_ref()), bytes_max))
                .unwrap()
                .unwrap(),
        );
        if chunks.last().unwrap().next.is_none() {
            break;
        }
    }
    rig.store().unpin(pin);
    chunks
}

#[test]
fn a_staged_store_equals_the_pinned_checkpoint_while_writes_go_on() {
    let mut rig = filled(1);
    let expected = |at| -> Vec<_> {
        let mut original = filled(1);
        original.scan(&all(ScanDirection::Forward, at)).unwrap()
    };
    let pin = rig.store().pin();
    let info = rig.store().pinned(pin);
    assert_eq!(info.applied.get(), 399);
    let mut copy = staged(2);
    let mut from = None;
    for round in 0.. {
        let chunk = rig
            .until_ready(|store| store.scan_cells(pin, KeyRange::starting_at(from.as_ref()), 20_000))
            .unwrap()
            .unwrap();
        assert!(chunk.bytes.len() < 61_000);
        let progress = copy.until_ready(|store| store.ingest(&chunk.bytes)).unwrap().unwrap();
        // Both sides go on with their checkpoints.
        for number in 0..20 {
            rig.put(&key(round * 20 + number), 5000 + round, b"after the snapshot").unwrap();
        }
        rig.checkpoint(400 + round).unwrap();
        copy.checkpoint(0).unwrap();
        from = chunk.next;
        assert_eq!(progress == IngestProgress::Complete, from.is_none());
        if from.is_none() {
            break;
        }
    }
    rig.store().unpin(pin);
    rig.checkpoint(900).unwrap();
    rig.checkpoint(901).unwrap();
    rig.assert_sound();
    copy.checkpoint(399).unwrap();
    copy.assert_sound();
    for at in [150, 1100, 9000] {
        assert_eq!(copy.scan(&all(ScanDirection::Forward, at)).unwrap(), expected(at), "at {at}");
    }
    assert_eq!(copy.store().newest_revision(), info.revision);
    assert_eq!(copy.store().checkpoint().cells, info.cells);
    assert_eq!(copy.store().checkpoint().keys, info.keys);
}

#[test]
fn a_promoted_store_goes_on_under_its_new_name() {
    let mut rig = filled(3);
    let mut copy = staged(4);
    for chunk in chunks(&mut rig, 50_000) {
        copy.until_ready(|store| store.ingest(&chunk.bytes)).unwrap().unwrap();
    }
    let no = copy.checkpoint(399).unwrap();
    copy.settle();
    copy.perform(IoOp::Rename { from: FileId::StagedStore, to: FileId::Store }).unwrap();
    copy.perform(IoOp::SyncDirectory).unwrap();
    copy.store().promote(small().frame_bytes_max);
    copy.file = FileId::Store;
    copy.put(b"after", 9000, b"promotion").unwrap();
    copy.checkpoint(400).unwrap();
    copy.crash(Crash::LoseAll);
    copy.open(no).unwrap().unwrap();
    assert_eq!(copy.get(b"after", 9000), Some(b"promotion".to_vec()));
    copy.assert_sound();
}

#[test]
fn a_promoted_store_has_the_memory_of_a_live_one() {
    let mut rig = filled(3);
    let mut copy = Rig::new(4, StoreOptions { frame_bytes_max: 4 * 4096, ..small() });
    copy.file = FileId::StagedStore;
    copy.create().unwrap();
    copy.store().begin_ingest(SOURCE);
    for chunk in chunks(&mut rig, 50_000) {
        copy.until_ready(|store| store.ingest(&chunk.bytes)).unwrap().unwrap();
    }
    copy.checkpoint(399).unwrap();
    copy.settle();
    assert!(copy.store().resident_bytes() <= 4 * 4096);
    copy.perform(IoOp::Rename { from: FileId::StagedStore, to: FileId::Store }).unwrap();
    copy.perform(IoOp::SyncDirectory).unwrap();
    copy.store().promote(small().frame_bytes_max);
    copy.file = FileId::Store;
    assert_eq!(copy.store().options().frame_bytes_max, small().frame_bytes_max);
    copy.scan(&all(ScanDirection::Forward, 9000)).unwrap();
    let resident = copy.store().resident_bytes();
    assert!((8 * 4096..=16 * 4096).contains(&resident), "{resident} bytes in memory");
}

#[test]
fn a_chunk_that_is_missing_or_comes_twice_is_refused() {
    let mut rig = filled(5);
    let chunks = chunks(&mut rig, 20_000);
    assert!(chunks.len() > 4);
    let mut copy = staged(6);
    let refused = |copy: &mut Rig, index: usize| {
        let result = copy.until_ready(|store| store.ingest(&chunks[index].bytes)).unwrap();
        assert!(matches!(result, Err(StoreError::ChunkOutOfPlace { .. })), "{result:?}");
    };
    refused(&mut copy, 1);
    copy.until_ready(|store| store.ingest(&chunks[0].bytes)).unwrap().unwrap();
    refused(&mut copy, 0);
    refused(&mut copy, 2);
    for chunk in &chunks[1..] {
        copy.until_ready(|store| store.ingest(&chunk.bytes)).unwrap().unwrap();
    }
    refused(&mut copy, chunks.len() - 1);
}

#[test]
fn every_damaged_byte_of_a_chunk_is_refused_and_nothing_changes() {
    let mut rig = filled(7);
    let chunk = chunks(&mut rig, 3000).swap_remove(0);
    let mut copy = staged(8);
    for index in 0..chunk.bytes.len() {
        let mut bytes = chunk.bytes.to_vec();
        bytes[index] ^= 4;
        assert!(copy.store().ingest(&bytes).is_err(), "byte {index}");
        assert!(copy.store().ingest(&chunk.bytes[..index]).is_err(), "cut at {index}");
    }
    assert_eq!(copy.store().statistics().cells, 0);
}

#[test]
fn hostile_chunks_with_right_checksums_are_refused_without_a_panic() {
    let mut rig = filled(9);
    let chunk = chunks(&mut rig, 3000).swap_remove(0).bytes;
    let body = chunk.len() - 8;
    let attack = move |index: usize, byte: u8| {
        let mut bytes = chunk.to_vec();
        bytes[index % body] = byte;
        let checksum = mesh_base::checksum::xxh3(&bytes[..body]).to_le_bytes();
        bytes[body..].copy_from_slice(&checksum);
        let _ = store::check_chunk(&bytes);
        TestResult::passed()
    };
    QuickCheck::new().tests(20_000).quickcheck(Attack(attack));
}

/// Lets a closure be a property.
struct Attack<F>(F);

impl<F: Fn(usize, u8) -> TestResult + 'static> quickcheck::Testable for Attack<F> {
    fn result(&self, g: &mut quickcheck::Gen) -> TestResult {
        use quickcheck::Arbitrary;
        (self.0)(usize::arbitrary(g), u8::arbitrary(g))
    }
}

#[test]
fn a_chunk_has_one_cell_at_least_and_no_more_than_fit() {
    let mut rig = filled(10);
    let pin = rig.store().pin();
    let from = Some(user(200));
    let chunk = rig
        .until_ready(|store| store.scan_cells(pin, KeyRange::starting_at(from.as_ref()), 1))
        .unwrap()
        .unwrap();
    assert_eq!(chunk.next.unwrap().key, key(200));
    rig.store().unpin(pin);
    assert_eq!(rig.store().checkpoint().checkpoint, CheckpointNo(5));
    assert_eq!(rig.store().horizon(), Revision::ZERO);
}

/// Each part for itself, in any order, as a backup of many hands does it; and the parts join.
#[test]
fn parts_of_the_key_order_are_asked_for_one_by_one_and_make_the_whole() {
    let mut rig = filled(10);
    let pin = rig.store().pin();
    let beyond = KeyRef::newest(Namespace(7), b"").to_owned();
    let within = CellKey { revision: Revision(1000 + 77), ..user(77) };
    // Between keys, at one, among the versions of one, behind all.
    let cuts = [user(20), CellKey { key: b"key-00050x".to_vec(), ..user(50) }, within, user(399), beyond];
    let ends: Vec<Option<&CellKey>> =
        std::iter::once(None).chain(cuts.iter().map(Some)).chain([None]).collect();
    let parts = ends.windows(2).map(|ends| {
        let (mut from, mut part) = (ends[0].cloned(), Vec::new());
        loop {
            let range = KeyRange { from: from.as_ref(), to: ends[1] };
            let chunk = rig.until_ready(|store| store.scan_cells(pin, range, 5000)).unwrap().unwrap();
            part.push(chunk.bytes);
            from = chunk.next;
            if from.is_none() {
                return part;
            }
        }
    });
    let parts: Vec<_> = parts.collect();
    let mut copy = staged(15);
    for chunk in parts.iter().flatten() {
        copy.until_ready(|store| store.ingest(chunk)).unwrap().unwrap();
    }
    assert_eq!(
        copy.store().ingest(&parts[0][0]).unwrap_err(),
        StoreError::ChunkOutOfPlace { found: Box::new(KeyRef::FIRST.to_owned()), expected: None }
    );
    let info = rig.store().pinned(pin);
    assert_eq!(copy.store().statistics().cells, info.cells);
    let whole = rig.scan(&all(ScanDirection::Forward, 9000)).unwrap();
    assert_eq!(copy.scan(&all(ScanDirection::Forward, 9000)).unwrap(), whole);
    rig.store().unpin(pin);
}

#[test]
fn pages_of_a_pinned_checkpoint_come_back_when_the_pin_goes() {
    let mut rig = filled(11);
    let pin = rig.store().pin();
    for round in 0..10 {
        for number in 0..400 {
            rig.put(&key(number), 3000 + round, b"newest").unwrap();
        }
        rig.store().set_horizon(Revision(3000 + round));
        rig.checkpoint(round).unwrap();
    }
    let held = rig.store().statistics();
    let waiting =
        |figures: &StoreStatistics| figures.file_pages - figures.used_pages - figures.available_pages;
    assert!(waiting(&held) > 50);
    rig.store().unpin(pin);
    rig.checkpoint(20).unwrap();
    let free = rig.store().statistics();
    assert_eq!(waiting(&free), 0, "{free:?}");
    rig.assert_sound();
}

#[test]
fn a_verification_that_later_checkpoints_overtake_finds_nothing_wrong() {
    let mut rig = filled(12);
    rig.store().begin_verify().unwrap();
    rig.disk.hold_reads = true;
    rig.turn().unwrap().unwrap();
    for round in 0..6 {
        rig.store().write(&[]).unwrap().ready().unwrap();
        rig.checkpoint(500 + round).unwrap();
    }
    rig.disk.hold_reads = false;
    rig.settle();
    let report = rig.verified.take().unwrap();
    assert!(report.is_sound(), "{:#?}", report.problems);
    assert_eq!(report.checkpoint, CheckpointNo(5));
}

/// Whatever is cut off, torn or lost: what comes back is a whole part of the snapshot, from the start to a cell.
#[test]
fn a_staged_store_is_gone_on_with_after_a_crash_at_any_moment() {
    let mut rig = filled(16);
    let pin = rig.store().pin();
    let (info, whole) = (rig.store().pinned(pin), rig.scan(&all(ScanDirection::Forward, 9000)).unwrap());
    let mut prng = mesh_base::prng::Prng::new(16);
    for crash in [Crash::LoseAll, Crash::KeepAll, Crash::Tear, Crash::Kill, Crash::LoseSuperblock] {
        let mut copy = staged(17);
        let (mut crashes, mut resumed) = (0, 0);
        loop {
            let from = copy.store().ingested_to().cloned();
            let Some(from) = from else { break };
            let bytes_max = 1 + prng.index(4000);
            let chunk =
                rig.until_ready(|store| store.scan_cells(pin, KeyRange::starting_at(Some(&from)), bytes_max));
            let chunk = chunk.unwrap().unwrap();
            assert_eq!(SnapshotChunk::covered(&chunk.bytes), Some((from, chunk.next)));
            copy.until_ready(|store| store.ingest(&chunk.bytes)).unwrap().unwrap();
            match prng.index(8) {
                0 => drop(copy.checkpoint(0).unwrap()),
                1 if crashes < 20 => {
                    copy.begin_checkpoint(0);
                    for _ in 0..prng.index(12) {
                        copy.turn().unwrap().unwrap();
                    }
                    copy.crash(crash);
                    copy.open(CheckpointNo(0)).unwrap().unwrap();
                    crashes += 1;
                    if copy.store().source().is_none() {
                        // It was not noted yet: the whole begins anew.
                        copy = staged(17);
                        continue;
                    }
                    assert_eq!(copy.store().source(), Some(SOURCE));
                    copy.until_ready(Store::resume_ingest).unwrap().unwrap();
                    resumed += usize::from(copy.store().statistics().cells > 0);
                }
                _ => {}
            }
        }
        assert!(crashes > 5 && resumed > 2, "{crashes} crashes, gone on with after {resumed}");
        copy.checkpoint(399).unwrap();
        copy.assert_sound();
        let held = copy.store().checkpoint();
        assert_eq!((held.cells, held.keys, held.revision), (info.cells, info.keys, info.revision));
        assert_eq!(copy.scan(&all(ScanDirection::Forward, 9000)).unwrap(), whole);
    }
    rig.store().unpin(pin);
}

/// Loaded in the order of keys, leaves are full; the same keys written at random leave a third of every leaf free.
#[test]
fn a_snapshot_of_a_fragmented_tree_becomes_a_compact_file() {
    const KEYS: u64 = 50_000;
    const VALUE_BYTES: usize = 150;
    let options = StoreOptions { grow_bytes: 8 * 8192, ..StoreOptions::default() };
    let mut rig = Rig::with_store(13, options.clone());
    let mut prng = mesh_base::prng::Prng::new(13);
    let mut order: Vec<u64> = (0..KEYS).collect();
    prng.shuffle(&mut order);
    for (revision, number) in (1..).zip(order) {
        rig.put(&key(number), revision, &[7; VALUE_BYTES]).unwrap();
        if revision % 5000 == 0 {
            rig.checkpoint(revision).unwrap();
        }
    }
    rig.checkpoint(KEYS).unwrap();
    let mut copy = Rig::new(14, options.clone());
    copy.file = FileId::StagedStore;
    copy.create().unwrap();
    copy.store().begin_ingest(SOURCE);
    for chunk in chunks(&mut rig, 500_000) {
        copy.until_ready(|store| store.ingest(&chunk.bytes)).unwrap().unwrap();
        copy.checkpoint(0).unwrap();
    }
    copy.checkpoint(KEYS).unwrap();
    copy.assert_sound();
    // Header, key, value, slot.
    let needed = KEYS * (16 + key(0).len() + VALUE_BYTES + page::SLOT_BYTES) as u64;
    let file = |rig: &mut Rig| rig.store().statistics().file_pages * options.page_bytes as u64;
    assert!(file(&mut rig) > needed * 130 / 100);
    assert!(file(&mut copy) <= needed * 105 / 100, "{} bytes for {needed}", file(&mut copy));
}
