//! The replicated state machine: what applying entries makes of the page store, the sessions and the membership.
//!
//! Invariants:
//! - Apply is blind: an entry says what is to be written, and nothing is decided here. So the state is a function of the
//!   applied entries, the same on every replica.
//! - An entry is applied as a whole or, when pages are missing, not at all.
//! - A checkpoint of index i holds everything up to i: cells, sessions, configuration, membership.

use std::sync::Arc;

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::flaw::{self, Flaw};
use mesh_base::{LogIndex, Namespace, Revision, SessionId, Term};
use mesh_engine::effect::{Effect, EntryView};
use mesh_engine::{Attributes, CellWrite, Change as CellChange, Lookup, Store};
use mesh_raftlog::EntryPosition;
use raft::eraftpb::{ConfState, Entry, EntryType};

use super::configuration::{self, Change};
use super::error::ShardError;
use super::sessions::{self, Outcome, SessionTable, WriteId};
use crate::node::Directory;

/// The key of the configuration's record in the system namespace.
pub(super) const CONF_KEY: &[u8] = b"conf";
/// The key of the membership's record, in shard 0.
pub(super) const DIRECTORY_KEY: &[u8] = b"directory";

/// The key of the record of the newest revision u64 and the horizon u64: a snapshot carries both as it carries all cells.
const MARKS_KEY: &[u8] = b"marks";

/// One replica's applied state.
pub(super) struct State {
    pub(super) store: Store,
    pub(super) sessions: SessionTable,
    pub(super) conf: ConfState,
    pub(super) directory: Option<Arc<Directory>>,
    pub(super) applied: EntryPosition,
    /// The newest revision of any applied entry.
    pub(super) newest: Revision,
}

/// What an entry brought that concerns more than the state.
#[derive(Default, Debug)]
pub(super) struct Applied {
    pub(super) conf_change: Option<Change>,
    pub(super) directory: Option<Arc<Directory>>,
}

impl State {
    /// The state of a store that was just opened, before its records are loaded.
    pub(super) fn new(store: Store) -> Self {
        let checkpoint = store.checkpoint();
        Self {
            newest: store.newest_revision(),
            store,
            sessions: SessionTable::default(),
            conf: ConfState::default(),
            directory: None,
            applied: EntryPosition { index: checkpoint.applied, term: checkpoint.term },
        }
    }

