//! A page store and a log in memory alone, for what is counted in instructions and nanoseconds: nothing is ever evicted or
//! recovered, so what they write is forgotten.
//!
//! Also a part of the micro-benchmarks, which include this file by its path.

use std::collections::VecDeque;

use bytes::Bytes;
use mesh_base::io::{Completion, FileId, IoOp, IoQueue, IoValue, Submission};

use mesh_base::prng::Prng;
use mesh_base::{
    ClusterId, LogIndex, Namespace, ReplicaId, ReplicaIdentity, Revision, ShardId, Term, limits,
};
use mesh_engine::effect::{Effect, EntryBuilder, EntryHead, EntryView};
use mesh_engine::{
    Attributes, CellWrite, CheckpointMeta, KeyAt, Opening, ScanDirection, ScanRequest, Store, StoreError,
    StoreOptions, Want,
};
use mesh_raftlog::{Creation, FirstState, Log, LogError, LogOptions};
use raft::eraftpb::{Entry, HardState};

/// Memory for pages: more than any count or micro-benchmark fills.
const CACHE_BYTES: usize = 1 << 30;
/// Keys of an entry while a store is filled.
const LOAD_BATCH: usize = 256;

/// What a store with pages of this size can be: in small pages keys must be short.
pub(super) fn options_of(page_bytes: usize) -> StoreOptions {
    let key_bytes_max = limits::KEY_BYTES_MAX.min(page_bytes / 4);
    StoreOptions { page_bytes, key_bytes_max, ..StoreOptions::default() }
}

/// A store whose pages are all in memory.
pub(super) struct ResidentStore {
    store: Store,
    io: IoQueue,
    disk: Nowhere,
    builder: EntryBuilder,
    revision: Revision,
    applied: LogIndex,
}

impl ResidentStore {
    /// A store with these keys, each with this value, all of it in a checkpoint.
    ///
    /// # Errors
    /// The store's; it has no reason for one.
    pub(super) fn load(page_bytes: usize, keys: &[[u8; 16]], value: &[u8]) -> Result<Self, StoreError> {
        let options = StoreOptions { frame_bytes_max: CACHE_BYTES, ..options_of(page_bytes) };
        let (mut io, mut disk) = (IoQueue::new(), Nowhere::default());
        let mut opening = Opening::create(FileId::Store, identity(), options, &mut io);
        let mut opened = None;
        while let Some(completion) = disk.perform(&mut io) {
            opened = opening.complete(completion, &mut io)?.or(opened);
        }
        let store = opened.map(|opened| opened.store).ok_or(StoreError::Missing { file: FileId::Store })?;
        let (revision, applied) = (Revision(1), LogIndex(0));
        let mut this = Self { store, io, disk, builder: EntryBuilder::new(), revision, applied };
        for keys in keys.chunks(LOAD_BATCH) {
            let entry = this.entry(keys, value);
            this.apply(&entry)?;
        }
        this.checkpoint()?;
        Ok(this)
    }

    /// An entry that puts the keys.
    pub(super) fn entry(&mut self, keys: &[[u8; 16]], value: &[u8]) -> Bytes {
        for key in keys {
            self.revision = Revision(self.revision.get() + 1);
            self.builder.push(&Effect::Put {
                namespace: Namespace::USER,
                key,
                revision: self.revision,
                attributes: Attributes::created(self.revision),
                value,
            });
        }
        self.builder.push(&Effect::Horizon { revision: self.revision });
        self.builder.finish(EntryHead { revision_high: self.revision, wall_ms: 0 })
    }

    /// Validates an entry and applies it.
    ///
    /// # Errors
    /// As of [`ResidentStore::load`].
    pub(super) fn apply(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        let view = EntryView::read(entry)?;
        let writes: Vec<CellWrite<'_>> = view.cell_writes().collect();
        let written = self.store.write(&writes)?.ready();
        assert!(written.is_some(), "every page is resident");
        self.store.set_horizon(view.head().revision_high);
        self.applied = self.applied.next();
        Ok(())
    }

