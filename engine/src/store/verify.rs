//! Verification: a walk over everything that the newest durable checkpoint refers to, read from the disk itself.
//!
//! What is checked: every checksum and header; the pages reached and the pages in use on the disk are the same, none
//! reached twice; keys in order and within the bounds that the separators set; lengths of values; the number of cells.
//! And of the books in memory: every page in exactly one of used, available and waiting.
//!
//! Not checked: the pages that are dirty now, and what the owner means by its records.
//!
//! A problem says which part of the store it is in and which keys it touches. What follows from it is not a problem of
//! its own: under a damaged page nothing is reached, so the pages there are counted and not named, and the number of cells
//! is not compared.
//!
//! Memory is bounded: two bits per page, the pages still to visit on one way down the tree, a few reads in flight.

use std::collections::BTreeMap;
use std::fmt;

use mesh_base::io::{IoError, IoOp, IoQueue, IoValue, page_offset};
use mesh_base::{CheckpointNo, Namespace, PageNo};

use super::fetch::file_bytes;
use super::{PinId, Purpose, Store, StoreEvent};
use crate::allocator::{Bitmap, bitmap_pages, pages_per_bitmap, parse_index};
use crate::cell::Payload;
use crate::error::StoreError;
use crate::key::{CellKey, KeyRef};
use crate::page::{Expected, HEADER_BYTES, PageKind, check, interior, leaf, slotted};
use crate::pointer::{ExtentPointer, PagePointer};
use crate::superblock::{COPIES, COPY_BYTES, Copy, REGION_BYTES, Shape, Superblock, copy_index, copy_offset};

const READS_IN_FLIGHT_MAX: usize = 8;
/// Problems that a report lists; more are only counted.
const PROBLEMS_LISTED_MAX: usize = 100;

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct VerifyReport {
    /// The checkpoint that was verified.
    pub checkpoint: CheckpointNo,
    /// Pages of the file.
    pub file_pages: u64,
    /// Pages in use.
    pub used_pages: u64,
    /// Leaves.
    pub leaves: u64,
    /// Pages above the leaves.
    pub interiors: u64,
    /// Extents of large values.
    pub extents: u64,
    /// Bitmaps and index pages.
    pub allocator_pages: u64,
    /// Cells.
    pub cells: u64,
    /// Keys that are not deleted, the system's aside: exact but for keys whose versions fill more than a page.
    pub keys: u64,
    /// Pages in use that were not reached because what leads to them is damaged.
    pub unreached_pages: u64,
    /// Bytes of cells and their slots in leaves: how full they are.
    pub leaf_bytes_used: u64,
    /// What is wrong, the first hundred.
    pub problems: Vec<VerifyProblem>,
    /// How much is wrong.
    pub problem_count: u64,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.problem_count == 0
    }
}

/// Something that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyProblem {
    /// In which page.
    pub page: PageNo,
    /// Where that begins in the file, in bytes.
    pub offset: u64,
    /// What the page is.
    pub part: StorePart,
    /// The keys that cannot be read, or not relied on, for it.
    pub keys: Option<AffectedKeys>,
    /// What is wrong.
    pub what: String,
}

/// What a part of a store's file is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StorePart {
    /// A copy of the superblock.
    Superblock,
    /// An index of bitmaps.
    Index,
    /// A bitmap of the pages in use.
    Bitmap,
    /// A page above the leaves.
    Interior,
    /// A leaf.
    Leaf,
    /// An extent of a large value.
    Extent,
    /// A page of which it is not known, or does not matter.
    Page,
}

impl fmt::Display for StorePart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superblock => "superblock copy",
            Self::Index => "index page",
            Self::Bitmap => "bitmap",
            Self::Interior => "interior page",
            Self::Leaf => "leaf",
            Self::Extent => "extent",
            Self::Page => "page",
        })
    }
}

/// Keys that damage touches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AffectedKeys {
    /// Those from one up to, and without, another; to the end if there is none.
    Range {
        /// The first.
        from: CellKey,
        /// The one behind the last.
        to: Option<CellKey>,
    },
    /// One version of one key.
    Version(CellKey),
}

/// A verification under way.
pub(crate) struct Verify {
    superblock: Superblock,
    page_bytes: usize,
    work: Vec<Work>,
    reads: BTreeMap<u64, Work>,
    used: Bitmap,
    reached: Bitmap,
    /// Whether all that leads to pages could be read.
    tree: Walked,
    bitmaps: Walked,
    report: VerifyReport,
}

