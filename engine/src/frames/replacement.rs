//! The replacement policy: S3-FIFO (Yang, Zhang, Qiu, Yue, Vinayak: "FIFO queues are all you need for cache eviction",
//! SOSP 2023). A small queue takes what comes in and lets most of it go again soon, so a scan passes through a tenth of
//! the memory; what is used a second time there, or again soon after it went, lives in the main queue.
//!
//! Queues hold entries of frames that may be gone; those are skipped, and swept out when they are too many.

use std::collections::{HashSet, VecDeque};

use mesh_base::PageNo;

use super::FrameId;
use super::hash::PageHash;

/// The small queue's share of the memory: one part in this many.
const SMALL_SHARE: usize = 10;
/// Stale entries that are not worth a sweep.
const STALE_MIN: usize = 64;

/// The queue that a frame is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Small,
    Main,
    /// None: it was pinned when its turn came.
    Aside,
}

#[derive(Default)]
pub(super) struct Replacement {
    small: VecDeque<FrameId>,
    main: VecDeque<FrameId>,
    small_bytes: usize,
    /// Pages that went from the small queue lately, and the same as a set.
    ghosts: VecDeque<PageNo>,
    ghost_set: HashSet<PageNo, PageHash>,
}

impl Replacement {
    /// Entries in both queues.
    pub(super) fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    /// A frame enters a queue.
    pub(super) fn enter(&mut self, id: FrameId, place: Place, bytes: usize) {
        match place {
            Place::Small => {
                self.small.push_back(id);
                self.small_bytes += bytes;
            }
            Place::Main => self.main.push_back(id),
            Place::Aside => {}
        }
    }

    /// A frame left a queue.
    pub(super) fn left(&mut self, place: Place, bytes: usize) {
        if place == Place::Small {
            self.small_bytes -= bytes;
        }
    }

    /// The next entry to decide about, taken out of its queue.
    pub(super) fn next(&mut self, clean_bytes: usize) -> Option<(FrameId, Place)> {
        let small_is_due = self.small_bytes * SMALL_SHARE >= clean_bytes || self.main.is_empty();
        if small_is_due && let Some(id) = self.small.pop_front() {
            return Some((id, Place::Small));
        }
        self.main.pop_front().map(|id| (id, Place::Main))
    }

    /// A page went from the small queue.
    pub(super) fn remember(&mut self, page: PageNo) {
        if self.ghost_set.insert(page) {
            self.ghosts.push_back(page);
        }
        while self.ghosts.len() > self.main.len().max(STALE_MIN) {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.ghost_set.remove(&oldest);
            }
        }
    }

    /// Whether a page went from the small queue lately.
    pub(super) fn remembers(&self, page: PageNo) -> bool {
        self.ghost_set.contains(&page)
    }

    /// Sweeps out entries of frames that are gone, when there are more of them than frames.
    pub(super) fn tidy(&mut self, frames: usize, is_live: impl Fn(&FrameId) -> bool) {
        if self.len() > 2 * frames + STALE_MIN {
            self.small.retain(&is_live);
            self.main.retain(&is_live);
        }
    }
}
