//! How a replica comes to serve: its files made, or read and brought to one index.
//!
//! Creation: the directory is emptied, the store is made and, at a birth, given its first records in a checkpoint, and
//! the log is made. Nothing of it counts until the node has noted, durably, that all its replicas are made.
//!
//! Opening: the log is recovered; a snapshot whose installation was decided in the log is put in place, any other is left
//! for the replica to go on with; the store is opened at a checkpoint no older than the log demands; its records are loaded; committed entries
//! that it lacks are applied.
//!
//! Invariants:
//! - The log decides. A staged store takes the live one's place exactly if the log says so.
//! - When a replica begins to serve, its state is that of a commit index that was durable.

use std::collections::VecDeque;
use std::sync::Arc;

use mesh_base::io::{Completion, FileId, IoOp, IoPort, IoQueue, IoToken, IoValue, Lane};
use mesh_base::prng::Prng;
use mesh_base::{LogIndex, Namespace, ReplicaIdentity, Revision, Term};
use mesh_engine::{
    CheckpointMeta, FetchId, Lookup, Opening, ScanDirection, ScanEnd, ScanRequest, ScanRest, Store,
    StoreEvent, Want,
};
use mesh_raftlog::{
    CheckpointMark, Creation, EntryPosition, FirstState, Log, Recovered, RecoveredLog, Recovery, SnapshotBase,
};
use raft::eraftpb::{ConfState, Entry, HardState};
use raft::{GetEntriesContext, Storage};

use super::configuration::conf_state;
use super::error::ShardError;
use super::options::ShardOptions;
use super::replica::newest_revision_of;
use super::state::State;
use crate::node::Directory;

/// Where the log of a newborn cluster begins: an empty replica, which is at 0, cannot be mistaken for one of it.
pub(super) const BIRTH: EntryPosition = EntryPosition { index: LogIndex(1), term: Term(1) };

/// What a new replica begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Birth {
    /// The state that all replicas of a newborn cluster share.
    WithCluster,
    /// Nothing: it will receive a snapshot.
    Empty,
}

/// A replica's files being made.
pub(super) struct Creating {
    identity: ReplicaIdentity,
    options: Arc<ShardOptions>,
    directory: Arc<Directory>,
    birth: Birth,
    prng: Prng,
    port: IoPort,
    step: CreatingStep,
}

enum CreatingStep {
    Listing(IoToken),
    Emptying { left: usize },
    EmptyDurable(IoToken),
    Store(Opening),
    Records(Box<State>),
    Log(Creation),
    Done,
}

/// Whether something under way has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    Pending,
    Done,
}

impl Creating {
    pub(super) fn start(
        identity: ReplicaIdentity,
        options: Arc<ShardOptions>,
        directory: Arc<Directory>,
        birth: Birth,
        prng: Prng,
        io: &mut IoQueue,
    ) -> Self {
        let mut port = IoPort::new(Lane::Replica);
        let step = CreatingStep::Listing(port.submit(io, IoOp::List));
        Self { identity, options, directory, birth, prng, port, step }
    }

    /// What they are made for.
    pub(super) const fn birth(&self) -> Birth {
        self.birth
    }

