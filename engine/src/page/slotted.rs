//! The slotted layout: slots (head, offset, length) grow up behind the header, cells grow down from the page's end.
//!
//! Invariants:
//! - Slots are in key order; cells lie anywhere in the heap and do not overlap.
//! - `dead` counts the heap's bytes that belong to no cell, so free space is the gap plus the dead bytes.
//! - All keys share the page's prefix, and each slot has the head of its cell's key: see [`search`].
#![allow(
    clippy::indexing_slicing,
    reason = "offsets were checked when the page came in, and are ours from then on"
)]

use super::prefetch::{CACHE_LINE_BYTES, prefetch};
use super::{HEADER_BYTES, SLOT_BYTES, fields, offset, payload_bytes, search};
use crate::cell;
use crate::key::KeyRef;

/// Lines of the header and of the slots behind it that a lookup probably needs.
const PREFETCHED_LINES: usize = 5;

/// How many cells the page has.
pub(crate) fn count(page: &[u8]) -> usize {
    usize::from(fields::u16_at(page, offset::CELLS))
}

/// The bytes of a cell.
pub(crate) fn cell(page: &[u8], index: usize) -> &[u8] {
    cell_of(page, slots(page)[index])
}

/// The bytes of a cell, to be changed in place. Its key and its length stay what they are.
pub(crate) fn cell_mut(page: &mut [u8], index: usize) -> &mut [u8] {
    let (start, length) = place(slots(page)[index]);
    &mut page[start..start + length]
}

/// Bytes that cells and their slots take.
pub(crate) fn used_bytes(page: &[u8]) -> usize {
    payload_bytes(page.len()) - gap_bytes(page) - dead_bytes(page)
}

/// How many cells of a leaf are tombstones.
pub(crate) fn tombstones(page: &[u8]) -> usize {
    usize::from(fields::u16_at(page, offset::TOMBSTONES))
}

/// Whether a cell of this length fits, perhaps after compaction.
pub(crate) fn fits(page: &[u8], length: usize) -> bool {
    gap_bytes(page) + dead_bytes(page) >= length + SLOT_BYTES
}

/// Asks for the header and as many slots as a leaf of middling cells has, without a look at how many there are: that would wait
/// for the header.
pub(crate) fn prefetch_slots(page: &[u8]) {
    prefetch(&page[..PREFETCHED_LINES * CACHE_LINE_BYTES]);
}

/// Asks for the key of a cell, and where its value begins.
pub(crate) fn prefetch_key(page: &[u8], index: usize) {
    let cell = cell(page, index);
    prefetch(&cell[..cell.len().min(CACHE_LINE_BYTES)]);
}

/// Asks for all of a number of cells.
pub(crate) fn prefetch_cells(page: &[u8], from: usize, cells: usize) {
    // Most of the cells are most of the heap, and a processor sees by itself that this is read from end to end.
    if cells * 2 > count(page) {
        return prefetch(&page[heap_start(page)..]);
    }
    slots(page)[from..from + cells].iter().for_each(|slot| prefetch(cell_of(page, *slot)));
}

/// Puts a cell before the one at `index`.
pub(crate) fn insert(page: &mut [u8], index: usize, bytes: &[u8]) {
    let cells = count(page);
    assert!(index <= cells, "insert beyond the last cell");
    assert!(fits(page, bytes.len()), "insert into a full page");
    if gap_bytes(page) < bytes.len() + SLOT_BYTES {
        compact(page);
    }
    let key = search::key_of(fields::level(page), bytes);
    let first = search::first_keyed(page);
    if index >= first && (index == first || index == cells) {
        share_prefix(page, &key);
    }
    let start = heap_start(page) - bytes.len();
    page[start..start + bytes.len()].copy_from_slice(bytes);
    let at = slot_offset(index);
    page.copy_within(at..slot_offset(cells), at + SLOT_BYTES);
    let head = if index < first { 0 } else { search::head(&key, search::prefix(page)) };
    write_slot(page, index, head, start, bytes.len());
    fields::set_u16(page, offset::HEAP_START, start);
    fields::set_u16(page, offset::CELLS, cells + 1);
    if is_tombstone(page, bytes) {
        let tombstones = tombstones(page) + 1;
        fields::set_u16(page, offset::TOMBSTONES, tombstones);
    }
}

/// Takes a cell out.
pub(crate) fn remove(page: &mut [u8], index: usize) {
    let cells = count(page);
    assert!(index < cells, "remove of a cell that is not there");
    let (start, length) = place(slots(page)[index]);
    if is_tombstone(page, &page[start..start + length]) {
        let tombstones = tombstones(page) - 1;
        fields::set_u16(page, offset::TOMBSTONES, tombstones);
    }
    if start == heap_start(page) {
        fields::set_u16(page, offset::HEAP_START, start + length);
    } else {
        let dead = dead_bytes(page) + length;
        fields::set_u16(page, offset::DEAD, dead);
    }
    page.copy_within(slot_offset(index + 1)..slot_offset(cells), slot_offset(index));
    fields::set_u16(page, offset::CELLS, cells - 1);
}

