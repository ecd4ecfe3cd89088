//! A crash at every single operation of a run, in every way that matters, and what is found afterwards, as a table.
//!
//! The run makes a store; writes, overwrites, deletes and sweeps with large values among it and a checkpoint after each
//! round; receives a snapshot into a staged store beside it; puts that in the live one's place; goes on; deletes everything; and
//! rests until the file is shorter.
//!
//! At each operation: the crash comes before it had an effect, after it had all of it, or in the middle, with what else
//! was not durable lost, kept or half of each; or only the process ends, and the power fails later. What is then found
//! must verify, hold exactly a checkpoint that was acknowledged or under way, never one older than the last
//! acknowledged, and go on from there.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mesh_base::io::{FileId, IoOp};
use mesh_base::{CheckpointNo, Revision};

use super::disk::Disk;
use super::disk::fates::{End, Last, Rest};
use super::driver::{Rig, Run, SOURCE, TurnedOff, WalkedItem, small};
use crate::superblock::REGION_BYTES;
use crate::*;

const ROUNDS: u64 = 5;
const WRITES_A_ROUND: u64 = 24;

/// What was promised when the crash came.
#[derive(Clone, Default)]
struct Promise {
    /// The cells at each checkpoint that was begun.
    states: BTreeMap<CheckpointNo, Vec<WalkedItem>>,
    /// The newest that was acknowledged.
    least: CheckpointNo,
    /// Whether the log has it that the staged store is to be the live one.
    installed: bool,
}

