//! Checkpoints: writing the dirty pages of an epoch so that a crash at any moment leaves the one before or this one.
//!
//! The order: take disk space; write every page of the epoch to space that no durable checkpoint refers to; sync; write
//! the superblock copy; sync. Each step begins when the one before has completed.
//!
//! Invariants:
//! - Children are sealed before their parents, because a parent holds their checksums. Pages of one level are written
//!   in file order, adjacent ones together.
//! - Frozen pages are not changed but for the checksums of children that sealing fills in.
//! - Pages that only older checkpoints refer to are reused only after the second sync.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use mesh_base::flaw::{self, Flaw};
use mesh_base::io::{IoError, IoErrorKind, IoOp, IoQueue, IoValue, page_offset};
use mesh_base::{CheckpointNo, LogIndex, PageNo, Revision, Term};

use super::shrink::Shrinking;
use super::{Purpose, Store, StoreEvent};
use crate::allocator::INDEX_PAGES_MAX;
use crate::error::StoreError;
use crate::frames::FrameState;
use crate::page::{Expected, interior, slotted};
use crate::pointer::Checksum;
use crate::superblock::{Superblock, copy_offset};
use crate::tree::{Tree, resolve_children};

/// Adjacent pages are joined into writes of up to this many bytes.
pub(super) const WRITE_BYTES_MAX: usize = 256 * 1024;
/// Buffers of such writes that are kept for the next.
pub(super) const WRITE_BUFFERS_MAX: usize = 4;

/// What the owner says of the state that a checkpoint holds.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CheckpointMeta {
    /// The log up to this index is applied.
    pub applied: LogIndex,
    /// The term of the entry at that index.
    pub term: Term,
    /// The newest revision or floor of the log up to there; what was written counts by itself.
    pub revision: Revision,
}

/// A durable checkpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointInfo {
    /// Which.
    pub checkpoint: CheckpointNo,
    /// The log up to this index is in it.
    pub applied: LogIndex,
    /// The term of the entry at that index.
    pub term: Term,
    /// The newest revision in it.
    pub revision: Revision,
    /// Its horizon.
    pub horizon: Revision,
    /// Its cells.
    pub cells: u64,
    /// Its live keys, as in [`super::StoreStatistics::keys`].
    pub keys: u64,
    /// Its file's pages.
    pub file_pages: u64,
}

impl CheckpointInfo {
    pub(crate) const fn of(superblock: &Superblock) -> Self {
        Self {
            checkpoint: superblock.checkpoint,
            applied: superblock.applied,
            term: superblock.applied_term,
            revision: superblock.revision,
            horizon: superblock.horizon,
            cells: superblock.cells,
            keys: superblock.keys,
            file_pages: superblock.file_pages,
        }
    }
}

/// What a completion ends.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum CheckpointIo {
    Space,
    /// This many frames, the first of this page, the others of those behind it.
    Pages {
        first: PageNo,
        frames: u64,
        data: Bytes,
    },
    PagesSync,
    Superblock,
    SuperblockSync,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Disk space is to be taken.
    Space,
    /// There was none; the owner will say when to try again.
    NoSpace,
    /// Pages are to be written.
    Pages,
    /// An operation that must end before the next is in flight.
    Waiting,
}

/// A checkpoint that is being written.
pub(super) struct Running {
    superblock: Superblock,
    stage: Stage,
    /// Pages to write, by level of the tree from the leaves up; extents and allocator pages go with the leaves. Each
    /// level is sorted when its turn comes, and may name pages that were gone before the epoch ended.
    levels: VecDeque<VecDeque<PageNo>>,
    /// The level whose turn it is.
    level: u8,
    allocator: BTreeMap<PageNo, Bytes>,
    bytes_in_flight: usize,
    /// Bytes of all pages to write.
    total_bytes: u64,
    /// Bytes handed to the disk.
    submitted_bytes: u64,
    /// Bytes that the disk has.
    written_bytes: u64,
    /// Bytes that may be handed to the disk by now.
    due_bytes: u64,
}

/// How far a running checkpoint is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CheckpointProgress {
    /// Bytes of all its pages.
    pub total_bytes: u64,
    /// Bytes that the disk has.
    pub written_bytes: u64,
    /// Bytes of pages that were changed since it began: they are of the next.
    pub fresh_bytes: u64,
}