    /// Takes in a record of the system namespace found in the store.
    pub(super) fn load_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), ShardError> {
        let damaged = || ShardError::Record { record: key.escape_ascii().to_string() };
        match key {
            CONF_KEY => self.conf = configuration::decode(value).ok_or_else(damaged)?,
            DIRECTORY_KEY => self.directory = Some(Arc::new(Directory::decode(value).ok_or_else(damaged)?)),
            MARKS_KEY => {
                let mut from = Reader::new(value);
                let (newest, horizon) = (from.u64().ok_or_else(damaged)?, from.u64().ok_or_else(damaged)?);
                self.newest = self.newest.max(Revision(newest));
                self.store.set_horizon(Revision(horizon));
            }
            _ if self.sessions.load(key, value) => {}
            _ => return Err(damaged()),
        }
        Ok(())
    }

    /// Applies the next entry.
    pub(super) fn apply(&mut self, entry: &Entry) -> Result<Lookup<Applied>, ShardError> {
        assert_eq!(entry.index, self.applied.index.0 + 1, "entries are applied in order, each once");
        let lookup = match entry.entry_type {
            EntryType::EntryNormal if entry.data.is_empty() => Lookup::Ready(Applied::default()),
            EntryType::EntryNormal => self.apply_effects(entry)?,
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => self.apply_conf_change(entry)?,
        };
        if matches!(lookup, Lookup::Ready(_)) {
            self.applied = EntryPosition { index: LogIndex(entry.index), term: Term(entry.term) };
        }
        Ok(lookup)
    }

    fn apply_effects(&mut self, entry: &Entry) -> Result<Lookup<Applied>, ShardError> {
        let unreadable = |why: String| ShardError::Entry { index: entry.index, why };
        let view = EntryView::read(&entry.data).map_err(|error| unreadable(error.to_string()))?;
        let writes: Vec<_> = view.cell_writes().collect();
        if !writes.is_empty()
            && let Lookup::Miss(misses) = self.store.write(&writes)?
            && !flaw::is_planted(Flaw::ApplyWithoutPages)
        {
            return Ok(Lookup::Miss(misses));
        }
        let mut applied = Applied::default();
        let at = LogIndex(entry.index);
        for effect in view.effects() {
            match effect {
                Effect::SessionOpen { session, nonce } => self.sessions.open(session, nonce, at),
                Effect::SessionEvict { sessions, evicted_up_to } => {
                    self.sessions.evict(sessions.iter(), evicted_up_to);
                }
                Effect::Horizon { revision } => self.store.set_horizon(revision),
                Effect::System { key: DIRECTORY_KEY, value: Some(value) } => {
                    let directory =
                        Directory::decode(value).ok_or_else(|| unreadable("membership".into()))?;
                    let directory = Arc::new(directory);
                    self.directory = Some(Arc::clone(&directory));
                    applied.directory = Some(directory);
                }
                Effect::Reserved { kind, .. } => {
                    return Err(unreadable(format!(
                        "it carries a {kind:?}, which this version does not know"
                    )));
                }
                Effect::Put { .. }
                | Effect::Delete { .. }
                | Effect::System { .. }
                | Effect::Floor { .. }
                | Effect::ClusterVersion { .. } => {}
            }
        }
        for outcome in view.outcomes() {
            let id = WriteId { session: outcome.session, seq: outcome.seq };
            let kept = Outcome { revision: outcome.revision, count: outcome.count, code: outcome.code };
            self.sessions.record(id, outcome.acknowledged_below, kept, at);
        }
        self.newest = self.newest.max(view.head().revision_high);
        Ok(Lookup::Ready(applied))
    }

    fn apply_conf_change(&mut self, entry: &Entry) -> Result<Lookup<Applied>, ShardError> {
        let change = Change::decode(&entry.context)
            .ok_or_else(|| ShardError::Entry { index: entry.index, why: "configuration change".into() })?;
        let conf = change.applied_to(&self.conf);
        let record = configuration::encode(&conf);
        if let Lookup::Miss(misses) = self.store.write(&[system_write(CONF_KEY, Some(&record))])? {
            return Ok(Lookup::Miss(misses));
        }
        self.conf = conf;
        Ok(Lookup::Ready(Applied { conf_change: Some(change), ..Applied::default() }))
    }

    /// Writes what changed since the last checkpoint and is not in the tree yet, so that the next one holds it.
    pub(super) fn save_records(&mut self) -> Result<Lookup<()>, ShardError> {
        let records = self.sessions.unsaved_records();
        let mut marks = Vec::with_capacity(16);
        marks.put_u64(self.newest.0);
        marks.put_u64(self.store.horizon().0);
        let mut writes = vec![system_write(MARKS_KEY, Some(&marks))];
        writes.extend(records.iter().map(|(key, value)| system_write(key, value.as_deref())));
        let lookup = self.store.write(&writes)?;
        if matches!(lookup, Lookup::Ready(())) {
            self.sessions.saved();
        }
        Ok(lookup)
    }

    /// Writes the records that every replica of a newborn cluster begins with.
    pub(super) fn write_birth(
        &mut self,
        conf: &ConfState,
        directory: Option<&Directory>,
        at: EntryPosition,
    ) -> Result<Lookup<()>, ShardError> {
        let conf_record = configuration::encode(conf);
        let directory_record = directory.map(Directory::encode);
        let mut writes = vec![system_write(CONF_KEY, Some(&conf_record))];
        writes.extend(directory_record.as_deref().map(|record| system_write(DIRECTORY_KEY, Some(record))));
        if let Lookup::Miss(misses) = self.store.write(&writes)? {
            return Ok(Lookup::Miss(misses));
        }
        self.conf = conf.clone();
        self.applied = at;
        Ok(Lookup::Ready(()))
    }
}

/// Whether a record of the system namespace is as every replica at the same index has it: those that are stored at
/// checkpoints alone are not.
pub(super) fn is_shared_record(key: &[u8]) -> bool {
    key != MARKS_KEY && !sessions::is_record(key)
}

fn system_write<'a>(key: &'a [u8], value: Option<&'a [u8]>) -> CellWrite<'a> {
    let change = match value {
        Some(value) => CellChange::Put { attributes: Attributes::SYSTEM, value },
        None => CellChange::Remove,
    };
    CellWrite { namespace: Namespace::SYSTEM, key, revision: Revision::ZERO, change }
}

/// The session whose opening is the write at a revision.
pub(super) const fn session_at(revision: Revision) -> SessionId {
    SessionId(revision)
}
