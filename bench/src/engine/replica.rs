//! A replica of one voter without a server around it: the real log and the real page store, driven as the shard drives them.
//!
//! A durable put is: the keys are looked up (create revision and version come from there), the entry is encoded, the log appends
//! it with the commit index of the one before, and its durability is waited for. Meanwhile the entry before it is validated and
//! applied: as in the server, a put is done when it is durable, and whatever reads afterwards waits for the apply. Checkpoints
//! begin when they are due by the server's rules, and are written while puts wait for the log; the log then lets old segments
//! go.
//!
//! Not included: the network, raft's own bookkeeping, sessions, watches. Versions are not kept: the horizon follows every put,
//! because the systems beside it keep none.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mesh_base::io::{Completion, FileId, IoQueue, Lane};
use mesh_base::limits::{self, TICK};
use mesh_base::prng::Prng;
use mesh_base::{
    BatchSeq, ClusterId, LogIndex, Namespace, ReplicaId, ReplicaIdentity, Revision, ShardId, Term,
};
use mesh_engine::effect::{Effect, EntryBuilder, EntryHead, EntryView};
use mesh_engine::{
    Attributes, CellWrite, CheckpointMeta, CheckpointPace, FetchId, KeyAt, Lookup, Misses, Opening,
    ScanDirection, ScanEnd, ScanRequest, Store, StoreError, StoreEvent, StoreOptions, Unsaved, Upkeep, Want,
};
use mesh_raftlog::{CheckpointMark, Creation, FirstState, Log, LogOptions, Recovered, Recovery};
use raft::eraftpb::{Entry, HardState};

use super::data::{Key, Put, VALUE_BYTES};
use super::files::{Disk, Written, space_of};
use super::system::{InFlight, Run, System, failed, look_at, not_found};

/// Of the system in errors; a replica's own name says its page size where several are measured.
const NAME: &str = "Mesh";
const TERM: Term = Term(1);
const VOTER: u64 = 1;
/// The revisions of a replica begin above those of its system's namespace.
const FIRST_REVISION: u64 = 1;

/// The sizes of a replica.
#[derive(Clone, Debug)]
pub(super) struct ReplicaOptions {
    /// Its name in the table.
    pub(super) name: &'static str,
    pub(super) store: StoreOptions,
    pub(super) log: LogOptions,
    pub(super) pace: CheckpointPace,
}

impl ReplicaOptions {
    /// A replica with this store, and checkpoints as a server with as large a cache takes them.
    pub(super) fn with_cache(name: &'static str, store: StoreOptions) -> Self {
        let pace = CheckpointPace {
            at_bytes: store.frame_bytes_max as u64 / 2,
            at_log_bytes: limits::LOG_REPLAY_BYTES_MAX / 2,
            period: Duration::from_secs(30),
            bytes_per_second_min: limits::CHECKPOINT_BYTES_PER_SECOND_MIN,
        };
        Self { name, store, log: LogOptions::default(), pace }
    }
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self::with_cache(NAME, StoreOptions::default())
    }
}

/// How long the parts of an opening took.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct OpenTime {
    pub(super) log: Duration,
    pub(super) store: Duration,
}

/// An entry that was not applied yet.
#[derive(Default)]
struct Pending {
    entry: bytes::Bytes,
    /// What its keys will be.
    keys: HashMap<Key, Attributes>,
}

/// One replica in its directory.
pub(super) struct Replica {
    name: &'static str,
    directory: PathBuf,
    disk: Disk,
    io: IoQueue,
    store: Store,
    log: Log,
    pace: CheckpointPace,
    builder: EntryBuilder,
    last: LogIndex,
    applied: LogIndex,
    /// The entry after the last one applied, if there is one: it is durable.
    pending: Option<Pending>,
    revision: Revision,
    begun: Instant,
    /// Bytes of log since the checkpoint before, and of entries in memory, when the last one began.
    log_bytes: u64,
    entry_bytes: usize,
    upkeep: Upkeep,
    ticked: Instant,
    fetched: Vec<FetchId>,
    checkpoints: u64,
}

