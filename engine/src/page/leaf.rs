//! Searching a leaf.

use mesh_base::Revision;

use super::search::{Begun, finish, has_head, next_alike, same_head, search};
use super::slotted;
use crate::cell::{self, Cell};
use crate::key::KeyRef;

/// The index of the first cell whose key is at or above `target`, and whether it is the target itself.
pub(crate) fn lower_bound(page: &[u8], target: &KeyRef<'_>) -> (usize, bool) {
    match search(page, target) {
        Ok(index) => (index, true),
        Err(index) => (index, false),
    }
}

/// The same index at the end of a search that was begun; nothing is begun in an empty leaf.
pub(crate) fn bound_begun(page: &[u8], target: &KeyRef<'_>, begun: Option<Begun>) -> usize {
    begun.map_or(0, |begun| finish(page, target, begun).unwrap_or_else(|above| above))
}

/// The key of a cell.
pub(crate) fn key(page: &[u8], index: usize) -> KeyRef<'_> {
    cell::key_of(slotted::cell(page, index))
}

/// A cell, taken apart.
#[inline]
#[allow(clippy::expect_used, reason = "cells are parsed when their page comes in, and encoded by us after")]
pub(crate) fn cell(page: &[u8], index: usize) -> Cell<'_> {
    Cell::parse(slotted::cell(page, index)).expect("checked page")
}

/// Whether a cell is a version of this key.
pub(crate) fn is_version_of(page: &[u8], index: usize, of: &KeyRef<'_>) -> bool {
    has_head(page, index, of) && key(page, index).same_key(of)
}

/// Whether a cell is a deletion.
pub(crate) fn is_tombstone(page: &[u8], index: usize) -> bool {
    cell::flags_of(slotted::cell(page, index)) & cell::flag::TOMBSTONE != 0
}

/// Whether two cells are versions of one key.
pub(crate) fn is_same_key(page: &[u8], one: usize, other: usize) -> bool {
    same_head(page, one, other) && key(page, one).same_key(&key(page, other))
}

/// The index after the last version in the page of the key at `index`.
#[inline]
pub(crate) fn end_of_key(page: &[u8], index: usize) -> usize {
    let next = index + 1;
    if next < slotted::count(page) && is_same_key(page, index, next) {
        end_of_versions(page, index)
    } else {
        next
    }
}

/// The same of a key that has several versions, of which there may be thousands.
fn end_of_versions(page: &[u8], index: usize) -> usize {
    let (last, is_exact) = lower_bound(page, &KeyRef { revision: Revision::ZERO, ..key(page, index) });
    last + usize::from(is_exact)
}

/// Asks for the keys of all cells that may be versions of one key.
pub(crate) fn prefetch_versions(page: &[u8]) {
    let mut from = 0;
    while let Some(index) = next_versions(page, from) {
        slotted::prefetch_key(page, index);
        slotted::prefetch_key(page, index + 1);
        from = index + 1;
    }
}

/// The first cell from `index` on that may have an older version behind it in the page. It looks at the slots alone.
pub(crate) fn next_versions(page: &[u8], index: usize) -> Option<usize> {
    next_alike(page, index)
}
