//! Verification: a walk over everything that the newest durable checkpoint refers to, read from the disk itself.
//!
//! What is checked: every checksum and header; the pages reached and the pages in use on the disk are the same, none
//! reached twice; keys in order and within the bounds that the separators set; lengths of values; the number of cells.
//! And of the books in memory: every page in exactly one of used, available and waiting.
//!
//! Not checked: the pages that are dirty now, and what the owner means by its records.
//!
//! Memory is bounded: two bits per page, the pages still to visit on one way down the tree, a few reads in flight.

use std::collections::BTreeMap;

use mesh_base::io::{IoError, IoOp, IoQueue, IoValue, page_offset};
use mesh_base::{CheckpointNo, PageNo};

use super::fetch::{file_bytes, read_op};
use super::{PinId, Purpose, Store, StoreEvent};
use crate::allocator::{Bitmap, bitmap_pages, pages_per_bitmap, parse_index};
use crate::cell::Payload;
use crate::error::StoreError;
use crate::key::{CellKey, KeyRef};
use crate::page::{Expected, HEADER_BYTES, PageKind, check, interior, leaf, slotted};
use crate::pointer::{ExtentPointer, PagePointer};
use crate::superblock::{COPIES, COPY_BYTES, Copy, REGION_BYTES, Shape, Superblock, copy_offset};

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
    /// Cells.
    pub cells: u64,
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
    /// What.
    pub what: String,
}

/// A verification under way.
pub(super) struct Verify {
    pin: PinId,
    superblock: Superblock,
    page_bytes: usize,
    work: Vec<Work>,
    reads: BTreeMap<u64, Work>,
    used: Bitmap,
    reached: Bitmap,
    report: VerifyReport,
}

/// Something still to read.
enum Work {
    Superblock,
    Index(usize, PagePointer),
    Bitmap(usize, PagePointer),
    Node { pointer: PagePointer, level: u8, lower: CellKey, upper: Option<CellKey> },
    Extent(ExtentPointer),
}

