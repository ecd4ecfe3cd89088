//! Fetches: reading the pages that operations miss.
//!
//! Invariants:
//! - The pages of a fetch stay in memory from their arrival until it is released, so an operation that keeps its
//!   fetches until it is done gets to its end however small the memory is.
//! - One read serves all who want the page.
//! - A page whose number may have come to mean another one is not read for the old meaning, and if its read is in
//!   flight already, what arrives is thrown away: the operation runs again and learns the new meaning.

use std::collections::BTreeMap;

use mesh_base::io::{IoError, IoOp, IoQueue, IoValue, page_offset};
use mesh_base::{Namespace, PageNo, Revision};

use super::{Purpose, Store, StoreEvent};
use crate::allocator::Bitmap;
use crate::error::StoreError;
use crate::frames::FrameId;
use crate::page::{Expected, check};
use crate::pointer::{ExtentPointer, PagePointer};
use crate::read::{Misses, PageWant};

/// Names a fetch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchId(u64);

#[derive(Default)]
struct Fetch {
    waiting: usize,
    pinned: Vec<FrameId>,
}

struct PageRead {
    want: PageWant,
    waiters: Vec<FetchId>,
    is_stale: bool,
}

/// All fetches and the reads they wait for.
#[derive(Default)]
pub(super) struct Fetches {
    last: u64,
    fetches: BTreeMap<FetchId, Fetch>,
    /// By the number of the read's token.
    reads: BTreeMap<u64, PageRead>,
    by_page: BTreeMap<PageNo, u64>,
}

impl Store {
    /// Reads the pages that an operation missed. [`StoreEvent::Fetched`] tells when they are there; from then on they
    /// stay until [`Store::release`].
    ///
    /// An operation may miss again, further down its way: its fetches are to be kept until it is done.
    pub fn fetch(&mut self, misses: &Misses, io: &mut IoQueue) -> FetchId {
        self.fetches.last += 1;
        let id = FetchId(self.fetches.last);
        let mut fetch = Fetch::default();
        let is_current = misses.stamp == self.tree.allocator.reuses() && self.poison.is_none();
        for want in misses.wants.iter().filter(|_| is_current) {
            let page = want.pointer.page;
            if let Some(frame) = self.tree.frames.id(page) {
                self.tree.frames.pin(frame);
                fetch.pinned.push(frame);
                continue;
            }
            fetch.waiting += 1;
            let number = match self.fetches.by_page.get(&page) {
                Some(number) => *number,
                None => self.submit_read(want, io),
            };
            if let Some(read) = self.fetches.reads.get_mut(&number) {
                read.waiters.push(id);
            }
        }
        if fetch.waiting == 0 {
            self.events.push_back(StoreEvent::Fetched(id));
        }
        self.fetches.fetches.insert(id, fetch);
        id
    }

    /// Lets go of the pages of a fetch, whether they have arrived or not.
    pub fn release(&mut self, id: FetchId) {
        let Some(fetch) = self.fetches.fetches.remove(&id) else { return };
        fetch.pinned.into_iter().for_each(|frame| self.tree.frames.unpin(frame));
        self.tree.frames.evict();
    }

    /// Fetches that were not released.
    #[must_use]
    pub fn fetches(&self) -> usize {
        self.fetches.fetches.len()
    }

    /// Fetches that wait for pages.
    #[must_use]
    pub fn fetches_waiting(&self) -> usize {
        self.fetches.fetches.values().filter(|fetch| fetch.waiting > 0).count()
    }

    fn submit_read(&mut self, want: &PageWant, io: &mut IoQueue) -> u64 {
        let page = want.pointer.page;
        assert!(want.pointer.checksum.is_sealed(), "{page} is missed but was never written");
        let op = read_op(self.file, &want.pointer, want.expected, self.tree.options.page_bytes);
        let number = self.submit(op, Purpose::Fetch, io);
        self.fetches.by_page.insert(page, number);
        let read = PageRead { want: *want, waiters: Vec::new(), is_stale: false };
        self.fetches.reads.insert(number, read);
        number
    }

