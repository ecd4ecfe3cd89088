//! Large values: runs of pages of their own, written once with the checkpoint that their cell is part of.
//!
//! Invariant: a value of n bytes has as few extents as its length allows. Where the file has no run that is long
//! enough it grows, so that a cell's list of extents has a fixed bound.

use mesh_base::PageNo;

use super::Tree;
use crate::cell::{self, Payload};
use crate::page::{Expected, PageStamp, extent, leaf, slotted};
use crate::pointer::{Checksum, ExtentPointer, PagePointer};

impl Tree {
    /// Stores a value in extents.
    pub(super) fn store_value(&mut self, value: &[u8]) -> Vec<ExtentPointer> {
        value.chunks(cell::extent_value_bytes_max()).map(|part| self.store_extent(part)).collect()
    }

    fn store_extent(&mut self, part: &[u8]) -> ExtentPointer {
        let value_bytes = u32::try_from(part.len()).unwrap_or(u32::MAX);
        let pointer = PagePointer { checkpoint: self.epoch, ..PagePointer::NONE };
        let mut extent = ExtentPointer { pointer, value_bytes };
        let pages = extent.pages(self.options.page_bytes);
        let page = self.allocator.allocate_run(pages);
        let file_bytes = extent.file_bytes(self.options.page_bytes);
        let bytes = extent::build(part, value_bytes, file_bytes, PageStamp { page, checkpoint: self.epoch });
        extent.pointer.page = page;
        extent.pointer.checksum = Checksum::of(&bytes);
        self.insert_extent(page, bytes, value_bytes);
        extent
    }

    /// Brings in an extent that the next checkpoint writes.
    pub(super) fn insert_extent(&mut self, page: PageNo, bytes: Vec<u8>, value_bytes: u32) {
        for offset in 0..(bytes.len() / self.options.page_bytes) as u64 {
            self.frames.discard(PageNo(page.get() + offset));
        }
        self.frames.insert_dirty_extent(page, bytes.into(), Expected::Extent { value_bytes }, self.epoch);
        self.note_dirtied(page, 0);
    }

    /// Gives back the extents of a cell's value, if it has any.
    pub(super) fn release_value(&mut self, leaf_no: PageNo, index: usize) {
        let page = self.page(leaf_no);
        if cell::flags_of(slotted::cell(page, index)) & cell::flag::LARGE == 0 {
            return;
        }
        let Payload::Large(list) = leaf::cell(page, index).payload else { return };
        let extents: Vec<ExtentPointer> = list.iter().collect();
        for extent in extents {
            let ExtentPointer { pointer, .. } = extent;
            self.release_run(pointer.page, extent.pages(self.options.page_bytes), pointer.checkpoint);
        }
    }
}
