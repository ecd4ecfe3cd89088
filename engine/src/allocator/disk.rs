//! The allocator's pages: bitmaps of the pages in use, and index pages that point at the bitmaps.
//!
//! Invariants:
//! - Only bitmaps that changed since the last checkpoint are written again, to new pages like everything else.
//! - The bits written are those after the allocator's own pages were placed, so they describe themselves.

use bytes::Bytes;
use mesh_base::bytesio::Reader;
use mesh_base::{CheckpointNo, PageNo};

use super::Allocator;
use crate::page::{self, Expected, HEADER_BYTES, PageKind, PageStamp, payload_bytes};
use crate::pointer::{Checksum, PagePointer};

/// Most index pages of a store: what a superblock has room for.
pub(crate) const INDEX_PAGES_MAX: usize = 128;

/// The bitmap that covers one range of pages.
#[derive(Clone, Copy)]
pub(super) struct BitmapSlot {
    pub(super) pointer: PagePointer,
    pub(super) is_changed: bool,
}

impl Default for BitmapSlot {
    fn default() -> Self {
        Self { pointer: PagePointer::NONE, is_changed: false }
    }
}

/// The index pages, as a superblock names them.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct AllocatorRoot {
    pub(crate) index: Vec<PagePointer>,
}

/// A page of the allocator on its way to the disk.
pub(crate) struct AllocatorWrite {
    pub(crate) page: PageNo,
    pub(crate) bytes: Bytes,
}

/// Pages that one bitmap covers.
pub(crate) const fn pages_per_bitmap(page_bytes: usize) -> u64 {
    payload_bytes(page_bytes) as u64 * 8
}

/// Bitmaps that a file of this many pages has.
#[allow(clippy::cast_possible_truncation, reason = "a count of pages in memory")]
pub(crate) const fn bitmap_pages(file_pages: u64, page_bytes: usize) -> usize {
    file_pages.div_ceil(pages_per_bitmap(page_bytes)) as usize
}

/// Index pages that a file of this many pages has.
pub(crate) const fn index_pages(file_pages: u64, page_bytes: usize) -> usize {
    bitmap_pages(file_pages, page_bytes).div_ceil(pointers_per_index(page_bytes))
}

const fn pointers_per_index(page_bytes: usize) -> usize {
    payload_bytes(page_bytes) / PagePointer::BYTES
}

/// The pointers of an index page to the bitmaps from `first` on, of `total` bitmaps in all.
pub(crate) fn parse_index(page: &[u8], index: usize, total: usize) -> Option<Vec<(usize, PagePointer)>> {
    let per_index = pointers_per_index(page.len());
    let first = index * per_index;
    let mut reader = Reader::new(page.get(HEADER_BYTES..)?);
    (first..total.min(first + per_index))
        .map(|slot| PagePointer::decode(&mut reader).map(|pointer| (slot, pointer)))
        .collect()
}

impl Allocator {
    /// The books of a file whose bitmaps are still to be read.
    pub(crate) fn loading(
        page_bytes: usize,
        grow_bytes: usize,
        file_pages: u64,
        root: AllocatorRoot,
    ) -> Self {
        let mut allocator = Self::new(page_bytes, grow_bytes, 0);
        allocator.used.grow(file_pages);
        allocator.available.grow(file_pages);
        allocator.slots.resize_with(bitmap_pages(file_pages, page_bytes), BitmapSlot::default);
        allocator.root = root;
        allocator
    }

    /// Takes in an index page; the bitmaps to read next.
    pub(crate) fn load_index(&mut self, index: usize, page: &[u8]) -> Option<Vec<(usize, PagePointer)>> {
        let pointers = parse_index(page, index, self.slots.len())?;
        for (slot, pointer) in &pointers {
            self.slots.get_mut(*slot)?.pointer = *pointer;
        }
        Some(pointers)
    }

    /// Takes in a bitmap. False if it has a page in use beyond the file.
    pub(crate) fn load_bitmap(&mut self, slot: usize, page: &[u8]) -> bool {
        let first = slot as u64 * pages_per_bitmap(self.page_bytes);
        page.get(HEADER_BYTES..).is_some_and(|bits| self.used.read_bytes(first, bits))
    }

    /// All bitmaps are in: what is not in use is available. False if the superblock's own pages, or the
    /// allocator's, are not in use.
    pub(crate) fn loaded(&mut self, reserved: u64) -> bool {
        self.available = self.used.inverted();
        self.reserved = reserved;
        let own = self.slots.iter().map(|slot| slot.pointer).chain(self.root.index.iter().copied());
        let mut own = own.filter(PagePointer::is_some).map(|pointer| pointer.page.get());
        reserved <= self.used.len()
            && (0..reserved).all(|page| self.used.get(page))
            && own.all(|page| page < self.used.len() && self.used.get(page))
    }

    /// Fixes what the checkpoint being built writes: places the allocator's own pages and copies the bits.
    ///
    /// A file of terabytes may be larger than a superblock can describe: it has more than [`INDEX_PAGES_MAX`] index pages then.
    pub(crate) fn freeze(&mut self, epoch: CheckpointNo) -> (AllocatorRoot, Vec<AllocatorWrite>) {
        self.give_up_end(epoch);
        // Placing a page may change another bitmap, which then has to be placed too: until nothing moves.
        while self.place_bitmaps(epoch) || self.place_indexes(epoch) {}
        let mut writes = Vec::new();
        for slot in 0..self.slots.len() {
            self.write_bitmap(slot, epoch, &mut writes);
        }
        for index in 0..self.root.index.len() {
            self.write_index(index, epoch, &mut writes);
        }
        (self.shortened_index, self.give_up) = (None, None);
        (self.root.clone(), writes)
    }