    /// Bytes of the key's value; nothing if the key is not there.
    ///
    /// # Errors
    /// As of [`ResidentStore::load`].
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<usize>, StoreError> {
        let found = self.store.get(Namespace::USER, key, self.revision, Want::Value)?.ready();
        Ok(found.and_then(KeyAt::live).map(|version| version.value.len()))
    }

    /// Reads so many keys and values from a key on; answers how many there were.
    ///
    /// # Errors
    /// As of [`ResidentStore::load`].
    pub(super) fn range(&self, start: &[u8], count: usize) -> Result<usize, StoreError> {
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
        let mut bytes = 0;
        let outcome = self.store.scan(&request, |_, version| bytes += version.value.len())?;
        std::hint::black_box(bytes);
        Ok(outcome.items)
    }

    /// Takes a checkpoint, so that the next changes copy their pages.
    ///
    /// # Errors
    /// As of [`ResidentStore::load`].
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        let meta = CheckpointMeta { applied: self.applied, term: Term(1), revision: self.revision };
        self.store.begin_checkpoint(&meta);
        self.store.pump(&mut self.io)?;
        while let Some(completion) = self.disk.perform(&mut self.io) {
            self.store.complete(completion, &mut self.io)?;
            self.store.pump(&mut self.io)?;
        }
        while self.store.next_event().is_some() {}
        Ok(())
    }
}

/// A log whose appends are durable at once.
pub(super) struct ResidentLog {
    log: Log,
    io: IoQueue,
    disk: Nowhere,
    last: LogIndex,
}

impl ResidentLog {
    /// An empty log.
    ///
    /// # Errors
    /// The log's; it has no reason for one.
    pub(super) fn new() -> Result<Self, LogError> {
        let (mut io, mut disk) = (IoQueue::new(), Nowhere::default());
        let hard_state = HardState { term: 1, ..HardState::default() };
        let first = FirstState { hard_state, ..FirstState::default() };
        let options = LogOptions { retained_bytes: 0, ..LogOptions::default() };
        let mut creation = Creation::start(identity(), options, &first, Prng::new(1), &mut io);
        let mut log = None;
        while let Some(completion) = disk.perform(&mut io) {
            log = creation.complete(completion, &mut io)?.or(log);
        }
        let log = log.ok_or_else(|| LogError::Poisoned { cause: "not created".into() })?;
        Ok(Self { log, io, disk, last: LogIndex(0) })
    }

    /// Appends an entry: its batch is encoded, submitted and durable when this returns.
    ///
    /// # Errors
    /// As of [`ResidentLog::new`].
    pub(super) fn append(&mut self, data: Bytes) -> Result<(), LogError> {
        self.last = self.last.next();
        let entry = Entry { index: self.last.0, term: 1, data, ..Entry::default() };
        self.log.append(vec![entry], None)?;
        self.log.pump(&mut self.io);
        while let Some(completion) = self.disk.perform(&mut self.io) {
            self.log.complete(completion, &mut self.io)?;
        }
        assert_eq!(self.log.durable_last().index, self.last);
        Ok(())
    }
}

/// Where operations are done by saying so.
#[derive(Default)]
struct Nowhere {
    waiting: VecDeque<Submission>,
}

impl Nowhere {
    /// The end of the next operation, if there is one.
    fn perform(&mut self, io: &mut IoQueue) -> Option<Completion> {
        self.waiting.extend(io.drain());
        self.waiting.pop_front().map(said)
    }
}

fn said(Submission { token, op }: Submission) -> Completion {
    let value = match op {
        IoOp::List => IoValue::Listing(Vec::new()),
        IoOp::Read { length, .. } => IoValue::Read(Bytes::from(vec![0; length])),
        _ => IoValue::Done,
    };
    Completion { token, result: Ok(value) }
}

const fn identity() -> ReplicaIdentity {
    ReplicaIdentity { cluster: ClusterId([1; 16]), shard: ShardId(0), replica: ReplicaId(1) }
}