impl Running {
    /// Whether more of it may be handed to the disk. Its last pages may be fewer than they were when it began.
    const fn is_due(&self) -> bool {
        self.submitted_bytes < self.due_bytes || self.due_bytes >= self.total_bytes
    }
}

impl Running {
    /// The pages of its file.
    pub(super) const fn file_pages(&self) -> u64 {
        self.superblock.file_pages
    }
}

impl Store {
    /// Begins a checkpoint of the present state. [`Store::pump`] writes it; later writes go to the next one.
    ///
    /// # Panics
    /// When one is running: a bug of the caller.
    pub fn begin_checkpoint(&mut self, meta: &CheckpointMeta) -> CheckpointNo {
        assert!(self.running.is_none(), "a checkpoint is running");
        let tree = &mut self.tree;
        let checkpoint = tree.epoch;
        tree.revision = tree.revision.max(meta.revision);
        let (allocator, writes) = tree.allocator.freeze(checkpoint);
        tree.allocator.keep(checkpoint);
        writes.iter().for_each(|write| tree.frames.discard(write.page));
        let allocator_bytes: usize = writes.iter().map(|write| write.bytes.len()).sum();
        let total_bytes = (tree.frames.dirty_bytes() + allocator_bytes) as u64;
        let mut levels = tree.freeze();
        levels.resize_with(levels.len().max(1), Vec::new);
        if let Some(leaves) = levels.first_mut() {
            leaves.extend(writes.iter().map(|write| write.page));
        }
        let superblock = Superblock {
            checkpoint,
            applied: meta.applied,
            applied_term: meta.term,
            revision: tree.revision,
            horizon: tree.horizon,
            root: tree.root,
            cells: tree.cells,
            keys: tree.keys,
            file_pages: tree.allocator.file_pages(),
            shape: tree.shape,
            allocator,
            source: self.source,
            ..self.durable.clone()
        };
        let allocator = writes.into_iter().map(|write| (write.page, write.bytes)).collect();
        self.running = Some(Box::new(Running {
            superblock,
            stage: Stage::Space,
            levels: levels.into_iter().map(VecDeque::from).collect(),
            level: 0,
            allocator,
            bytes_in_flight: 0,
            total_bytes,
            submitted_bytes: 0,
            written_bytes: 0,
            due_bytes: u64::MAX,
        }));
        checkpoint
    }

    /// How far the checkpoint that is being written is, if one is.
    #[must_use]
    pub fn checkpoint_progress(&self) -> Option<CheckpointProgress> {
        let Running { total_bytes, written_bytes, .. } = **self.running.as_ref()?;
        let frozen_bytes = total_bytes.saturating_sub(written_bytes);
        let fresh_bytes = (self.tree.frames.dirty_bytes() as u64).saturating_sub(frozen_bytes);
        Some(CheckpointProgress { total_bytes, written_bytes, fresh_bytes })
    }

    /// Says how many bytes of the running checkpoint may be handed to the disk by now; without a word, all of them. What is
    /// left goes when more is due, in [`Store::pump`].
    pub fn set_checkpoint_due(&mut self, bytes: u64) {
        if let Some(running) = &mut self.running {
            running.due_bytes = bytes;
        }
    }

    /// The checkpoint that is being written, if one is.
    #[must_use]
    pub const fn running_checkpoint(&self) -> Option<CheckpointNo> {
        self.tree.running
    }

    /// The checkpoint that changes made now will be part of.
    pub(crate) const fn next_checkpoint(&self) -> CheckpointNo {
        self.tree.epoch
    }

