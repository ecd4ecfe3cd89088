//! The log in use: what its owner changes, and what it asks.
//!
//! A change is in memory at once, gathers in a forming batch, is written by [`Log::pump`] and is durable when
//! [`Log::complete`] says so. The turns of that machine are in `turn`, its end is in `closing`, raft's view in `storage`.

mod closing;
mod storage;
mod turn;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use mesh_base::io::IoPort;
use mesh_base::prng::Prng;
use mesh_base::{BatchSeq, LogIndex, ReplicaId, ReplicaIdentity, SegmentNo, Term};
use raft::GetEntriesContext;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};

use crate::base::{Ballot, CheckpointMark, EntryPosition, SnapshotBase};
use crate::contents::Contents;
use crate::error::LogError;
use crate::fetch::Fetches;
use crate::footer::Footer;
use crate::format::record::{self, Record, SMALL_RECORD_BYTES_MAX, entry_record_bytes, put_entry};
use crate::format::segment::Cut;
use crate::forming::{Forming, FormingBatch};
use crate::options::LogOptions;
use crate::purge::{Purge, Sealed};
use crate::spare::{Space, Spares};
use crate::switch::Switch;
use crate::writer::{Active, Durable, Writer};
use closing::Closing;

/// What a completion brought about.
#[derive(Debug, Default)]
pub struct LogEvents {
    /// The batches that are durable now, if that changed.
    pub durable: Option<Durable>,
    /// Requests for entries that can be made again, with `RawNode::on_entries_fetched`.
    pub fetched: Vec<GetEntriesContext>,
    /// Damage that was met where old entries were read. The log goes on and begins behind it, if it did not before: whoever
    /// needs what was there needs a snapshot.
    pub damage: Option<LogError>,
}

/// Names a hold on the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HoldId(u64);

/// The append log of one replica.
#[derive(Debug)]
pub struct Log {
    identity: ReplicaIdentity,
    options: LogOptions,
    prng: Prng,
    port: IoPort,
    contents: Contents,
    forming: Forming,
    writer: Writer,
    /// The complete segments, in order; the active one follows them.
    sealed: VecDeque<Sealed>,
    spares: Spares,
    switch: Option<Switch>,
    purge: Purge,
    closing: Closing,
    /// Damage that was met and did no more harm than that the log begins behind it.
    damages: u64,
    holds: BTreeMap<HoldId, LogIndex>,
    last_hold: HoldId,
    fetches: RefCell<Fetches>,
    conf_state: ConfState,
    offered_snapshot: Option<Snapshot>,
    wanted_snapshot: Cell<Option<(LogIndex, ReplicaId)>>,
    poison: Option<String>,
}

/// What a log is put together from when it was created or recovered.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) identity: ReplicaIdentity,
    pub(crate) options: LogOptions,
    pub(crate) prng: Prng,
    pub(crate) port: IoPort,
    pub(crate) contents: Contents,
    pub(crate) active: Active,
    pub(crate) cut: Cut,
    /// What the segment before the active one holds.
    pub(crate) footer_before: Footer,
    pub(crate) sealed: VecDeque<Sealed>,
    pub(crate) spares: Spares,
    pub(crate) purge: Purge,
    pub(crate) damages: u64,
}

impl Log {
    pub(crate) fn assemble(parts: Parts) -> Self {
        let Parts { identity, options, prng, port, contents, active, cut, footer_before, sealed, .. } = parts;
        let (spares, purge, damages) = (parts.spares, parts.purge, parts.damages);
        assert!(sealed.iter().is_sorted_by_key(|sealed| sealed.segment));
        assert!(sealed.back().is_none_or(|newest| newest.segment < active.segment));
        assert_eq!(contents.terms.before(), contents.base.truncated);
        assert_eq!(contents.terms.last(), contents.base.last);
        Self {
            forming: Forming::new(cut.seq, options.batch_bytes_soft_max),
            writer: Writer::new(active, cut, footer_before, &contents, &options),
            fetches: RefCell::new(Fetches::new(options.fetched_bytes_max)),
            identity,
            options,
            prng,
            port,
            contents,
            sealed,
            spares,
            switch: None,
            purge,
            closing: Closing::No,
            damages,
            holds: BTreeMap::new(),
            last_hold: HoldId(0),
            conf_state: ConfState::default(),
            offered_snapshot: None,
            wanted_snapshot: Cell::new(None),
            poison: None,
        }
    }

