//! A look into a replica between two turns, for whoever checks it: its log, its state, how full its queues are.
//!
//! Invariant: looking changes nothing. No page is brought in, no entry is read back, no policy takes note.
//!
//! Deliberately absent: anything that the product itself needs.

use bytes::Bytes;
use mesh_base::bytesio::Writer;
use mesh_base::checksum::xxh3;
use mesh_base::{Instant, LogIndex, Namespace, ReplicaIdentity, Revision, Term};
use mesh_engine::{CellKey, WalkedCell};
use mesh_raftlog::EntryPosition;

use super::configuration;
use super::error::ShardError;
use super::levels::Level;
use super::replica::Replica;
use super::state::is_shared_record;

/// A replica that serves, seen from outside.
#[derive(Clone, Copy)]
pub struct Inspection<'a> {
    replica: &'a Replica,
}

/// A part of a replica's applied state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StatePart {
    /// The sessions and what is known of their writes.
    Sessions,
    /// Who votes and who learns.
    Configuration,
    /// The nodes, in shard 0.
    Membership,
    /// The oldest revision that can be read.
    Horizon,
    /// The newest revision applied.
    Newest,
    /// A cell of the tree that can be read.
    Cell(CellKey),
}

/// A digest of each part of a replica's applied state, cells in the order of their keys. Equal on all replicas of a shard
/// that have applied the same entries: versions that garbage collection may have dropped, here and not there, are left
/// out, and so is what only checkpoints store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaState {
    /// The parts with their digests.
    pub parts: Vec<(StatePart, u64)>,
}

impl<'a> Inspection<'a> {
    pub(super) const fn new(replica: &'a Replica) -> Self {
        Self { replica }
    }

    /// Which replica of which shard.
    #[must_use]
    pub const fn identity(&self) -> ReplicaIdentity {
        self.replica.identity
    }

    /// The term it is in.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.replica.raw.raft.term)
    }

    /// Whether it leads in that term.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.replica.raw.raft.state == raft::StateRole::Leader
    }

    /// Whether it may read without asking a quorum, at a time on its own clock.
    #[must_use]
    pub fn holds_lease(&self, now: Instant) -> bool {
        let mut lease = self.replica.lease;
        self.leads() && self.replica.may_evaluate() && lease.covers(now, self.term())
    }

    /// What its page store takes, beside what it may take when it was left alone for a while.
    #[must_use]
    pub fn space(&self) -> [Level; 2] {
        self.replica.space()
    }

    /// The last entry that it knows to be committed.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        LogIndex(self.replica.raw.raft.raft_log.committed)
    }

    /// The last entry that it has applied.
    #[must_use]
    pub const fn applied(&self) -> EntryPosition {
        self.replica.state.applied
    }

    /// The entry before the first of its log.
    #[must_use]
    pub fn log_start(&self) -> LogIndex {
        self.replica.raw.store().first_index().prev()
    }

    /// The last entry of its log, durable or not.
    #[must_use]
    pub fn log_end(&self) -> LogIndex {
        self.replica.raw.store().last_index()
    }

    /// The term of an entry, from the one before the first to the last.
    #[must_use]
    pub fn term_of(&self, index: LogIndex) -> Option<Term> {
        self.replica.raw.store().term_of(index)
    }

    /// A digest of what an entry says, index and term aside, if it is in memory.
    #[must_use]
    pub fn entry_digest(&self, index: LogIndex) -> Option<u64> {
        let entry = self.replica.raw.store().resident_entry(index)?;
        let kind = entry.entry_type as u64;
        Some(combine([kind, xxh3(&entry.data), xxh3(&entry.context)]))
    }

    /// How often old entries of its log were found damaged since it was opened.
    #[must_use]
    pub fn log_damages(&self) -> u64 {
        self.replica.raw.store().damages()
    }

    /// How full its queues are.
    pub fn levels(&self) -> impl Iterator<Item = Level> + use<> {
        self.replica.levels().into_iter()
    }

    /// Digests of its applied state. `read` answers the bytes of the page store's file at an offset, for the pages that
    /// are not in memory. Nothing while a received snapshot takes the state's place.
    ///
    /// # Errors
    /// A page that is not what the tree points at.
    pub fn state(
        &self,
        read: &dyn Fn(u64, usize) -> Option<Bytes>,
    ) -> Result<Option<ReplicaState>, ShardError> {
        if self.replica.receiving.is_installing() {
            return Ok(None);
        }
        let state = &self.replica.state;
        let membership = state.directory.as_ref().map_or(0, |directory| xxh3(&directory.encode()));
        let mut parts = vec![
            (StatePart::Sessions, state.sessions.digest()),
            (StatePart::Configuration, xxh3(&configuration::encode(&state.conf))),
            (StatePart::Membership, membership),
            (StatePart::Horizon, state.store.horizon().get()),
            (StatePart::Newest, state.newest.get()),
        ];
        let mut readable = Readable { horizon: state.store.horizon(), last: None };
        state.store.walk(read, &mut |cell| {
            if readable.admits(cell) {
                parts.push((StatePart::Cell(cell.key.to_owned()), digest_of(cell)));
            }
        })?;
        Ok(Some(ReplicaState { parts }))
    }
}

impl ReplicaState {
    /// The first part that another state has not, or has otherwise.
    #[must_use]
    pub fn difference<'a>(&'a self, other: &'a Self) -> Option<&'a StatePart> {
        let differs = |index: &usize| self.parts.get(*index) != other.parts.get(*index);
        let first = (0..self.parts.len().max(other.parts.len())).find(differs)?;
        let own = self.parts.get(first).map(|(part, _)| part);
        own.or_else(|| other.parts.get(first).map(|(part, _)| part))
    }
}

/// Tells the cells that a read at or above the horizon can see from those that may have been dropped.
struct Readable {
    horizon: Revision,
    /// The key of the last cell at or below the horizon: older ones of it are hidden behind that.
    last: Option<CellKey>,
}

impl Readable {
    fn admits(&mut self, cell: &WalkedCell<'_>) -> bool {
        if cell.key.namespace == Namespace::SYSTEM {
            return is_shared_record(cell.key.key);
        }
        if cell.key.revision > self.horizon {
            return true;
        }
        if self.last.as_ref().is_some_and(|last| last.as_ref().same_key(&cell.key)) {
            return false;
        }
        self.last = Some(cell.key.to_owned());
        // A deletion at the horizon says the same as nothing at all.
        cell.value.is_some()
    }
}

fn digest_of(cell: &WalkedCell<'_>) -> u64 {
    let mesh_engine::Attributes { create_revision, version, lease, type_tag, expiry_ms, flags } =
        cell.attributes;
    let value = cell.value.as_ref().map_or(0, |value| xxh3(value));
    let is_live = u64::from(cell.value.is_some());
    let (type_tag, flags) = (u64::from(type_tag), u64::from(flags));
    combine([create_revision.get(), version, lease, type_tag, expiry_ms, flags, is_live, value])
}

fn combine<const N: usize>(numbers: [u64; N]) -> u64 {
    let mut bytes = Vec::with_capacity(8 * N);
    numbers.into_iter().for_each(|number| bytes.put_u64(number));
    xxh3(&bytes)
}
