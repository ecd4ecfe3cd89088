//! Buffers that are filled, written and filled again: memory that is in use all the time costs the kernel nothing, while a
//! fresh buffer for each write is faulted in page by page.

use bytes::Bytes;

/// Buffers that are free. Of one owner: it takes one, fills it, hands its bytes to the disk, and gives them back when they
/// were written.
#[derive(Debug)]
pub struct Buffers {
    free: Vec<Vec<u8>>,
    count_max: usize,
    bytes_max: usize,
}

impl Buffers {
    /// None yet. At most `count_max` are kept, none of more than `bytes_max` bytes.
    #[must_use]
    pub const fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { free: Vec::new(), count_max, bytes_max }
    }

    /// An empty buffer with room for at least so many bytes.
    #[must_use]
    pub fn take(&mut self, bytes: usize) -> Vec<u8> {
        let mut buffer = self.free.pop().unwrap_or_default();
        buffer.clear();
        buffer.reserve(bytes);
        buffer
    }

    /// Takes back what was written. Bytes that somebody else still has are left to them.
    pub fn give_back(&mut self, bytes: Bytes) {
        if self.free.len() < self.count_max && bytes.len() <= self.bytes_max && bytes.is_unique() {
            let buffer = Vec::from(bytes);
            if buffer.capacity() <= self.bytes_max {
                self.free.push(buffer);
            }
        }
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.free.iter().map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_empty_and_where_it_was() {
        let mut buffers = Buffers::new(1, 8192);
        let mut buffer = buffers.take(4096);
        buffer.resize(4000, 7);
        let at = buffer.as_ptr();
        let written = Bytes::from(buffer);
        let kept = written.clone();
        buffers.give_back(written);
        assert_eq!(buffers.memory_bytes(), 0, "somebody has it");
        buffers.give_back(kept);
        buffers.give_back(vec![0; 100].into());
        assert!(buffers.memory_bytes() >= 4096, "the first one alone");
        let again = buffers.take(10);
        assert!(again.is_empty() && again.as_ptr() == at && buffers.memory_bytes() == 0);
        buffers.give_back(vec![0; 9000].into());
        assert_eq!(buffers.memory_bytes(), 0, "too large to keep");
    }
}