impl Replica {
    /// Makes a new, empty replica in an empty directory.
    ///
    /// # Errors
    /// What failed.
    pub(super) fn create(directory: &Path, options: &ReplicaOptions) -> Run<Self> {
        let mut disk = Disk::new(directory).map_err(failed(NAME))?;
        let mut io = IoQueue::new();
        let mut opening = Opening::create(FileId::Store, identity(), options.store.clone(), &mut io);
        let store = loop {
            let completion = next(&mut disk, &mut io)?;
            if let Some(opened) = opening.complete(completion, &mut io).map_err(failed(NAME))? {
                break opened.store;
            }
        };
        let first = FirstState {
            hard_state: HardState { term: TERM.0, vote: VOTER, commit: 0, ..HardState::default() },
            ..FirstState::default()
        };
        let log_options = options.log.clone();
        let mut creation = Creation::start(identity(), log_options, &first, Prng::new(1), &mut io);
        let log = loop {
            let completion = next(&mut disk, &mut io)?;
            if let Some(log) = creation.complete(completion, &mut io).map_err(failed(NAME))? {
                break log;
            }
        };
        Ok(Self::of(directory, disk, io, store, log, options))
    }

    /// Opens a replica that was stopped: recovers the log, then opens the page store.
    ///
    /// # Errors
    /// What failed; entries that are not in the page store are a failure, as [`Replica::stop`] leaves none.
    pub(super) fn open(directory: &Path, options: &ReplicaOptions) -> Run<(Self, OpenTime)> {
        let mut disk = Disk::new(directory).map_err(failed(NAME))?;
        let mut io = IoQueue::new();
        let start = Instant::now();
        let mut recovery = Recovery::start(identity(), options.log.clone(), Prng::new(1), &mut io);
        let recovered = loop {
            let completion = next(&mut disk, &mut io)?;
            match recovery.complete(completion, &mut io).map_err(failed(NAME))? {
                Some(Recovered::Log(recovered)) => break recovered,
                Some(Recovered::Empty) => return Err(failed(NAME)("there is no log")),
                None => {}
            }
        };
        let log_time = start.elapsed();
        let least = recovered.least_checkpoint.no;
        let mut opening = Opening::open(FileId::Store, identity(), options.store.clone(), least, &mut io);
        let store = loop {
            let completion = next(&mut disk, &mut io)?;
            if let Some(opened) = opening.complete(completion, &mut io).map_err(failed(NAME))? {
                break opened.store;
            }
        };
        let time = OpenTime { log: log_time, store: start.elapsed().saturating_sub(log_time) };
        let last = recovered.log.durable_last().index;
        if store.checkpoint().applied != last {
            return Err(failed(NAME)("the log has entries to replay"));
        }
        Ok((Self::of(directory, disk, io, store, recovered.log, options), time))
    }

    fn of(
        directory: &Path,
        disk: Disk,
        io: IoQueue,
        store: Store,
        log: Log,
        options: &ReplicaOptions,
    ) -> Self {
        Self {
            last: log.durable_last().index,
            applied: store.checkpoint().applied,
            pending: None,
            revision: Revision(store.newest_revision().get().max(FIRST_REVISION)),
            name: options.name,
            directory: directory.to_path_buf(),
            disk,
            io,
            store,
            log,
            pace: options.pace,
            builder: EntryBuilder::new(),
            begun: Instant::now(),
            log_bytes: 0,
            entry_bytes: 0,
            upkeep: Upkeep::default(),
            ticked: Instant::now(),
            fetched: Vec::new(),
            checkpoints: 0,
        }
    }

    /// A checkpoint of everything, noted durably in the log, which is closed, and nothing left in flight.
    ///
    /// # Errors
    /// What failed.
    pub(super) fn stop(mut self) -> Run<()> {
        self.apply_pending()?;
        self.commit_last()?;
        self.checkpoint()?;
        self.close()
    }

