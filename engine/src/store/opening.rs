//! Opening and making a store, driven by completions like everything else.
//!
//! Opening reads the four superblock copies, takes the newest, writes that one again, syncs the file, and reads the
//! allocator's pages. It does not walk the tree. What was read may be in a volatile cache alone, and a superblock that
//! was written just before a kill must not vanish in a power loss after pages that only older ones need were reused. The
//! sync alone would not do: what an earlier sync failed to save no later one is sure to save. Everything else that the
//! superblock leads to was durable before it was written. Then the file is cut off behind the checkpoint's last page: what a
//! crash left there is space that nobody would give back.
//!
//! Making a store writes checkpoint 1, empty. A crash before that is durable leaves a file that does not open.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mesh_base::buffers::Buffers;
use mesh_base::io::{
    Completion, FileId, IoError, IoErrorKind, IoOp, IoPort, IoQueue, IoToken, IoValue, page_offset,
};
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{CheckpointNo, LogIndex, PageNo, ReplicaIdentity, Revision, Term};

use super::checkpoint::{WRITE_BUFFERS_MAX, WRITE_BYTES_MAX};
use super::fetch::{Fetches, read_op};
use super::pins::Pins;
use super::shrink::Shrinking;
use super::snapshot::Ingest;
use super::{CheckpointMeta, Store, StoreEvent, lane_of};
use crate::allocator::{Allocator, AllocatorRoot, index_pages};
use crate::error::StoreError;
use crate::options::{PAGE_BYTES_MAX, StoreOptions};
use crate::page::{Expected, PageKind, check};
use crate::pointer::PagePointer;
use crate::superblock::{self, COPIES, COPY_BYTES, Copy, REGION_BYTES, Root, Shape, Superblock};
use crate::tree::Tree;

/// Reads in flight while a store is opened.
const READS_IN_FLIGHT_MAX: usize = 32;

/// A store that was opened.
pub struct Opened {
    /// It.
    pub store: Store,
    /// What was found damaged and was not needed.
    pub warnings: Vec<OpenWarning>,
}