    pub(super) fn complete(
        &mut self,
        completion: Completion,
        io: &mut IoQueue,
    ) -> Result<Progress, ShardError> {
        match std::mem::replace(&mut self.step, CreatingStep::Done) {
            CreatingStep::Listing(token) => {
                assert_eq!(token, completion.token);
                if let IoValue::Listing(files) = completion.result? {
                    for (file, _) in &files {
                        self.port.submit(io, IoOp::Remove { file: *file });
                    }
                    self.emptied(files.len(), io);
                }
            }
            CreatingStep::Emptying { left } => {
                completion.result?;
                self.emptied(left - 1, io);
            }
            CreatingStep::EmptyDurable(token) => {
                assert_eq!(token, completion.token);
                completion.result?;
                let options = self.options.store.clone();
                self.step = CreatingStep::Store(Opening::create(FileId::Store, self.identity, options, io));
            }
            CreatingStep::Store(mut opening) => match opening.complete(completion, io)? {
                Some(opened) => self.write_records(State::new(opened.store), io)?,
                None => self.step = CreatingStep::Store(opening),
            },
            CreatingStep::Records(state) => self.records_progress(state, completion, io)?,
            CreatingStep::Log(mut creation) => {
                if creation.complete(completion, io)?.is_none() {
                    self.step = CreatingStep::Log(creation);
                }
            }
            CreatingStep::Done => {}
        }
        Ok(if matches!(self.step, CreatingStep::Done) { Progress::Done } else { Progress::Pending })
    }

    fn emptied(&mut self, left: usize, io: &mut IoQueue) {
        self.step = if left == 0 {
            CreatingStep::EmptyDurable(self.port.submit(io, IoOp::SyncDirectory))
        } else {
            CreatingStep::Emptying { left }
        };
    }

    fn write_records(&mut self, mut state: State, io: &mut IoQueue) -> Result<(), ShardError> {
        if self.birth == Birth::Empty {
            self.create_log(&state, io);
            return Ok(());
        }
        let shard = self.identity.shard;
        let voters = self.directory.replicas(shard).map(|replica| replica.0).collect();
        let membership = (shard.0 == 0).then_some(self.directory.as_ref());
        let written = state.write_birth(&conf_state(voters, Vec::new()), membership, BIRTH)?;
        assert!(matches!(written, Lookup::Ready(())), "the one page of a new store is in memory");
        state.begin_checkpoint();
        state.store.pump(io)?;
        self.step = CreatingStep::Records(Box::new(state));
        Ok(())
    }

    fn records_progress(
        &mut self,
        mut state: Box<State>,
        completion: Completion,
        io: &mut IoQueue,
    ) -> Result<(), ShardError> {
        state.store.complete(completion, io)?;
        state.store.pump(io)?;
        while let Some(event) = state.store.next_event() {
            match event {
                StoreEvent::CheckpointDone { .. } => {
                    self.create_log(&state, io);
                    return Ok(());
                }
                StoreEvent::CheckpointNoSpace { .. } => return Err(no_space().into()),
                StoreEvent::Fetched(_) | StoreEvent::Verified(_) => {}
            }
        }
        self.step = CreatingStep::Records(state);
        Ok(())
    }

    /// The log comes last: it names the checkpoint it goes on from.
    fn create_log(&mut self, state: &State, io: &mut IoQueue) {
        let mut hard_state = HardState::default();
        if self.birth == Birth::WithCluster {
            (hard_state.term, hard_state.commit) = (BIRTH.term.0, BIRTH.index.0);
        }
        let no = state.store.checkpoint().checkpoint;
        let checkpoint = CheckpointMark { no, applied: state.applied.index };
        let first = FirstState { truncated: state.applied, hard_state, checkpoint };
        let options = self.options.log.clone();
        let creation = Creation::start(self.identity, options, &first, self.prng.fork(), io);
        self.step = CreatingStep::Log(creation);
    }
}

fn no_space() -> mesh_base::io::IoError {
    mesh_base::io::IoError {
        kind: mesh_base::io::IoErrorKind::NoSpace,
        verb: "create",
        file: Some(FileId::Store),
        detail: "no disk space is left for a new replica".into(),
    }
}

/// A replica's files being read.
pub(super) struct Starting {
    identity: ReplicaIdentity,
    options: Arc<ShardOptions>,
    port: IoPort,
    step: StartingStep,
}