    /// Stops a replica in which nothing was changed since it was opened.
    ///
    /// # Errors
    /// What failed.
    pub(super) fn close(mut self) -> Run<()> {
        self.log.close(&mut self.io);
        self.settle()
    }

    /// Takes a checkpoint of the present state and waits for it.
    ///
    /// # Errors
    /// What failed.
    pub(super) fn checkpoint(&mut self) -> Run<()> {
        self.store.set_checkpoint_due(u64::MAX);
        while self.store.is_busy() {
            self.turn()?;
        }
        self.begin_checkpoint();
        while self.store.is_busy() || !self.log.is_all_durable() {
            self.turn()?;
        }
        Ok(())
    }

    /// Checkpoints that became durable since the replica was opened.
    pub(super) const fn checkpoints(&self) -> u64 {
        self.checkpoints
    }

    /// What checkpoints wrote.
    pub(super) const fn written(&self) -> Written {
        self.disk.written()
    }

    /// Encodes an entry and hands it to the log; answers it and the batch it is in.
    fn append(&mut self, puts: &[Put<'_>]) -> Run<(Pending, BatchSeq)> {
        let mut keys = HashMap::with_capacity(puts.len());
        if puts.len() > 1 {
            self.store.warm(Namespace::USER, puts.iter().map(|put| put.key.as_slice()));
        }
        for put in puts {
            self.revision = Revision(self.revision.get() + 1);
            let revision = self.revision;
            let before = self.attributes_before(&put.key, &keys)?;
            let attributes = before.map_or(Attributes::created(revision), |before| Attributes {
                version: before.version + 1,
                ..before
            });
            keys.insert(put.key, attributes);
            self.builder.push(&Effect::Put {
                namespace: Namespace::USER,
                key: &put.key,
                revision,
                attributes,
                value: put.value,
            });
        }
        self.builder.push(&Effect::Horizon { revision: self.revision });
        let entry = self.builder.finish(EntryHead { revision_high: self.revision, wall_ms: 0 });
        let pending = Pending { entry: entry.clone(), keys };
        let before = self.last;
        self.last = before.next();
        let entry = Entry { index: self.last.0, term: TERM.0, data: entry, ..Entry::default() };
        let batch = self.log.append(vec![entry], Some(&ballot(before))).map_err(failed(NAME))?;
        Ok((pending, batch))
    }

    /// What a key is when everything before an entry is applied, and the writes that the entry has already.
    fn attributes_before(&mut self, key: &Key, entry: &HashMap<Key, Attributes>) -> Run<Option<Attributes>> {
        let pending = self.pending.as_ref().and_then(|pending| pending.keys.get(key));
        if let Some(known) = entry.get(key).or(pending) {
            return Ok(Some(*known));
        }
        self.until_ready(|store| {
            let head = store.get(Namespace::USER, key, Revision(u64::MAX), Want::Head)?;
            Ok(head.map(|found| found.live().map(|version| version.attributes)))
        })
    }

    /// Has the kernel write what the log was given.
    fn begin_writing(&mut self) -> Run<()> {
        self.log.pump(&mut self.io);
        self.disk.submit(&mut self.io);
        self.disk.flush().map_err(failed(NAME))
    }

    fn until_durable(&mut self, batch: BatchSeq) -> Run<()> {
        // As in a turn of the server, what runs in the background goes on while the log is being written.
        self.background()?;
        while !self.log.durable().covers(batch) {
            self.turn()?;
        }
        Ok(())
    }

    /// Applies the entry that waits for it, if there is one.
    fn apply_pending(&mut self) -> Run<()> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        let view = EntryView::read(&pending.entry).map_err(failed(NAME))?;
        let writes: Vec<CellWrite<'_>> = view.cell_writes().collect();
        self.until_ready(|store| store.write(&writes))?;
        for effect in view.effects() {
            if let Effect::Horizon { revision } = effect {
                self.store.set_horizon(revision);
            }
        }
        self.applied = self.applied.next();
        Ok(())
    }

