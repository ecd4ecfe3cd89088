//! Little-endian fields of on-disk structures, read and written without indexing.
//!
//! [`Reader`] returns `None` past the end, so that input from a disk can never panic; [`Writer`] appends to a vector.

/// Reads fields off the front of a byte string.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

macro_rules! read_number {
    ($($name:ident: $number:ty),*) => {$(
        /// The next little-endian number, or `None` at the end.
        pub fn $name(&mut self) -> Option<$number> {
            let (head, rest) = self.rest.split_first_chunk()?;
            self.rest = rest;
            Some(<$number>::from_le_bytes(*head))
        }
    )*};
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    read_number!(u8: u8, u16: u16, u32: u32, u64: u64);

    /// The next `length` bytes, or `None` if there are fewer.
    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(head)
    }

    /// The next `N` bytes as an array, or `None` if there are fewer.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*head)
    }

    /// Whether all was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

/// Appends little-endian fields to a vector.
pub trait Writer {
    /// Appends one byte.
    fn put_u8(&mut self, value: u8);
    /// Appends two bytes.
    fn put_u16(&mut self, value: u16);
    /// Appends four bytes.
    fn put_u32(&mut self, value: u32);
    /// Appends eight bytes.
    fn put_u64(&mut self, value: u64);
    /// Appends bytes as they are.
    fn put_bytes(&mut self, bytes: &[u8]);
    /// Appends zeros up to a length; does nothing if it is reached already.
    fn pad_to(&mut self, length: usize);
}

impl Writer for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn pad_to(&mut self, length: usize) {
        if self.len() < length {
            self.resize(length, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_end_is_none() {
        let mut bytes = Vec::new();
        bytes.put_u8(1);
        bytes.put_u16(2);
        bytes.put_u32(3);
        bytes.put_u64(4);
        bytes.put_bytes(b"abc");
        bytes.pad_to(20);
        let mut reader = Reader::new(&bytes);
        assert_eq!(
            (reader.u8(), reader.u16(), reader.u32(), reader.u64()),
            (Some(1), Some(2), Some(3), Some(4))
        );
        assert_eq!(reader.array::<3>(), Some(*b"abc"));
        assert_eq!(reader.bytes(3), None);
        assert_eq!(reader.rest(), [0, 0]);
        assert_eq!(reader.u64(), None);
    }
}