/// Damage that was found while opening and did not matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenWarning {
    /// A superblock copy is damaged; a newer one is whole. A crash during a checkpoint leaves this behind.
    SuperblockCopy {
        /// The file.
        file: FileId,
        /// Where the copy begins, in bytes.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A store being opened or made.
pub struct Opening {
    file: FileId,
    identity: ReplicaIdentity,
    options: StoreOptions,
    least: CheckpointNo,
    port: IoPort,
    /// Operations of its own that have not ended.
    in_flight: usize,
    stage: Stage,
}

enum Stage {
    Copies { reads: BTreeMap<u64, usize>, copies: Vec<Option<(Copy, Bytes)>> },
    Rewriting { superblock: Box<Superblock>, warnings: Vec<OpenWarning> },
    Syncing { superblock: Box<Superblock>, warnings: Vec<OpenWarning> },
    Trimming { superblock: Box<Superblock>, warnings: Vec<OpenWarning> },
    Loading(Box<Loading>),
    Removing,
    Creating,
    NamingDurable,
    FirstCheckpoint(Box<Store>),
    Done,
}

struct Loading {
    superblock: Superblock,
    warnings: Vec<OpenWarning>,
    allocator: Allocator,
    queue: VecDeque<Load>,
    reads: BTreeMap<u64, Load>,
}

/// A page of the allocator to read.
#[derive(Clone, Copy)]
enum Load {
    Index(usize, PagePointer),
    Bitmap(usize, PagePointer),
}

impl Load {
    const fn pointer(&self) -> (PagePointer, Expected) {
        match self {
            Self::Index(_, pointer) => (*pointer, Expected::Allocator(PageKind::BitmapIndex)),
            Self::Bitmap(_, pointer) => (*pointer, Expected::Allocator(PageKind::Bitmap)),
        }
    }
}

impl Opening {
    /// Begins to open a store.
    ///
    /// `least` is a checkpoint that is known to have been durable, or 0: an older one is refused.
    pub fn open(
        file: FileId,
        identity: ReplicaIdentity,
        options: StoreOptions,
        least: CheckpointNo,
        io: &mut IoQueue,
    ) -> Self {
        options.check();
        let mut port = IoPort::new(lane_of(file));
        let mut reads = BTreeMap::new();
        for index in 0..COPIES {
            let offset = (index * PAGE_BYTES_MAX) as u64;
            let token = port.submit(io, IoOp::Read { file, offset, length: COPY_BYTES });
            reads.insert(token.number, index);
        }
        let stage = Stage::Copies { reads, copies: vec![None; COPIES] };
        Self { file, identity, options, least, port, in_flight: COPIES, stage }
    }

    /// Begins to make an empty store. A staged store left over by an earlier attempt is removed; a live one is not
    /// replaced, and then this fails with [`IoErrorKind::Exists`].
    pub fn create(file: FileId, identity: ReplicaIdentity, options: StoreOptions, io: &mut IoQueue) -> Self {
        options.check();
        let mut port = IoPort::new(lane_of(file));
        let stage = if file == FileId::StagedStore {
            port.submit(io, IoOp::Remove { file });
            Stage::Removing
        } else {
            port.submit(io, IoOp::Create { file });
            Stage::Creating
        };
        Self { file, identity, options, least: CheckpointNo(0), port, in_flight: 1, stage }
    }

    /// Takes a completion; the store, once it is ready.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Corrupt`], [`StoreError::Stale`], [`StoreError::WrongIdentity`],
    /// [`StoreError::NewerFormat`], [`StoreError::Size`] and [`StoreError::Io`]. It is of no use afterwards.
    pub fn complete(
        &mut self,
        completion: Completion,
        io: &mut IoQueue,
    ) -> Result<Option<Opened>, StoreError> {
        let Completion { token, result } = completion;
        assert_eq!(token.lane, lane_of(self.file), "completion of another lane");
        self.in_flight = self.in_flight.saturating_sub(1);
        match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Copies { reads, copies } => self.copy_read(token, result, reads, copies, io),
            Stage::Rewriting { superblock, warnings } => {
                let sync = IoOp::Sync { file: self.file };
                self.next(result, sync, Stage::Syncing { superblock, warnings }, io)
            }
            Stage::Syncing { superblock, warnings } => {
                let length = page_offset(PageNo(superblock.file_pages), self.options.page_bytes);
                let cut = IoOp::Truncate { file: self.file, length };
                self.next(result, cut, Stage::Trimming { superblock, warnings }, io)
            }
            Stage::Trimming { superblock, warnings } => {
                result?;
                self.load(*superblock, warnings, io)
            }
            Stage::Loading(loading) => self.page_loaded(token, result, loading, io),
            Stage::Removing => self.next(result, IoOp::Create { file: self.file }, Stage::Creating, io),
            Stage::Creating => self.next(result, IoOp::SyncDirectory, Stage::NamingDurable, io),
            Stage::NamingDurable => {
                result?;
                let mut store = self.empty_store();
                store.begin_checkpoint(&CheckpointMeta::default());
                store.pump(io)?;
                self.stage = Stage::FirstCheckpoint(Box::new(store));
                Ok(None)
            }
            Stage::FirstCheckpoint(mut store) => {
                store.complete(Completion { token, result }, io)?;
                store.pump(io)?;
                if let Some(StoreEvent::CheckpointNoSpace { .. }) = store.next_event() {
                    return Err(no_space(self.file).into());
                }
                if store.is_busy() {
                    self.stage = Stage::FirstCheckpoint(store);
                    return Ok(None);
                }
                while store.next_event().is_some() {}
                Ok(Some(Opened { store: *store, warnings: Vec::new() }))
            }
            Stage::Done => Ok(None),
        }
    }

    /// Whether no operation of it is in flight. One that failed is not over before.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match &self.stage {
            // Those of its first checkpoint are the store's own.
            Stage::FirstCheckpoint(store) => store.is_quiet(),
            _ => self.in_flight == 0,
        }
    }

    fn submit(&mut self, op: IoOp, io: &mut IoQueue) -> IoToken {
        self.in_flight += 1;
        self.port.submit(io, op)
    }

    fn next(
        &mut self,
        result: Result<IoValue, IoError>,
        op: IoOp,
        stage: Stage,
        io: &mut IoQueue,
    ) -> Result<Option<Opened>, StoreError> {
        result?;
        self.submit(op, io);
        self.stage = stage;
        Ok(None)
    }

    fn copy_read(
        &mut self,
        token: IoToken,
        result: Result<IoValue, IoError>,
        mut reads: BTreeMap<u64, usize>,
        mut copies: Vec<Option<(Copy, Bytes)>>,
        io: &mut IoQueue,
    ) -> Result<Option<Opened>, StoreError> {
        let file = self.file;
        let bytes = match result {
            Ok(IoValue::Read(bytes)) => bytes,
            Ok(_) => Bytes::new(),
            Err(error) if error.kind == IoErrorKind::NotFound => return Err(StoreError::Missing { file }),
            Err(error) => return Err(error.into()),
        };
        if let Some(index) = reads.remove(&token.number)
            && let Some(copy) = copies.get_mut(index)
        {
            *copy = Some((Copy::read(&bytes, index), bytes));
        }
        if !reads.is_empty() {
            self.stage = Stage::Copies { reads, copies };
            return Ok(None);
        }
        let (copies, images): (Vec<Copy>, Vec<Bytes>) = copies.into_iter().flatten().unzip();
        let superblock = superblock::choose(file, &copies, &self.identity, self.least)?;
        self.check_sizes(&superblock)?;
        let warnings = copies.iter().enumerate().filter_map(|(index, copy)| match copy {
            Copy::Damaged(what) => {
                Some(OpenWarning::SuperblockCopy { file, offset: (index * PAGE_BYTES_MAX) as u64, what })
            }
            _ => None,
        });
        let warnings: Vec<OpenWarning> = warnings.collect();
        for warning in &warnings {
            tracing::warn!(?warning, "page store opened with damage that does not matter");
        }
        let offset = superblock::copy_offset(superblock.checkpoint);
        if let Some(data) = images.into_iter().nth(superblock::copy_index(superblock.checkpoint)) {
            self.submit(IoOp::Write { file, offset, data }, io);
        }
        self.stage = Stage::Rewriting { superblock, warnings };
        Ok(None)
    }

    fn check_sizes(&self, superblock: &Superblock) -> Result<(), StoreError> {
        let file = self.file;
        let (found, expected) = (u64::from(superblock.page_bytes), self.options.page_bytes as u64);
        if found != expected {
            return Err(StoreError::Size { file, what: "page bytes", found, expected });
        }
        let (found, expected) = (u64::from(superblock.key_bytes_max), self.options.key_bytes_max as u64);
        if found != expected {
            return Err(StoreError::Size { file, what: "key bytes", found, expected });
        }
        Ok(())
    }

    fn load(
        &mut self,
        superblock: Superblock,
        warnings: Vec<OpenWarning>,
        io: &mut IoQueue,
    ) -> Result<Option<Opened>, StoreError> {
        let StoreOptions { page_bytes, grow_bytes, .. } = self.options;
        let root = superblock.allocator.clone();
        if root.index.len() != index_pages(superblock.file_pages, page_bytes) {
            let offset = superblock::copy_offset(superblock.checkpoint);
            let what = "superblock has not as many bitmaps as its file needs";
            return Err(StoreError::Corrupt { file: self.file, offset, what });
        }
        let written = root.index.iter().enumerate().filter(|(_, pointer)| pointer.is_some());
        let queue = written.map(|(index, pointer)| Load::Index(index, *pointer)).collect();
        let allocator = Allocator::loading(page_bytes, grow_bytes, superblock.file_pages, root);
        let mut loading =
            Box::new(Loading { superblock, warnings, allocator, queue, reads: BTreeMap::new() });
        self.submit_loads(&mut loading, io);
        self.finish_if_loaded(loading)
    }

    fn submit_loads(&mut self, loading: &mut Loading, io: &mut IoQueue) {
        while loading.reads.len() < READS_IN_FLIGHT_MAX {
            let Some(load) = loading.queue.pop_front() else { return };
            let (pointer, expected) = load.pointer();
            let op = read_op(self.file, &pointer, expected, self.options.page_bytes);
            loading.reads.insert(self.submit(op, io).number, load);
        }
    }

    fn page_loaded(
        &mut self,
        token: IoToken,
        result: Result<IoValue, IoError>,
        mut loading: Box<Loading>,
        io: &mut IoQueue,
    ) -> Result<Option<Opened>, StoreError> {
        let IoValue::Read(bytes) = result? else { return Ok(None) };
        if let Some(load) = loading.reads.remove(&token.number) {
            let (pointer, expected) = load.pointer();
            let offset = page_offset(pointer.page, self.options.page_bytes);
            let corrupt = |what| StoreError::Corrupt { file: self.file, offset, what };
            check::check(&bytes, self.options.page_bytes, &pointer, expected).map_err(corrupt)?;
            match load {
                Load::Index(index, _) => {
                    let bitmaps = loading.allocator.load_index(index, &bytes);
                    let bitmaps = bitmaps.ok_or_else(|| corrupt("index of bitmaps is cut short"))?;
                    let bitmaps = bitmaps.into_iter().filter(|(_, pointer)| pointer.is_some());
                    loading.queue.extend(bitmaps.map(|(slot, pointer)| Load::Bitmap(slot, pointer)));
                }
                Load::Bitmap(slot, _) => {
                    if !loading.allocator.load_bitmap(slot, &bytes) {
                        return Err(corrupt("bitmap has a page beyond the file in use"));
                    }
                }
            }
        }
        self.submit_loads(&mut loading, io);
        self.finish_if_loaded(loading)
    }

    fn finish_if_loaded(&mut self, mut loading: Box<Loading>) -> Result<Option<Opened>, StoreError> {
        if !loading.reads.is_empty() {
            self.stage = Stage::Loading(loading);
            return Ok(None);
        }
        if !loading.allocator.loaded((REGION_BYTES / self.options.page_bytes) as u64) {
            let what = "bitmaps have the store's own pages free";
            return Err(StoreError::Corrupt { file: self.file, offset: 0, what });
        }
        let Loading { superblock, warnings, allocator, .. } = *loading;
        let epoch = superblock.checkpoint.next();
        let mut tree = Tree::new(self.options.clone(), allocator, superblock.root, epoch);
        tree.horizon = superblock.horizon;
        tree.revision = superblock.revision;
        tree.cells = superblock.cells;
        tree.keys = superblock.keys;
        tree.shape = superblock.shape;
        let taken_pages = superblock.file_pages;
        Ok(Some(Opened { store: self.store(tree, superblock, taken_pages), warnings }))
    }

    fn empty_store(&mut self) -> Store {
        let StoreOptions { page_bytes, key_bytes_max, grow_bytes, .. } = self.options;
        let reserved = (REGION_BYTES / page_bytes) as u64;
        let allocator = Allocator::new(page_bytes, grow_bytes, reserved);
        let tree = Tree::empty(self.options.clone(), allocator);
        let nothing = Superblock {
            identity: self.identity,
            page_bytes: u32::try_from(page_bytes).unwrap_or(u32::MAX),
            key_bytes_max: u32::try_from(key_bytes_max).unwrap_or(u32::MAX),
            checkpoint: CheckpointNo(0),
            applied: LogIndex(0),
            applied_term: Term(0),
            revision: Revision::ZERO,
            horizon: Revision::ZERO,
            root: Root { pointer: PagePointer::NONE, level: 0 },
            cells: 0,
            keys: 0,
            file_pages: 0,
            shape: Shape::default(),
            allocator: AllocatorRoot::default(),
            source: None,
        };
        self.store(tree, nothing, 0)
    }

    fn store(&mut self, mut tree: Tree, durable: Superblock, taken_pages: u64) -> Store {
        tree.allocator.keep(durable.checkpoint);
        Store {
            file: self.file,
            identity: self.identity,
            port: std::mem::replace(&mut self.port, IoPort::new(lane_of(self.file))),
            tree,
            taken_pages,
            shrinking: Shrinking::No,
            in_flight: BTreeMap::new(),
            is_sealed: false,
            fetches: Fetches::default(),
            running: None,
            buffers: Buffers::new(WRITE_BUFFERS_MAX, WRITE_BYTES_MAX),
            pins: Pins::default(),
            verify: None,
            ingest: Ingest::default(),
            source: durable.source.filter(|_| self.file == FileId::StagedStore),
            sealed_revisions: VecDeque::from([(durable.checkpoint, durable.revision)]),
            durable,
            events: VecDeque::new(),
            poison: None,
        }
    }
}

fn no_space(file: FileId) -> IoError {
    IoError {
        kind: IoErrorKind::NoSpace,
        verb: "allocate",
        file: Some(file),
        detail: "no space for an empty store".into(),
    }
}

const _: () = assert!(REGION_BYTES.is_multiple_of(PAGE_BYTES_MAX) && COPY_BYTES == SECTOR_BYTES);
