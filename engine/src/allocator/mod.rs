//! Which pages are in use, which may be handed out, and which must wait.
//!
//! A page is in exactly one of these states:
//! - *used*: the tree, a value or the allocator itself refers to it now;
//! - *available*: nothing does, no durable or running checkpoint and no pin either: it may be handed out;
//! - *waiting*: nothing refers to it now, but a checkpoint that is durable or running, or a pinned one, does.
//!
//! Invariants:
//! - A page handed out is never one that the newest durable checkpoint refers to.
//! - A page freed during the epoch that allocated it was never part of a checkpoint, and is available at once.
//! - The disk holds the *used* bits as of its checkpoint; all else is free after it. Pins do not survive a restart.
//! - Handing out never fails: the file grows in the books, and the next checkpoint takes the disk space.
//! - Low pages are handed out first, so that the end of the file comes free and can be given back ([`space`]).

mod bitmap;
mod disk;
mod space;
mod waiting;

use mesh_base::flaw::{self, Flaw};
use mesh_base::{CheckpointNo, PageNo};

pub(crate) use self::bitmap::Bitmap;
use self::disk::BitmapSlot;
pub(crate) use self::disk::{
    AllocatorRoot, INDEX_PAGES_MAX, bitmap_pages, index_pages, pages_per_bitmap, parse_index,
};
use self::waiting::Waiting;

/// Where the pages of one store are.
pub(crate) struct Allocator {
    page_bytes: usize,
    grow_pages: u64,
    /// Pages of the superblock.
    reserved: u64,
    used: Bitmap,
    available: Bitmap,
    /// No page before it is available.
    lowest: u64,
    /// Where the search for the next run begins.
    run_cursor: u64,
    waiting: Waiting,
    slots: Vec<BitmapSlot>,
    root: AllocatorRoot,
    /// The end of the file is to be given up down to here, as far as it is free.
    give_up: Option<u64>,
    /// The index page that no longer has all the bitmaps it had.
    shortened_index: Option<usize>,
    /// Counts the moments at which pages that the disk holds became available: after one, a page number that was
    /// learnt before it may come to mean another page.
    reuses: u64,
}

/// How far a search for a run goes before the file grows instead, in pages.
const RUN_SEARCH_PAGES: u64 = 256 * 1024;

impl Allocator {
    /// The books of an empty file whose first `reserved` pages belong to the superblock.
    pub(crate) fn new(page_bytes: usize, grow_bytes: usize, reserved: u64) -> Self {
        let mut allocator = Self {
            page_bytes,
            grow_pages: (grow_bytes / page_bytes) as u64,
            reserved,
            used: Bitmap::default(),
            available: Bitmap::default(),
            lowest: 0,
            run_cursor: 0,
            waiting: Waiting::default(),
            slots: Vec::new(),
            root: AllocatorRoot::default(),
            give_up: None,
            shortened_index: None,
            reuses: 0,
        };
        allocator.grow(reserved);
        allocator.take(0, reserved);
        allocator
    }

    /// Pages of the file, in the books.
    pub(crate) const fn file_pages(&self) -> u64 {
        self.used.len()
    }

    /// Pages that may be handed out.
    pub(crate) const fn available_pages(&self) -> u64 {
        self.available.ones()
    }

    /// Pages in use.
    pub(crate) const fn used_pages(&self) -> u64 {
        self.used.ones()
    }

    /// Changes whenever pages that the disk holds became available.
    pub(crate) const fn reuses(&self) -> u64 {
        self.reuses
    }

    /// Hands out a page: the first that is available.
    pub(crate) fn allocate(&mut self) -> PageNo {
        let page = self.first_available().unwrap_or_else(|| self.grow(self.grow_pages));
        self.take(page, 1);
        self.lowest = page + 1;
        PageNo(page)
    }

    fn first_available(&self) -> Option<u64> {
        self.available.first_one(self.lowest, self.file_pages())
    }

    /// Hands out a run of adjacent pages: the first that is found, from where the last was.
    pub(crate) fn allocate_run(&mut self, pages: u64) -> PageNo {
        if pages == 1 {
            return self.allocate();
        }
        let found = if self.available.ones() < pages {
            None
        } else {
            self.available.next_run(self.run_cursor, pages, RUN_SEARCH_PAGES)
        };
        let start = found.unwrap_or_else(|| {
            let tail = self.available.ones_at_end(pages);
            let missing = pages.saturating_sub(tail);
            let end = self.file_pages();
            self.grow(missing.next_multiple_of(self.grow_pages));
            end - tail
        });
        // A search that found nothing goes on where it ended, so that all of the file is searched in the end.
        self.run_cursor = match found {
            Some(start) => start + pages,
            None => (self.run_cursor + RUN_SEARCH_PAGES) % self.file_pages().max(1),
        };
        self.take(start, pages);
        PageNo(start)
    }

