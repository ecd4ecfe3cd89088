//! The memory of tree pages: pieces of one size in large chunks, found by number without a look at anything else.
//!
//! A chunk of a large cache is a huge page where the kernel has one to give, so that a lookup in gigabytes of pages misses the
//! translation buffers less often. Memory that was taken stays taken: a piece that is given up is the next one's.

use memmap2::{Advice, MmapMut};

/// Bytes of a chunk of a large cache: a huge page of x86-64 and of arm64 with small base pages.
const HUGE_BYTES: usize = 2 * 1024 * 1024;
/// A cache has at least so many chunks, so that a small one takes little more than its budget.
const CHUNKS_MIN: usize = 16;

enum Chunk {
    Mapped(MmapMut),
    Allocated(Box<[u8]>),
}

impl Chunk {
    /// Memory that is all zeros.
    fn new(bytes: usize) -> Self {
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
}

#[allow(clippy::indexing_slicing, reason = "a piece is used only by who was given its number")]
impl Arena {
    /// No memory yet, for about this many bytes of pages.
    pub(super) fn new(page_bytes: usize, budget: usize) -> Self {
        let chunk_bytes = (budget / CHUNKS_MIN).clamp(page_bytes, HUGE_BYTES);
        let chunk_pages_log = (chunk_bytes / page_bytes).ilog2();
        Self { chunks: Vec::new(), page_bytes, chunk_pages_log }
    }

    /// Makes sure that there is memory for a piece, which may follow on the last there was.
    pub(super) fn reserve(&mut self, at: u32) {
        let chunk = self.chunk_of(at);
        while self.chunks.len() <= chunk {
            self.chunks.push(Chunk::new(self.page_bytes << self.chunk_pages_log));
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
        let mut arena = Arena::new(4096, 4096 * 4 * CHUNKS_MIN);
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
        let mut arena = Arena::new(16 * 1024, 1 << 30);
        arena.reserve(128);
        assert_eq!(arena.chunks.len(), 2);
        assert!(arena.page(128).iter().all(|byte| *byte == 0));
    }
}
