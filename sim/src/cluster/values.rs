//! What the clients of a run store: values that certify themselves.
//!
//! A value is its stamp, what it says, and a checksum of both: 8 bytes, any, 8 bytes. So whoever reads it knows which put
//! it is from, and that it is whole: not cut, not mixed with another, no part of it in another's place.

use bytes::{BufMut, Bytes, BytesMut};
use mesh_base::bytesio::Reader;
use mesh_base::checksum::xxh3;

use crate::history::{ClientNo, Stamp};
use crate::lists::{Contents, Element};

/// The shortest value in bytes: one that says nothing.
pub(super) const VALUE_BYTES_MIN: usize = 16;

/// A value that says something.
pub(super) fn saying(stamp: Stamp, what: &[u8]) -> Bytes {
    let mut value = BytesMut::with_capacity(VALUE_BYTES_MIN + what.len());
    value.put_u64_le(stamp.0);
    value.put_slice(what);
    seal(value)
}

/// A value of a length in bytes, no eight of which come twice: if parts of it changed places, its checksum would tell.
pub(super) fn of_length(stamp: Stamp, bytes: usize) -> Bytes {
    let mut value = BytesMut::with_capacity(bytes.max(VALUE_BYTES_MIN));
    value.put_u64_le(stamp.0);
    let mut word = stamp.0;
    let body = bytes.saturating_sub(VALUE_BYTES_MIN);
    for at in (0..body).step_by(8) {
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = word.to_le_bytes();
        value.extend(word.iter().take(body - at));
    }
    seal(value)
}

/// A list, as [`contents`] reads it.
pub(super) fn list(stamp: Stamp, contents: &Contents) -> Bytes {
    let mut what = BytesMut::new();
    what.put_u64_le(contents.length);
    for element in &contents.newest {
        what.put_u64_le(element.client.0);
        what.put_u64_le(element.number);
    }
    saying(stamp, &what)
}

/// The stamp of a value and what it says; nothing if it is not as it was written.
pub(super) fn read(value: &[u8]) -> Option<(Stamp, &[u8])> {
    let (sealed, seal) = value.split_last_chunk()?;
    let (stamp, what) = sealed.split_first_chunk()?;
    let is_whole = u64::from_le_bytes(*seal) == xxh3(sealed);
    is_whole.then_some((Stamp(u64::from_le_bytes(*stamp)), what))
}

/// The contents of a list, from what its value says.
pub(super) fn contents(what: &[u8]) -> Option<Contents> {
    let mut from = Reader::new(what);
    let length = from.u64()?;
    let mut newest = Vec::new();
    while let Some(client) = from.u64() {
        newest.push(Element { client: ClientNo(client), number: from.u64()? });
    }
    (newest.len() as u64 <= length).then_some(Contents { length, newest })
}

fn seal(mut value: BytesMut) -> Bytes {
    let checksum = xxh3(&value);
    value.put_u64_le(checksum);
    value.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_as_it_was_written() {
        for bytes in [16, 17, 24, 25, 4096, 100_001] {
            let value = of_length(Stamp(7), bytes);
            assert_eq!(value.len(), bytes);
            assert_eq!(read(&value).map(|(stamp, what)| (stamp, what.len())), Some((Stamp(7), bytes - 16)));
        }
        assert_eq!(read(&saying(Stamp(7), b"text")), Some((Stamp(7), b"text".as_slice())));
    }

    #[test]
    fn a_value_that_was_cut_mixed_or_changed_in_order_is_not_one() {
        let value = of_length(Stamp(7), 64 * 1024);
        let other = of_length(Stamp(8), 64 * 1024);
        let (half, rest) = value.split_at(32 * 1024);
        assert_eq!(read(half), None);
        assert_eq!(read(&[half, other.split_at(32 * 1024).1].concat()), None);
        let (quarter, next) = half.split_at(16 * 1024);
        assert_eq!(read(&[next, quarter, rest].concat()), None);
        assert_eq!(read(&[quarter, quarter, rest].concat()), None);
        assert_eq!(read(b""), None);
        assert_eq!(read(&[0; 15]), None);
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let element = |number| Element { client: ClientNo(3), number };
        for newest in [vec![], vec![element(8)], vec![element(7), element(9)]] {
            let list_of = Contents { length: 9, newest };
            let value = list(Stamp(1), &list_of);
            assert_eq!(read(&value).and_then(|(_, what)| contents(what)), Some(list_of));
        }
        assert_eq!(contents(&[0; 8 + 16]), None, "it shows more than it has");
        assert_eq!(contents(&[1; 8 + 9]), None);
    }
}