enum StartingStep {
    Log(Recovery),
    Listing {
        log: Box<RecoveredLog>,
        token: IoToken,
    },
    /// A staged store takes the live one's place.
    Placing {
        log: Box<RecoveredLog>,
        token: IoToken,
    },
    PlaceDurable {
        log: Box<RecoveredLog>,
        token: IoToken,
    },
    Store {
        log: Box<RecoveredLog>,
        opening: Opening,
    },
    Loading(Box<Loading>),
    Replaying(Box<Replaying>),
    Done,
}

/// A store's records on their way into memory.
pub(super) struct Loading {
    log: Option<Box<RecoveredLog>>,
    state: State,
    rest: ScanRest,
    fetches: Vec<FetchId>,
    /// The last of them, whose pages are not there yet.
    pending: Option<FetchId>,
}

struct Replaying {
    log: Box<RecoveredLog>,
    state: State,
    entries: VecDeque<Entry>,
    /// The pages of the entry that comes next.
    fetches: Vec<FetchId>,
    durable_conf: ConfState,
}

/// A replica that can begin to serve.
pub(super) struct Started {
    pub(super) log: Log,
    pub(super) state: State,
    /// The newest revision in the log or the state.
    pub(super) newest: Revision,
    /// The configuration in the newest durable checkpoint, which the entries since may have changed.
    pub(super) durable_conf: ConfState,
}

impl Starting {
    pub(super) fn start(
        identity: ReplicaIdentity,
        options: Arc<ShardOptions>,
        prng: Prng,
        io: &mut IoQueue,
    ) -> Self {
        let recovery = Recovery::start(identity, options.log.clone(), prng, io);
        Self { identity, options, port: IoPort::new(Lane::Replica), step: StartingStep::Log(recovery) }
    }

    pub(super) fn complete(
        &mut self,
        completion: Completion,
        io: &mut IoQueue,
    ) -> Result<Option<Started>, ShardError> {
        let step = std::mem::replace(&mut self.step, StartingStep::Done);
        self.step = match step {
            StartingStep::Log(mut recovery) => match recovery.complete(completion, io)? {
                None => StartingStep::Log(recovery),
                Some(Recovered::Empty) => return Err(ShardError::LostLog),
                Some(Recovered::Log(log)) => {
                    if let Some(torn) = &log.torn {
                        tracing::info!(shard = %self.identity.shard, ?torn, "cut what a crash tore");
                    }
                    if let Some(error) = &log.damage {
                        tracing::error!(shard = %self.identity.shard, %error, "old entries of the log are lost");
                    }
                    StartingStep::Listing { log, token: self.port.submit(io, IoOp::List) }
                }
            },
            StartingStep::Listing { log, token } if token == completion.token => {
                self.place_staged(log, completion, io)?
            }
            StartingStep::Placing { log, token } if token == completion.token => {
                completion.result?;
                StartingStep::PlaceDurable { log, token: self.port.submit(io, IoOp::SyncDirectory) }
            }
            StartingStep::PlaceDurable { log, token } if token == completion.token => {
                completion.result?;
                self.open_store(log, io)
            }
            StartingStep::Store { log, mut opening } if completion.token.lane == Lane::Store => {
                match opening.complete(completion, io)? {
                    None => StartingStep::Store { log, opening },
                    Some(opened) => {
                        for warning in &opened.warnings {
                            tracing::warn!(shard = %self.identity.shard, ?warning, "the store was opened");
                        }
                        let loading = Loading::new(Some(log), State::new(opened.store));
                        return self.load(Box::new(loading), io);
                    }
                }
            }
            StartingStep::Loading(mut loading) if completion.token.lane == Lane::Store => {
                loading.state.store.complete(completion, io)?;
                return self.load(loading, io);
            }
            StartingStep::Replaying(mut replaying) if completion.token.lane == Lane::Store => {
                replaying.state.store.complete(completion, io)?;
                return self.replay(replaying, io);
            }
            step => self.log_completion(step, completion, io)?,
        };
        Ok(None)
    }

