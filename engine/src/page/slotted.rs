//! The slotted layout: slots (offset, length) grow up behind the header, cells grow down from the page's end.
//!
//! Invariants:
//! - Slots are in key order; cells lie anywhere in the heap and do not overlap.
//! - `dead` counts the heap's bytes that belong to no cell, so free space is the gap plus the dead bytes.
#![allow(
    clippy::indexing_slicing,
    reason = "offsets were checked when the page came in, and are ours from then on"
)]

use super::{HEADER_BYTES, SLOT_BYTES, fields, offset, payload_bytes};

/// How many cells the page has.
pub(crate) fn count(page: &[u8]) -> usize {
    usize::from(fields::u16_at(page, offset::CELLS))
}

/// The bytes of a cell.
pub(crate) fn cell(page: &[u8], index: usize) -> &[u8] {
    let (start, length) = slot(page, index);
    &page[start..start + length]
}

/// The bytes of a cell, to be changed in place.
pub(crate) fn cell_mut(page: &mut [u8], index: usize) -> &mut [u8] {
    let (start, length) = slot(page, index);
    &mut page[start..start + length]
}

/// Bytes that cells and their slots take.
pub(crate) fn used_bytes(page: &[u8]) -> usize {
    payload_bytes(page.len()) - gap_bytes(page) - dead_bytes(page)
}

/// Whether a cell of this length fits, perhaps after compaction.
pub(crate) fn fits(page: &[u8], length: usize) -> bool {
    gap_bytes(page) + dead_bytes(page) >= length + SLOT_BYTES
}

/// Puts a cell before the one at `index`.
pub(crate) fn insert(page: &mut [u8], index: usize, bytes: &[u8]) {
    let cells = count(page);
    assert!(index <= cells, "insert beyond the last cell");
    assert!(fits(page, bytes.len()), "insert into a full page");
    if gap_bytes(page) < bytes.len() + SLOT_BYTES {
        compact(page);
    }
    let start = heap_start(page) - bytes.len();
    page[start..start + bytes.len()].copy_from_slice(bytes);
    let at = slot_offset(index);
    page.copy_within(at..slot_offset(cells), at + SLOT_BYTES);
    fields::set_u16(page, at, start);
    fields::set_u16(page, at + 2, bytes.len());
    fields::set_u16(page, offset::HEAP_START, start);
    fields::set_u16(page, offset::CELLS, cells + 1);
}

/// Takes a cell out.
pub(crate) fn remove(page: &mut [u8], index: usize) {
    let cells = count(page);
    assert!(index < cells, "remove of a cell that is not there");
    let (start, length) = slot(page, index);
    if start == heap_start(page) {
        fields::set_u16(page, offset::HEAP_START, start + length);
    } else {
        let dead = dead_bytes(page) + length;
        fields::set_u16(page, offset::DEAD, dead);
    }
    page.copy_within(slot_offset(index + 1)..slot_offset(cells), slot_offset(index));
    fields::set_u16(page, offset::CELLS, cells - 1);
}

/// Takes out all cells.
pub(crate) fn clear(page: &mut [u8]) {
    let end = page.len();
    fields::set_u16(page, offset::CELLS, 0);
    fields::set_u16(page, offset::HEAP_START, end);
    fields::set_u16(page, offset::DEAD, 0);
    // Zeros, so that equal contents make equal pages.
    page[HEADER_BYTES..].fill(0);
}

/// Moves the cells together so that all free space is in the gap.
pub(crate) fn compact(page: &mut [u8]) {
    let old = page.to_vec();
    clear(page);
    for index in 0..count(&old) {
        insert(page, index, cell(&old, index));
    }
}

/// Whether slots and cells lie within the page and account for its bytes.
pub(super) fn is_sound(page: &[u8]) -> bool {
    let cells = count(page);
    let heap = heap_start(page);
    if HEADER_BYTES + cells * SLOT_BYTES > heap || heap > page.len() {
        return false;
    }
    let mut total = 0;
    for index in 0..cells {
        let (start, length) = slot(page, index);
        if start < heap || start + length > page.len() {
            return false;
        }
        total += length;
    }
    heap + dead_bytes(page) + total == page.len()
}

fn slot_offset(index: usize) -> usize {
    HEADER_BYTES + index * SLOT_BYTES
}

fn slot(page: &[u8], index: usize) -> (usize, usize) {
    debug_assert!(index < count(page), "no such slot");
    let at = slot_offset(index);
    (usize::from(fields::u16_at(page, at)), usize::from(fields::u16_at(page, at + 2)))
}

fn heap_start(page: &[u8]) -> usize {
    usize::from(fields::u16_at(page, offset::HEAP_START))
}

fn dead_bytes(page: &[u8]) -> usize {
    usize::from(fields::u16_at(page, offset::DEAD))
}

fn gap_bytes(page: &[u8]) -> usize {
    heap_start(page) - slot_offset(count(page))
}