    /// The newest durable checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> CheckpointInfo {
        CheckpointInfo::of(&self.durable)
    }

    /// Tries again to take disk space for a checkpoint that found none.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`].
    pub fn retry_space(&mut self, io: &mut IoQueue) -> Result<(), StoreError> {
        self.check_usable()?;
        if let Some(running) = self.running.as_mut().filter(|running| running.stage == Stage::NoSpace) {
            running.stage = Stage::Space;
            self.pump_checkpoint(io);
        }
        Ok(())
    }

    pub(super) fn pump_checkpoint(&mut self, io: &mut IoQueue) {
        let Some(mut running) = self.running.take() else { return };
        match running.stage {
            Stage::Space => self.take_space(&mut running, io),
            Stage::Pages => self.write_pages(&mut running, io),
            Stage::NoSpace | Stage::Waiting => {}
        }
        self.running = Some(running);
    }

    fn take_space(&mut self, running: &mut Running, io: &mut IoQueue) {
        let wanted = running.superblock.file_pages;
        if self.shrinking != Shrinking::No {
            return;
        }
        if running.superblock.allocator.index.len() > INDEX_PAGES_MAX {
            self.found_no_space(running);
        } else if self.taken_pages < wanted {
            let page_bytes = self.tree.options.page_bytes;
            let offset = page_offset(PageNo(self.taken_pages), page_bytes);
            let length = page_offset(PageNo(wanted - self.taken_pages), page_bytes);
            let op = IoOp::Allocate { file: self.file, offset, length };
            running.stage = Stage::Waiting;
            self.submit(op, Purpose::Checkpoint(CheckpointIo::Space), io);
        } else {
            sort_level(running.levels.front_mut());
            running.stage = Stage::Pages;
            self.write_pages(running, io);
        }
    }

    fn found_no_space(&mut self, running: &mut Running) {
        let checkpoint = running.superblock.checkpoint;
        tracing::warn!(file = %self.file, %checkpoint, "no disk space for a checkpoint");
        running.stage = Stage::NoSpace;
        self.events.push_back(StoreEvent::CheckpointNoSpace { checkpoint });
    }

    fn write_pages(&mut self, running: &mut Running, io: &mut IoQueue) {
        while running.bytes_in_flight < self.tree.options.checkpoint_bytes_in_flight_max && running.is_due() {
            let Some(first) = self.next_page(running) else { break };
            let (frames, data) = self.take_adjacent(running, first);
            let bytes = data.len();
            running.bytes_in_flight += bytes;
            running.submitted_bytes += bytes as u64;
            let offset = page_offset(first, self.tree.options.page_bytes);
            let op = IoOp::Write { file: self.file, offset, data: data.clone() };
            self.submit(op, Purpose::Checkpoint(CheckpointIo::Pages { first, frames, data }), io);
        }
        if running.levels.is_empty() && running.bytes_in_flight == 0 {
            running.stage = Stage::Waiting;
            if flaw::is_planted(Flaw::SuperblockBeforePages) {
                return self.write_superblock(running, io);
            }
            let op = IoOp::Sync { file: self.file };
            self.submit(op, Purpose::Checkpoint(CheckpointIo::PagesSync), io);
        }
    }

    fn write_superblock(&mut self, running: &mut Running, io: &mut IoQueue) {
        let superblock = &mut running.superblock;
        superblock.root.pointer = self.tree.sealed.resolve(superblock.root.pointer);
        let (offset, data) = (copy_offset(superblock.checkpoint), superblock.encode());
        let op = IoOp::Write { file: self.file, offset, data };
        self.submit(op, Purpose::Checkpoint(CheckpointIo::Superblock), io);
    }

    /// Takes the next page to write, of the lowest level that has one.
    fn next_page(&self, running: &mut Running) -> Option<PageNo> {
        while let Some(pages) = running.levels.front_mut() {
            if let Some(page) = pages.pop_front() {
                if is_part(&self.tree, running.level, &running.allocator, page) {
                    return Some(page);
                }
            } else {
                running.levels.pop_front();
                running.level += 1;
                sort_level(running.levels.front_mut());
            }
        }
        None
    }

    /// Seals a page and those that lie right behind it, and joins them into the bytes of one write.
    fn take_adjacent(&mut self, running: &mut Running, first: PageNo) -> (u64, Bytes) {
        let page_bytes = self.tree.options.page_bytes;
        if let Some(extent) = self.tree.frames.share(first) {
            return (1, extent);
        }
        let Some(pages) = running.levels.front_mut() else { return (0, Bytes::new()) };
        let run = pages.iter().zip(first.get() + 1..).take_while(|(page, next)| page.get() == *next).count();
        let mut joined = self.buffers.take(WRITE_BYTES_MAX.min((run + 1) * page_bytes));
        joined.extend_from_slice(seal(&mut self.tree, &running.allocator, first));
        let mut last = first;
        while pages.front() == Some(&last.next()) && joined.len() + page_bytes <= WRITE_BYTES_MAX {
            let next = last.next();
            let is_extent = matches!(self.tree.frames.expected(next), Some(Expected::Extent { .. }));
            if is_extent || !is_part(&self.tree, running.level, &running.allocator, next) {
                break;
            }
            pages.pop_front();
            joined.extend_from_slice(seal(&mut self.tree, &running.allocator, next));
            last = next;
        }
        (last.get() - first.get() + 1, joined.into())
    }

    pub(super) fn complete_checkpoint(
        &mut self,
        step: CheckpointIo,
        result: Result<IoValue, IoError>,
        io: &mut IoQueue,
    ) -> Result<(), StoreError> {
        let Some(mut running) = self.running.take() else { return Ok(()) };
        match (step, result) {
            (CheckpointIo::Space, Err(error)) if error.kind == IoErrorKind::NoSpace => {
                self.found_no_space(&mut running);
            }
            (_, Err(error)) => return Err(error.into()),
            (CheckpointIo::Space, Ok(_)) => {
                self.taken_pages = running.superblock.file_pages;
                running.stage = Stage::Space;
            }
            (CheckpointIo::Pages { first, frames, data }, Ok(_)) => {
                // What the disk has can be read back: there is no need to keep it until the checkpoint is durable.
                running.bytes_in_flight -= data.len();
                running.written_bytes += data.len() as u64;
                self.buffers.give_back(data);
                for page in first.get()..first.get() + frames {
                    self.tree.frames.written(PageNo(page), running.superblock.checkpoint);
                }
                self.tree.frames.evict();
            }
            (CheckpointIo::PagesSync, Ok(_)) => self.write_superblock(&mut running, io),
            (CheckpointIo::Superblock, Ok(_)) if flaw::is_planted(Flaw::SkipSuperblockSync) => {
                self.finish_checkpoint(*running);
                return Ok(());
            }
            (CheckpointIo::Superblock, Ok(_)) => {
                let op = IoOp::Sync { file: self.file };
                self.submit(op, Purpose::Checkpoint(CheckpointIo::SuperblockSync), io);
            }
            (CheckpointIo::SuperblockSync, Ok(_)) => {
                self.finish_checkpoint(*running);
                return Ok(());
            }
        }
        self.running = Some(running);
        Ok(())
    }

    fn finish_checkpoint(&mut self, running: Running) {
        let CheckpointInfo { checkpoint, applied, .. } = CheckpointInfo::of(&running.superblock);
        assert_eq!(self.tree.running, Some(checkpoint));
        self.tree.running = None;
        let last = std::mem::replace(&mut self.durable, running.superblock);
        self.note_sealed();
        self.let_go(last.checkpoint);
        tracing::debug!(file = %self.file, %checkpoint, %applied, "checkpoint is durable");
        self.events.push_back(StoreEvent::CheckpointDone { checkpoint, applied });
    }
}