    /// The log works in the background: it makes its next segment while the store is opened.
    fn log_completion(
        &self,
        mut step: StartingStep,
        completion: Completion,
        io: &mut IoQueue,
    ) -> Result<StartingStep, ShardError> {
        assert_eq!(completion.token.lane, Lane::Log, "an operation that nobody waits for");
        let log = match &mut step {
            StartingStep::Listing { log, .. }
            | StartingStep::Placing { log, .. }
            | StartingStep::PlaceDurable { log, .. }
            | StartingStep::Store { log, .. } => Some(&mut log.log),
            StartingStep::Loading(loading) => loading.log.as_mut().map(|log| &mut log.log),
            StartingStep::Replaying(replaying) => Some(&mut replaying.log.log),
            StartingStep::Log(_) | StartingStep::Done => None,
        };
        if let Some(log) = log {
            log.complete(completion, io)?;
            log.pump(io);
        }
        Ok(step)
    }

    /// Puts a staged store in place if the log decided so. Any other may be gone on with.
    fn place_staged(
        &mut self,
        log: Box<RecoveredLog>,
        completion: Completion,
        io: &mut IoQueue,
    ) -> Result<StartingStep, ShardError> {
        let IoValue::Listing(files) = completion.result? else { return Ok(self.open_store(log, io)) };
        let staged = files.iter().any(|(file, _)| *file == FileId::StagedStore);
        if !staged || log.install.is_none() {
            return Ok(self.open_store(log, io));
        }
        let op = IoOp::Rename { from: FileId::StagedStore, to: FileId::Store };
        Ok(StartingStep::Placing { log, token: self.port.submit(io, op) })
    }

    fn open_store(&self, log: Box<RecoveredLog>, io: &mut IoQueue) -> StartingStep {
        let mark = log.install.as_ref().map_or(log.least_checkpoint, install_mark);
        let options = self.options.store.clone();
        let opening = Opening::open(FileId::Store, self.identity, options, mark.no, io);
        StartingStep::Store { log, opening }
    }

    fn load(&mut self, mut loading: Box<Loading>, io: &mut IoQueue) -> Result<Option<Started>, ShardError> {
        if loading.advance(io)? == Progress::Pending {
            self.step = StartingStep::Loading(loading);
            return Ok(None);
        }
        let Loading { log, state, .. } = *loading;
        let Some(log) = log else { return Ok(None) };
        self.begin_replay(log, state, io)
    }

    fn begin_replay(
        &mut self,
        log: Box<RecoveredLog>,
        state: State,
        io: &mut IoQueue,
    ) -> Result<Option<Started>, ShardError> {
        let truncated = log.log.first_index().prev();
        if state.applied.index < truncated {
            return Err(ShardError::Gap { applied: state.applied.index.0, truncated: truncated.0 });
        }
        let commit = LogIndex(log.hard_state.commit).max(state.applied.index).min(log.log.last_index());
        let entries = entries_between(&log.log, state.applied.index, commit)?;
        let durable_conf = state.conf.clone();
        let replaying = Replaying { log, state, entries: entries.into(), fetches: Vec::new(), durable_conf };
        self.replay(Box::new(replaying), io)
    }

    /// Applies committed entries that the store lacks.
    fn replay(
        &mut self,
        mut replaying: Box<Replaying>,
        io: &mut IoQueue,
    ) -> Result<Option<Started>, ShardError> {
        let Replaying { state, entries, fetches, .. } = replaying.as_mut();
        if !fetches.is_empty() && state.store.next_event().is_none() {
            self.step = StartingStep::Replaying(replaying);
            return Ok(None);
        }
        while let Some(entry) = entries.pop_front() {
            match state.apply(&entry)? {
                Lookup::Ready(_) => fetches.drain(..).for_each(|fetch| state.store.release(fetch)),
                Lookup::Miss(misses) => {
                    entries.push_front(entry);
                    fetches.push(state.store.fetch(&misses, io));
                    // What was there already when it was asked for is announced at once.
                    if state.store.next_event().is_none() {
                        self.step = StartingStep::Replaying(replaying);
                        return Ok(None);
                    }
                }
            }
        }
        let Replaying { log, state, durable_conf, .. } = *replaying;
        let mut log = *log;
        // A snapshot that was put in place now counts as the least checkpoint, and its installation as done.
        if log.install.is_some() {
            let checkpoint = state.store.checkpoint();
            let mark = CheckpointMark { no: checkpoint.checkpoint, applied: checkpoint.applied };
            log.log.note_checkpoint(mark)?;
        }
        let rest = entries_between(&log.log, state.applied.index, log.log.last_index())?;
        let newest = rest.iter().map(newest_revision_of).fold(state.newest, Revision::max);
        Ok(Some(Started { log: log.log, state, newest, durable_conf }))
    }
}

