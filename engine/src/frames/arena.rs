//! The memory of tree pages: pieces of one size in large chunks, found by number without a look at anything else.
//!
//! A chunk of a large cache is a huge page where the kernel has one to give, so that a lookup in gigabytes of pages misses the
//! translation buffers less often. Memory that was taken stays taken: a piece that is given up is the next one's. A large cache
//! that grows has the chunks that it will need next made elsewhere, see [`super::ahead`].

use super::ahead::{MemoryAhead, Ordering};
use memmap2::{Advice, MmapMut};

/// Bytes of a chunk of a large cache: a huge page of x86-64 and of arm64 with small base pages.
const HUGE_BYTES: usize = 2 * 1024 * 1024;
/// A cache has at least so many chunks, so that a small one takes little more than its budget.
const CHUNKS_MIN: usize = 16;
/// Huge chunks that a cache has before it orders any: an idle node takes no more than it needs.
const CHUNKS_WITHOUT_ORDER: usize = 4;
/// One chunk is ordered for so many that a cache has,
const CHUNKS_PER_ORDER: usize = 4;
/// and at most so many are under way: what a checkpoint's beginning takes in a moment.
const CHUNKS_UNDER_WAY_MAX: usize = 16;
/// Bytes of the smallest page of memory: one write to each makes all of it present.
const BASE_PAGE_BYTES: usize = 4096;

#[derive(Debug)]
pub(super) enum Chunk {
    Mapped(MmapMut),
    Allocated(Box<[u8]>),
}

impl Chunk {
    /// Memory that is all zeros.
    pub(super) fn new(bytes: usize) -> Self {
        if bytes < HUGE_BYTES {
            return Self::Allocated(vec![0; bytes].into());
        }
        match MmapMut::map_anon(bytes) {
            Ok(map) => {
                // A kernel without huge pages has the same memory in small ones.
                let _ = map.advise(Advice::HugePage);
                Self::Mapped(map)
            }
            Err(_) => Self::Allocated(vec![0; bytes].into()),
        }
    }

    /// Makes all of it present.
    pub(super) fn settle(&mut self) {
        self.bytes_mut().iter_mut().step_by(BASE_PAGE_BYTES).for_each(|byte| *byte = 0);
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Allocated(bytes) => bytes,
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Allocated(bytes) => bytes,
        }
    }
}

/// Pieces of memory of a page each, numbered from zero.
pub(super) struct Arena {
    chunks: Vec<Chunk>,
    page_bytes: usize,
    /// Pages of a chunk: this power of two.
    chunk_pages_log: u32,
    /// Chunks that the budget is.
    chunks_max: usize,
    ordering: Ordering,
}

#[allow(clippy::indexing_slicing, reason = "a piece is used only by who was given its number")]
impl Arena {
    /// No memory yet, for about this many bytes of pages.
    pub(super) fn new(page_bytes: usize, budget: usize, memory: MemoryAhead) -> Self {
        let chunk_bytes = (budget / CHUNKS_MIN).clamp(page_bytes, HUGE_BYTES);
        let chunk_pages_log = (chunk_bytes / page_bytes).ilog2();
        let chunks_max = budget / (page_bytes << chunk_pages_log);
        Self { chunks: Vec::new(), page_bytes, chunk_pages_log, chunks_max, ordering: Ordering::new(memory) }
    }

    /// Makes sure that there is memory for a piece, which may follow on the last there was.
    pub(super) fn reserve(&mut self, at: u32) {
        let chunk = self.chunk_of(at);
        while self.chunks.len() <= chunk {
            let bytes = self.page_bytes << self.chunk_pages_log;
            self.chunks.push(self.ordering.take().unwrap_or_else(|| Chunk::new(bytes)));
            if bytes == HUGE_BYTES && self.chunks.len() >= CHUNKS_WITHOUT_ORDER {
                let ahead = (self.chunks.len() / CHUNKS_PER_ORDER).min(CHUNKS_UNDER_WAY_MAX);
                let left = self.chunks_max.saturating_sub(self.chunks.len());
                self.ordering.keep_under_way(ahead.min(left), bytes);
            }
        }
    }

