use std::collections::BTreeSet;

use mesh_base::SegmentNo;
use mesh_base::io::{IoToken, Lane};
use quickcheck::quickcheck;

use super::*;

const STORE: FileId = FileId::Store;
const LOG: FileId = FileId::Segment(SegmentNo(1));
const KIB4: usize = SECTOR_BYTES;

/// A disk with one directory, whose operations are submitted and completed by the test.
struct Bench {
    disk: SimDisk<u64>,
    last: u64,
}

impl Bench {
    fn new(seed: u64) -> Self {
        Self { disk: SimDisk::new(DiskOptions::HEALTHY, Prng::new(seed)), last: 0 }
    }

    /// A disk on which the files exist, durably.
    fn with(seed: u64, files: &[FileId]) -> Self {
        let mut bench = Self::new(seed);
        for &file in files {
            bench.run(IoOp::Create { file }).unwrap();
        }
        bench.run(IoOp::SyncDirectory).unwrap();
        bench
    }

    fn start(&mut self, op: IoOp) -> DiskOpNo {
        self.last += 1;
        let token = IoToken { lane: Lane::Store, number: self.last };
        self.disk.submit(1, Submission { token, op }).op
    }

    fn end(&mut self, op: DiskOpNo) -> Result<IoValue, IoError> {
        self.disk.complete(op).expect("no crash came in between").1.result
    }

    fn run(&mut self, op: IoOp) -> Result<IoValue, IoError> {
        let op = self.start(op);
        self.end(op)
    }

    fn write(&mut self, file: FileId, block: u64, byte: u8, blocks: usize) {
        self.run(write(file, block, byte, blocks)).unwrap();
    }

    fn sync(&mut self, file: FileId) {
        self.run(IoOp::Sync { file }).unwrap();
    }

    fn read(&mut self, file: FileId, block: u64) -> Result<Bytes, IoErrorKind> {
        let op = IoOp::Read { file, offset: block * KIB4 as u64, length: KIB4 };
        match self.run(op) {
            Ok(IoValue::Read(bytes)) => Ok(bytes),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.kind),
        }
    }

    fn power_loss(&mut self) {
        self.disk.crash(Crash::Power);
    }
}

fn write(file: FileId, block: u64, byte: u8, blocks: usize) -> IoOp {
    IoOp::Write { file, offset: block * KIB4 as u64, data: Bytes::from(vec![byte; blocks * KIB4]) }
}

/// What different seeds make of a scenario.
fn outcomes<T: Ord>(scenario: impl Fn(u64) -> T) -> BTreeSet<T> {
    (0..200).map(scenario).collect()
}

fn whole(byte: u8) -> Vec<u8> {
    vec![byte; KIB4]
}

#[test]
fn a_store_that_forgets_to_sync_loses_data_at_a_loss_of_power() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.write(STORE, 0, 7, 1);
        assert_eq!(bench.read(STORE, 0).unwrap(), whole(7), "visible at once");
        bench.power_loss();
        bench.disk.contents(1, STORE).unwrap()
    });
    assert!(survivors.contains(&whole(7)), "kept");
    assert!(survivors.contains(&vec![]), "dropped");
    assert!(survivors.iter().any(|bytes| bytes.contains(&7) && bytes.contains(&0)), "torn");
}

#[test]
fn what_was_synced_survives_every_crash() {
    for seed in 0..200 {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.write(STORE, 0, 7, 3);
        bench.sync(STORE);
        bench.write(STORE, 1, 8, 1);
        bench.power_loss();
        assert_eq!(bench.read(STORE, 0).unwrap(), whole(7));
        assert_eq!(bench.read(STORE, 2).unwrap(), whole(7));
        assert!(bench.read(STORE, 1).unwrap().iter().all(|byte| [7, 8].contains(byte)));
    }
}

#[test]
fn a_completed_write_to_the_log_survives_without_a_sync() {
    for seed in 0..200 {
        let mut bench = Bench::with(seed, &[LOG]);
        bench.write(LOG, 0, 7, 1);
        let _in_flight = bench.start(write(LOG, 1, 8, 1));
        bench.power_loss();
        assert_eq!(bench.read(LOG, 0).unwrap(), whole(7));
    }
}

