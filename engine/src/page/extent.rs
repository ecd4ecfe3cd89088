//! Extents: a header, a part of a large value, and zeros to the end of the last page.

use super::{Expected, HEADER_BYTES, PageStamp, write_header};

/// The bytes of an extent.
pub(crate) fn build(value: &[u8], value_bytes: u32, file_bytes: usize, stamp: PageStamp) -> Vec<u8> {
    assert!(value.len() == value_bytes as usize && HEADER_BYTES + value.len() <= file_bytes);
    let mut bytes = Vec::with_capacity(file_bytes);
    bytes.resize(HEADER_BYTES, 0);
    write_header(&mut bytes, Expected::Extent { value_bytes }, stamp);
    bytes.extend_from_slice(value);
    bytes.resize(file_bytes, 0);
    bytes
}

/// The part of the value in an extent.
#[allow(
    clippy::indexing_slicing,
    reason = "the length was checked against the pointer when the extent came in"
)]
pub(crate) fn value(extent: &[u8], value_bytes: usize) -> &[u8] {
    &extent[HEADER_BYTES..HEADER_BYTES + value_bytes]
}