/// A verification of a store in use, and what keeps its checkpoint.
pub(super) struct Pinned {
    pin: PinId,
    verify: Verify,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Walked {
    Whole,
    InPart,
}

/// Something still to read.
pub(crate) enum Work {
    Superblock,
    Index(usize, PagePointer),
    Bitmap(usize, PagePointer),
    Node { pointer: PagePointer, level: u8, lower: CellKey, upper: Option<CellKey> },
    Extent(ExtentPointer, CellKey),
}

impl Work {
    const fn part(&self) -> StorePart {
        match self {
            Self::Superblock => StorePart::Superblock,
            Self::Index(..) => StorePart::Index,
            Self::Bitmap(..) => StorePart::Bitmap,
            Self::Node { level: 0, .. } => StorePart::Leaf,
            Self::Node { .. } => StorePart::Interior,
            Self::Extent(..) => StorePart::Extent,
        }
    }

    fn keys(&self) -> Option<AffectedKeys> {
        match self {
            Self::Superblock | Self::Index(..) | Self::Bitmap(..) => None,
            Self::Node { lower, upper, .. } => {
                Some(AffectedKeys::Range { from: lower.clone(), to: upper.clone() })
            }
            Self::Extent(_, key) => Some(AffectedKeys::Version(key.clone())),
        }
    }

    const fn target(&self) -> Option<(PagePointer, Expected)> {
        match self {
            Self::Superblock => None,
            Self::Index(_, pointer) => Some((*pointer, Expected::Allocator(PageKind::BitmapIndex))),
            Self::Bitmap(_, pointer) => Some((*pointer, Expected::Allocator(PageKind::Bitmap))),
            Self::Node { pointer, level, .. } => Some((*pointer, Expected::Node { level: *level })),
            Self::Extent(ExtentPointer { pointer, value_bytes }, _) => {
                Some((*pointer, Expected::Extent { value_bytes: *value_bytes }))
            }
        }
    }
}

impl Store {
    /// Begins to verify the newest durable checkpoint. [`Store::pump`] goes on with it, and
    /// [`StoreEvent::Verified`] ends it. Reads and writes go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`].
    ///
    /// # Panics
    /// When a verification runs already: a bug of the caller.
    pub fn begin_verify(&mut self) -> Result<(), StoreError> {
        self.check_usable()?;
        assert!(self.verify.is_none(), "a verification runs");
        let pin = self.pin();
        let superblock = self.pins.superblock(pin).clone();
        let mut verify = Verify::new(superblock);
        if let Err((page, what)) = self.tree.allocator.check() {
            verify.problem(page, StorePart::Page, None, what);
        }
        self.verify = Some(Box::new(Pinned { pin, verify }));
        Ok(())
    }

    pub(super) fn pump_verify(&mut self, io: &mut IoQueue) {
        let Some(mut pinned) = self.verify.take() else { return };
        let verify = &mut pinned.verify;
        while verify.reads.len() < READS_IN_FLIGHT_MAX {
            let Some(work) = verify.work.pop() else { break };
            if let Some(Span { offset, length }) = verify.span_of(&work) {
                let op = IoOp::Read { file: self.file, offset, length };
                let number = self.submit(op, Purpose::Verify, io);
                verify.reads.insert(number, work);
            }
        }
        if verify.reads.is_empty() {
            self.unpin(pinned.pin);
            self.events.push_back(StoreEvent::Verified(Box::new(pinned.verify.finish())));
        } else {
            self.verify = Some(pinned);
        }
    }

    pub(super) fn complete_verify(&mut self, number: u64, result: Result<IoValue, IoError>) {
        let Some(Pinned { verify, .. }) = self.verify.as_deref_mut() else { return };
        let Some(work) = verify.reads.remove(&number) else { return };
        // The checkpoint four later is written over this one's copy; if it has begun there is nothing left to check.
        let epochs = self.tree.epoch.get() - verify.superblock.checkpoint.get();
        if epochs > COPIES as u64 && matches!(work, Work::Superblock) {
            return;
        }
        match result {
            Ok(IoValue::Read(bytes)) => verify.check(&work, &bytes),
            Ok(_) => verify.damaged(&work, "the disk answered a read without bytes"),
            Err(error) => verify.damaged(&work, error.to_string()),
        }
    }
}

/// A part of a file.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) length: usize,
}

