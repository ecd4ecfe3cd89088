//! Memory that begins where direct I/O wants it to.

use mesh_base::limits::SECTOR_BYTES;

/// Bytes that begin at a multiple of a sector's size.
#[derive(Debug)]
pub(crate) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// So many zeros.
    pub(crate) fn zeroed(length: usize) -> Self {
        let memory = vec![0; length + SECTOR_BYTES];
        let start = memory.as_ptr().align_offset(SECTOR_BYTES);
        assert!(start < SECTOR_BYTES, "a byte's address can be aligned");
        Self { memory, start, length }
    }

    /// Takes another length, if there is memory for it.
    pub(crate) fn resized(mut self, length: usize) -> Option<Self> {
        self.length = length;
        (self.start + length <= self.memory.len()).then_some(self)
    }

    /// The greatest length it can take.
    pub(crate) const fn capacity(&self) -> usize {
        self.memory.len() - self.start
    }

    pub(crate) const fn len(&self) -> usize {
        self.length
    }

    #[allow(clippy::indexing_slicing, reason = "start and length were chosen to fit")]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.length]
    }

    #[allow(clippy::indexing_slicing, reason = "start and length were chosen to fit")]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_begins_at_a_sector_and_takes_no_more_than_it_has() {
        for length in [0, 1, 4096, 65536] {
            let mut memory = Aligned::zeroed(length);
            assert_eq!(memory.bytes().as_ptr().align_offset(SECTOR_BYTES), 0);
            assert_eq!(memory.bytes_mut().len(), length);
            assert!(memory.resized(length + 2 * SECTOR_BYTES).is_none());
        }
        assert_eq!(Aligned::zeroed(8192).resized(4096).map(|memory| memory.len()), Some(4096));
    }
}