    /// Adds entries and takes the hard state; raft can read both at once. Answers the batch at whose durability all of
    /// it is durable. Entries replace those of their indexes and above.
    ///
    /// Should it take several batches, the first ones leave a state that raft could have left: term and vote go before
    /// the entries, the commit index after them. Before them it would commit what they replace.
    ///
    /// # Errors
    /// [`LogError::EntryTooLarge`], then nothing was changed; [`LogError::Poisoned`].
    ///
    /// # Panics
    /// When the entries are not a sequence that continues the log or replaces uncommitted entries of it, the term goes
    /// back, or the commit index is behind the last entry: bugs of the caller, which raft rules out.
    pub fn append(
        &mut self,
        entries: Vec<Entry>,
        hard_state: Option<&HardState>,
    ) -> Result<BatchSeq, LogError> {
        self.check_usable()?;
        self.check_sizes(&entries)?;
        let before = self.contents.base.ballot;
        let ballot = hard_state.map_or(before, Ballot::from);
        assert!(ballot.term >= before.term, "a term never goes back");
        if let Some(first) = entries.first() {
            assert!(first.index > before.commit.0, "a committed entry is never replaced");
        }
        let uncommitted = Ballot { commit: before.commit, ..ballot };
        self.set_ballot(uncommitted);
        for entry in entries {
            let revision = (self.options.revision_of)(&entry);
            self.contents.append(entry.clone());
            let after = self.contents.base;
            self.forming
                .add(entry_record_bytes(&entry), after, |buffer| put_entry(buffer, &entry))
                .note_entry(after.last, revision);
        }
        assert!(ballot.commit <= self.contents.base.last.index, "what is committed is there");
        self.set_ballot(ballot);
        Ok(self.forming.newest())
    }

    /// Lets the log start anew after a received snapshot, whose page store is durable as `base.checkpoint`. Answers the
    /// batch at whose durability the staged page store may take its place. The next checkpoint must be noted, and that
    /// durable, before another snapshot is staged: until then a recovery reports this install.
    ///
    /// # Errors
    /// [`LogError::Poisoned`].
    ///
    /// # Panics
    /// When the snapshot is older than the start of the log: a bug of the caller.
    pub fn install(&mut self, base: SnapshotBase) -> Result<BatchSeq, LogError> {
        self.check_usable()?;
        assert!(base.index >= self.contents.base.truncated.index, "a log never goes back");
        self.contents.restart(base);
        self.fetches.get_mut().drop_all();
        self.add(&Record::Install(base)).note_restart(base.position());
        tracing::info!(index = base.index.get(), "the log starts anew at a snapshot");
        Ok(self.forming.newest())
    }

    /// Notes that a checkpoint of the page store is durable: it must exist from now on, entries it contains leave the
    /// memory, and segments that hold nothing else become free to go. Answers the batch that carries the note.
    ///
    /// # Errors
    /// [`LogError::Poisoned`].
    ///
    /// # Panics
    /// When the checkpoint is older than the last, or contains entries that are not durable here: bugs of the caller.
    pub fn note_checkpoint(&mut self, mark: CheckpointMark) -> Result<BatchSeq, LogError> {
        self.check_usable()?;
        let last = self.contents.base.checkpoint;
        assert!(mark.no >= last.no && mark.applied >= last.applied, "checkpoints only go forward");
        assert!(mark.applied <= self.writer.durable_base().last.index, "applied entries are durable");
        if mark != last || self.contents.base.install.is_some() {
            self.contents.note_checkpoint(mark);
            self.add(&Record::Checkpoint(mark));
        }
        Ok(self.forming.newest())
    }

    /// Keeps the entries behind an index from being let go, until the hold is released.
    pub fn hold(&mut self, index: LogIndex) -> HoldId {
        self.last_hold = HoldId(self.last_hold.0 + 1);
        self.holds.insert(self.last_hold, index);
        self.last_hold
    }

    /// Ends a hold.
    pub fn release(&mut self, hold: HoldId) {
        self.holds.remove(&hold);
    }

    /// What raft is told of the group's configuration when it starts.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// Gives raft a snapshot to send; it replaces the one before.
    pub fn offer_snapshot(&mut self, snapshot: Snapshot) {
        self.offered_snapshot = Some(snapshot);
    }

    /// The snapshot that raft asked for and did not get: at this index or above, for this replica.
    pub fn take_snapshot_request(&mut self) -> Option<(LogIndex, ReplicaId)> {
        self.wanted_snapshot.take()
    }

    /// The newest batch there is, written or not: when it is durable, so is everything the log was given.
    #[must_use]
    pub const fn newest_batch(&self) -> BatchSeq {
        self.forming.newest()
    }

