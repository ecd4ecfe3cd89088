//! The sizes of a store. Those that shape the file are checked against its superblock when it is opened.

use mesh_base::limits;

use crate::cell;
use crate::frames::MemoryAhead;
use crate::page;

/// Smallest page of a store, in bytes.
pub const PAGE_BYTES_MIN: usize = 4096;
/// Largest page of a store, in bytes.
pub const PAGE_BYTES_MAX: usize = 16 * 1024;

/// The sizes of one store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Bytes of a page: 4096, 8192 or 16384. Fixed when the file is made.
    pub page_bytes: usize,
    /// Longest key in bytes. Fixed when the file is made.
    pub key_bytes_max: usize,
    /// Longest value in bytes.
    pub value_bytes_max: usize,
    /// Bytes of pages and extents held in memory. Dirty ones count but cannot be evicted: the owner bounds them by
    /// taking checkpoints, and clean ones keep at least an eighth of this.
    pub frame_bytes_max: usize,
    /// Bytes of checkpoint writes in flight.
    pub checkpoint_bytes_in_flight_max: usize,
    /// Bytes by which the file grows at a time.
    pub grow_bytes: usize,
    /// Where memory for pages is ordered before it is needed.
    pub memory: MemoryAhead,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            page_bytes: 8192,
            key_bytes_max: limits::KEY_BYTES_MAX,
            value_bytes_max: limits::VALUE_BYTES_MAX,
            frame_bytes_max: 256 * 1024 * 1024,
            checkpoint_bytes_in_flight_max: limits::CHECKPOINT_BYTES_IN_FLIGHT_MAX,
            grow_bytes: 8 * 1024 * 1024,
            memory: MemoryAhead::default(),
        }
    }
}

impl StoreOptions {
    /// Checks the relations that the page layout rests on.
    ///
    /// # Panics
    /// When the sizes do not fit each other: a bug of whoever chose them.
    pub(crate) fn check(&self) {
        assert!(matches!(self.page_bytes, 4096 | 8192 | 16384), "page of {} bytes", self.page_bytes);
        assert!(self.grow_bytes >= self.page_bytes && self.grow_bytes.is_multiple_of(self.page_bytes));
        assert!(
            self.value_bytes_max <= limits::VALUE_BYTES_MAX,
            "an extent list is sized for the largest value"
        );
        assert!(self.key_bytes_max <= usize::from(u16::MAX));
        // Two cells of any kind fit a page, so a page can always be split into two that hold what it held.
        let half = page::payload_bytes(self.page_bytes) / 2 - page::SLOT_BYTES;
        assert!(cell::leaf_cell_bytes_max(self.key_bytes_max) <= half, "keys too long for the page");
        assert!(cell::interior_cell_bytes_max(self.key_bytes_max) <= half, "keys too long for the page");
    }

    /// Pages by which the file grows at a time.
    pub(crate) const fn grow_pages(&self) -> u64 {
        (self.grow_bytes / self.page_bytes) as u64
    }

    /// Bytes of cells and slots that a page holds.
    pub(crate) const fn page_capacity(&self) -> usize {
        page::payload_bytes(self.page_bytes)
    }

    /// Longest value that is kept in its cell.
    pub(crate) const fn inline_bytes_max(&self) -> usize {
        self.page_bytes / 4
    }

    /// Bytes that the largest cell may take in a page.
    pub(crate) const fn cell_bytes_max(&self) -> usize {
        page::payload_bytes(self.page_bytes) / 2 - page::SLOT_BYTES
    }
}