    /// Begins a checkpoint if one is due and the log durably knows that everything applied is committed.
    fn begin_checkpoint_if_due(&mut self) {
        let due = self.pace.is_due(&Unsaved {
            bytes: (self.store.dirty_bytes() + self.log.memory_bytes()) as u64,
            log_bytes: self.log.bytes_since_checkpoint(),
            age: self.begun.elapsed(),
        });
        let is_new = self.applied > self.store.checkpoint().applied;
        // Upkeep changes pages although nothing is applied.
        let has_much = self.store.dirty_bytes() as u64 >= self.pace.at_bytes;
        let due = due && (is_new || has_much) || self.upkeep.wants_checkpoint(&self.store);
        if due && !self.store.is_busy() && self.log.durable_commit() >= self.applied {
            self.begin_checkpoint();
        }
    }

    /// Lets a running checkpoint go on as far as a server would.
    fn pace_checkpoint(&mut self) {
        let Some(progress) = self.store.checkpoint_progress() else { return };
        let since = Unsaved {
            bytes: progress.fresh_bytes + self.log.entry_bytes().saturating_sub(self.entry_bytes) as u64,
            log_bytes: self.log.bytes_since_checkpoint().saturating_sub(self.log_bytes),
            age: self.begun.elapsed(),
        };
        self.store.set_checkpoint_due(self.pace.due_bytes(progress.total_bytes, &since));
    }

    /// Goes on with what runs, and takes what has ended, without waiting.
    fn background(&mut self) -> Run<()> {
        if self.store.is_busy() {
            self.pace_checkpoint();
            self.store.pump(&mut self.io).map_err(failed(NAME))?;
        }
        self.disk.submit(&mut self.io);
        while let Some(completion) = self.disk.poll().map_err(failed(NAME))? {
            self.take(completion)?;
        }
        Ok(())
    }

    /// Makes the commit index of the last entry durable, as a checkpoint asks for.
    fn commit_last(&mut self) -> Run<()> {
        let batch = self.log.append(Vec::new(), Some(&ballot(self.last))).map_err(failed(NAME))?;
        self.begin_writing()?;
        self.until_durable(batch)
    }

    fn begin_checkpoint(&mut self) {
        self.begun = Instant::now();
        self.log_bytes = self.log.bytes_since_checkpoint();
        self.entry_bytes = self.log.entry_bytes();
        self.store.begin_checkpoint(&CheckpointMeta {
            applied: self.applied,
            term: TERM,
            revision: self.store.newest_revision(),
        });
    }

    /// Waits for one completion and takes it.
    fn turn(&mut self) -> Run<()> {
        self.log.pump(&mut self.io);
        self.store.pump(&mut self.io).map_err(failed(NAME))?;
        let completion = next(&mut self.disk, &mut self.io)?;
        self.take(completion)
    }

    fn take(&mut self, completion: Completion) -> Run<()> {
        if completion.token.lane == Lane::Log {
            self.log.complete(completion, &mut self.io).map_err(failed(NAME))?;
        } else {
            self.store.complete(completion, &mut self.io).map_err(failed(NAME))?;
            self.store.pump(&mut self.io).map_err(failed(NAME))?;
            self.take_events()?;
        }
        self.disk.submit(&mut self.io);
        Ok(())
    }

    fn take_events(&mut self) -> Run<()> {
        while let Some(event) = self.store.next_event() {
            match event {
                StoreEvent::Fetched(id) => self.fetched.push(id),
                StoreEvent::CheckpointDone { checkpoint, applied } => {
                    self.checkpoints += 1;
                    let mark = CheckpointMark { no: checkpoint, applied };
                    self.log.note_checkpoint(mark).map_err(failed(NAME))?;
                    self.log.pump(&mut self.io);
                }
                StoreEvent::CheckpointNoSpace { .. } => return Err(failed(NAME)("the disk is full")),
                StoreEvent::Verified(_) => {}
            }
        }
        Ok(())
    }