#[test]
fn a_sync_does_not_cover_a_write_that_was_in_flight_when_it_was_submitted() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[STORE]);
        let write = bench.start(write(STORE, 0, 7, 1));
        let sync = bench.start(IoOp::Sync { file: STORE });
        bench.end(write).unwrap();
        bench.end(sync).unwrap();
        bench.power_loss();
        bench.disk.contents(1, STORE).unwrap()
    });
    assert!(survivors.contains(&vec![]), "dropped");
    assert!(survivors.contains(&whole(7)), "kept");
}

#[test]
fn a_write_in_flight_at_a_crash_never_completes_and_is_torn_between_sectors_of_512_bytes() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[LOG]);
        bench.write(LOG, 0, 1, 2);
        let write = bench.start(write(LOG, 0, 2, 2));
        bench.power_loss();
        assert_eq!(bench.disk.complete(write), None);
        bench.disk.contents(1, LOG).unwrap()
    });
    for bytes in &survivors {
        assert!(bytes.chunks(TEAR_BYTES).all(|sector| sector.iter().all(|&byte| byte == sector[0])));
    }
    let patterns: BTreeSet<Vec<u8>> =
        survivors.iter().map(|bytes| bytes.chunks(TEAR_BYTES).map(|sector| sector[0]).collect()).collect();
    assert!(patterns.len() > 20, "{} ways to tear 16 sectors", patterns.len());
    assert!(patterns.contains(&vec![1; 16]) && patterns.contains(&vec![2; 16]));
    assert!(
        patterns.iter().any(|it| it.windows(2).filter(|pair| pair[0] != pair[1]).count() > 1),
        "scattered"
    );
}

#[test]
fn unsynced_writes_are_kept_in_any_combination() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.write(STORE, 0, 9, 2);
        bench.sync(STORE);
        bench.write(STORE, 0, 1, 1);
        bench.write(STORE, 1, 2, 1);
        bench.power_loss();
        (bench.read(STORE, 0).unwrap()[0], bench.read(STORE, 1).unwrap()[0])
    });
    assert_eq!(survivors, [(1, 2), (1, 9), (9, 2), (9, 9)].into());
}

#[test]
fn a_crash_never_brings_back_what_a_durable_write_replaced() {
    for seed in 0..200 {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.write(STORE, 0, 1, 1);
        bench.disk.arm(1, STORE, ArmedFault::FailSync);
        bench.run(IoOp::Sync { file: STORE }).unwrap_err();
        bench.write(STORE, 0, 2, 1);
        bench.sync(STORE);
        bench.power_loss();
        assert_eq!(bench.read(STORE, 0).unwrap(), whole(2));
    }
}

#[test]
fn a_sync_that_is_tried_again_after_a_failure_saves_nothing() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.write(STORE, 0, 7, 1);
        bench.disk.arm(1, STORE, ArmedFault::FailSync);
        let error = bench.run(IoOp::Sync { file: STORE }).unwrap_err();
        assert_eq!((error.kind, error.verb, error.file), (IoErrorKind::Device, "sync", Some(STORE)));
        bench.sync(STORE);
        bench.power_loss();
        bench.disk.contents(1, STORE).unwrap()
    });
    assert!(survivors.contains(&vec![]));
}

#[test]
fn what_a_killed_process_left_visible_may_be_gone_after_a_loss_of_power() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[LOG]);
        let _in_flight = bench.start(write(LOG, 0, 7, 1));
        bench.disk.crash(Crash::Process);
        let recovered = bench.disk.contents(1, LOG).unwrap() == whole(7);
        bench.power_loss();
        (recovered, bench.disk.contents(1, LOG).unwrap() == whole(7))
    });
    assert!(survivors.contains(&(true, true)));
    assert!(survivors.contains(&(true, false)), "recovered from, then lost");
    assert!(!survivors.contains(&(false, true)));
}

#[test]
fn a_sync_after_recovery_makes_what_a_killed_process_left_durable() {
    for seed in 0..200 {
        let mut bench = Bench::with(seed, &[LOG]);
        let _in_flight = bench.start(write(LOG, 0, 7, 1));
        bench.disk.crash(Crash::Process);
        let recovered = bench.disk.contents(1, LOG).unwrap();
        bench.sync(LOG);
        bench.power_loss();
        assert_eq!(bench.disk.contents(1, LOG).unwrap(), recovered);
    }
}

