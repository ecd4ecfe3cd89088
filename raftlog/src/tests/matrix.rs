//! A crash at every single operation of a run, in every way that matters, and what is found afterwards, as a table.
//!
//! The run makes a log; appends, short and long, several writes in flight; votes; replaces entries; notes checkpoints and
//! lets segments go; falls idle; is torn and recovers; installs a snapshot; and goes on.
//!
//! At each operation: the crash comes before it had an effect, after it had all of it, or in the middle, with what else
//! was not durable lost, kept or half of each; or only the process ends, and the power fails later. What is then
//! recovered must be a state that was acknowledged or under way, none older than the last acknowledged, and must be
//! recovered again after the next loss of power.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mesh_base::io::{Completion, FileId, IoOp, IoQueue};
use mesh_base::prng::Prng;
use mesh_base::{BatchSeq, CheckpointNo, LogIndex, Term};
use raft::eraftpb::Entry;

use super::disk::Disk;
use super::disk::fates::{End, Last, Rest};
use super::harness::{Node, entries, hard_state, identity, mark, recover, small};
use super::model::State;
use crate::format::batch::BatchHeader;
use crate::{Creation, FirstState, Log, LogOptions, Recovered, RecoveredLog, Recovery, SnapshotBase};

fn options() -> LogOptions {
    LogOptions { segment_bytes: 32 * 1024, zero_ahead_bytes: 8 * 1024, spare_segments_max: 1, ..small() }
}

/// The disk was turned off.
struct TurnedOff;

type Run<T> = Result<T, TurnedOff>;

/// A log in use, and what was promised of it.
struct Play {
    disk: Disk,
    io: IoQueue,
    log: Option<Log>,
    /// The states there were, one for each record; none before the log was made.
    states: Vec<State>,
    /// The batches at whose durability the states up to some place are acknowledged.
    changes: Vec<(BatchSeq, usize)>,
    /// The newest acknowledged state; none before the log was made.
    acknowledged: Option<usize>,
    completed: usize,
    turn_off_at: usize,
    phase: &'static str,
}

