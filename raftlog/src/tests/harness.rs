//! A replica's log on a disk: created, used, crashed, recovered.

use bytes::Bytes;
use mesh_base::io::{FileId, IoQueue};
use mesh_base::prng::Prng;
use mesh_base::{
    BatchSeq, CheckpointNo, ClusterId, LogIndex, ReplicaId, ReplicaIdentity, Revision, SegmentNo, ShardId,
};
use raft::eraftpb::{Entry, HardState};
use raft::{Error, GetEntriesContext, Storage, StorageError};

use super::disk::{Crash, Disk};
use crate::{
    CheckpointMark, Creation, Durable, FirstState, Log, LogError, LogEvents, LogOptions, Recovered,
    RecoveredLog, Recovery,
};

pub(super) fn identity() -> ReplicaIdentity {
    ReplicaIdentity { cluster: ClusterId([7; 16]), shard: ShardId(3), replica: ReplicaId(11) }
}

/// Segments of 64 KiB, of which 52 KiB are for entries.
pub(super) fn small() -> LogOptions {
    LogOptions {
        segment_bytes: 64 * 1024,
        zero_ahead_bytes: 12 * 1024,
        writes_in_flight_max: 3,
        batch_bytes_soft_max: 8 * 1024,
        retained_bytes: 0,
        spare_segments_max: 2,
        read_bytes: 8 * 1024,
        fetch_bytes_max: 12 * 1024,
        fetched_bytes_max: 32 * 1024,
        revision_of: |entry| Revision(entry.index * 10),
    }
}

/// An entry whose bytes tell which it is.
pub(super) fn entry(index: u64, term: u64, bytes: usize) -> Entry {
    let mut data = vec![0; bytes];
    Prng::new(index << 20 | term).fill(&mut data);
    Entry { index, term, data: Bytes::from(data), ..Entry::default() }
}

pub(super) fn entries(indexes: impl IntoIterator<Item = u64>, term: u64, bytes: usize) -> Vec<Entry> {
    indexes.into_iter().map(|index| entry(index, term, bytes)).collect()
}

pub(super) fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit, ..HardState::default() }
}

pub(super) const fn mark(no: u64, applied: u64) -> CheckpointMark {
    CheckpointMark { no: CheckpointNo(no), applied: LogIndex(applied) }
}

pub(super) const fn segment(no: u64) -> FileId {
    FileId::Segment(SegmentNo(no))
}

/// A log and its disk.
pub(super) struct Node {
    pub(super) disk: Disk,
    pub(super) log: Log,
    pub(super) io: IoQueue,
}

impl Node {
    /// A node whose log has just been created.
    pub(super) fn create(options: LogOptions, seed: u64) -> Self {
        Self::create_on(Disk::new(seed), options).unwrap_or_else(|failed| panic!("{}", failed.0))
    }

    pub(super) fn create_on(mut disk: Disk, options: LogOptions) -> Result<Self, Box<(LogError, Disk)>> {
        let mut io = IoQueue::new();
        let first = FirstState::default();
        let mut creation = Creation::start(identity(), options, &first, Prng::new(1), &mut io);
        loop {
            disk.submit(&mut io);
            let completion = disk.complete_any().expect("a creation is never idle");
            match creation.complete(completion, &mut io) {
                Ok(Some(log)) => return Ok(Self { disk, log, io }),
                Ok(None) => {}
                Err(error) => return Err(Box::new((error, disk))),
            }
        }
    }

    /// Submits what is due.
    pub(super) fn pump(&mut self) {
        self.log.pump(&mut self.io);
        self.disk.submit(&mut self.io);
    }

    /// Completes one operation, any of those in flight.
    pub(super) fn step(&mut self) -> Result<Option<LogEvents>, LogError> {
        self.pump();
        let Some(completion) = self.disk.complete_any() else { return Ok(None) };
        let events = self.log.complete(completion, &mut self.io)?;
        self.disk.submit(&mut self.io);
        Ok(Some(events))
    }

    /// Completes everything.
    pub(super) fn settle(&mut self) {
        while self.step().unwrap().is_some() {}
    }

    pub(super) fn idle(&mut self) {
        self.log.idle(&mut self.io);
        self.settle();
    }