    pub(super) fn mark_changed(&mut self, page: u64, pages: u64) {
        let slot_of = |page: u64| usize::try_from(page / pages_per_bitmap(self.page_bytes));
        let (Ok(first), Ok(last)) = (slot_of(page), slot_of((page + pages).saturating_sub(1))) else {
            return;
        };
        self.slots.iter_mut().take(last + 1).skip(first).for_each(|slot| slot.is_changed = true);
    }

    /// Forgets the bitmaps and index pages that a file of so many pages has no use for.
    pub(super) fn drop_bitmaps(&mut self, file_pages: u64, epoch: CheckpointNo) {
        let (bitmaps, indexes) =
            (bitmap_pages(file_pages, self.page_bytes), index_pages(file_pages, self.page_bytes));
        if bitmaps == self.slots.len() {
            return;
        }
        let slots = self.slots.drain(bitmaps..).map(|slot| slot.pointer);
        let index = self.root.index.drain(indexes.min(self.root.index.len())..);
        let gone: Vec<PagePointer> = slots.chain(index).filter(PagePointer::is_some).collect();
        gone.iter().for_each(|pointer| self.free(pointer.page, 1, pointer.checkpoint, epoch));
        // The last index page may still point at bitmaps that are gone, and would again be asked for them if the file grew.
        self.shortened_index = self.root.index.last().filter(|last| last.is_some()).map(|_| indexes - 1);
    }

    fn place_bitmaps(&mut self, epoch: CheckpointNo) -> bool {
        let mut has_placed = false;
        let mut slot = 0;
        while let Some(BitmapSlot { pointer, is_changed }) = self.slots.get(slot).copied() {
            if is_changed && pointer.checkpoint != epoch {
                let pointer = self.replace(&pointer, epoch);
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.pointer = pointer;
                }
                has_placed = true;
            }
            slot += 1;
        }
        has_placed
    }

    fn place_indexes(&mut self, epoch: CheckpointNo) -> bool {
        let per_index = pointers_per_index(self.page_bytes);
        self.root.index.resize(self.slots.len().div_ceil(per_index), PagePointer::NONE);
        let due = |(index, slots): (usize, &[BitmapSlot])| {
            let is_placed = self.root.index.get(index).is_some_and(|pointer| pointer.checkpoint == epoch);
            let is_high = |pointer: &PagePointer| self.give_up.is_some_and(|keep| pointer.page.get() >= keep);
            let has_changed = self.shortened_index == Some(index)
                || self.root.index.get(index).is_some_and(is_high)
                || slots.iter().any(|slot| slot.pointer.checkpoint == epoch);
            (!is_placed && has_changed).then_some(index)
        };
        let Some(index) = self.slots.chunks(per_index).enumerate().find_map(due) else { return false };
        let old = self.root.index.get(index).copied().unwrap_or(PagePointer::NONE);
        let new = self.replace(&old, epoch);
        if let Some(pointer) = self.root.index.get_mut(index) {
            *pointer = new;
        }
        true
    }

    fn replace(&mut self, old: &PagePointer, epoch: CheckpointNo) -> PagePointer {
        if old.is_some() {
            self.free(old.page, 1, old.checkpoint, epoch);
        }
        PagePointer { page: self.allocate(), checksum: Checksum::UNSEALED, checkpoint: epoch }
    }

    fn write_bitmap(&mut self, slot_no: usize, epoch: CheckpointNo, writes: &mut Vec<AllocatorWrite>) {
        let Some(slot) = self.slots.get_mut(slot_no) else { return };
        if slot.pointer.checkpoint != epoch {
            return;
        }
        let mut bytes = vec![0; self.page_bytes];
        write_header(&mut bytes, PageKind::Bitmap, &slot.pointer);
        let first = slot_no as u64 * pages_per_bitmap(self.page_bytes);
        if let Some(bits) = bytes.get_mut(HEADER_BYTES..) {
            self.used.write_bytes(first, bits);
        }
        slot.pointer.checksum = Checksum::of(&bytes);
        slot.is_changed = false;
        writes.push(AllocatorWrite { page: slot.pointer.page, bytes: bytes.into() });
    }

    fn write_index(&mut self, index: usize, epoch: CheckpointNo, writes: &mut Vec<AllocatorWrite>) {
        let per_index = pointers_per_index(self.page_bytes);
        let Some(pointer) = self.root.index.get_mut(index) else { return };
        if pointer.checkpoint != epoch {
            return;
        }
        let mut bytes = vec![0; HEADER_BYTES];
        write_header(&mut bytes, PageKind::BitmapIndex, pointer);
        self.slots
            .iter()
            .skip(index * per_index)
            .take(per_index)
            .for_each(|slot| slot.pointer.encode(&mut bytes));
        bytes.resize(self.page_bytes, 0);
        pointer.checksum = Checksum::of(&bytes);
        writes.push(AllocatorWrite { page: pointer.page, bytes: bytes.into() });
    }
}

fn write_header(bytes: &mut [u8], kind: PageKind, pointer: &PagePointer) {
    let stamp = PageStamp { page: pointer.page, checkpoint: pointer.checkpoint };
    page::write_header(bytes, Expected::Allocator(kind), stamp);
}
