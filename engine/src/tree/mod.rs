//! The copy-on-write B+tree over (namespace, key, revision descending).
//!
//! Invariants:
//! - A page that is dirty for the checkpoint being built (the *epoch*) has only such ancestors, so a leaf that is dirty
//!   can be changed without a look at the pages above it.
//! - An operation looks for everything it needs first, and changes nothing if a page is missing.
//! - All versions of a key lie next to each other; a leaf's versions of its last key may go on in the next leaf only if
//!   the separator between the two is a version of that key.
//!
//! Deliberately absent: I/O, and the decision when to take a checkpoint.

mod bulk;
mod changes;
mod collect;
mod edit;
mod merge;
mod pack;
mod read;
mod relocate;
mod scan;
mod split;
mod value;

use mesh_base::{CheckpointNo, PageNo, Revision};

use crate::allocator::Allocator;
use crate::frames::Frames;
use crate::options::StoreOptions;
use crate::page::{self, Expected, PageStamp, interior, slotted};
use crate::pointer::{Checksum, PagePointer};
use crate::sealed::Sealed;
use crate::superblock::{Root, Shape};

pub(crate) use self::changes::ChangeQuery;
pub use self::changes::RangeChange;
pub use self::collect::{SweepPoint, SweepProgress};
pub(crate) use self::pack::PackPlan;
pub use self::pack::{Density, PackPoint, PackProgress};
pub use self::read::GROUP_KEYS;
pub(crate) use self::read::{ChildAt, MissAt, Seek, Touch, TreeView};

/// One step of the way from the root to a leaf.
#[derive(Clone, Copy, Debug)]
struct Step {
    page: PageNo,
    /// The child that the way goes on to; meaningless for the leaf.
    index: usize,
}

/// The tree, its pages in memory, and the books of its file.
pub(crate) struct Tree {
    pub(crate) options: StoreOptions,
    pub(crate) frames: Frames,
    pub(crate) allocator: Allocator,
    pub(crate) sealed: Sealed,
    pub(crate) root: Root,
    /// The checkpoint that changes made now will be part of.
    pub(crate) epoch: CheckpointNo,
    /// The checkpoint that is being written, if one is.
    pub(crate) running: Option<CheckpointNo>,
    /// Pages made dirty in this epoch, by level, extents with the leaves; some may be gone or in use anew.
    dirtied: Vec<Vec<PageNo>>,
    pub(crate) horizon: Revision,
    pub(crate) revision: Revision,
    pub(crate) cells: u64,
    pub(crate) keys: u64,
    pub(crate) shape: Shape,
    /// How often a page came to the tree or left it: while this stays, every leaf holds the keys that it held.
    reshapes: u64,
    path: Vec<Step>,
    scratch: Vec<u8>,
}

impl Tree {
    /// A tree whose root is known.
    pub(crate) fn new(options: StoreOptions, allocator: Allocator, root: Root, epoch: CheckpointNo) -> Self {
        Self {
            frames: Frames::new(options.page_bytes, options.frame_bytes_max, options.memory.clone()),
            options,
            allocator,
            sealed: Sealed::default(),
            root,
            epoch,
            running: None,
            dirtied: Vec::new(),
            horizon: Revision::ZERO,
            revision: Revision::ZERO,
            cells: 0,
            keys: 0,
            shape: Shape::default(),
            reshapes: 0,
            path: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// An empty tree, its root dirty for the first checkpoint.
    pub(crate) fn empty(options: StoreOptions, allocator: Allocator) -> Self {
        let root = Root { pointer: PagePointer::NONE, level: 0 };
        let mut tree = Self::new(options, allocator, root, CheckpointNo(1));
        tree.root.pointer = tree.new_page(0);
        tree
    }

    /// The tree as it is now.
    pub(crate) const fn view(&self) -> TreeView<'_> {
        self.view_of(self.root)
    }

    /// The tree of another root: a checkpoint's.
    pub(crate) const fn view_of(&self, root: Root) -> TreeView<'_> {
        TreeView { frames: &self.frames, sealed: &self.sealed, stamp: self.allocator.reuses(), root }
    }