#[test]
fn a_durable_write_replaces_what_a_killed_process_left() {
    for seed in 0..200 {
        let mut bench = Bench::with(seed, &[LOG]);
        let _in_flight = bench.start(write(LOG, 0, 7, 1));
        bench.disk.crash(Crash::Process);
        bench.write(LOG, 0, 8, 1);
        assert_eq!(bench.read(LOG, 0).unwrap(), whole(8));
        bench.power_loss();
        assert_eq!(bench.read(LOG, 0).unwrap(), whole(8));
    }
}

#[test]
fn what_a_process_had_completed_is_seen_by_the_next_one() {
    for seed in 0..50 {
        let mut bench = Bench::new(seed);
        bench.run(IoOp::Create { file: STORE }).unwrap();
        bench.write(STORE, 0, 7, 2);
        bench.disk.crash(Crash::Process);
        assert_eq!(bench.disk.contents(1, STORE).unwrap(), vec![7; 2 * KIB4]);
    }
}

#[test]
fn a_new_file_is_gone_after_a_loss_of_power_unless_its_directory_was_synced() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::new(seed);
        bench.run(IoOp::Create { file: LOG }).unwrap();
        bench.write(LOG, 0, 7, 1);
        bench.power_loss();
        bench.disk.contents(1, LOG)
    });
    assert_eq!(survivors, [None, Some(whole(7))].into());
    for seed in 0..100 {
        let mut bench = Bench::with(seed, &[LOG]);
        bench.write(LOG, 0, 7, 1);
        bench.power_loss();
        assert_eq!(bench.disk.contents(1, LOG), Some(whole(7)));
    }
}

#[test]
fn a_rename_survives_as_a_whole_or_not_at_all() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[FileId::StagedStore, STORE]);
        bench.write(FileId::StagedStore, 0, 2, 1);
        bench.sync(FileId::StagedStore);
        bench.write(STORE, 0, 1, 1);
        bench.sync(STORE);
        bench.run(IoOp::Rename { from: FileId::StagedStore, to: STORE }).unwrap();
        assert_eq!(bench.read(STORE, 0).unwrap(), whole(2));
        bench.power_loss();
        (bench.disk.contents(1, STORE).unwrap()[0], bench.disk.contents(1, FileId::StagedStore).is_some())
    });
    assert_eq!(survivors, [(1, true), (2, false)].into());
}

#[test]
fn a_synced_file_is_never_without_a_name_when_another_takes_its_old_one() {
    let (spare, contents) = (FileId::SpareSegment(1), whole(7));
    for seed in 0..200 {
        let mut bench = Bench::with(seed, &[spare]);
        bench.write(spare, 0, 7, 1);
        bench.run(IoOp::Rename { from: spare, to: LOG }).unwrap();
        bench.run(IoOp::Create { file: spare }).unwrap();
        bench.power_loss();
        let found = [spare, LOG].map(|file| bench.disk.contents(1, file));
        assert!(found.contains(&Some(contents.clone())), "seed {seed}: {:?}", bench.disk.files(1));
    }
}

#[test]
fn a_directory_sync_does_not_cover_a_creation_that_was_in_flight_when_it_was_submitted() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::new(seed);
        let create = bench.start(IoOp::Create { file: LOG });
        let sync = bench.start(IoOp::SyncDirectory);
        bench.end(create).unwrap();
        bench.end(sync).unwrap();
        bench.power_loss();
        bench.disk.files(1).len()
    });
    assert_eq!(survivors, [0, 1].into());
}

#[test]
fn changes_of_names_of_different_files_survive_independently_and_those_of_one_file_in_order() {
    let (spare, other) = (FileId::SpareSegment(1), FileId::SpareSegment(2));
    let survivors = outcomes(|seed| {
        let mut bench = Bench::new(seed);
        bench.run(IoOp::Create { file: spare }).unwrap();
        bench.run(IoOp::Create { file: other }).unwrap();
        bench.run(IoOp::Rename { from: spare, to: LOG }).unwrap();
        bench.power_loss();
        bench.disk.files(1).into_iter().map(|(file, _)| file).collect::<Vec<_>>()
    });
    let possible: BTreeSet<Vec<FileId>> =
        [vec![], vec![spare], vec![other], vec![spare, other], vec![LOG], vec![LOG, other]].into();
    assert_eq!(survivors, possible);
}

