//! Giving disk space back: the file is cut off behind its last page when a durable checkpoint does without the rest.
//!
//! Invariants:
//! - Nothing is cut off that the newest durable checkpoint, the one that is being written, or a pinned one refers to: the
//!   allocator gives up only pages that none of them does, and the durable and the running checkpoint's own lengths are
//!   looked at here.
//! - Space is never taken and given back at the same time: a checkpoint that has to take space waits for the cut to end.
//! - A cut is done in parts of a bounded size, so that none of them keeps the disk busy for long.

use mesh_base::PageNo;
use mesh_base::flaw::{self, Flaw};
use mesh_base::io::{IoOp, IoQueue, page_offset};
use mesh_base::limits::TRUNCATE_BYTES_MAX;

use super::{Purpose, Store};

/// Whether the file is being made shorter.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Shrinking {
    #[default]
    No,
    /// A cut is in flight.
    Cutting,
}

/// What keeps the end of the file from being given up.
pub(crate) struct Behind {
    /// Pages that the tree or a value refers to now.
    pub(crate) movable: u64,
    /// Pages that cannot be handed out, these and others.
    pub(crate) needed: u64,
}

impl Store {
    /// What lies in the file from a page on.
    pub(crate) fn pages_behind(&self, end: PageNo) -> Behind {
        let allocator = &self.tree.allocator;
        Behind { movable: allocator.movable_behind(end), needed: allocator.needed_behind(end) }
    }

    /// Lets the next checkpoint do without the end of the file behind `keep` pages, as far as nothing needs it by then. The
    /// disk has it back when that checkpoint is durable.
    pub(crate) fn give_up_behind(&mut self, keep: PageNo) {
        self.tree.allocator.give_up_behind(keep.get());
    }

    /// Cuts off what no checkpoint has in its file any more, or the first part of it.
    pub(super) fn shrink_file(&mut self, io: &mut IoQueue) {
        let needed = self.file_pages_needed();
        if self.shrinking == Shrinking::Cutting || self.taken_pages <= needed {
            return;
        }
        let page_bytes = self.tree.options.page_bytes;
        let part = (TRUNCATE_BYTES_MAX / page_bytes) as u64;
        self.taken_pages = needed.max(self.taken_pages.saturating_sub(part));
        self.shrinking = Shrinking::Cutting;
        let length = page_offset(PageNo(self.taken_pages), page_bytes);
        self.submit(IoOp::Truncate { file: self.file, length }, Purpose::Shrink, io);
    }

    /// The pages that no checkpoint can do without.
    fn file_pages_needed(&self) -> u64 {
        let durable = self.durable.file_pages;
        let Some(running) = &self.running else {
            let allocator = &self.tree.allocator;
            if !allocator.is_last_in_use(durable) && flaw::is_planted(Flaw::TruncateEarly) {
                return allocator.used_end().min(durable);
            }
            return durable;
        };
        durable.max(running.file_pages())
    }

    /// A cut has ended.
    pub(super) fn complete_shrink(&mut self) {
        self.shrinking = Shrinking::No;
    }
}