    /// The next epoch begins. Returns the pages that the checkpoint may have to write, by level from the leaves up.
    pub(crate) fn freeze(&mut self) -> Vec<Vec<PageNo>> {
        // The checkpoint that ran last is known in full now, and may have held the root.
        self.root.pointer = self.sealed.resolve(self.root.pointer);
        self.sealed.begin(self.epoch);
        self.running = Some(self.epoch);
        self.epoch = self.epoch.next();
        std::mem::take(&mut self.dirtied)
    }

    /// Bytes of a page's cells beyond which it is full.
    const fn capacity(&self) -> usize {
        self.options.page_capacity()
    }

    /// Whether a page is dirty for this epoch, as its stamp says: nothing else is read of it to know that.
    fn is_owned(&self, page: PageNo) -> bool {
        self.frames.peek(page).is_some_and(|bytes| page::stamp(bytes).checkpoint == self.epoch)
    }

    /// The bytes of a page that is known to be resident.
    #[allow(
        clippy::panic,
        reason = "the way was checked before anything was changed; a page cannot leave meanwhile"
    )]
    fn page(&self, page: PageNo) -> &[u8] {
        self.frames.get(page).unwrap_or_else(|| panic!("{page} is not resident"))
    }

    fn edit(&mut self, page: PageNo) -> &mut [u8] {
        self.frames.edit(page, self.epoch)
    }

    /// Makes an empty page of the tree.
    fn new_page(&mut self, level: u8) -> PagePointer {
        let expected = Expected::Node { level };
        let pointer = self.take_page(level);
        *self.pages_of_level(level) += 1;
        self.reshapes += 1;
        let stamp = PageStamp { page: pointer.page, checkpoint: pointer.checkpoint };
        page::write_header(self.frames.create(pointer.page, expected, self.epoch), expected, stamp);
        pointer
    }

    /// Makes a copy of a page under a new number, which replaces it.
    fn copy_page(&mut self, old: PageNo) -> PagePointer {
        let bytes = self.page(old);
        let born = page::stamp(bytes).checkpoint;
        let level = page::level(bytes);
        let collected = self.frames.collected(old);
        let pointer = self.take_page(level);
        let bytes = self.frames.copy(old, pointer.page, self.epoch);
        page::set_stamp(bytes, PageStamp { page: pointer.page, checkpoint: pointer.checkpoint });
        if level > 0 {
            resolve_children(&self.sealed, bytes);
        }
        self.frames.set_collected(pointer.page, collected);
        self.release_run(old, 1, born);
        pointer
    }

    fn take_page(&mut self, level: u8) -> PagePointer {
        let page = self.allocator.allocate();
        self.frames.discard(page);
        self.note_dirtied(page, level);
        PagePointer { page, checksum: Checksum::UNSEALED, checkpoint: self.epoch }
    }

    fn note_dirtied(&mut self, page: PageNo, level: u8) {
        let level = usize::from(level);
        self.dirtied.resize_with(self.dirtied.len().max(level + 1), Vec::new);
        if let Some(pages) = self.dirtied.get_mut(level) {
            pages.push(page);
        }
    }

    /// The tree has a page less.
    fn drop_page(&mut self, pointer: &PagePointer, level: u8) {
        *self.pages_of_level(level) -= 1;
        self.reshapes += 1;
        self.release_run(pointer.page, 1, pointer.checkpoint);
    }

    const fn pages_of_level(&mut self, level: u8) -> &mut u64 {
        if level == 0 { &mut self.shape.leaves } else { &mut self.shape.interiors }
    }

    /// The tree no longer refers to a run of pages.
    fn release_run(&mut self, page: PageNo, pages: u64, born: CheckpointNo) {
        self.frames.forget(page, self.running);
        self.allocator.free(page, pages, born, self.epoch);
    }
}

/// Fills in the checksums of children that were sealed since an interior page was made.
pub(crate) fn resolve_children(sealed: &Sealed, page: &mut [u8]) {
    for index in 0..slotted::count(page) {
        let pointer = interior::pointer(page, index);
        if !pointer.checksum.is_sealed() {
            interior::set_pointer(page, index, &sealed.resolve(pointer));
        }
    }
}