    /// Waits until nothing is in flight.
    fn settle(&mut self) -> Run<()> {
        self.log.pump(&mut self.io);
        self.disk.submit(&mut self.io);
        while let Some(completion) = self.disk.wait().map_err(failed(NAME))? {
            self.take(completion)?;
            self.log.pump(&mut self.io);
            self.disk.submit(&mut self.io);
        }
        Ok(())
    }

    /// Does an operation again and again, with what it misses fetched, until it has all it needs.
    fn until_ready<T>(
        &mut self,
        mut operation: impl FnMut(&mut Store) -> Result<Lookup<T>, StoreError>,
    ) -> Run<T> {
        let mut fetches = Vec::new();
        let answer = loop {
            match operation(&mut self.store).map_err(failed(NAME))? {
                Lookup::Ready(answer) => break answer,
                Lookup::Miss(misses) => fetches.push(self.fetch(&misses)?),
            }
        };
        fetches.into_iter().for_each(|id| self.store.release(id));
        Ok(answer)
    }

    fn fetch(&mut self, misses: &Misses) -> Run<FetchId> {
        let id = self.store.fetch(misses, &mut self.io);
        self.take_events()?;
        while !self.fetched.contains(&id) {
            self.turn()?;
        }
        self.fetched.retain(|fetched| *fetched != id);
        Ok(id)
    }

    /// A tick's worth of upkeep, if it is time for it.
    fn tidy_up(&mut self) -> Run<()> {
        if self.ticked.elapsed() < TICK {
            return Ok(());
        }
        self.ticked = Instant::now();
        let mut upkeep = std::mem::take(&mut self.upkeep);
        upkeep.tick(&self.store, 0);
        let done = self.until_ready(|store| upkeep.step(store));
        self.upkeep = upkeep;
        done
    }

    fn scan(&mut self, start: &Key, count: usize) -> Run<usize> {
        let request = ScanRequest {
            namespace: Namespace::USER,
            start,
            end: None,
            direction: ScanDirection::Forward,
            at: self.revision,
            want: Want::Value,
            items_max: count,
            bytes_max: usize::MAX,
        };
        let mut seen = 0;
        let mut outcome = self.scan_once(&request, &mut seen)?;
        let mut fetches = Vec::new();
        // A call visits a bounded number of cells: a long scan takes several.
        loop {
            let rest = match outcome {
                ScanEnd::Miss { rest, misses } => {
                    fetches.push(self.fetch(&misses)?);
                    rest
                }
                ScanEnd::Limit { rest } if seen < count => rest,
                ScanEnd::Limit { .. } | ScanEnd::Complete => break,
            };
            let request = ScanRequest { items_max: count - seen, ..rest.request(&request) };
            outcome = self.scan_once(&request, &mut seen)?;
        }
        fetches.into_iter().for_each(|id| self.store.release(id));
        Ok(seen)
    }

    fn scan_once(&self, request: &ScanRequest<'_>, seen: &mut usize) -> Run<ScanEnd> {
        let outcome = self.store.scan(request, |_, version| {
            version.value.as_slice().map(look_at);
        });
        let outcome = outcome.map_err(failed(NAME))?;
        *seen += outcome.items;
        Ok(outcome.end)
    }

    /// Looks a key up; the pages to fetch first, if there are any.
    fn try_get(&self, key: &Key) -> Run<Option<Misses>> {
        match self.store.get(Namespace::USER, key, self.revision, Want::Value).map_err(failed(NAME))? {
            Lookup::Ready(KeyAt::Live(version)) => match version.value.as_slice() {
                Some(value) if value.len() == VALUE_BYTES => {
                    look_at(value);
                    Ok(None)
                }
                _ => Err(failed(NAME)("a value has another length")),
            },
            Lookup::Ready(_) => Err(not_found(NAME)),
            Lookup::Miss(misses) => Ok(Some(misses)),
        }
    }
}