    /// Appends and waits until it is durable.
    pub(super) fn append(&mut self, entries: Vec<Entry>, hard_state: Option<&HardState>) -> BatchSeq {
        let seq = self.log.append(entries, hard_state).unwrap();
        self.settle();
        assert!(self.log.durable().covers(seq));
        seq
    }

    pub(super) fn checkpoint(&mut self, no: u64, applied: u64) {
        self.log.note_checkpoint(mark(no, applied)).unwrap();
        self.settle();
    }

    /// Crashes and recovers.
    pub(super) fn restart(mut self, crash: Crash, options: LogOptions) -> (Self, RecoveredFacts) {
        self.disk.crash(crash);
        Self::recover(self.disk, options)
    }

    pub(super) fn recover(disk: Disk, options: LogOptions) -> (Self, RecoveredFacts) {
        match recover(disk, options) {
            (Ok(Recovered::Log(recovered)), disk) => {
                let RecoveredLog {
                    log,
                    hard_state,
                    torn,
                    least_checkpoint,
                    install,
                    damage,
                    walked_from,
                    batches,
                    bytes,
                } = *recovered;
                let facts = RecoveredFacts {
                    hard_state,
                    torn,
                    least_checkpoint,
                    install,
                    damage,
                    walked_from,
                    batches,
                    bytes,
                };
                (Self { disk, log, io: IoQueue::new() }, facts)
            }
            (Ok(Recovered::Empty), _) => panic!("there is no log"),
            (Err(error), _) => panic!("{error}"),
        }
    }

    /// The entries of `low..high`, fetched if need be.
    pub(super) fn read(&mut self, low: u64, high: u64) -> Vec<Entry> {
        let mut read: Vec<Entry> = Vec::new();
        while low + (read.len() as u64) < high {
            let next = low + read.len() as u64;
            match self.log.entries(next, high, None, GetEntriesContext::empty(true)) {
                Ok(entries) => {
                    assert!(!entries.is_empty());
                    read.extend(entries);
                }
                Err(Error::Store(StorageError::LogTemporarilyUnavailable)) => {
                    let mut fetched = Vec::new();
                    while fetched.is_empty() {
                        fetched = self.step().unwrap().expect("a fetch is never forgotten").fetched;
                    }
                }
                Err(error) => panic!("{next}..{high}: {error}"),
            }
        }
        read
    }

    pub(super) fn durable(&self) -> Durable {
        self.log.durable()
    }
}

/// What a recovery tells besides the log.
#[derive(Debug)]
pub(super) struct RecoveredFacts {
    pub(super) hard_state: HardState,
    pub(super) torn: Option<crate::TornTail>,
    pub(super) least_checkpoint: CheckpointMark,
    pub(super) install: Option<crate::SnapshotBase>,
    pub(super) damage: Option<LogError>,
    pub(super) walked_from: SegmentNo,
    pub(super) batches: u64,
    pub(super) bytes: u64,
}

/// Recovers to the end.
pub(super) fn recover(disk: Disk, options: LogOptions) -> (Result<Recovered, LogError>, Disk) {
    let (result, disk, _) = recover_for(disk, options, u64::MAX);
    (result.expect("a recovery is never idle"), disk)
}

/// Recovers for so many completions; answers how many there were, and nothing if it was not over by then.
pub(super) fn recover_for(
    mut disk: Disk,
    options: LogOptions,
    completions_max: u64,
) -> (Option<Result<Recovered, LogError>>, Disk, u64) {
    let mut io = IoQueue::new();
    let mut recovery = Recovery::start(identity(), options, Prng::new(1), &mut io);
    let mut completions = 0;
    loop {
        disk.submit(&mut io);
        if completions == completions_max {
            return (None, disk, completions);
        }
        let Some(completion) = disk.complete_any() else { return (None, disk, completions) };
        completions += 1;
        match recovery.complete(completion, &mut io) {
            Ok(None) => {}
            Ok(Some(recovered)) => {
                assert!(disk.is_quiet() && io.is_empty(), "nothing is left in flight");
                return (Some(Ok(recovered)), disk, completions);
            }
            Err(error) => return (Some(Err(error)), disk, completions),
        }
    }
}