    /// Whether everything the log was given is durable.
    #[must_use]
    pub fn is_all_durable(&self) -> bool {
        self.durable().covers(self.newest_batch())
    }

    /// Whether a recovery would report an installed snapshot that no durable checkpoint note has settled.
    #[must_use]
    pub fn install_is_pending(&self) -> bool {
        self.contents.base.install.is_some() || self.writer.durable_base().install.is_some()
    }

    /// The batches that are durable.
    #[must_use]
    pub const fn durable(&self) -> Durable {
        self.writer.durable()
    }

    /// The commit index that a recovery would find at least.
    #[must_use]
    pub fn durable_commit(&self) -> LogIndex {
        self.writer.durable_base().commit_within_log()
    }

    /// The hard state last taken, durable or not.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.contents.base.ballot.into()
    }

    /// Whether there is space for the next segment.
    #[must_use]
    pub fn space(&self) -> Space {
        self.spares.space()
    }

    /// The first entry that is kept, or the next one if none is.
    #[must_use]
    pub fn first_index(&self) -> LogIndex {
        self.contents.base.truncated.index.next()
    }

    /// The last entry, durable or not; the one before the first if there is none.
    #[must_use]
    pub const fn last_index(&self) -> LogIndex {
        self.contents.base.last.index
    }

    /// The last entry that is durable.
    #[must_use]
    pub fn durable_last(&self) -> EntryPosition {
        self.writer.durable_base().last
    }

    /// The term of an entry, from the one before the first to the last.
    #[must_use]
    pub fn term_of(&self, index: LogIndex) -> Option<Term> {
        self.contents.terms.term(index)
    }

    /// An entry, if it is in memory: those after the last noted checkpoint are. Nothing is read for it.
    #[must_use]
    pub fn resident_entry(&self, index: LogIndex) -> Option<&Entry> {
        self.contents.tail.get(index)
    }

    /// The checkpoint last noted: the least that must exist.
    #[must_use]
    pub const fn least_checkpoint(&self) -> CheckpointMark {
        self.contents.base.checkpoint
    }

    /// Bytes of log to replay after the checkpoint last noted.
    #[must_use]
    pub const fn bytes_since_checkpoint(&self) -> u64 {
        self.contents.tail.record_bytes()
    }

    /// Bytes of the entries in memory: what a checkpoint lets go of, and nothing that is there for a moment only.
    #[must_use]
    pub fn entry_bytes(&self) -> usize {
        self.contents.tail.entry_bytes()
    }

    /// Bytes of memory that the log takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let batches = self.forming.memory_bytes() + self.writer.memory_bytes();
        self.contents.memory_bytes() + batches + self.fetches.borrow().fetched_bytes()
    }

    /// Bytes of disk that the log takes, spares aside.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.capacity).sum::<u64>() + self.writer.active().capacity
    }

    /// The segments that are part of the log: the oldest and the one appended to.
    #[must_use]
    pub fn segments(&self) -> (SegmentNo, SegmentNo) {
        let active = self.writer.active().segment;
        (self.sealed.front().map_or(active, |oldest| oldest.segment), active)
    }

    /// How often damage was met, in this log's recovery and since, that did no more harm than that the log begins behind
    /// it.
    #[must_use]
    pub const fn damages(&self) -> u64 {
        self.damages
    }

    fn check_usable(&self) -> Result<(), LogError> {
        match &self.poison {
            Some(cause) => Err(LogError::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    fn check_sizes(&self, entries: &[Entry]) -> Result<(), LogError> {
        let limit = self.options.entry_record_bytes_max();
        let too_large = entries.iter().find(|entry| entry_record_bytes(entry) > limit);
        too_large.map_or(Ok(()), |entry| {
            let (index, bytes) = (LogIndex(entry.index), entry_record_bytes(entry));
            Err(LogError::EntryTooLarge { index, bytes, limit })
        })
    }

    /// Takes the hard state, if it is another.
    fn set_ballot(&mut self, ballot: Ballot) {
        if ballot != self.contents.base.ballot {
            self.contents.set_ballot(ballot);
            self.add(&Record::HardState(ballot));
        }
    }

    /// Adds a record that is not an entry, whose effect the contents show already.
    fn add(&mut self, small: &Record) -> &mut FormingBatch {
        let after = self.contents.base;
        self.forming.add(SMALL_RECORD_BYTES_MAX, after, |buffer| record::put(buffer, small))
    }
}