impl Work {
    const fn target(&self) -> Option<(PagePointer, Expected)> {
        match self {
            Self::Superblock => None,
            Self::Index(_, pointer) => Some((*pointer, Expected::Allocator(PageKind::BitmapIndex))),
            Self::Bitmap(_, pointer) => Some((*pointer, Expected::Allocator(PageKind::Bitmap))),
            Self::Node { pointer, level, .. } => Some((*pointer, Expected::Node { level: *level })),
            Self::Extent(ExtentPointer { pointer, value_bytes }) => {
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
        let page_bytes = self.tree.options.page_bytes;
        let mut verify = Verify::new(pin, superblock, page_bytes);
        if let Err((page, what)) = self.tree.allocator.check() {
            verify.problem(page, what);
        }
        self.verify = Some(Box::new(verify));
        Ok(())
    }

    pub(super) fn pump_verify(&mut self, io: &mut IoQueue) {
        let Some(mut verify) = self.verify.take() else { return };
        while verify.reads.len() < READS_IN_FLIGHT_MAX {
            let Some(work) = verify.work.pop() else { break };
            if let Some(op) = verify.read_of(self.file, &work) {
                let number = self.port.submit(io, op).number;
                self.in_flight.insert(number, Purpose::Verify);
                verify.reads.insert(number, work);
            }
        }
        if verify.reads.is_empty() {
            self.unpin(verify.pin);
            self.events.push_back(StoreEvent::Verified(Box::new(verify.finish())));
        } else {
            self.verify = Some(verify);
        }
    }

    pub(super) fn complete_verify(&mut self, number: u64, result: Result<IoValue, IoError>) {
        let Some(verify) = &mut self.verify else { return };
        // The checkpoint four later is written over this one's copy; if it has begun there is nothing left to check.
        let epochs = self.tree.epoch.get() - verify.superblock.checkpoint.get();
        if epochs > COPIES as u64 && matches!(verify.reads.get(&number), Some(Work::Superblock)) {
            verify.reads.remove(&number);
            return;
        }
        verify.complete(number, result);
    }
}

impl Verify {
    fn new(pin: PinId, superblock: Superblock, page_bytes: usize) -> Self {
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
        Self { pin, superblock, page_bytes, work, reads: BTreeMap::new(), used, reached, report }
    }

    fn problem(&mut self, page: PageNo, what: impl Into<String>) {
        self.report.problem_count += 1;
        if self.report.problems.len() < PROBLEMS_LISTED_MAX {
            let offset = page_offset(page, self.page_bytes);
            self.report.problems.push(VerifyProblem { page, offset, what: what.into() });
        }
    }

    /// Marks what is to be read as reached, and says how to read it; nothing if it cannot be.
    fn read_of(&mut self, file: mesh_base::io::FileId, work: &Work) -> Option<IoOp> {
        let Some((pointer, expected)) = work.target() else {
            let offset = copy_offset(self.superblock.checkpoint);
            return Some(IoOp::Read { file, offset, length: COPY_BYTES });
        };
        let first = pointer.page.get();
        let pages = (file_bytes(&pointer, expected, self.page_bytes) / self.page_bytes) as u64;
        if first.saturating_add(pages) > self.reached.len() {
            self.problem(pointer.page, "pointer beyond the file");
            return None;
        }
        if (first..first + pages).any(|page| self.reached.get(page)) {
            self.problem(pointer.page, "reached twice");
            return None;
        }
        (first..first + pages).for_each(|page| self.reached.set(page));
        Some(read_op(file, &pointer, expected, self.page_bytes))
    }

    fn complete(&mut self, number: u64, result: Result<IoValue, IoError>) {
        let Some(work) = self.reads.remove(&number) else { return };
        let page = work.target().map_or(PageNo(0), |(pointer, _)| pointer.page);
        let bytes = match result {
            Ok(IoValue::Read(bytes)) => bytes,
            Ok(_) => return self.problem(page, "the disk answered a read without bytes"),
            Err(error) => return self.problem(page, error.to_string()),
        };
        if let Some((pointer, expected)) = work.target() {
            let length = file_bytes(&pointer, expected, self.page_bytes);
            if let Err(what) = check::check(&bytes, length, &pointer, expected) {
                return self.problem(page, what);
            }
        }
        match work {
            Work::Superblock => self.check_superblock(&bytes),
            Work::Index(index, _) => self.check_index(page, index, &bytes),
            Work::Bitmap(slot, _) => {
                let first = slot as u64 * pages_per_bitmap(self.page_bytes);
                if !bytes.get(HEADER_BYTES..).is_some_and(|bits| self.used.read_bytes(first, bits)) {
                    self.problem(page, "bitmap has a page beyond the file in use");
                }
            }
            Work::Node { level: 0, lower, upper, .. } => {
                self.check_leaf(page, &bytes, &lower, upper.as_ref());
            }
            Work::Node { level, lower, upper, .. } => {
                self.check_interior(page, &bytes, level, &lower, upper.as_ref());
            }
            Work::Extent(_) => self.report.extents += 1,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "a number below four")]
    fn check_superblock(&mut self, bytes: &[u8]) {
        let index = (self.superblock.checkpoint.get() % COPIES as u64) as usize;
        if Copy::read(bytes, index) != Copy::Valid(Box::new(self.superblock.clone())) {
            self.problem(PageNo(0), "superblock copy differs from the checkpoint in use");
        }
    }

    fn check_index(&mut self, page: PageNo, index: usize, bytes: &[u8]) {
        let total = bitmap_pages(self.superblock.file_pages, self.page_bytes);
        match parse_index(bytes, index, total) {
            Some(pointers) => {
                let bitmaps = pointers.into_iter().filter(|(_, pointer)| pointer.is_some());
                self.work.extend(bitmaps.map(|(slot, pointer)| Work::Bitmap(slot, pointer)));
            }
            None => self.problem(page, "index of bitmaps is cut short"),
        }
    }

    fn check_leaf(&mut self, page: PageNo, bytes: &[u8], lower: &CellKey, upper: Option<&CellKey>) {
        let cells = slotted::count(bytes);
        self.report.leaves += 1;
        self.report.cells += cells as u64;
        self.report.leaf_bytes_used += slotted::used_bytes(bytes) as u64;
        let keys = (0..cells).map(|index| leaf::key(bytes, index));
        if !is_bounded(keys, lower, upper) {
            self.problem(page, "keys out of order or outside the separators' bounds");
        }
        for index in 0..cells {
            if let Payload::Large(list) = leaf::cell(bytes, index).payload {
                self.work.extend(list.iter().map(Work::Extent));
            }
        }
    }

    fn check_interior(
        &mut self,
        page: PageNo,
        bytes: &[u8],
        level: u8,
        lower: &CellKey,
        upper: Option<&CellKey>,
    ) {
        let cells = slotted::count(bytes);
        self.report.interiors += 1;
        let separators = (1..cells).map(|index| interior::separator(bytes, index));
        if interior::separator(bytes, 0) != KeyRef::FIRST || !is_bounded(separators, lower, upper) {
            self.problem(page, "separators out of order or outside the bounds of those above");
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

    fn finish(mut self) -> VerifyReport {
        self.report.used_pages = self.used.ones();
        if self.report.cells != self.superblock.cells {
            let what = format!("{} cells, the superblock says {}", self.report.cells, self.superblock.cells);
            self.problem(PageNo(0), what);
        }
        let found = Shape {
            leaves: self.report.leaves,
            interiors: self.report.interiors,
            leaf_bytes: self.report.leaf_bytes_used,
        };
        if found != self.superblock.shape {
            let what = format!("{found:?}, the superblock says {:?}", self.superblock.shape);
            self.problem(PageNo(0), what);
        }
        let (used, reached) = (std::mem::take(&mut self.used), std::mem::take(&mut self.reached));
        for page in used.differences(&reached) {
            let what = if used.get(page) {
                "in use but not reached: lost space"
            } else {
                "reached but free: would be overwritten"
            };
            self.problem(PageNo(page), what);
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
