//! What calls give.

use bytes::Bytes;
use mesh_base::Revision;

/// What a key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The value. It may share memory with other values of one answer; copy it if it is small and to be kept for long.
    pub value: Bytes,
    /// The revision of the last change.
    pub revision: Revision,
    /// The revision at which the key came to be.
    pub create_revision: Revision,
    /// How often the key was written since it came to be, from 1.
    pub version: u64,
    /// What the writer says the value is; 0 for plain bytes.
    pub type_tag: u8,
}

impl Item {
    /// The item of an answer, whose memory is `payload`.
    pub(crate) fn of(item: &mesh_wire::Item<'_>, payload: &Bytes) -> Self {
        Self {
            value: share(payload, item.value),
            revision: item.revision,
            create_revision: item.create_revision,
            version: item.version,
            type_tag: item.type_tag,
        }
    }
}

/// Bytes that lie inside `payload`, sharing its memory.
pub(crate) fn share(payload: &Bytes, bytes: &[u8]) -> Bytes {
    // An absent value is an empty slice of no particular place.
    if bytes.is_empty() { Bytes::new() } else { payload.slice_ref(bytes) }
}

/// An item of a range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// What it holds; the value is empty if only keys were asked for.
    pub item: Item,
}

/// A write was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The revision that it wrote.
    pub revision: Revision,
}

/// A write was applied, and this is what it replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Swapped {
    /// The revision that it wrote. If a deletion found nothing, one at which there was nothing.
    pub revision: Revision,
    /// What the key held before; nothing if it did not exist.
    pub previous: Option<Item>,
}

/// A number grew.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Incremented {
    /// The revision that was written.
    pub revision: Revision,
    /// The number since.
    pub value: i64,
}

/// A deletion was applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deleted {
    /// The revision of the deletion; the greatest where several shards took part.
    pub revision: Revision,
    /// How many of the keys existed.
    pub deleted: u64,
}
