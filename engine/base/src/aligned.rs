//! Memory that begins where direct I/O wants it to.

use crate::limits::SECTOR_BYTES;

/// Bytes that begin at a multiple of a sector's size.
#[derive(Debug)]
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// So many zeros.
    ///
    /// # Panics
    /// Never: a byte's address can be aligned.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        let memory = vec![0; length + SECTOR_BYTES];
        let start = memory.as_ptr().align_offset(SECTOR_BYTES);
        assert!(start < SECTOR_BYTES, "a byte's address can be aligned");
        Self { memory, start, length }
    }

    /// Takes another length, if there is memory for it.
    #[must_use]
    pub fn resized(mut self, length: usize) -> Option<Self> {
        self.length = length;
        (self.start + length <= self.memory.len()).then_some(self)
    }

    /// Keeps so many bytes of it; does nothing if it is no longer.
    pub const fn shorten(&mut self, length: usize) {
        if length < self.length {
            self.length = length;
        }
    }

    /// The greatest length it can take.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.memory.len() - self.start
    }

    /// Bytes of it.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// They themselves.
    #[allow(clippy::indexing_slicing, reason = "start and length were chosen to fit")]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.length]
    }

    /// The same, to be changed.
    #[allow(clippy::indexing_slicing, reason = "start and length were chosen to fit")]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..][..self.length]
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
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