#[test]
fn a_removed_file_may_come_back_until_the_directory_is_synced() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[LOG]);
        bench.run(IoOp::Remove { file: LOG }).unwrap();
        bench.power_loss();
        bench.disk.files(1).len()
    });
    assert_eq!(survivors, [0, 1].into());
    let mut bench = Bench::with(1, &[LOG]);
    bench.run(IoOp::Remove { file: LOG }).unwrap();
    bench.run(IoOp::SyncDirectory).unwrap();
    bench.power_loss();
    assert_eq!(bench.disk.files(1), []);
    assert!(bench.disk.directories[&1].files.is_empty(), "its bytes are forgotten");
    assert_eq!(
        bench.run(IoOp::Remove { file: LOG }),
        Ok(IoValue::Done),
        "removing what is not there succeeds"
    );
}

#[test]
fn names_follow_the_rules_of_the_seam() {
    let mut bench = Bench::with(1, &[LOG]);
    let kind = |result: Result<IoValue, IoError>| result.map_err(|error| error.kind);
    assert_eq!(kind(bench.run(IoOp::Create { file: LOG })), Err(IoErrorKind::Exists));
    assert_eq!(kind(bench.run(write(STORE, 0, 1, 1))), Err(IoErrorKind::NotFound));
    assert_eq!(kind(bench.run(IoOp::Sync { file: STORE })), Err(IoErrorKind::NotFound));
    assert_eq!(bench.read(STORE, 0), Err(IoErrorKind::NotFound));
    assert_eq!(kind(bench.run(IoOp::Rename { from: STORE, to: LOG })), Err(IoErrorKind::NotFound));
    bench.run(IoOp::Allocate { file: LOG, offset: 0, length: 2 * KIB4 as u64 }).unwrap();
    assert_eq!(bench.run(IoOp::List), Ok(IoValue::Listing(vec![(LOG, 2 * KIB4 as u64)])));
}

#[test]
fn a_file_is_not_there_before_its_creation_has_completed() {
    let mut bench = Bench::new(1);
    let create = bench.start(IoOp::Create { file: LOG });
    let early = bench.start(write(LOG, 0, 1, 1));
    bench.end(create).unwrap();
    assert_eq!(bench.end(early).unwrap_err().kind, IoErrorKind::NotFound);
}

#[test]
fn a_read_sees_old_or_new_sectors_of_a_write_in_flight_and_ends_with_the_file() {
    let seen = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.write(STORE, 0, 1, 1);
        let _in_flight = bench.start(write(STORE, 0, 2, 1));
        bench.read(STORE, 0).unwrap().chunks(TEAR_BYTES).map(|sector| sector[0]).collect::<Vec<_>>()
    });
    assert!(seen.len() > 20 && seen.iter().flatten().all(|byte| [1, 2].contains(byte)));
    let mut bench = Bench::with(1, &[STORE]);
    bench.write(STORE, 0, 1, 1);
    let read = bench.run(IoOp::Read { file: STORE, offset: 0, length: 4 * KIB4 });
    assert_eq!(read, Ok(IoValue::Read(Bytes::from(whole(1)))));
    assert_eq!(bench.read(STORE, 9).unwrap(), Bytes::new());
}

#[test]
fn a_read_may_miss_a_write_that_completed_after_the_read_was_submitted_and_never_one_before() {
    let seen = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.write(STORE, 0, 1, 1);
        let read = bench.start(IoOp::Read { file: STORE, offset: 0, length: KIB4 });
        bench.write(STORE, 0, 2, 1);
        let Ok(IoValue::Read(bytes)) = bench.end(read) else { panic!("a read brings bytes") };
        bytes[0]
    });
    assert_eq!(seen, [1, 2].into());
}

#[test]
fn a_full_disk_refuses_to_grow_and_takes_writes_in_place() {
    let mut bench = Bench::with(1, &[STORE, LOG]);
    bench.disk.set_capacity_bytes(3 * KIB4 as u64);
    bench.write(LOG, 0, 1, 2);
    let grow = IoOp::Allocate { file: STORE, offset: 0, length: 2 * KIB4 as u64 };
    assert_eq!(bench.run(grow.clone()).unwrap_err().kind, IoErrorKind::NoSpace);
    assert_eq!(bench.run(write(LOG, 2, 1, 2)).unwrap_err().kind, IoErrorKind::NoSpace);
    bench.write(LOG, 0, 2, 2);
    bench.run(IoOp::Remove { file: LOG }).unwrap();
    assert_eq!(bench.run(grow), Ok(IoValue::Done));
    assert_eq!((bench.disk.used_bytes(), bench.disk.statistics().no_space), (2 * KIB4 as u64, 2));
}