    /// What lookups of these keys miss, to be fetched together: of the first of them, as far as that is about `bytes_max`, but of
    /// one at least. Values that are kept apart are missed only once the pages that tell where they are have come.
    ///
    /// # Errors
    /// As of [`Store::get`].
    pub fn missing_of<'k>(
        &self,
        namespace: Namespace,
        keys: impl Iterator<Item = &'k [u8]>,
        at: Revision,
        bytes_max: usize,
    ) -> Result<Misses, StoreError> {
        self.check_readable(namespace, at)?;
        let view = self.tree.view();
        let mut all = Misses::none(view.stamp);
        let mut bytes = 0;
        for key in keys {
            let known = all.len();
            view.missing_of(namespace, key, at).into_iter().for_each(|want| all.add(want));
            let new = all.wants.iter().skip(known);
            bytes += new
                .map(|want| file_bytes(&want.pointer, want.expected, self.tree.options.page_bytes))
                .sum::<usize>();
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(all)
    }

    /// Pages became available: reads of them are for a meaning that is gone.
    pub(super) fn forget_reads(&mut self, available: &Bitmap) {
        let is_stale = |page: &PageNo| page.get() < available.len() && available.get(page.get());
        let Fetches { by_page, reads, .. } = &mut self.fetches;
        by_page.retain(|page, number| {
            let is_stale = is_stale(page);
            if let Some(read) = reads.get_mut(number).filter(|_| is_stale) {
                read.is_stale = true;
            }
            !is_stale
        });
    }

    pub(super) fn complete_fetch(
        &mut self,
        number: u64,
        result: Result<IoValue, IoError>,
    ) -> Result<(), StoreError> {
        let Some(read) = self.fetches.reads.remove(&number) else { return Ok(()) };
        let PagePointer { page, .. } = read.want.pointer;
        let value = result?;
        let mut frame = None;
        if !read.is_stale {
            self.fetches.by_page.remove(&page);
            let IoValue::Read(bytes) = value else {
                return Err(corrupt(self, page, "the disk answered a read without bytes"));
            };
            let file_bytes = file_bytes(&read.want.pointer, read.want.expected, self.tree.options.page_bytes);
            check::check(&bytes, file_bytes, &read.want.pointer, read.want.expected)
                .map_err(|what| corrupt(self, page, what))?;
            frame = Some(self.tree.frames.insert_clean(page, bytes, read.want.expected));
        }
        for id in read.waiters {
            let Some(fetch) = self.fetches.fetches.get_mut(&id) else { continue };
            if let Some(frame) = frame {
                self.tree.frames.pin(frame);
                fetch.pinned.push(frame);
            }
            fetch.waiting -= 1;
            if fetch.waiting == 0 {
                self.events.push_back(StoreEvent::Fetched(id));
            }
        }
        self.tree.frames.evict();
        Ok(())
    }
}

fn corrupt(store: &Store, page: PageNo, what: &'static str) -> StoreError {
    let offset = page_offset(page, store.tree.options.page_bytes);
    StoreError::Corrupt { file: store.file, offset, what }
}

/// Bytes that a page or an extent takes in the file.
pub(crate) const fn file_bytes(pointer: &PagePointer, expected: Expected, page_bytes: usize) -> usize {
    match expected {
        Expected::Extent { value_bytes } => {
            ExtentPointer { pointer: *pointer, value_bytes }.file_bytes(page_bytes)
        }
        Expected::Node { .. } | Expected::Allocator(_) => page_bytes,
    }
}

/// The read of a page or an extent.
pub(super) const fn read_op(
    file: mesh_base::io::FileId,
    pointer: &PagePointer,
    expected: Expected,
    page_bytes: usize,
) -> IoOp {
    let length = file_bytes(pointer, expected, page_bytes);
    IoOp::Read { file, offset: page_offset(pointer.page, page_bytes), length }
}
