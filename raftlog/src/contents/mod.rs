//! What a log holds, in memory: its base facts, the terms of all entries, the newest entries, the places of all.
//!
//! The log in use and its recovery change it through the same few operations, so that what is recovered is what was
//! there.

mod locations;
mod tail;
mod terms;

use mesh_base::{LogIndex, SegmentNo, Term};
use raft::eraftpb::Entry;

pub(crate) use locations::{Locations, Place, Run};
pub(crate) use tail::{Tail, limited};
pub(crate) use terms::{TermRuns, Terms};

use crate::base::{Ballot, Base, CheckpointMark, EntryPosition, SnapshotBase};

/// What the log holds.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) base: Base,
    pub(crate) terms: Terms,
    pub(crate) tail: Tail,
    pub(crate) locations: Locations,
}

impl Contents {
    /// The log as a segment begins: with the terms that its header lists, and with what is known of the places of entries
    /// in older segments.
    pub(crate) fn new(base: Base, terms: &TermRuns, locations: Locations) -> Self {
        let terms = Terms::listed(terms, base.truncated, base.last);
        Self { base, terms, tail: Tail::new(base.last.index.next()), locations }
    }

    /// Whether every entry that the checkpoint does not contain is in memory.
    pub(crate) fn has_all_unsaved(&self) -> bool {
        self.tail.first() <= self.base.checkpoint.applied.next()
    }

    /// Whether the terms of all entries that are kept are known.
    pub(crate) fn has_all_terms(&self) -> bool {
        self.terms.before().index <= self.base.truncated.index
    }

    /// Puts what the log held as of the segment with which this begins before what was appended since.
    pub(crate) fn follow(&mut self, mut older: Self) {
        let first = self.first_appended();
        if !self.has_all_terms() {
            older.terms.cut_from(first);
            older.terms.extend(&self.terms.runs_from(first), self.base.last.index);
            self.terms = older.terms;
        }
        if !self.has_all_unsaved() {
            // Nothing of it was let go, so it begins with the first entry that was appended.
            assert_eq!(self.tail.first(), first);
            older.tail.cut_from(first);
            self.tail.follow(older.tail);
        }
        self.follow_places(older.locations);
    }

    /// The same for the places of entries alone.
    pub(crate) fn follow_places(&mut self, mut older: Locations) {
        older.cut_from(self.first_appended());
        older.trim_to(self.base.truncated.index);
        self.locations.follow(older);
    }

    /// The least entry that was appended, or the next one if none was.
    fn first_appended(&self) -> LogIndex {
        self.locations.first().unwrap_or(self.base.last.index.next())
    }

    /// What forbids an entry of this index: it would leave a gap, or replace what was truncated.
    pub(crate) fn objection(&self, index: LogIndex) -> Option<&'static str> {
        if index > self.base.last.index.next() {
            Some("an entry that leaves a gap before it")
        } else if index <= self.base.truncated.index {
            Some("an entry before the start of the log")
        } else {
            None
        }
    }

    /// Adds an entry; it replaces those of its index and above.
    pub(crate) fn append(&mut self, entry: Entry) {
        let at = EntryPosition { index: LogIndex(entry.index), term: Term(entry.term) };
        assert_eq!(self.objection(at.index), None);
        self.terms.cut_from(at.index);
        self.tail.cut_from(at.index);
        self.terms.push(at);
        self.tail.push(entry);
        self.base.last = at;
    }

    /// Takes raft's hard state.
    pub(crate) const fn set_ballot(&mut self, ballot: Ballot) {
        self.base.ballot = ballot;
    }

    /// Starts anew at a snapshot. The places of older entries are left to the caller.
    pub(crate) fn restart(&mut self, at: SnapshotBase) {
        self.terms = Terms::new(at.position());
        self.tail = Tail::new(at.index.next());
        self.base.truncated = at.position();
        self.base.last = at.position();
        self.base.checkpoint = CheckpointMark { no: at.checkpoint, applied: at.index };
        self.base.install = Some(at);
    }

    /// Notes a durable checkpoint and forgets the entries it contains.
    pub(crate) fn note_checkpoint(&mut self, mark: CheckpointMark) {
        self.base.checkpoint = mark;
        if self.base.install.is_some_and(|install| mark.applied >= install.index) {
            self.base.install = None;
        }
        self.tail.trim_to(mark.applied);
    }

    /// Lets the log start after an entry, in a segment.
    pub(crate) fn truncate(&mut self, to: EntryPosition, first_segment: SegmentNo) {
        self.base.truncated = to;
        self.base.first_segment = first_segment;
        self.terms.trim_to(to);
        self.locations.trim_to(to.index);
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.terms.memory_bytes() + self.tail.memory_bytes() + self.locations.memory_bytes()
    }
}