    /// Takes back a run of pages that the current state no longer refers to. `epoch` is the checkpoint being built,
    /// `born` the one that wrote or will write the run.
    pub(crate) fn free(&mut self, page: PageNo, pages: u64, born: CheckpointNo, epoch: CheckpointNo) {
        assert!(born <= epoch, "{page} comes from the future");
        assert_eq!(self.used.ones_in_run(page.get(), pages), pages, "{page} freed twice");
        self.used.clear_run(page.get(), pages);
        self.mark_changed(page.get(), pages);
        let is_needed = born < epoch && self.waiting.insert((page, pages), born, epoch, self.file_pages());
        if !is_needed || flaw::is_planted(Flaw::ReusePagesEarly) {
            self.make_available(page.get(), pages);
        }
    }

    /// Keeps what a checkpoint refers to: it is durable, or begins, or is pinned. It is the newest that is kept, or kept already.
    pub(crate) fn keep(&mut self, checkpoint: CheckpointNo) {
        self.waiting.keep(checkpoint);
    }

    /// Takes back one reason to keep a checkpoint. Returns the pages that became available, if there are any.
    pub(crate) fn let_go(&mut self, checkpoint: CheckpointNo) -> Option<Bitmap> {
        let free = self.waiting.let_go(checkpoint)?;
        let first = free.first_one(0, free.len())?;
        let others = self.available.common(&free).chain(self.used.common(&free)).next();
        assert_eq!(others, None, "a page in two states");
        self.available.unite(&free);
        self.reuses += 1;
        // What came free lies lower, perhaps, than where pages and runs were found last.
        self.lowest = self.lowest.min(first);
        self.run_cursor = self.run_cursor.min(first);
        Some(free)
    }

    fn make_available(&mut self, page: u64, pages: u64) {
        let others = self.available.ones_in_run(page, pages) + self.used.ones_in_run(page, pages);
        assert_eq!(others, 0, "page {page} in two states");
        self.available.set_run(page, pages);
        self.lowest = self.lowest.min(page);
    }

    /// Lengthens the file in the books; returns the first new page.
    fn grow(&mut self, pages: u64) -> u64 {
        let first = self.file_pages();
        self.used.grow(pages);
        self.available.grow(pages);
        self.available.set_run(first, pages);
        let slots = bitmap_pages(self.file_pages(), self.page_bytes);
        self.slots.resize_with(slots, BitmapSlot::default);
        first
    }

    fn take(&mut self, page: u64, pages: u64) {
        assert_eq!(self.available.ones_in_run(page, pages), pages, "page {page} is taken");
        self.available.clear_run(page, pages);
        self.used.set_run(page, pages);
        self.mark_changed(page, pages);
    }