fn install_mark(base: &SnapshotBase) -> CheckpointMark {
    CheckpointMark { no: base.checkpoint, applied: base.index }
}

/// The entries after one index up to another.
fn entries_between(log: &Log, after: LogIndex, to: LogIndex) -> Result<Vec<Entry>, ShardError> {
    if after >= to {
        return Ok(Vec::new());
    }
    Ok(log.entries(after.0 + 1, to.0 + 1, None, GetEntriesContext::empty(false))?)
}

impl Loading {
    /// The loading of a store's records, with the log that waits meanwhile if there is one.
    pub(super) const fn new(log: Option<Box<RecoveredLog>>, state: State) -> Self {
        let rest = ScanRest { start: Vec::new(), end: None };
        Self { log, state, rest, fetches: Vec::new(), pending: None }
    }

    /// The state whose records are loaded.
    pub(super) fn into_state(self) -> State {
        self.state
    }

    /// The store that is read.
    pub(super) const fn store(&mut self) -> &mut Store {
        &mut self.state.store
    }

    /// Fetches that wait for pages.
    pub(super) fn fetches_waiting(&self) -> usize {
        self.state.store.fetches_waiting()
    }

    /// Reads on as far as pages are in memory.
    pub(super) fn advance(&mut self, io: &mut IoQueue) -> Result<Progress, ShardError> {
        while !self.waits() {
            let mut records = Vec::new();
            let request = ScanRequest {
                namespace: Namespace::SYSTEM,
                start: &self.rest.start,
                end: None,
                direction: ScanDirection::Forward,
                at: Revision::MAX,
                want: Want::Value,
                items_max: usize::MAX,
                bytes_max: usize::MAX,
            };
            let outcome = self.state.store.scan(&request, |key, version| {
                records.push((key.to_vec(), version.value.to_vec()));
            })?;
            for (key, value) in records {
                self.state.load_record(&key, &value)?;
            }
            match outcome.end {
                ScanEnd::Complete => {
                    for fetch in self.fetches.drain(..) {
                        self.state.store.release(fetch);
                    }
                    return Ok(Progress::Done);
                }
                ScanEnd::Limit { rest } => self.rest = rest,
                ScanEnd::Miss { rest, misses } => {
                    self.rest = rest;
                    let fetch = self.state.store.fetch(&misses, io);
                    self.fetches.push(fetch);
                    self.pending = Some(fetch);
                }
            }
        }
        Ok(Progress::Pending)
    }

    /// Whether pages are still to come. What was there already when it was asked for is announced at once.
    fn waits(&mut self) -> bool {
        while self.pending.is_some()
            && let Some(event) = self.state.store.next_event()
        {
            self.pending = self.pending.filter(|fetch| event != StoreEvent::Fetched(*fetch));
        }
        self.pending.is_some()
    }
}

impl State {
    /// Begins a checkpoint of exactly what is applied.
    pub(super) fn begin_checkpoint(&mut self) {
        self.store.begin_checkpoint(&CheckpointMeta {
            applied: self.applied.index,
            term: self.applied.term,
            revision: self.newest,
        });
    }
}