#[test]
fn a_refused_allocation_gives_back_what_it_took_and_a_crash_may_find_a_part_of_it() {
    for crash in [Crash::Power, Crash::Process] {
        let survivors = outcomes(|seed| {
            let mut bench = Bench::with(seed, &[STORE]);
            bench.disk.set_capacity_bytes(3 * KIB4 as u64);
            bench.write(STORE, 0, 1, 1);
            bench.sync(STORE);
            let grow = IoOp::Allocate { file: STORE, offset: KIB4 as u64, length: 3 * KIB4 as u64 };
            assert_eq!(bench.run(grow.clone()).unwrap_err().kind, IoErrorKind::NoSpace);
            assert_eq!(bench.disk.contents(1, STORE), Some(whole(1)));
            if crash == Crash::Process {
                bench.start(grow);
            }
            bench.disk.crash(crash);
            assert_eq!(bench.read(STORE, 0).unwrap(), whole(1));
            bench.disk.contents(1, STORE).unwrap().len() / KIB4
        });
        assert_eq!(survivors, [1, 2, 3].into(), "{crash:?}");
    }
}

#[test]
fn what_is_durable_on_completion_is_not_cut_off_by_a_refused_allocation_before_it() {
    for seed in 0..200 {
        let mut bench = Bench::with(seed, &[LOG]);
        let grow = IoOp::Allocate { file: LOG, offset: 0, length: 3 * KIB4 as u64 };
        bench.disk.set_capacity_bytes(2 * KIB4 as u64);
        assert_eq!(bench.run(grow.clone()).unwrap_err().kind, IoErrorKind::NoSpace);
        bench.disk.set_capacity_bytes(3 * KIB4 as u64);
        bench.run(grow).unwrap();
        bench.write(LOG, 1, 1, 1);
        bench.power_loss();
        assert_eq!(bench.read(LOG, 1).unwrap(), whole(1));
    }
}

#[test]
fn allocated_space_reads_as_zeros_and_may_be_gone_after_a_loss_of_power() {
    let survivors = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.run(IoOp::Allocate { file: STORE, offset: 0, length: KIB4 as u64 }).unwrap();
        assert_eq!(bench.read(STORE, 0).unwrap(), whole(0));
        bench.power_loss();
        bench.disk.contents(1, STORE).unwrap()
    });
    assert_eq!(survivors, [vec![], whole(0)].into());
}

#[test]
fn armed_faults_strike_once() {
    let mut bench = Bench::with(1, &[STORE]);
    bench.write(STORE, 0, 1, 4);
    bench.disk.arm(1, STORE, ArmedFault::LoseWrite);
    bench.write(STORE, 0, 2, 1);
    assert_eq!(bench.read(STORE, 0).unwrap(), whole(1), "reported done and lost");
    bench.disk.arm(1, STORE, ArmedFault::FailRead);
    assert_eq!(bench.read(STORE, 0), Err(IoErrorKind::Device));
    assert_eq!(bench.read(STORE, 0).unwrap(), whole(1));
    bench.disk.arm(1, STORE, ArmedFault::FailWrite);
    assert_eq!(bench.run(write(STORE, 0, 3, 1)).unwrap_err().kind, IoErrorKind::Device);
    bench.write(STORE, 0, 4, 1);
    assert_eq!(bench.read(STORE, 0).unwrap(), whole(4));
    let landed = outcomes(|seed| {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.write(STORE, 0, 1, 4);
        bench.disk.arm(1, STORE, ArmedFault::MisdirectWrite);
        bench.write(STORE, 0, 2, 1);
        (0..4).position(|block| bench.read(STORE, block).unwrap() == whole(2))
    });
    assert_eq!(landed, [Some(0), Some(1), Some(2), Some(3)].into());
}

#[test]
fn damage_changes_what_is_read_and_nothing_else() {
    let mut bench = Bench::with(1, &[STORE]);
    bench.write(STORE, 0, 1, 2);
    assert!(bench.disk.corrupt(1, STORE, 5000, Damage::FlipBit));
    assert!(!bench.disk.corrupt(1, STORE, 2 * KIB4 as u64, Damage::FlipBit), "beyond the end");
    assert!(!bench.disk.corrupt(1, LOG, 0, Damage::FlipBit), "no such file");
    let differing: Vec<_> = bench
        .disk
        .contents(1, STORE)
        .unwrap()
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte != 1)
        .map(|it| it.0)
        .collect();
    assert_eq!(differing, [5000]);
    assert!(bench.disk.corrupt(1, STORE, 600, Damage::ZeroSector));
    let zeros = bench.read(STORE, 0).unwrap().iter().filter(|&&byte| byte == 0).count();
    assert_eq!(zeros, TEAR_BYTES);
}