/// A read that waits for pages.
struct Waiting<'a> {
    key: &'a Key,
    fetches: Vec<FetchId>,
}

impl System for Replica {
    fn name(&self) -> &'static str {
        self.name
    }

    fn gets(&mut self, keys: &[Key]) -> Run<()> {
        self.apply_pending()?;
        for key in keys {
            let mut fetches = Vec::new();
            while let Some(misses) = self.try_get(key)? {
                fetches.push(self.fetch(&misses)?);
            }
            fetches.into_iter().for_each(|id| self.store.release(id));
        }
        Ok(())
    }

    fn ranges(&mut self, starts: &[Key], count: usize) -> Run<()> {
        self.apply_pending()?;
        for start in starts {
            if self.scan(start, count)? != count {
                return Err(not_found(NAME));
            }
        }
        Ok(())
    }

    fn put(&mut self, puts: &[Put<'_>]) -> Run<()> {
        let (pending, batch) = self.append(puts)?;
        self.begin_writing()?;
        self.apply_pending()?;
        self.until_durable(batch)?;
        self.pending = Some(pending);
        // The commit index of the entry before, which is the last one applied, came with this one.
        self.begin_checkpoint_if_due();
        self.tidy_up()
    }

    fn tidy(&mut self) -> Run<()> {
        self.apply_pending()?;
        self.commit_last()?;
        self.checkpoint()
    }

    fn quiet(&mut self, time: Duration) -> Run<()> {
        let until = Instant::now() + time;
        self.apply_pending()?;
        self.commit_last()?;
        self.log.idle(&mut self.io);
        while Instant::now() < until {
            self.tidy_up()?;
            self.begin_checkpoint_if_due();
            self.background()?;
            std::thread::sleep(TICK.min(until.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn disk_bytes(&self) -> Run<u64> {
        let file = self.directory.join(FileId::Store.name());
        space_of(&file).map_err(failed(NAME))
    }
}

impl InFlight for Replica {
    fn gets_in_flight(&mut self, keys: &[Key], in_flight: usize) -> Run<()> {
        self.apply_pending()?;
        let mut waiting: Vec<Waiting<'_>> = Vec::with_capacity(in_flight);
        let mut keys = keys.iter();
        loop {
            while waiting.len() < in_flight {
                let Some(key) = keys.next() else { break };
                if let Some(misses) = self.try_get(key)? {
                    let fetch = self.store.fetch(&misses, &mut self.io);
                    waiting.push(Waiting { key, fetches: vec![fetch] });
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            self.take_events()?;
            if self.fetched.is_empty() {
                // The device has the next read before what another one brought is looked at.
                self.disk.submit(&mut self.io);
                self.disk.flush().map_err(failed(NAME))?;
                let ended = next(&mut self.disk, &mut self.io)?;
                self.take(ended)?;
            }
            for id in std::mem::take(&mut self.fetched) {
                let Some(at) = waiting.iter().position(|read| read.fetches.last() == Some(&id)) else {
                    continue;
                };
                let mut read = waiting.swap_remove(at);
                if let Some(misses) = self.try_get(read.key)? {
                    read.fetches.push(self.store.fetch(&misses, &mut self.io));
                    waiting.push(read);
                } else {
                    read.fetches.into_iter().for_each(|id| self.store.release(id));
                }
            }
        }
    }
}

/// The next completion of something that is in flight.
fn next(disk: &mut Disk, io: &mut IoQueue) -> Run<Completion> {
    disk.submit(io);
    disk.wait()
        .map_err(failed(NAME))?
        .ok_or_else(|| failed(NAME)("nothing is in flight, and something is waited for"))
}

fn ballot(commit: LogIndex) -> HardState {
    HardState { term: TERM.0, vote: VOTER, commit: commit.0, ..HardState::default() }
}

const fn identity() -> ReplicaIdentity {
    ReplicaIdentity { cluster: ClusterId([1; 16]), shard: ShardId(0), replica: ReplicaId(VOTER) }
}