/// Puts a cell that is no longer into the place of an interior page's first, which has no key.
pub(crate) fn replace_first(page: &mut [u8], bytes: &[u8]) {
    let (start, length) = place(slots(page)[0]);
    assert!(fields::level(page) > 0, "the first cell of a leaf has a key like any other");
    assert!(bytes.len() <= length, "the new first cell is longer");
    let spare = length - bytes.len();
    page[start + spare..start + length].copy_from_slice(bytes);
    write_slot(page, 0, 0, start + spare, bytes.len());
    if start == heap_start(page) {
        fields::set_u16(page, offset::HEAP_START, start + spare);
    } else {
        let dead = dead_bytes(page) + spare;
        fields::set_u16(page, offset::DEAD, dead);
    }
}

/// Puts cells, in order, into a page in place of those it has.
pub(crate) fn fill<'c>(page: &mut [u8], cells: impl Iterator<Item = &'c [u8]> + Clone) {
    let level = fields::level(page);
    fields::set_u16(page, offset::PREFIX, 0);
    let mut keyed = cells.clone().skip(search::first_keyed(page)).map(|cell| search::key_of(level, cell));
    if let Some(first) = keyed.next() {
        let last = keyed.last().unwrap_or(first);
        fields::set_u16(page, offset::PREFIX, search::shared_prefix(&first, &last));
    }
    let (first, prefix) = (search::first_keyed(page), search::prefix(page));
    let (mut count, mut start, mut tombstones) = (0, page.len(), 0);
    for bytes in cells {
        start -= bytes.len();
        assert!(slot_offset(count + 1) <= start, "more cells than a page holds");
        page[start..start + bytes.len()].copy_from_slice(bytes);
        let head = if count < first { 0 } else { search::head(&search::key_of(level, bytes), prefix) };
        write_slot(page, count, head, start, bytes.len());
        tombstones += usize::from(is_tombstone(page, bytes));
        count += 1;
    }
    // Zeros, so that equal contents make equal pages.
    page[slot_offset(count)..start].fill(0);
    fields::set_u16(page, offset::TOMBSTONES, tombstones);
    fields::set_u16(page, offset::HEAP_START, start);
    fields::set_u16(page, offset::DEAD, 0);
    fields::set_u16(page, offset::CELLS, count);
}

/// Moves the cells together so that all free space is in the gap.
fn compact(page: &mut [u8]) {
    let old = page.to_vec();
    fill(page, (0..count(&old)).map(|index| cell(&old, index)));
}

/// Makes the prefix one that this key has as well.
fn share_prefix(page: &mut [u8], key: &KeyRef<'_>) {
    let (level, first) = (fields::level(page), search::first_keyed(page));
    let Some(one) = slots(page).get(first).map(|slot| search::key_of(level, cell_of(page, *slot))) else {
        let prefix = search::shared_prefix(key, key);
        return fields::set_u16(page, offset::PREFIX, prefix);
    };
    let prefix = search::shared_prefix(&one, key);
    if prefix >= search::prefix(page) {
        return;
    }
    fields::set_u16(page, offset::PREFIX, prefix);
    for index in first..count(page) {
        let bytes = cell(page, index);
        let head = search::head(&search::key_of(level, bytes), prefix);
        let at = slot_offset(index);
        page[at..at + 4].copy_from_slice(&head.to_le_bytes());
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
    for slot in slots(page) {
        let (start, length) = place(*slot);
        if start < heap || start + length > page.len() {
            return false;
        }
        total += length;
    }
    heap + dead_bytes(page) + total == page.len()
}

/// Whether the tombstones are as many as the header says. The cells must have been checked.
pub(super) fn counts_tombstones(page: &[u8]) -> bool {
    let found = slots(page).iter().filter(|slot| is_tombstone(page, cell_of(page, **slot))).count();
    found == tombstones(page)
}

fn is_tombstone(page: &[u8], cell: &[u8]) -> bool {
    fields::level(page) == 0 && cell::flags_of(cell) & cell::flag::TOMBSTONE != 0
}

/// The slots.
pub(super) fn slots(page: &[u8]) -> &[[u8; SLOT_BYTES]] {
    page[HEADER_BYTES..slot_offset(count(page))].as_chunks().0
}

/// The bytes of the cell of a slot.
pub(super) fn cell_of(page: &[u8], slot: [u8; SLOT_BYTES]) -> &[u8] {
    let (start, length) = place(slot);
    &page[start..start + length]
}

fn write_slot(page: &mut [u8], index: usize, head: u32, start: usize, length: usize) {
    let at = slot_offset(index);
    page[at..at + 4].copy_from_slice(&head.to_le_bytes());
    fields::set_u16(page, at + 4, start);
    fields::set_u16(page, at + 6, length);
}

const fn slot_offset(index: usize) -> usize {
    HEADER_BYTES + index * SLOT_BYTES
}

/// Where the cell of a slot begins, and its length.
fn place(slot: [u8; SLOT_BYTES]) -> (usize, usize) {
    let [.., a, b, c, d] = slot;
    (usize::from(u16::from_le_bytes([a, b])), usize::from(u16::from_le_bytes([c, d])))
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