impl Play {
    fn new(seed: u64, turn_off_at: usize) -> Self {
        Self {
            disk: Disk::new(seed),
            io: IoQueue::new(),
            log: None,
            states: vec![State::default()],
            changes: Vec::new(),
            acknowledged: None,
            completed: 0,
            turn_off_at,
            phase: "made",
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().unwrap()
    }

    /// The next completion.
    fn next(&mut self) -> Run<Completion> {
        self.disk.submit(&mut self.io);
        if self.completed == self.turn_off_at {
            return Err(TurnedOff);
        }
        self.completed += 1;
        Ok(self.disk.complete_any().expect("an operation is in flight"))
    }

    /// One completion, if there is something in flight.
    fn step(&mut self) -> Run<bool> {
        self.log.as_mut().unwrap().pump(&mut self.io);
        self.disk.submit(&mut self.io);
        if self.disk.is_quiet() {
            return Ok(false);
        }
        let completion = self.next()?;
        let log = self.log.as_mut().unwrap();
        log.complete(completion, &mut self.io).unwrap();
        let durable = log.durable();
        while let Some((seq, at)) = self.changes.first().copied().filter(|(seq, _)| durable.covers(*seq)) {
            self.acknowledged = self.acknowledged.max(Some(at));
            self.changes.retain(|(other, _)| *other > seq);
        }
        Ok(true)
    }

    fn settle(&mut self) -> Run<()> {
        while self.step()? {}
        assert!(self.changes.is_empty(), "all is acknowledged");
        Ok(())
    }

    fn create(&mut self) -> Run<()> {
        let first = FirstState::default();
        let mut creation = Creation::start(identity(), options(), &first, Prng::new(1), &mut self.io);
        loop {
            let completion = self.next()?;
            if let Some(log) = creation.complete(completion, &mut self.io).unwrap() {
                (self.log, self.acknowledged) = (Some(log), Some(0));
                return Ok(());
            }
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.states.last().unwrap().clone();
        change(&mut state);
        self.states.push(state);
    }

    /// What was just given to the log is acknowledged with this batch.
    fn given(&mut self, seq: BatchSeq) {
        self.changes.push((seq, self.states.len() - 1));
    }

    fn append(&mut self, entries: Vec<Entry>, (term, vote, commit): (u64, u64, u64)) {
        self.change(|state| (state.term, state.vote) = (term, vote));
        for entry in &entries {
            self.change(|state| state.push(entry));
        }
        self.change(|state| state.commit = commit);
        let seq = self.log().append(entries, Some(&hard_state(term, vote, commit))).unwrap();
        self.given(seq);
    }

    fn note(&mut self, no: u64, applied: u64) {
        self.change(|state| state.note(mark(no, applied)));
        let seq = self.log().note_checkpoint(mark(no, applied)).unwrap();
        self.given(seq);
    }

    fn install(&mut self, base: SnapshotBase) {
        self.change(|state| state.install(base));
        self.log().install(base).unwrap();
        self.append(Vec::new(), (base.term.get(), 0, base.index.get()));
    }

    /// The power fails with writes in flight, and comes back.
    fn restart(&mut self) -> Run<()> {
        self.phase = "recovered";
        self.disk.end(End::Power, &Last::Undone, Rest::Half);
        (self.io, self.log) = (IoQueue::new(), None);
        let mut recovery = Recovery::start(identity(), options(), Prng::new(2), &mut self.io);
        let recovered = loop {
            let completion = self.next()?;
            if let Some(recovered) = recovery.complete(completion, &mut self.io).unwrap() {
                break recovered;
            }
        };
        let Recovered::Log(recovered) = recovered else { panic!("the log is gone") };
        let found = self.found(&recovered).unwrap();
        self.states =
            vec![State { commit: self.states[found].commit_within(), ..self.states[found].clone() }];
        (self.changes, self.acknowledged, self.log) = (Vec::new(), Some(0), Some(recovered.log));
        self.phase = "in use";
        Ok(())
    }

    /// Which of the states that it may be a recovery found.
    fn found(&self, recovered: &RecoveredLog) -> Option<usize> {
        let least = self.acknowledged.unwrap_or_default();
        let newer = self.states[least..].iter().position(|state| state.is(recovered));
        newer.map(|at| at + least)
    }

    /// The whole run.
    fn play(&mut self) -> Run<()> {
        self.create()?;
        self.phase = "in use";
        self.append(entries(1..3, 1, 700), (1, 1, 0));
        self.settle()?;
        for (index, bytes) in (3..9).zip([900, 1800, 2700].into_iter().cycle()) {
            self.append(entries(index..=index, 1, bytes), (1, 1, index - 1));
            if index % 3 == 2 {
                self.settle()?;
            }
        }
        // One that takes several batches; then a newer term replaces half of it.
        self.append(entries(9..17, 1, 2600), (1, 1, 8));
        self.settle()?;
        self.append(entries(13..16, 2, 1300), (2, 3, 12));
        self.note(2, 8);
        self.settle()?;
        self.log.as_mut().unwrap().idle(&mut self.io);
        self.settle()?;
        for index in 16..30 {
            self.append(entries(index..=index, 2, 2500), (2, 3, index - 2));
            self.step()?;
            if index == 22 {
                self.settle()?;
                self.note(3, 20);
            }
        }
        self.restart()?;
        let last = self.states[0].last;
        self.append(entries(last..last + 4, 3, 1000), (3, 2, last - 1));
        self.settle()?;
        self.install(SnapshotBase { index: LogIndex(100), term: Term(3), checkpoint: CheckpointNo(5) });
        self.append(entries(101..104, 3, 3000), (3, 2, 100));
        self.settle()?;
        self.note(6, 100);
        self.append(entries(104..110, 4, 3000), (4, 0, 103));
        self.settle()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Found {
    NoLog,
    Acknowledged,
    UnderWay,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum When {
    Before,
    Torn,
    After,
    /// The process ends before or after; the power fails when the log was recovered.
    Killed,
}

const WHEN: [When; 4] = [When::Before, When::Torn, When::After, When::Killed];

/// What an operation is, and which step it belongs to.
fn describe(op: &IoOp) -> (String, &'static str) {
    let file = op.file().map_or_else(String::new, |file| format!(" {file}"));
    let step = match op {
        IoOp::Create { .. } | IoOp::Allocate { .. } => "spare",
        IoOp::Rename { to: FileId::Segment(_), .. } => "segment named",
        IoOp::Rename { .. } | IoOp::Remove { .. } => "let go",
        IoOp::SyncDirectory => "names durable",
        IoOp::Read { .. } => "read",
        IoOp::List | IoOp::Sync { .. } | IoOp::Truncate { .. } => "",
        IoOp::Write { data, .. } if data.starts_with(b"MESHLOG\0") => "header",
        IoOp::Write { data, .. } => match BatchHeader::decode(data) {
            Some(header) if header.records == 0 => "marker",
            Some(_) => "batch",
            None => "zeros",
        },
    };
    let place = match op {
        IoOp::Write { offset, data, .. } => format!(" {}+{}", offset / 4096, data.len() / 4096),
        IoOp::Read { offset, length, .. } => format!(" {}+{}", offset / 4096, length / 4096),
        _ => String::new(),
    };
    (format!("{}{file}{place}", op.verb()), step)
}

/// Recovers what a crash left: it is what was promised, goes on, and is there again after the next loss of power.
fn look(disk: Disk, when: When, play: &Play) -> Found {
    let (recovered, mut disk) = recover(disk, options());
    let recovered = match recovered.unwrap() {
        Recovered::Log(recovered) => recovered,
        Recovered::Empty => {
            assert_eq!(play.acknowledged, None, "the log is gone");
            Node::create_on(disk, options()).unwrap_or_else(|failed| panic!("{}", failed.0));
            return Found::NoLog;
        }
    };
    let found = play.found(&recovered).expect("the log is none of those it may be");
    let (state, first) = (&play.states[found], recovered.log.first_index().get());
    if when == When::Killed {
        disk.lose_power(Rest::Lost);
        let (again, disk) = recover(disk, options());
        let Recovered::Log(again) = again.unwrap() else { panic!("the log is gone") };
        assert!(state.is(&again), "what was recovered was not durable");
        go_on(again.log, disk, state, first);
    } else {
        go_on(recovered.log, disk, state, first);
    }
    if Some(found) == play.acknowledged { Found::Acknowledged } else { Found::UnderWay }
}

/// Reads every entry, appends more, and recovers that after a loss of power.
fn go_on(log: Log, disk: Disk, state: &State, first: u64) {
    let mut node = Node { disk, log, io: IoQueue::new() };
    for entry in node.read(first, state.last + 1) {
        assert_eq!(entry, state.entry(entry.index));
    }
    let term = state.term + 1;
    node.append(entries(state.last + 1..state.last + 3, term, 2000), Some(&hard_state(term, 1, 0)));
    node.disk.end(End::Power, &Last::Undone, Rest::Lost);
    let (node, facts) = Node::recover(node.disk, options());
    assert_eq!((node.log.last_index().get(), facts.hard_state.term), (state.last + 2, term));
}

/// The rows of the table, and what was tried.
#[derive(Default)]
struct Matrix {
    text: String,
    /// What was found on which disk, after how many acknowledged states.
    seen: BTreeMap<(u64, When, usize), Found>,
    crashes: usize,
    totals: BTreeMap<(When, Found), usize>,
}

impl Matrix {
    /// Every crash at the next operation of a run that was turned off.
    fn row(&mut self, play: &mut Play) {
        let op = play.disk.next().expect("an operation is in flight");
        let (what, step) = describe(op);
        let _ = write!(self.text, "{:>4}  {what:<32} {step:<14} {:<10}", play.turn_off_at, play.phase);
        let torn = play.disk.ways_to_tear();
        for when in WHEN {
            let tally = self.cell(when, play, &torn);
            let cell: Vec<String> = tally.iter().map(|(found, count)| symbol(*found, *count)).collect();
            let _ = write!(self.text, " {:<9}", cell.join(" "));
            tally.iter().for_each(|(found, count)| *self.totals.entry((when, *found)).or_default() += count);
        }
        self.text.truncate(self.text.trim_end().len());
        self.text.push('\n');
    }

    fn cell(&mut self, when: When, play: &Play, torn: &[Last]) -> BTreeMap<Found, usize> {
        let (lasts, end) = match when {
            When::Before => (vec![Last::Undone], End::Power),
            When::Torn => (torn.to_vec(), End::Power),
            When::After => (vec![Last::Done], End::Power),
            When::Killed => (vec![Last::Undone, Last::Done], End::Process),
        };
        let mut tally = BTreeMap::new();
        for last in &lasts {
            for rest in [Rest::Lost, Rest::Kept, Rest::Half] {
                let mut disk = play.disk.clone();
                disk.end(end, last, rest);
                *tally.entry(self.try_one(when, disk, play)).or_default() += 1;
            }
        }
        tally
    }

    fn try_one(&mut self, when: When, disk: Disk, play: &Play) -> Found {
        self.crashes += 1;
        let acknowledged = play.acknowledged.map_or(0, |at| at + 1);
        let tried = (disk.fingerprint(), when.max(When::After), acknowledged);
        if let Some(found) = self.seen.get(&tried) {
            return *found;
        }
        let found = look(disk, when, play);
        self.seen.insert(tried, found);
        found
    }

    fn print(&self, operations: usize) {
        println!("{:<64} {:<9} {:<9} {:<9} killed", "operation", "before", "torn", "after");
        print!("{}", self.text);
        println!("= the acknowledged state, + one under way, 0 no log yet; before each how many crashes");
        println!("{operations} operations, {} crashes, {} different disks", self.crashes, self.seen.len());
        for when in WHEN {
            let count = |found| self.totals.get(&(when, found)).copied().unwrap_or_default();
            let [none, old, new] = [Found::NoLog, Found::Acknowledged, Found::UnderWay].map(count);
            println!("{when:?}: {old} acknowledged, {new} under way, {none} no log yet");
        }
    }
}

fn symbol(found: Found, count: usize) -> String {
    let symbol = match found {
        Found::NoLog => '0',
        Found::Acknowledged => '=',
        Found::UnderWay => '+',
    };
    format!("{count}{symbol}")
}

#[test]
fn a_crash_at_every_operation_leaves_every_acknowledged_batch() {
    // Each seed is another order in which the disk does what is in flight.
    for seed in 0..6 {
        let mut matrix = Matrix::default();
        let operations = (0..)
            .find(|at| {
                let mut play = Play::new(seed, *at);
                let Err(TurnedOff) = play.play() else { return true };
                matrix.row(&mut play);
                false
            })
            .unwrap();
        matrix.print(operations);
        for found in [Found::NoLog, Found::Acknowledged, Found::UnderWay] {
            for when in WHEN {
                // All that is written before there is a log is a header, which lies in one sector, and zeros.
                let never = (when, found) == (When::Torn, Found::NoLog);
                assert_eq!(matrix.totals.contains_key(&(when, found)), !never, "{when:?}: {found:?}");
            }
        }
        assert!(operations > 80, "the run has only {operations} operations");
    }
}
