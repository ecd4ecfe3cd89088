//! The few facts about a log that every segment begins with, and the public types they are made of.

use mesh_base::{CheckpointNo, LogIndex, SegmentNo, Term};
use raft::eraftpb::HardState;

/// An index that no log comes to, however long it is used, and from which none can count to the end of the numbers.
pub(crate) const INDEX_MAX: LogIndex = LogIndex(1 << 63);

/// An entry's place in the log.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct EntryPosition {
    /// Its index; 0 is before the log.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// A checkpoint of the page store, as the log knows it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CheckpointMark {
    /// The checkpoint.
    pub no: CheckpointNo,
    /// The last entry it contains.
    pub applied: LogIndex,
}

/// A received snapshot at which the log starts anew.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SnapshotBase {
    /// The last entry the snapshot contains.
    pub index: LogIndex,
    /// The term of that entry.
    pub term: Term,
    /// The durable checkpoint of the staged page store that holds the snapshot.
    pub checkpoint: CheckpointNo,
}

impl SnapshotBase {
    /// The last entry the snapshot contains.
    #[must_use]
    pub const fn position(&self) -> EntryPosition {
        EntryPosition { index: self.index, term: self.term }
    }
}

/// raft's hard state as plain numbers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Ballot {
    pub(crate) term: Term,
    /// The replica voted for in this term; 0 is none.
    pub(crate) vote: u64,
    pub(crate) commit: LogIndex,
}

impl From<&HardState> for Ballot {
    fn from(state: &HardState) -> Self {
        Self { term: Term(state.term), vote: state.vote, commit: LogIndex(state.commit) }
    }
}

impl From<Ballot> for HardState {
    fn from(ballot: Ballot) -> Self {
        Self { term: ballot.term.0, vote: ballot.vote, commit: ballot.commit.0, ..Self::default() }
    }
}

/// What is known of a log without its entries, as of some batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Base {
    pub(crate) ballot: Ballot,
    /// The entry before the first that is kept.
    pub(crate) truncated: EntryPosition,
    /// The last entry.
    pub(crate) last: EntryPosition,
    /// The oldest segment that is part of the log; older files are on their way to reuse or removal.
    pub(crate) first_segment: SegmentNo,
    /// The least checkpoint that must exist in the page store.
    pub(crate) checkpoint: CheckpointMark,
    /// A snapshot whose page store was to be put in place, and no checkpoint noted since.
    pub(crate) install: Option<SnapshotBase>,
}

impl Base {
    /// The commit index, no higher than the log reaches and no lower than where it starts.
    pub(crate) fn commit_within_log(&self) -> LogIndex {
        self.ballot.commit.min(self.last.index).max(self.truncated.index)
    }

    /// Whether the facts can be true of one log.
    pub(crate) fn is_consistent(&self) -> bool {
        let within = |index: LogIndex| self.truncated.index <= index && index <= self.last.index;
        within(self.last.index)
            && self.last.index <= INDEX_MAX
            && (self.truncated.index < self.last.index || self.truncated == self.last)
            && self.checkpoint.applied <= self.last.index
            && self.install.is_none_or(|install| within(install.index))
    }
}
