//! Interior pages: a cell points at a child and holds the least key that may be under it.
//!
//! Invariants:
//! - The first cell's separator is [`KeyRef::FIRST`], so the child of a key always exists: it is the last whose
//!   separator is not above the key.
//! - The separator of a later cell is above every key under the cell before it and not above any under its own.

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::{CheckpointNo, Namespace, PageNo, Revision};

use super::search::{Begun, finish, search};
use super::slotted;
use crate::cell::INTERIOR_FIXED_BYTES;
use crate::key::KeyRef;
use crate::page;
use crate::pointer::{Checksum, PagePointer};

/// The separator's revision follows its key. Without it the revision is the newest, which comes first.
const FLAG_REVISION: u16 = 1;

/// The index of the child that `target` is under.
pub(crate) fn child_of(page: &[u8], target: &KeyRef<'_>) -> usize {
    search(page, target).unwrap_or_else(|above| above - 1)
}

/// The same at the end of a search that was begun; nothing is begun in a page with one child.
pub(crate) fn child_begun(page: &[u8], target: &KeyRef<'_>, begun: Option<Begun>) -> usize {
    begun.map_or(0, |begun| finish(page, target, begun).unwrap_or_else(|above| above - 1))
}

/// The index of the child that the last key before `target` is under.
pub(crate) fn child_before(page: &[u8], target: &KeyRef<'_>) -> usize {
    search(page, target).map_or_else(|above| above - 1, |exact| exact - 1)
}

/// The separator at an index.
pub(crate) fn separator(page: &[u8], index: usize) -> KeyRef<'_> {
    separator_of(slotted::cell(page, index))
}

/// The separator of a cell.
#[allow(clippy::indexing_slicing, reason = "the cell was checked when its page came in")]
pub(crate) fn separator_of(cell: &[u8]) -> KeyRef<'_> {
    let key_end = INTERIOR_FIXED_BYTES + usize::from(page::u16_at(cell, PagePointer::BYTES + 4));
    let has_revision = page::u16_at(cell, PagePointer::BYTES + 6) & FLAG_REVISION != 0;
    KeyRef {
        namespace: Namespace(page::u32_at(cell, PagePointer::BYTES)),
        key: &cell[INTERIOR_FIXED_BYTES..key_end],
        revision: if has_revision { Revision(page::u64_at(cell, key_end)) } else { Revision::MAX },
    }
}

/// The pointer at an index.
pub(crate) fn pointer(page: &[u8], index: usize) -> PagePointer {
    pointer_of(slotted::cell(page, index))
}

/// The pointer of a cell.
pub(crate) fn pointer_of(cell: &[u8]) -> PagePointer {
    PagePointer {
        page: PageNo(page::u64_at(cell, 0)),
        checksum: Checksum::from_stored(page::u64_at(cell, 8)),
        checkpoint: CheckpointNo(page::u64_at(cell, 16)),
    }
}

/// Replaces the pointer of a cell in place.
pub(crate) fn set_pointer(page: &mut [u8], index: usize, pointer: &PagePointer) {
    let cell = slotted::cell_mut(page, index);
    page::set_u64(cell, 0, pointer.page.get());
    page::set_u64(cell, 8, pointer.checksum.get());
    page::set_u64(cell, 16, pointer.checkpoint.get());
}

/// Appends a cell.
#[allow(clippy::cast_possible_truncation, reason = "separators are no longer than keys")]
pub(crate) fn encode(out: &mut Vec<u8>, separator: &KeyRef<'_>, pointer: &PagePointer) {
    let has_revision = separator.revision != Revision::MAX;
    pointer.encode(out);
    out.put_u32(separator.namespace.get());
    out.put_u16(separator.key.len() as u16);
    out.put_u16(if has_revision { FLAG_REVISION } else { 0 });
    out.put_bytes(separator.key);
    if has_revision {
        out.put_u64(separator.revision.get());
    }
}

/// Whether a cell's lengths and flags are right.
pub(super) fn is_sound(cell: &[u8]) -> bool {
    let mut reader = Reader::new(cell);
    let parsed = (|| {
        let pointer = PagePointer::decode(&mut reader)?;
        reader.u32()?;
        let key_bytes = usize::from(reader.u16()?);
        let flags = reader.u16()?;
        reader.bytes(key_bytes)?;
        if flags & FLAG_REVISION != 0 {
            reader.u64()?;
        }
        Some(pointer.is_some() && pointer.checksum.is_sealed() && flags & !FLAG_REVISION == 0)
    })();
    parsed == Some(true) && reader.is_empty()
}
