//! The log against a model: random use, random crashes, damage of what is merely kept. What is acknowledged is there, what is
//! dead stays dead.

use std::collections::BTreeMap;

use mesh_base::io::FileId;
use mesh_base::prng::Prng;
use mesh_base::{BatchSeq, CheckpointNo, LogIndex, Term};
use quickcheck::quickcheck;
use raft::eraftpb::Entry;
use raft::{Error, GetEntriesContext, Storage, StorageError};

use super::disk::{Crash, Disk};
use super::harness::*;
use crate::{CheckpointMark, HoldId, LogOptions, Recovered, RecoveredLog, SnapshotBase};

/// The log as it should be.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) commit: u64,
    /// The start after a snapshot.
    pub(super) base: (u64, u64),
    pub(super) last: u64,
    pub(super) checkpoint: CheckpointMark,
    pub(super) install: Option<SnapshotBase>,
    /// Bytes and term of each entry.
    pub(super) entries: BTreeMap<u64, (u64, usize)>,
}

impl State {
    pub(super) fn push(&mut self, entry: &Entry) {
        self.entries.split_off(&entry.index);
        self.entries.insert(entry.index, (entry.term, entry.data.len()));
        self.last = entry.index;
    }

    pub(super) fn commit_within(&self) -> u64 {
        self.commit.min(self.last).max(self.base.0)
    }

    pub(super) fn entry(&self, index: u64) -> Entry {
        let (term, bytes) = self.entries[&index];
        entry(index, term, bytes)
    }

    /// Notes a durable checkpoint.
    pub(super) fn note(&mut self, mark: CheckpointMark) {
        self.checkpoint = mark;
        self.install = self.install.filter(|install| mark.applied < install.index);
    }

    /// Starts anew after a snapshot.
    pub(super) fn install(&mut self, base: SnapshotBase) {
        self.base = (base.index.get(), base.term.get());
        self.last = base.index.get();
        self.entries.clear();
        self.checkpoint = mark(base.checkpoint.get(), base.index.get());
        self.install = Some(base);
    }

    /// Whether this is what a recovery found.
    pub(super) fn is(&self, recovered: &RecoveredLog) -> bool {
        let ballot = hard_state(self.term, self.vote, self.commit_within());
        let log = &recovered.log;
        let terms = |index| self.entries.get(&index).map(|(term, _)| *term);
        recovered.hard_state == ballot
            && log.last_index().get() == self.last
            && recovered.least_checkpoint == self.checkpoint
            && recovered.install == self.install
            && (log.first_index().get()..=self.last)
                .all(|index| Storage::term(log, index).ok() == terms(index))
    }
}

struct Run {
    node: Node,
    prng: Prng,
    options: LogOptions,
    /// The states there were, one for each record, the oldest of them acknowledged.
    states: Vec<State>,
    /// The batches at whose durability the states up to some place are acknowledged.
    changes: Vec<(BatchSeq, usize)>,
    acknowledged: usize,
    holds: Vec<HoldId>,
    first_index: u64,
    /// Whether something that is merely kept was damaged.
    is_damaged: bool,
}

