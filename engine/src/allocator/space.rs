//! Giving the end of the file back, in the books.
//!
//! Invariants:
//! - Only pages that are available are given up: no durable or running checkpoint and no pin refers to them.
//! - The file becomes shorter in the books when a checkpoint is fixed, and on the disk when that checkpoint is durable.
//! - Bitmaps and index pages of what was given up are freed like any page, and no index page points at them any more.
//! - Bitmaps and index pages that lie behind what is to be kept move to lower pages, for the next time.

use mesh_base::{CheckpointNo, PageNo};

use super::{Allocator, RUN_SEARCH_PAGES};

impl Allocator {
    /// Lets the next checkpoint give up the end of the file down to `keep` pages, as far as it is free then.
    pub(crate) fn give_up_behind(&mut self, keep: u64) {
        self.give_up = Some(keep);
    }

    pub(super) fn give_up_end(&mut self, epoch: CheckpointNo) {
        let Some(keep) = self.give_up else { return };
        let free = self.available.ones_at_end(self.file_pages().saturating_sub(keep));
        let pages = self.file_pages() - free;
        self.available.truncate(pages);
        self.used.truncate(pages);
        self.waiting.truncate(pages);
        self.drop_bitmaps(pages, epoch);
        for slot in self.slots.iter_mut().filter(|slot| slot.pointer.page.get() >= keep) {
            slot.is_changed = true;
        }
    }

    /// Whether the last page of a file of so many is in use.
    pub(crate) fn is_last_in_use(&self, file_pages: u64) -> bool {
        let last = file_pages.saturating_sub(1);
        last < self.file_pages() && self.used.get(last)
    }

    /// The end of the pages in use.
    pub(crate) fn used_end(&self) -> u64 {
        self.used.end()
    }

    /// Pages from one on that cannot be handed out.
    pub(crate) fn needed_behind(&self, first: PageNo) -> u64 {
        let pages = self.file_pages().saturating_sub(first.get());
        pages - self.available.ones_in_run(first.get().min(self.file_pages()), pages)
    }

    /// Pages from one on that the tree or a value refers to.
    pub(crate) fn movable_behind(&self, first: PageNo) -> u64 {
        let pages = self.file_pages().saturating_sub(first.get());
        let used = self.used.ones_in_run(first.get().min(self.file_pages()), pages);
        let own = self.slots.iter().map(|slot| &slot.pointer).chain(&self.root.index);
        used - own.filter(|pointer| pointer.page >= first).count() as u64
    }

    /// Pages of the file that are the superblock's and the allocator's own.
    pub(crate) fn own_pages(&self) -> u64 {
        let own = self.slots.iter().map(|slot| &slot.pointer).chain(&self.root.index);
        self.reserved + own.filter(|pointer| pointer.is_some()).count() as u64
    }

    /// Whether so many pages before `limit` are available.
    pub(crate) fn has_before(&self, limit: PageNo, pages: u64) -> bool {
        let to = limit.get().min(self.file_pages());
        let mut from = self.lowest;
        (0..pages).all(|_| {
            let found = self.available.first_one(from, to);
            found.inspect(|page| from = page + 1).is_some()
        })
    }

    /// Hands out a run of adjacent pages before `limit`, if one is found.
    pub(crate) fn allocate_run_before(&mut self, limit: PageNo, pages: u64) -> Option<PageNo> {
        let start = self.run_before(limit, pages)?;
        self.take(start.get(), pages);
        Some(start)
    }

    /// A run of adjacent pages before `limit` that is available, if one is found.
    pub(crate) fn run_before(&self, limit: PageNo, pages: u64) -> Option<PageNo> {
        let last = (limit.get().checked_sub(pages)? + 1).min(self.file_pages());
        let (from, nearest) = (self.run_cursor, last.min(RUN_SEARCH_PAGES));
        let found = self.available.first_run(from, last.min(from + RUN_SEARCH_PAGES), pages);
        found.or_else(|| self.available.first_run(0, nearest, pages)).map(PageNo)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TINY, reload};
    use super::*;

    #[test]
    fn the_free_end_of_a_file_is_given_up_with_its_bitmaps_and_can_be_taken_again() {
        let mut allocator = Allocator::new(TINY, TINY * 64, 16);
        let mut disk = std::collections::BTreeMap::new();
        let mut checkpoint = |allocator: &mut Allocator, epoch: u64| {
            let epoch = CheckpointNo(epoch);
            let (root, writes) = allocator.freeze(epoch);
            allocator.keep(epoch);
            disk.extend(writes.into_iter().map(|write| (write.page, write.bytes)));
            reload(&disk, allocator.file_pages(), &root, 16);
            allocator.let_go(CheckpointNo(epoch.get() - 1));
            allocator.check().unwrap();
        };
        let pages: Vec<PageNo> = (0..9000).map(|_| allocator.allocate()).collect();
        checkpoint(&mut allocator, 1);
        let full = allocator.file_pages();
        for page in pages.iter().skip(10) {
            allocator.free(*page, 1, CheckpointNo(1), CheckpointNo(2));
        }
        allocator.give_up_behind(100);
        checkpoint(&mut allocator, 2);
        assert!(allocator.file_pages() > full / 2, "what the last checkpoint refers to is not given up");
        checkpoint(&mut allocator, 3);
        for epoch in 4..8 {
            allocator.give_up_behind(100);
            checkpoint(&mut allocator, epoch);
        }
        assert!(allocator.file_pages() < 200, "{} pages", allocator.file_pages());
        // Bitmaps of the same numbers come again, none of which may be mistaken for those that went.
        let again: Vec<PageNo> = (0..9000).map(|_| allocator.allocate()).collect();
        checkpoint(&mut allocator, 8);
        assert!(again.len() as u64 + 26 <= allocator.used_pages() && allocator.file_pages() >= full - 64);
    }

    #[test]
    fn a_run_before_a_limit_ends_before_it() {
        let mut allocator = Allocator::new(4096, 64 * 4096, 16);
        let page = allocator.allocate();
        allocator.free(page, 1, CheckpointNo(1), CheckpointNo(1));
        assert_eq!(allocator.allocate_run_before(PageNo(20), 5), None);
        assert_eq!(allocator.allocate_run_before(PageNo(21), 5), Some(PageNo(16)));
        assert_eq!(allocator.allocate_run_before(PageNo(21), 1), None);
        assert!(allocator.has_before(PageNo(22), 1) && !allocator.has_before(PageNo(21), 1));
        assert!(allocator.has_before(PageNo(23), 2) && !allocator.has_before(PageNo(22), 2));
        assert!(!allocator.has_before(PageNo(1000), allocator.available_pages() + 1));
        allocator.check().unwrap();
    }
}