    /// Whether every page is in exactly one state; a description of the first that is not.
    pub(crate) fn check(&self) -> Result<(), (PageNo, &'static str)> {
        let mut waiting = Bitmap::default();
        waiting.grow(self.file_pages());
        for set in self.waiting.sets() {
            if let Some(page) = waiting.common(set).next() {
                return Err((PageNo(page), "waits twice"));
            }
            waiting.unite(set);
        }
        // Waiting and available pages are those not in use, and nothing is both.
        let mut overlaps = waiting
            .common(&self.available)
            .chain(waiting.common(&self.used))
            .chain(self.available.common(&self.used));
        if let Some(page) = overlaps.next() {
            return Err((PageNo(page), "in two of the states used, available and waiting"));
        }
        if waiting.ones() + self.available.ones() + self.used.ones() != self.file_pages() {
            let idle = self.used.inverted().differences(&self.available).find(|page| !waiting.get(*page));
            return Err((PageNo(idle.unwrap_or_default()), "neither used nor available nor waiting"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::page::{Expected, PageKind, check};

    /// Pages so small that bitmaps and their indexes are many.
    pub(super) const TINY: usize = 128;

    /// Reads back what a checkpoint wrote.
    pub(super) fn reload(
        disk: &BTreeMap<PageNo, bytes::Bytes>,
        pages: u64,
        root: &AllocatorRoot,
        reserved: u64,
    ) -> Allocator {
        let mut copy = Allocator::loading(TINY, TINY * 64, pages, root.clone());
        assert_eq!(root.index.len(), index_pages(pages, TINY));
        for (index, pointer) in root.index.iter().enumerate().filter(|(_, pointer)| pointer.is_some()) {
            let bytes = &disk[&pointer.page];
            check::check(bytes, TINY, pointer, Expected::Allocator(PageKind::BitmapIndex)).unwrap();
            for (slot, pointer) in copy.load_index(index, bytes).unwrap() {
                if pointer.is_some() {
                    let bytes = &disk[&pointer.page];
                    check::check(bytes, TINY, &pointer, Expected::Allocator(PageKind::Bitmap)).unwrap();
                    assert!(copy.load_bitmap(slot, bytes));
                }
            }
        }
        assert!(copy.loaded(reserved));
        copy.check().unwrap();
        copy
    }

    #[test]
    fn the_books_come_back_from_their_pages_and_describe_those_pages_too() {
        let mut allocator = Allocator::new(TINY, TINY * 64, 16);
        let mut disk = BTreeMap::new();
        let mut mine: Vec<(PageNo, CheckpointNo)> = Vec::new();
        for epoch in (1..30).map(CheckpointNo) {
            // Space that is taken far ahead has bitmaps, and indexes of them, with nothing in use.
            if epoch.get() % 7 == 0 {
                allocator.grow(3000);
            }
            for round in 0..epoch.get() * 13 % 200 {
                mine.push((allocator.allocate(), epoch));
                if round % 3 == 0 {
                    let (page, born) = mine.swap_remove(mine.len() / 2);
                    allocator.free(page, 1, born, epoch);
                }
            }
            let (root, writes) = allocator.freeze(epoch);
            allocator.keep(epoch);
            disk.extend(writes.into_iter().map(|write| (write.page, write.bytes)));
            let copy = reload(&disk, allocator.file_pages(), &root, 16);
            assert_eq!(copy.used_pages(), allocator.used_pages());
            assert!(mine.iter().all(|(page, _)| copy.used.get(page.get())));
            allocator.let_go(CheckpointNo(epoch.get() - 1));
            allocator.check().unwrap();
            assert_eq!(copy.available_pages(), allocator.available_pages());
        }
        assert!(allocator.root.index.len() > 4);
    }

    fn allocator() -> Allocator {
        Allocator::new(4096, 64 * 4096, 16)
    }

    fn pages(free: Option<Bitmap>) -> Vec<u64> {
        free.map_or(Vec::new(), |free| (0..free.len()).filter(|page| free.get(*page)).collect())
    }

    #[test]
    fn a_page_of_a_durable_checkpoint_waits_for_the_next() {
        let mut allocator = allocator();
        let page = allocator.allocate();
        allocator.keep(CheckpointNo(1));
        allocator.free(page, 1, CheckpointNo(1), CheckpointNo(2));
        assert!((0..200).all(|_| allocator.allocate() != page));
        allocator.keep(CheckpointNo(2));
        assert_eq!(pages(allocator.let_go(CheckpointNo(1))), [page.get()]);
        assert!((0..400).any(|_| allocator.allocate() == page));
        allocator.check().unwrap();
    }

    #[test]
    fn a_page_freed_in_its_own_epoch_is_available_at_once() {
        let mut allocator = allocator();
        let before = allocator.available_pages();
        let page = allocator.allocate();
        allocator.free(page, 1, CheckpointNo(3), CheckpointNo(3));
        assert_eq!(allocator.available_pages(), before.max(63 + 1));
        allocator.check().unwrap();
    }

    #[test]
    fn a_pin_holds_what_its_checkpoint_refers_to_and_nothing_else() {
        let mut allocator = allocator();
        let (old, new) = (allocator.allocate(), allocator.allocate());
        let (pinned, durable) = (CheckpointNo(2), CheckpointNo(3));
        allocator.keep(pinned);
        allocator.keep(durable);
        allocator.free(old, 1, CheckpointNo(1), CheckpointNo(4));
        allocator.free(new, 1, CheckpointNo(3), CheckpointNo(4));
        allocator.keep(CheckpointNo(4));
        assert_eq!(pages(allocator.let_go(durable)), [new.get()]);
        assert_eq!(pages(allocator.let_go(pinned)), [old.get()]);
        allocator.check().unwrap();
    }

    #[test]
    fn runs_are_found_in_freed_space_before_the_file_grows() {
        let mut allocator = allocator();
        let run = allocator.allocate_run(100);
        let after = allocator.allocate_run(10);
        assert!(after.get() >= run.get() + 100);
        allocator.free(run, 100, CheckpointNo(1), CheckpointNo(1));
        let pages = allocator.file_pages();
        for _ in 0..3 {
            allocator.allocate_run(30);
        }
        assert_eq!(allocator.file_pages(), pages);
        allocator.check().unwrap();
    }
}