fn options(prng: &mut Prng) -> LogOptions {
    LogOptions {
        segment_bytes: *prng.choose(&[32 * 1024, 48 * 1024, 64 * 1024]).unwrap(),
        zero_ahead_bytes: *prng.choose(&[0, 8 * 1024, 64 * 1024]).unwrap(),
        writes_in_flight_max: 1 + prng.index(4),
        batch_bytes_soft_max: *prng.choose(&[500, 4000, 10_000]).unwrap(),
        retained_bytes: *prng.choose(&[0, 40_000, 200_000]).unwrap(),
        spare_segments_max: 1 + prng.index(3),
        read_bytes: *prng.choose(&[4096, 8192, 65_536]).unwrap(),
        fetch_bytes_max: *prng.choose(&[1, 10_000]).unwrap(),
        fetched_bytes_max: *prng.choose(&[1, 30_000]).unwrap(),
        revision_of: |entry| mesh_base::Revision(entry.index % 1000),
    }
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let options = options(&mut prng);
        Self {
            node: Node::create(options.clone(), prng.next_u64()),
            prng,
            options,
            states: vec![State::default()],
            changes: Vec::new(),
            acknowledged: 0,
            holds: Vec::new(),
            first_index: 1,
            is_damaged: false,
        }
    }

    fn state(&self) -> &State {
        self.states.last().unwrap()
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.state().clone();
        change(&mut state);
        self.states.push(state);
    }

    fn submitted(&mut self, seq: BatchSeq) {
        self.changes.push((seq, self.states.len() - 1));
        self.acknowledge();
    }

    fn acknowledge(&mut self) {
        let durable = self.node.durable();
        while let Some((seq, at)) = self.changes.first().copied() {
            if !durable.covers(seq) {
                return;
            }
            self.acknowledged = self.acknowledged.max(at);
            self.changes.remove(0);
        }
    }

    fn act(&mut self) {
        match self.prng.index(20) {
            0..6 => self.append(),
            6 => self.conflict(),
            7 => self.vote(),
            8 => self.checkpoint(),
            9 if self.prng.chance_per_mille(200) => self.install(),
            9 => self.hold(),
            10 if self.prng.chance_per_mille(200) => self.node.close_without_waiting(),
            10 => self.node.idle_without_waiting(),
            11 => self.read(),
            12 => self.node.disk.full = self.prng.chance_per_mille(300),
            13 => self.node.log.retry_space(&mut self.node.io),
            _ => {
                for _ in 0..self.prng.index(8) {
                    self.node.step().unwrap();
                }
            }
        }
        self.acknowledge();
        self.check_view();
    }

    fn append(&mut self) {
        let last = self.state().last;
        self.write(last + 1);
    }

    /// Entries of a newer term in the place of some that are not committed.
    fn conflict(&mut self) {
        let State { commit, last, .. } = *self.state();
        let from = self.prng.range(commit.max(self.state().base.0) + 1..last + 2);
        self.change(|state| (state.term, state.vote) = (state.term + 1, 0));
        self.write(from);
    }

    fn write(&mut self, from: u64) {
        let term = self.state().term;
        let most = if self.prng.chance_per_mille(100) { 14_000 } else { 1500 };
        let bytes = self.prng.index(most);
        let entries = entries(from..from + self.prng.range(0..4), term, bytes);
        let last = entries.last().map_or(self.state().last, |entry| entry.index);
        let State { commit, vote, .. } = *self.state();
        let commit = self.prng.range(commit..last.max(commit) + 1);
        for entry in &entries {
            self.change(|state| state.push(entry));
        }
        self.change(|state| state.commit = commit);
        let seq = self.node.log.append(entries, Some(&hard_state(term, vote, commit))).unwrap();
        self.submitted(seq);
    }

    fn vote(&mut self) {
        let (term, vote) = (self.state().term + 1, self.prng.range(1..6));
        self.change(|state| (state.term, state.vote) = (term, vote));
        let seq =
            self.node.log.append(Vec::new(), Some(&hard_state(term, vote, self.state().commit))).unwrap();
        self.submitted(seq);
    }

    fn checkpoint(&mut self) {
        let State { commit, checkpoint, .. } = *self.state();
        let most = commit.min(self.node.log.durable_commit().get());
        if most < checkpoint.applied.get() {
            return;
        }
        let applied = self.prng.range(checkpoint.applied.get()..most + 1);
        let mark = mark(checkpoint.no.get() + 1, applied);
        self.change(|state| state.note(mark));
        let seq = self.node.log.note_checkpoint(mark).unwrap();
        self.submitted(seq);
    }

    fn install(&mut self) {
        let index = self.state().commit.max(self.state().base.0) + self.prng.range(1..20);
        let term = self.state().term + 1;
        let base = SnapshotBase { index: LogIndex(index), term: Term(term), checkpoint: CheckpointNo(1) };
        self.change(|state| state.install(base));
        self.node.log.install(base).unwrap();
        self.change(|state| (state.term, state.vote, state.commit) = (term, 0, index));
        let seq = self.node.log.append(Vec::new(), Some(&hard_state(term, 0, index))).unwrap();
        self.submitted(seq);
    }

    fn hold(&mut self) {
        if let Some(hold) = self.holds.pop() {
            self.node.log.release(hold);
        } else {
            let at = self.prng.range(self.node.log.first_index().get() - 1..self.state().last + 1);
            self.holds.push(self.node.log.hold(LogIndex(at)));
        }
    }

    fn read(&mut self) {
        let first = self.node.log.first_index().get();
        let low = self.prng.range(first..self.state().last + 2);
        let high = self.prng.range(low..self.state().last + 2);
        self.check_entries(low, high);
    }

    fn check_entries(&mut self, low: u64, high: u64) {
        // Reading takes turns, and those may let old segments go.
        let hold = self.node.log.hold(LogIndex(low - 1));
        let mut next = low;
        while next < high {
            match self.node.log.entries(next, high, None, GetEntriesContext::empty(true)) {
                Ok(entries) => {
                    next += entries.len() as u64;
                    entries.iter().for_each(|entry| assert_eq!(*entry, self.state().entry(entry.index)));
                }
                Err(Error::Store(StorageError::LogTemporarilyUnavailable)) => {
                    while self.node.step().unwrap().expect("a fetch is never forgotten").fetched.is_empty() {}
                }
                Err(Error::Store(StorageError::Compacted)) if self.is_damaged => {
                    assert!(next < self.node.log.first_index().get() && self.node.log.damages() > 0);
                    next = self.node.log.first_index().get();
                }
                Err(error) => panic!("{next}..{high}: {error}"),
            }
        }
        self.node.log.release(hold);
    }

    /// Damages a byte of what neither this recovery reads nor the next one would, if there is anything: this one may get by
    /// with the newest segment because that has all unsaved entries anew, but it begins another, in which they are not.
    fn damage(&mut self, disk: &mut Disk) {
        let (Ok(Recovered::Log(recovered)), _) = recover(disk.clone(), self.options.clone()) else { return };
        let is_kept = |file: &FileId| match file {
            FileId::Segment(segment) => {
                *segment < recovered.walked_from && recovered.log.is_merely_kept(*segment)
            }
            _ => false,
        };
        let kept: Vec<FileId> = disk.segments().into_iter().filter(is_kept).collect();
        let Some(file) = self.prng.choose(&kept) else { return };
        let bytes = disk.bytes(*file);
        let at = self.prng.index(bytes.len());
        bytes[at] ^= 1 << self.prng.index(8);
        self.is_damaged = true;
    }

    /// What raft sees at any time.
    fn check_view(&mut self) {
        let state = self.state();
        let log = &self.node.log;
        let first = log.first_index().get();
        assert!(first >= self.first_index, "the start never goes back");
        assert!(first <= state.checkpoint.applied.get().max(state.base.0) + 1);
        assert_eq!(log.last_index().get(), state.last);
        for index in first..=state.last {
            assert_eq!(Storage::term(log, index), Ok(state.entries[&index].0), "{index}");
        }
        let before = state.entries.get(&(first - 1)).map_or(state.base.1, |(term, _)| *term);
        assert_eq!(Storage::term(log, first - 1), Ok(before));
        let unapplied = state.checkpoint.applied.get() + 1;
        let in_memory =
            log.entries(unapplied, state.last + 1, None, GetEntriesContext::empty(false)).unwrap();
        assert_eq!(in_memory.len() as u64, state.last + 1 - unapplied);
        self.first_index = first;
    }

    /// A crash, recoveries that crash too, and a recovery to the end.
    fn crash(mut self) -> Self {
        let crash = |prng: &mut Prng| if prng.chance_per_mille(600) { Crash::Power } else { Crash::Process };
        let mut disk = std::mem::replace(&mut self.node.disk, Disk::new(0));
        disk.full = false;
        disk.crash(crash(&mut self.prng));
        while self.prng.chance_per_mille(400) {
            let completions = self.prng.range(0..20);
            let (recovered, after, _) = recover_for(disk, self.options.clone(), completions);
            disk = after;
            if let Some(Err(error)) = recovered {
                panic!("{error}");
            }
            disk.crash(crash(&mut self.prng));
        }
        if self.prng.chance_per_mille(300) {
            self.damage(&mut disk);
        }
        let (recovered, disk) = recover(disk, self.options.clone());
        let recovered = match recovered.unwrap() {
            Recovered::Log(recovered) => recovered,
            Recovered::Empty => panic!("the log is gone"),
        };
        let found = self.states[self.acknowledged..].iter().rposition(|state| state.is(&recovered));
        let found = found.expect("the log is none of those it may be") + self.acknowledged;
        let mut state = self.states[found].clone();
        state.commit = state.commit_within();
        self.node = Node { disk, log: recovered.log, io: mesh_base::io::IoQueue::new() };
        self.states = vec![state];
        self.changes.clear();
        self.acknowledged = 0;
        self.holds.clear();
        self.first_index = self.node.log.first_index().get();
        self.check_view();
        let (first, last) = (self.first_index, self.state().last);
        self.check_entries(first, last + 1);
        self
    }
}

impl Node {
    fn close_without_waiting(&mut self) {
        self.log.close(&mut self.io);
        self.disk.submit(&mut self.io);
    }

    fn idle_without_waiting(&mut self) {
        self.log.idle(&mut self.io);
        self.disk.submit(&mut self.io);
    }
}

/// Answers how often damage was met that does no further harm.
fn run(seed: u64) -> u64 {
    let mut run = Run::new(seed);
    let mut damages = 0;
    for _ in 0..6 {
        for _ in 0..run.prng.index(60) {
            run.act();
        }
        run = run.crash();
        damages += run.node.log.damages();
    }
    damages
}

quickcheck! {
    fn the_log_is_what_the_model_says(seed: u64) -> bool {
        run(seed);
        true
    }
}

#[test]
fn the_log_is_what_the_model_says_for_many_seeds() {
    let runs = std::env::var("MESH_RAFTLOG_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(500);
    let from = std::env::var("FROM").ok().and_then(|from| from.parse().ok()).unwrap_or(0);
    let mut damages = 0;
    for seed in from..runs {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed}");
        damages += result.unwrap_or_default();
    }
    assert!(damages > runs.saturating_sub(from) / 10, "{damages}");
}