    /// A piece.
    pub(super) fn page(&self, at: u32) -> &[u8] {
        let offset = self.offset_of(at);
        &self.chunks[self.chunk_of(at)].bytes()[offset..offset + self.page_bytes]
    }

    /// A piece, to be changed.
    pub(super) fn page_mut(&mut self, at: u32) -> &mut [u8] {
        let (chunk, offset) = (self.chunk_of(at), self.offset_of(at));
        &mut self.chunks[chunk].bytes_mut()[offset..offset + self.page_bytes]
    }

    /// Makes one piece equal to another.
    pub(super) fn copy(&mut self, from: u32, to: u32) {
        let (source, target) = (self.chunk_of(from), self.chunk_of(to));
        let (source_at, target_at) = (self.offset_of(from), self.offset_of(to));
        let source_range = source_at..source_at + self.page_bytes;
        if let Ok([source, target]) = self.chunks.get_disjoint_mut([source, target]) {
            target.bytes_mut()[target_at..target_at + self.page_bytes]
                .copy_from_slice(&source.bytes()[source_range]);
        } else {
            self.chunks[source].bytes_mut().copy_within(source_range, target_at);
        }
    }

    const fn chunk_of(&self, at: u32) -> usize {
        (at >> self.chunk_pages_log) as usize
    }

    const fn offset_of(&self, at: u32) -> usize {
        let within = at & ((1 << self.chunk_pages_log) - 1);
        within as usize * self.page_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_apart_and_are_copied_within_a_chunk_and_between_two() {
        let mut arena = Arena::new(4096, 4096 * 4 * CHUNKS_MIN, MemoryAhead::default());
        for at in 0..10 {
            arena.reserve(at);
            arena.page_mut(at).fill(at.to_le_bytes()[0]);
        }
        arena.copy(1, 2);
        arena.copy(1, 9);
        let first: Vec<u8> = (0..10).map(|at| arena.page(at)[4095]).collect();
        assert_eq!(first, [0, 1, 1, 3, 4, 5, 6, 7, 8, 1]);
        assert_eq!(arena.chunks.len(), 3);
    }

    #[test]
    fn a_large_cache_lies_in_chunks_of_a_huge_page() {
        let mut arena = Arena::new(16 * 1024, 1 << 30, MemoryAhead::default());
        arena.reserve(128);
        assert_eq!(arena.chunks.len(), 2);
        assert!(arena.page(128).iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_large_cache_that_grows_has_its_memory_made_and_does_not_wait_for_it() {
        let (memory, orders) = MemoryAhead::new();
        let chunk_pages = 256;
        let budget = 8 * HUGE_BYTES * CHUNKS_MIN;
        let mut arena = Arena::new(8192, budget, memory);
        arena.reserve(3 * chunk_pages - 1);
        assert!(arena.ordering.take().is_none(), "nothing was ordered");
        arena.reserve(8 * chunk_pages - 1);
        assert_eq!((arena.chunks.len(), arena.ordering.under_way()), (8, 2));
        let maker = std::thread::spawn(|| orders.serve());
        while arena.ordering.under_way() > 0 {
            let made = arena.ordering.take();
            assert!(made.is_none_or(|chunk| chunk.bytes().len() == HUGE_BYTES));
        }
        drop(arena);
        maker.join().unwrap();
    }

    #[test]
    fn a_cache_of_all_its_budget_orders_nothing() {
        let (memory, orders) = MemoryAhead::new();
        let mut arena = Arena::new(8192, HUGE_BYTES * CHUNKS_MIN, memory);
        arena.reserve(u32::try_from(CHUNKS_MIN).unwrap() * 256 - 1);
        drop(orders);
        let ordered = arena.ordering.under_way();
        arena.reserve(u32::try_from(CHUNKS_MIN).unwrap() * 256);
        assert_eq!((arena.chunks.len(), arena.ordering.under_way()), (CHUNKS_MIN + 1, ordered));
    }
}