#[test]
fn a_lost_sector_cannot_be_read_until_it_is_written_again() {
    let mut bench = Bench::with(1, &[STORE]);
    bench.write(STORE, 0, 1, 2);
    assert!(bench.disk.corrupt(1, STORE, 5000, Damage::LoseSector));
    assert!(bench.read(STORE, 1).is_err());
    bench.write(STORE, 1, 2, 1);
    assert!(bench.read(STORE, 1).is_ok());
}

#[test]
fn a_wiped_disk_is_empty_and_completes_nothing_old() {
    let mut bench = Bench::with(1, &[STORE]);
    let write = bench.start(write(STORE, 0, 1, 1));
    bench.disk.wipe();
    assert_eq!(bench.disk.complete(write), None);
    assert_eq!((bench.disk.files(1), bench.disk.in_flight()), (vec![], 0));
}

#[test]
fn a_slow_disk_takes_longer_by_its_factor() {
    let (mut usual, mut slow) = (Bench::with(1, &[STORE]), Bench::with(1, &[STORE]));
    slow.disk.set_slowdown(50);
    let submission =
        Submission { token: IoToken { lane: Lane::Store, number: 99 }, op: write(STORE, 0, 1, 1) };
    let usual = usual.disk.submit(1, submission.clone()).delay;
    assert_eq!(slow.disk.submit(1, submission).delay, usual * 50);
}

#[test]
#[should_panic(expected = "two writes in flight over bytes")]
fn two_writes_in_flight_over_the_same_bytes_are_a_bug_of_the_caller() {
    let mut bench = Bench::with(1, &[STORE]);
    bench.start(write(STORE, 0, 1, 2));
    bench.start(write(STORE, 1, 1, 1));
}

/// The promise of the seam as a model: what must be in each block, and what may be.
#[derive(Default)]
struct Model {
    visible: [u8; 4],
    durable: [u8; 4],
    /// Written since the last completed sync that covered it.
    maybe: [BTreeSet<u8>; 4],
}

impl Model {
    fn write(&mut self, block: usize, byte: u8) {
        self.visible[block] = byte;
        self.maybe[block].insert(byte);
    }

    fn sync(&mut self) {
        self.durable = self.visible;
        self.maybe = Default::default();
    }
}

quickcheck! {
    fn the_disk_keeps_its_promises_and_uses_its_freedom_over_any_history(seed: u64, steps: Vec<(u8, u8)>) -> bool {
        let mut bench = Bench::with(seed, &[STORE]);
        bench.write(STORE, 0, 0, 4);
        bench.sync(STORE);
        let mut model = Model::default();
        for (step, &(what, block)) in steps.iter().enumerate() {
            let block = usize::from(block % 4);
            let byte = u8::try_from(step % 250).unwrap() + 1;
            match what % 8 {
                0..=4 => {
                    bench.write(STORE, block as u64, byte, 1);
                    model.write(block, byte);
                }
                5 => {
                    bench.sync(STORE);
                    model.sync();
                }
                6 => bench.disk.crash(Crash::Process),
                _ => {
                    bench.power_loss();
                    for block in 0..4 {
                        let bytes = bench.read(STORE, block as u64).unwrap();
                        let allowed = |byte: &u8| *byte == model.durable[block] || model.maybe[block].contains(byte);
                        if !bytes.iter().all(allowed) {
                            return false;
                        }
                        // Start the next history from whole blocks.
                        bench.write(STORE, block as u64, 0, 1);
                    }
                    bench.sync(STORE);
                    model = Model::default();
                }
            }
            if (0..4).any(|block| bench.read(STORE, block as u64).unwrap() != whole(model.visible[block])) {
                return false;
            }
        }
        true
    }

    fn the_same_seed_makes_the_same_disk(seed: u64) -> bool {
        let run = || {
            let mut bench = Bench::with(seed, &[STORE, LOG]);
            bench.write(STORE, 0, 1, 8);
            bench.start(write(LOG, 0, 2, 8));
            bench.power_loss();
            (bench.disk.contents(1, STORE), bench.disk.contents(1, LOG), *bench.disk.statistics())
        };
        run() == run()
    }
}
