//! The check of a page or an extent that comes from the disk: checksum, identity, and the lengths inside it.

use mesh_base::checksum::ChecksumAlgorithm;

use super::{Expected, HEADER_BYTES, PageStamp, fields, interior, search, slotted};
use crate::cell::Cell;
use crate::pointer::{Checksum, PagePointer};

/// Checks bytes against the pointer that led to them and against what they are expected to be.
///
/// # Errors
/// What is wrong, in words for a message.
pub(crate) fn check(
    bytes: &[u8],
    file_bytes: usize,
    pointer: &PagePointer,
    expected: Expected,
) -> Result<(), &'static str> {
    if bytes.len() < file_bytes {
        return Err("the file ends within the page");
    }
    if Checksum::of(bytes) != pointer.checksum {
        return Err("checksum differs from the pointer's");
    }
    if fields::stamp(bytes) != (PageStamp { page: pointer.page, checkpoint: pointer.checkpoint }) {
        return Err("page number or checkpoint differs from the pointer's");
    }
    if fields::kind_byte(bytes) != expected.kind() as u8 || fields::level(bytes) != expected.level() {
        return Err("page of another kind or level");
    }
    if fields::codec_byte(bytes) != 0 || fields::key_id(bytes) != 0 {
        return Err("page with a codec or key that this release does not know");
    }
    if fields::algorithm_byte(bytes) != ChecksumAlgorithm::Xxh3 as u8 {
        return Err("page with a checksum algorithm that this release does not know");
    }
    match expected {
        Expected::Node { level: 0 } => leaf(bytes),
        Expected::Node { .. } => interior(bytes),
        Expected::Extent { value_bytes } => {
            let fits = HEADER_BYTES + value_bytes as usize <= bytes.len();
            if fits { Ok(()) } else { Err("extent shorter than its part of the value") }
        }
        Expected::Allocator(_) => Ok(()),
    }
}

fn leaf(page: &[u8]) -> Result<(), &'static str> {
    if !slotted::is_sound(page) {
        return Err("leaf with slots outside the page");
    }
    let cells = slotted::count(page);
    if !(0..cells).all(|index| Cell::parse(slotted::cell(page, index)).is_some()) {
        return Err("leaf with a malformed cell");
    }
    if !slotted::counts_tombstones(page) {
        return Err("leaf with another number of tombstones than it says");
    }
    if search::is_sound(page) { Ok(()) } else { Err("leaf whose heads are not those of its keys") }
}

fn interior(page: &[u8]) -> Result<(), &'static str> {
    if !slotted::is_sound(page) {
        return Err("interior page with slots outside the page");
    }
    let cells = slotted::count(page);
    if cells == 0 || !(0..cells).all(|index| interior::is_sound(slotted::cell(page, index))) {
        return Err("interior page with a malformed cell");
    }
    if search::is_sound(page) { Ok(()) } else { Err("interior page whose heads are not those of its keys") }
}