impl Promise {
    fn begin(&mut self, rig: &mut Rig, applied: u64) {
        let no = rig.begin_checkpoint(applied);
        self.states.insert(no, rig.walked());
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Found {
    NoStore,
    Acknowledged,
    UnderWay,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum When {
    Before,
    Torn,
    After,
    /// The process ends before or after; the power fails when the store was opened, or in the next checkpoint.
    Killed,
}

const WHEN: [When; 4] = [When::Before, When::Torn, When::After, When::Killed];

fn key(number: u64) -> Vec<u8> {
    format!("key-{:03}", number * 29 % 70).into_bytes()
}

fn value(number: u64) -> Vec<u8> {
    let bytes = if number % 11 == 3 { 9000 + number as usize * 10 } else { 100 + number as usize % 7 * 90 };
    vec![number as u8; bytes]
}

/// One round of writes, the sweep of what they made old, and the beginning of a checkpoint.
fn write_round(rig: &mut Rig, promise: &mut Promise, round: u64) -> Run<()> {
    for number in round * WRITES_A_ROUND..(round + 1) * WRITES_A_ROUND {
        let (first, second) = (value(number), value(number + 1));
        let (one, other) = (key(number), key(number + 7));
        let revision = 10 * number + 1;
        rig.write(&[
            super::driver::put(&one, revision, &first),
            super::driver::put(&other, revision + 1, &second),
        ])?;
        if number % 5 == 4 {
            rig.delete(&key(number - 3), revision + 2)?;
        }
    }
    rig.store().set_horizon(Revision(10 * round * WRITES_A_ROUND));
    let mut from = None;
    loop {
        let swept = rig.until_ready(|store| store.sweep(from.as_ref(), 2))?.unwrap();
        from = swept.next;
        if from.is_none() {
            break;
        }
    }
    promise.begin(rig, round);
    Ok(())
}

/// Rounds of writes, each with its checkpoint; the next round begins while it is written.
fn write_rounds(rig: &mut Rig, promise: &mut Promise, rounds: std::ops::Range<u64>) -> Run<()> {
    for round in rounds {
        write_round(rig, promise, round)?;
        rig.put(b"meanwhile", 10 * (round + 1) * WRITES_A_ROUND, &[7; 5000])?;
        rig.finish_checkpoint()?;
        promise.least = *rig.done.last().unwrap();
    }
    Ok(())
}

/// The chunks of a snapshot of another replica's store.
fn snapshot() -> Vec<SnapshotChunk> {
    let mut rig = Rig::with_store(99, small());
    write_rounds(&mut rig, &mut Promise::default(), 2..4).unwrap();
    let pin = rig.store().pin();
    let mut chunks: Vec<SnapshotChunk> = Vec::new();
    while chunks.last().is_none_or(|chunk| chunk.next.is_some()) {
        let from = chunks.last().and_then(|chunk| chunk.next.clone());
        let chunk =
            rig.until_ready(|store| store.scan_cells(pin, KeyRange::starting_at(from.as_ref()), 12_000));
        chunks.push(chunk.unwrap().unwrap());
    }
    chunks
}

/// The whole run. What is promised is up to date whenever it is turned off.
fn play(rig: &mut Rig, promise: &mut Promise, chunks: &[SnapshotChunk]) -> Run<()> {
    promise.states.insert(CheckpointNo(1), Vec::new());
    rig.create()?;
    promise.least = CheckpointNo(1);
    write_rounds(rig, promise, 0..ROUNDS)?;

    // The live store stays as it is while a snapshot is received beside it.
    let live = rig.store.take();
    rig.file = FileId::StagedStore;
    rig.create()?;
    rig.store().begin_ingest(SOURCE);
    let mut staged = Promise { installed: true, ..Promise::default() };
    for chunk in chunks {
        rig.until_ready(|store| store.ingest(&chunk.bytes))?.unwrap();
        staged.begin(rig, 100);
        rig.finish_checkpoint()?;
    }
    rig.settle();
    drop(live);

    // The log has it now.
    staged.least = *rig.done.last().unwrap();
    *promise = staged;
    rig.perform(IoOp::Rename { from: FileId::StagedStore, to: FileId::Store })?;
    rig.perform(IoOp::SyncDirectory)?;
    let frame_bytes_max = rig.options.frame_bytes_max;
    rig.store().promote(frame_bytes_max);
    rig.file = FileId::Store;
    write_rounds(rig, promise, 10..12)?;
    give_back(rig, promise)
}

/// Everything is deleted, and the end of the file is cut off.
fn give_back(rig: &mut Rig, promise: &mut Promise) -> Run<()> {
    for number in 0..70 {
        rig.delete(&key(number), 4000 + number)?;
    }
    rig.delete(b"meanwhile", 4100)?;
    rig.store().set_horizon(Revision(5000));
    let length = |rig: &Rig| rig.disk.bytes(FileId::Store).len();
    let (before, mut upkeep) = (length(rig), Upkeep::default());
    while length(rig) > before / 2 {
        upkeep.tick(rig.store(), 0);
        rig.until_ready(|store| upkeep.step(store))?.unwrap();
        if upkeep.wants_checkpoint(rig.store()) {
            promise.begin(rig, 5000);
            rig.finish_checkpoint()?;
            promise.least = *rig.done.last().unwrap();
        }
        rig.turn_if_busy()?;
    }
    Ok(())
}

/// What an operation is, and which step it belongs to.
fn describe(op: &IoOp, disk: &Disk) -> (String, &'static str) {
    let file = op.file().map_or_else(String::new, |file| format!(" {file}"));
    let pages = |offset: u64, length: usize| format!(" {}+{}", offset / 4096, length / 4096);
    let superblock = |file| disk.has_unsynced(file, 0..REGION_BYTES);
    let (place, step) = match op {
        IoOp::Create { .. } => (String::new(), "made"),
        IoOp::SyncDirectory => (String::new(), "name durable"),
        IoOp::Remove { .. } => (String::new(), "left over"),
        IoOp::Rename { .. } => (String::new(), "put in place"),
        IoOp::Allocate { offset, length, .. } => (pages(*offset, *length as usize), "1 space"),
        IoOp::Truncate { length, .. } => (format!(" {}", length / 4096), "cut off"),
        IoOp::Write { offset, data, .. } if *offset < REGION_BYTES as u64 => {
            (pages(*offset, data.len()), "4 superblock")
        }
        IoOp::Write { offset, data, .. } => (pages(*offset, data.len()), "2 pages"),
        IoOp::Sync { file } if superblock(*file) => (String::new(), "5 sync"),
        IoOp::Sync { .. } => (String::new(), "3 sync"),
        IoOp::Read { offset, length, .. } => (pages(*offset, *length), "read"),
        IoOp::List => (String::new(), "list"),
    };
    (format!("{}{file}{place}", op.verb()), step)
}

/// Opens what a crash left as the replica would.
fn open(disk: Disk, promise: &Promise) -> Result<Rig, Found> {
    let mut rig = Rig::new(0, small());
    rig.disk = disk;
    if promise.installed && rig.disk.holds(FileId::StagedStore) {
        rig.perform(IoOp::Rename { from: FileId::StagedStore, to: FileId::Store }).unwrap();
        rig.perform(IoOp::SyncDirectory).unwrap();
    }
    match rig.open(promise.least).unwrap() {
        Ok(_) => Ok(rig),
        Err(StoreError::Missing { .. } | StoreError::Corrupt { offset: 0, .. })
            if promise.least == CheckpointNo(0) =>
        {
            // Whoever was making it begins anew.
            rig.perform(IoOp::Remove { file: FileId::Store }).unwrap();
            rig.create().unwrap();
            rig.assert_sound();
            Err(Found::NoStore)
        }
        Err(error) => panic!("{error}"),
    }
}

/// Looks at what a crash left: it is whole, is what was promised, and goes on.
fn look(disk: Disk, promise: &Promise) -> Found {
    let mut rig = match open(disk, promise) {
        Ok(rig) => rig,
        Err(found) => return found,
    };
    let checkpoint = rig.store().checkpoint().checkpoint;
    let expected = promise.states.range(promise.least..).find(|(no, _)| **no == checkpoint);
    let (_, cells) = expected.unwrap_or_else(|| panic!("{checkpoint} was found after {}", promise.least));
    assert!(rig.walked() == *cells, "{checkpoint} holds something else");
    rig.assert_sound();
    rig.put(b"after the crash", 1 << 30, &[1; 9000]).unwrap();
    rig.checkpoint(0).unwrap();
    rig.assert_sound();
    if rig.disk.holds(FileId::StagedStore) {
        // What was received in part is received again.
        (rig.store, rig.file) = (None, FileId::StagedStore);
        rig.create().unwrap();
        rig.assert_sound();
    }
    if checkpoint == promise.least { Found::Acknowledged } else { Found::UnderWay }
}

/// Opens what the end of a process left, and loses the power then, and again while the next checkpoint is written.
fn look_after_kill(disk: Disk, promise: &Promise) -> Found {
    let mut rig = match open(disk, promise) {
        Ok(rig) => rig,
        Err(found) => return found,
    };
    let mut promise = promise.clone();
    let least = std::mem::replace(&mut promise.least, rig.store().checkpoint().checkpoint);
    let mut lost = rig.disk.clone();
    lost.lose_power(Rest::Lost);
    assert_eq!(look(lost, &promise), Found::Acknowledged);

    for number in 0..20 {
        rig.put(&key(number), (1 << 30) + number, &value(number)).unwrap();
    }
    promise.begin(&mut rig, 1000);
    let written = rig.disk.bytes_written;
    while rig.disk.bytes_written < written + 8 * 4096 {
        rig.turn().unwrap().unwrap();
    }
    rig.disk.lose_power(Rest::Half);
    assert_eq!(look(rig.disk, &promise), Found::Acknowledged);
    if promise.least == least { Found::Acknowledged } else { Found::UnderWay }
}

/// The rows of the table, and what was tried.
#[derive(Default)]
struct Matrix {
    text: String,
    /// What was found on which disk.
    seen: BTreeMap<(u64, When, CheckpointNo, bool), Found>,
    crashes: usize,
    totals: BTreeMap<(When, Found), usize>,
}

impl Matrix {
    /// Every crash at the next operation of a run that was turned off.
    fn row(&mut self, number: usize, disk: &mut Disk, promise: &Promise) {
        let op = disk.next().expect("an operation is in flight").clone();
        let (what, step) = describe(&op, disk);
        let _ = write!(self.text, "{number:>4}  {what:<28} {step:<13}");
        let torn = disk.ways_to_tear();
        for when in WHEN {
            let tally = self.cell(when, disk, promise, &torn);
            let cell: Vec<String> = tally.iter().map(|(found, count)| symbol(*found, *count)).collect();
            let _ = write!(self.text, " {:<9}", cell.join(" "));
            tally.iter().for_each(|(found, count)| *self.totals.entry((when, *found)).or_default() += count);
        }
        self.text.truncate(self.text.trim_end().len());
        self.text.push('\n');
    }

    fn cell(&mut self, when: When, disk: &Disk, promise: &Promise, torn: &[Last]) -> BTreeMap<Found, usize> {
        let lasts = match when {
            When::Before => vec![Last::Undone],
            When::Torn => torn.to_vec(),
            When::After => vec![Last::Done],
            When::Killed => vec![Last::Undone, Last::Done],
        };
        let rests: &[Rest] = match when {
            When::Torn | When::Killed => &[Rest::Lost, Rest::Kept],
            When::Before | When::After => &[Rest::Lost, Rest::Kept, Rest::Half],
        };
        let mut tally = BTreeMap::new();
        for last in &lasts {
            for rest in rests {
                let mut disk = disk.clone();
                let end = if when == When::Killed { End::Process } else { End::Power };
                disk.end(end, last, *rest);
                *tally.entry(self.try_one(when, disk, promise)).or_default() += 1;
            }
        }
        tally
    }

    fn try_one(&mut self, when: When, disk: Disk, promise: &Promise) -> Found {
        self.crashes += 1;
        let tried = (disk.fingerprint(), when.max(When::After), promise.least, promise.installed);
        if let Some(found) = self.seen.get(&tried) {
            return *found;
        }
        let found = if when == When::Killed { look_after_kill(disk, promise) } else { look(disk, promise) };
        self.seen.insert(tried, found);
        found
    }

    fn print(&self, operations: usize) {
        println!("{:<47} {:<9} {:<9} {:<9} killed", "operation", "before", "torn", "after");
        print!("{}", self.text);
        println!(
            "= the acknowledged checkpoint, + the one under way, 0 no store yet; before each how many crashes"
        );
        println!("{operations} operations, {} crashes, {} different disks", self.crashes, self.seen.len());
        for when in WHEN {
            let count = |found| self.totals.get(&(when, found)).copied().unwrap_or_default();
            let [none, old, new] = [Found::NoStore, Found::Acknowledged, Found::UnderWay].map(count);
            println!("{when:?}: {old} acknowledged, {new} under way, {none} no store yet");
        }
    }
}

fn symbol(found: Found, count: usize) -> String {
    let symbol = match found {
        Found::NoStore => '0',
        Found::Acknowledged => '=',
        Found::UnderWay => '+',
    };
    format!("{count}{symbol}")
}

#[test]
fn a_crash_at_every_operation_leaves_a_whole_checkpoint_no_older_than_the_last_acknowledged() {
    let chunks = snapshot();
    let mut matrix = Matrix::default();
    let operations = (0..)
        .find(|at| {
            let (mut rig, mut promise) = (Rig::new(7, small()), Promise::default());
            rig.turn_off_at = Some(*at);
            let Err(TurnedOff) = play(&mut rig, &mut promise, &chunks) else { return true };
            rig.disk.submit(&mut rig.io);
            if rig.disk.next().is_none() {
                rig.store.as_mut().unwrap().pump(&mut rig.io).unwrap();
                rig.disk.submit(&mut rig.io);
            }
            matrix.row(*at, &mut rig.disk, &promise);
            false
        })
        .unwrap();
    matrix.print(operations);
    for found in [Found::NoStore, Found::Acknowledged, Found::UnderWay] {
        for when in WHEN {
            let never = (when, found) == (When::Torn, Found::UnderWay);
            assert_eq!(matrix.totals.contains_key(&(when, found)), !never, "{when:?}: {found:?}");
        }
    }
    assert!(operations > 200, "the run has only {operations} operations");
}
