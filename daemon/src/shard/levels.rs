//! How full a replica's queues are, beside what each may hold at most.

use mesh_base::limits::{
    ENTRY_BYTES_MAX, EXTENT_BYTES_MAX, NODES_MAX, SNAPSHOT_CHUNKS_IN_FLIGHT_MAX, UNCOMMITTED_BYTES_MAX,
};

use super::reads::ROUNDS_MAX;
use super::replica::Replica;
use super::sending::Sending;

/// How full something bounded is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Level {
    /// What.
    pub what: &'static str,
    /// How much of it there is.
    pub now: usize,
    /// How much of it there may be.
    pub most: usize,
}

impl Replica {
    /// What the page store takes, beside what it may take at most when it was left alone for a while: leaves that are half full,
    /// and a file that is a third longer than what is in it needs, small files aside.
    pub(super) fn space(&self) -> [Level; 2] {
        let (figures, options) = (self.state.store.statistics(), &self.options.store);
        let level = |what, now: u64, most: u64| {
            let size = |pages| usize::try_from(pages).unwrap_or(usize::MAX);
            Level { what, now: size(now), most: size(most) }
        };
        let least = figures.leaf_bytes.div_ceil(options.page_bytes as u64);
        // A chunk by which it grows, and the largest extent, for which a place may be missing.
        let piece = ((options.grow_bytes + options.value_bytes_max.min(EXTENT_BYTES_MAX))
            / options.page_bytes) as u64;
        [
            level("leaves", figures.leaves, 2 * least + 8),
            level("pages of the file", figures.file_pages, figures.used_pages / 2 * 3 + 4 * piece),
        ]
    }

    /// The levels of everything that waits here.
    pub(super) fn levels(&self) -> [Level; 9] {
        let options = &self.options;
        let unacknowledged = self.sending.values().map(Sending::unacknowledged).max();
        // The replica's own business that may wait for pages: apply, the records of a checkpoint, the upkeep, snapshots.
        let own = 3 + self.sending.len();
        let level = |what, now, most| Level { what, now, most };
        [
            level("requests waiting", self.requests_waiting(), options.requests_waiting_max + own),
            // What is there is looked at before the next write is taken.
            level("bytes proposed", self.bytes_proposed(), UNCOMMITTED_BYTES_MAX + ENTRY_BYTES_MAX),
            level("read rounds", self.reads.rounds(), ROUNDS_MAX),
            level("keys in the overlay", self.overlay.len(), self.proposals.keys()),
            level("sessions", self.state.sessions.len(), options.sessions_full()),
            level("snapshots being sent", self.sending.len(), NODES_MAX - 1),
            level("chunks sent", unacknowledged.unwrap_or(0), SNAPSHOT_CHUNKS_IN_FLIGHT_MAX),
            level("chunks received", self.receiving.queued(), SNAPSHOT_CHUNKS_IN_FLIGHT_MAX),
            level("fetches of records", self.receiving.loading_fetches(), 1),
        ]
    }
}
