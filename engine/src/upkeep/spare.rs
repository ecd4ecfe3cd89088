//! The pages of the file that nobody needed for a while.
//!
//! Time is cut into windows: each lasts for some seconds at least, and until a checkpoint became durable in it, unless there is
//! nothing to save. What was free at every tick of two windows was not needed from one checkpoint to the next.

use mesh_base::CheckpointNo;
use mesh_base::limits::UPKEEP_WINDOW_TICKS;

use crate::store::{Store, StoreStatistics};

#[derive(Default, Debug)]
pub(super) struct Spare {
    file_pages: u64,
    /// The fewest pages that were available in this window, and in the one before.
    now: u64,
    before: u64,
    ticks: u32,
    since: CheckpointNo,
    /// The answer, in the tick that ends a window.
    found: Option<u64>,
}

impl Spare {
    pub(super) fn tick(&mut self, store: &Store) {
        let StoreStatistics { file_pages, available_pages, dirty_bytes, .. } = store.statistics();
        // A file that grew had no page to spare, and one that became shorter has those no more that it gave up.
        self.found = None;
        let gone = self.file_pages.saturating_sub(file_pages);
        self.now = if file_pages > self.file_pages { 0 } else { self.now.saturating_sub(gone) };
        self.before = self.before.saturating_sub(gone);
        self.file_pages = file_pages;
        self.now = self.now.min(available_pages);
        self.ticks += 1;
        let durable = store.checkpoint().checkpoint;
        if self.ticks >= UPKEEP_WINDOW_TICKS && (durable > self.since || dirty_bytes == 0) {
            self.found = Some(self.now.min(self.before));
            (self.before, self.now) = (self.now, available_pages);
            (self.ticks, self.since) = (0, durable);
        }
    }

    /// The pages to spare, in the tick that ends a window.
    pub(super) fn take(&mut self) -> Option<u64> {
        self.found.take()
    }
}