/// Puts the pages of a level into file order.
fn sort_level(pages: Option<&mut VecDeque<PageNo>>) {
    if let Some(pages) = pages {
        pages.make_contiguous().sort_unstable();
        let mut last = None;
        pages.retain(|page| last.replace(*page) != Some(*page));
    }
}

/// Whether a page that the epoch dirtied at a level is still a part of its checkpoint, and still of that level.
fn is_part(tree: &Tree, level: u8, allocator: &BTreeMap<PageNo, Bytes>, page: PageNo) -> bool {
    let dirty = match tree.frames.state(page) {
        Some(FrameState::Dirty(checkpoint) | FrameState::Obsolete(checkpoint)) => Some(checkpoint),
        Some(FrameState::Clean) | None => return level == 0 && allocator.contains_key(&page),
    };
    dirty == tree.running && tree.frames.expected(page).map(Expected::level) == Some(level)
}

/// Fixes the bytes of a page for good and notes its checksum for the pointers to it.
#[allow(clippy::expect_used, reason = "a frozen page stays in memory until its checkpoint is done")]
fn seal<'a>(tree: &'a mut Tree, allocator: &'a BTreeMap<PageNo, Bytes>, page: PageNo) -> &'a [u8] {
    if let Some(bytes) = allocator.get(&page) {
        return bytes;
    }
    let expected = tree.frames.expected(page).expect("frozen page is resident");
    if let (Expected::Node { level: 1.. }, Some(checkpoint)) = (expected, tree.running) {
        let bytes = tree.frames.edit(page, checkpoint);
        resolve_children(&tree.sealed, bytes);
        let is_resolved =
            (0..slotted::count(bytes)).all(|index| interior::pointer(bytes, index).checksum.is_sealed());
        assert!(is_resolved, "{page} has a child that is not sealed");
    }
    let bytes = tree.frames.peek(page).expect("frozen page is resident");
    tree.sealed.insert(page, Checksum::of(bytes));
    bytes
}