impl Verify {
    /// A verification of a checkpoint, beginning with its superblock copy.
    pub(crate) fn new(superblock: Superblock) -> Self {
        let page_bytes = superblock.page_bytes as usize;
        let mut work = vec![Work::Superblock];
        let index = superblock.allocator.index.iter().enumerate();
        let index = index.filter(|(_, pointer)| pointer.is_some());
        work.extend(index.map(|(index, pointer)| Work::Index(index, *pointer)));
        let root = superblock.root;
        let (lower, upper) = (KeyRef::FIRST.to_owned(), None);
        work.push(Work::Node { pointer: root.pointer, level: root.level, lower, upper });
        let (mut used, mut reached) = (Bitmap::default(), Bitmap::default());
        used.grow(superblock.file_pages);
        reached.grow(superblock.file_pages);
        for page in 0..((REGION_BYTES / page_bytes) as u64).min(superblock.file_pages) {
            reached.set(page);
        }
        let report = VerifyReport {
            checkpoint: superblock.checkpoint,
            file_pages: superblock.file_pages,
            ..VerifyReport::default()
        };
        let (tree, bitmaps) = (Walked::Whole, Walked::Whole);
        Self { superblock, page_bytes, work, reads: BTreeMap::new(), used, reached, tree, bitmaps, report }
    }

    fn problem(
        &mut self,
        page: PageNo,
        part: StorePart,
        keys: Option<AffectedKeys>,
        what: impl Into<String>,
    ) {
        self.report.problem_count += 1;
        if self.report.problems.len() < PROBLEMS_LISTED_MAX {
            let offset = match part {
                StorePart::Superblock => copy_offset(self.superblock.checkpoint),
                _ => page_offset(page, self.page_bytes),
            };
            self.report.problems.push(VerifyProblem { page, offset, part, keys, what: what.into() });
        }
    }

    /// Something wrong with what was to be read.
    pub(crate) fn damaged(&mut self, work: &Work, what: impl Into<String>) {
        match work {
            Work::Index(..) | Work::Bitmap(..) => self.bitmaps = Walked::InPart,
            Work::Node { .. } => self.tree = Walked::InPart,
            Work::Superblock | Work::Extent(..) => {}
        }
        self.wrong(work, what);
    }

    /// Something wrong in what was read, though all that it leads to is known.
    fn wrong(&mut self, work: &Work, what: impl Into<String>) {
        let page = work.target().map_or(PageNo(0), |(pointer, _)| pointer.page);
        self.problem(page, work.part(), work.keys(), what);
    }

    /// The next thing to read.
    pub(crate) fn next(&mut self) -> Option<Work> {
        self.work.pop()
    }

    /// Pages that were reached so far, of those of the file.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.reached.ones(), self.report.file_pages)
    }

    /// Marks what is to be read as reached, and says where it is; nothing if it cannot be read.
    pub(crate) fn span_of(&mut self, work: &Work) -> Option<Span> {
        let Some((pointer, expected)) = work.target() else {
            let offset = copy_offset(self.superblock.checkpoint);
            return Some(Span { offset, length: COPY_BYTES });
        };
        let first = pointer.page.get();
        let length = file_bytes(&pointer, expected, self.page_bytes);
        let pages = (length / self.page_bytes) as u64;
        if first.saturating_add(pages) > self.reached.len() {
            self.damaged(work, "pointer beyond the file");
            return None;
        }
        if (first..first + pages).any(|page| self.reached.get(page)) {
            self.damaged(work, "reached twice");
            return None;
        }
        (first..first + pages).for_each(|page| self.reached.set(page));
        Some(Span { offset: page_offset(pointer.page, self.page_bytes), length })
    }

    /// Takes what was read.
    pub(crate) fn check(&mut self, work: &Work, bytes: &[u8]) {
        if let Some((pointer, expected)) = work.target() {
            let length = file_bytes(&pointer, expected, self.page_bytes);
            if let Err(what) = check::check(bytes, length, &pointer, expected) {
                return self.damaged(work, what);
            }
        }
        match work {
            Work::Superblock => self.check_superblock(work, bytes),
            Work::Index(index, _) => self.check_index(work, *index, bytes),
            Work::Bitmap(slot, _) => {
                self.report.allocator_pages += 1;
                let first = *slot as u64 * pages_per_bitmap(self.page_bytes);
                if !bytes.get(HEADER_BYTES..).is_some_and(|bits| self.used.read_bytes(first, bits)) {
                    self.damaged(work, "bitmap has a page beyond the file in use");
                }
            }
            Work::Node { level: 0, lower, upper, .. } => {
                self.check_leaf(work, bytes, lower, upper.as_ref());
            }
            Work::Node { level, lower, upper, .. } => {
                self.check_interior(work, bytes, *level, lower, upper.as_ref());
            }
            Work::Extent(..) => self.report.extents += 1,
        }
    }

    fn check_superblock(&mut self, work: &Work, bytes: &[u8]) {
        let index = copy_index(self.superblock.checkpoint);
        if Copy::read(bytes, index) != Copy::Valid(Box::new(self.superblock.clone())) {
            self.damaged(work, "superblock copy differs from the checkpoint in use");
        }
    }

    fn check_index(&mut self, work: &Work, index: usize, bytes: &[u8]) {
        self.report.allocator_pages += 1;
        let total = bitmap_pages(self.superblock.file_pages, self.page_bytes);
        match parse_index(bytes, index, total) {
            Some(pointers) => {
                let bitmaps = pointers.into_iter().filter(|(_, pointer)| pointer.is_some());
                self.work.extend(bitmaps.map(|(slot, pointer)| Work::Bitmap(slot, pointer)));
            }
            None => self.damaged(work, "index of bitmaps is cut short"),
        }
    }

    fn check_leaf(&mut self, work: &Work, bytes: &[u8], lower: &CellKey, upper: Option<&CellKey>) {
        let cells = slotted::count(bytes);
        self.report.leaves += 1;
        self.report.cells += cells as u64;
        self.report.leaf_bytes_used += slotted::used_bytes(bytes) as u64;
        let keys = (0..cells).map(|index| leaf::key(bytes, index));
        if !is_bounded(keys, lower, upper) {
            self.wrong(work, "keys out of order or outside the separators' bounds");
        }
        let mut before: Option<KeyRef<'_>> = None;
        for index in 0..cells {
            let cell = leaf::cell(bytes, index);
            let is_newest = before.is_none_or(|before| !before.same_key(&cell.key));
            let is_live = is_newest && !cell.is_tombstone() && cell.key.namespace != Namespace::SYSTEM;
            self.report.keys += u64::from(is_live);
            before = Some(cell.key);
            if let Payload::Large(list) = cell.payload {
                self.work.extend(list.iter().map(|extent| Work::Extent(extent, cell.key.to_owned())));
            }
        }
    }

    fn check_interior(
        &mut self,
        work: &Work,
        bytes: &[u8],
        level: u8,
        lower: &CellKey,
        upper: Option<&CellKey>,
    ) {
        let cells = slotted::count(bytes);
        self.report.interiors += 1;
        let separators = (1..cells).map(|index| interior::separator(bytes, index));
        if interior::separator(bytes, 0) != KeyRef::FIRST || !is_bounded(separators, lower, upper) {
            self.wrong(work, "separators out of order or outside the bounds of those above");
        }
        for index in 0..cells {
            let lower = if index == 0 { lower.clone() } else { interior::separator(bytes, index).to_owned() };
            let upper = if index + 1 < cells {
                Some(interior::separator(bytes, index + 1).to_owned())
            } else {
                upper.cloned()
            };
            let pointer = interior::pointer(bytes, index);
            self.work.push(Work::Node { pointer, level: level - 1, lower, upper });
        }
    }

    /// What was found, when there is nothing left to read.
    pub(crate) fn finish(mut self) -> VerifyReport {
        self.report.used_pages = self.used.ones();
        if self.tree == Walked::Whole && self.report.cells != self.superblock.cells {
            let what = format!("{} cells, the superblock says {}", self.report.cells, self.superblock.cells);
            self.problem(PageNo(0), StorePart::Superblock, None, what);
        }
        let found = Shape {
            leaves: self.report.leaves,
            interiors: self.report.interiors,
            leaf_bytes: self.report.leaf_bytes_used,
        };
        if self.tree == Walked::Whole && found != self.superblock.shape {
            let what = format!("{found:?}, the superblock says {:?}", self.superblock.shape);
            self.problem(PageNo(0), StorePart::Superblock, None, what);
        }
        if self.bitmaps == Walked::InPart {
            return self.report;
        }
        let (used, reached) = (std::mem::take(&mut self.used), std::mem::take(&mut self.reached));
        for page in used.differences(&reached) {
            if !used.get(page) {
                self.problem(PageNo(page), StorePart::Page, None, "reached but free: would be overwritten");
            } else if self.tree == Walked::InPart {
                self.report.unreached_pages += 1;
            } else {
                self.problem(PageNo(page), StorePart::Page, None, "in use but not reached: lost space");
            }
        }
        self.report
    }
}

/// Whether keys ascend, from `lower` on and below `upper`.
fn is_bounded<'a>(
    keys: impl Iterator<Item = KeyRef<'a>> + Clone,
    lower: &CellKey,
    upper: Option<&CellKey>,
) -> bool {
    keys.clone().is_sorted_by(|a, b| a < b)
        && keys.into_iter().all(|key| lower.as_ref() <= key && upper.is_none_or(|upper| key < upper.as_ref()))
}
