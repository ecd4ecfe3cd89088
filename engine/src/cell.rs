//! The cell of a leaf: key, revision, the optional fields that its flags announce, and the value or its extents.
//!
//! Invariants:
//! - Optional fields follow the key in the order of their flag bits; a field with its default is absent, so a small
//!   cell is small.
//! - A cell was parsed once when its page came in; accessors rely on that.

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::{Namespace, Revision, limits};

use crate::key::KeyRef;
use crate::page;
use crate::pointer::{ExtentPointer, PagePointer};
use crate::write::Attributes;

/// Bytes of a leaf cell before its key: revision, namespace, key length, flags.
pub(crate) const LEAF_FIXED_BYTES: usize = 16;
/// Bytes of an interior cell before its key: pointer, namespace, key length, flags.
pub(crate) const INTERIOR_FIXED_BYTES: usize = PagePointer::BYTES + 8;
/// Most extents of one value: the largest value in extents of the largest size.
pub(crate) const EXTENTS_MAX: usize = limits::VALUE_BYTES_MAX.div_ceil(extent_value_bytes_max());

const OPTIONAL_BYTES_MAX: usize = 8 + VARINT_BYTES_MAX + 8 + 1 + 8 + 2;
const VARINT_BYTES_MAX: usize = 10;
const LARGE_FIXED_BYTES: usize = 4;

/// Most bytes of a value in one extent.
pub(crate) const fn extent_value_bytes_max() -> usize {
    limits::EXTENT_BYTES_MAX - page::HEADER_BYTES
}

/// Bytes of the largest leaf cell whose value is in extents.
pub(crate) const fn leaf_cell_bytes_max(key_bytes_max: usize) -> usize {
    LEAF_FIXED_BYTES
        + key_bytes_max
        + OPTIONAL_BYTES_MAX
        + LARGE_FIXED_BYTES
        + EXTENTS_MAX * ExtentPointer::BYTES
}

/// Bytes of the largest interior cell.
pub(crate) const fn interior_cell_bytes_max(key_bytes_max: usize) -> usize {
    INTERIOR_FIXED_BYTES + key_bytes_max + 8
}

/// The flags of a leaf cell.
pub(crate) mod flag {
    pub(crate) const CREATE_REVISION: u16 = 1;
    pub(crate) const VERSION: u16 = 1 << 1;
    pub(crate) const LEASE: u16 = 1 << 2;
    pub(crate) const TYPE_TAG: u16 = 1 << 3;
    pub(crate) const EXPIRY: u16 = 1 << 4;
    pub(crate) const FLAGS: u16 = 1 << 5;
    pub(crate) const TOMBSTONE: u16 = 1 << 6;
    pub(crate) const LARGE: u16 = 1 << 7;
    pub(crate) const KNOWN: u16 = (1 << 8) - 1;
}

/// What a cell says of its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Payload<'a> {
    /// The key is deleted.
    Tombstone,
    /// The value itself.
    Inline(&'a [u8]),
    /// Where the value is.
    Large(ExtentList<'a>),
}

/// The extents of a large value, encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExtentList<'a> {
    /// Bytes of the value.
    pub(crate) value_bytes: usize,
    encoded: &'a [u8],
}

impl<'a> ExtentList<'a> {
    /// The extents, in the order of the value's bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ExtentPointer> + Clone + use<'a> {
        let mut reader = Reader::new(self.encoded);
        std::iter::from_fn(move || ExtentPointer::decode(&mut reader))
    }
}

/// A leaf cell, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell<'a> {
    pub(crate) key: KeyRef<'a>,
    pub(crate) attributes: Attributes,
    pub(crate) payload: Payload<'a>,
}

impl<'a> Cell<'a> {
    /// Takes a cell apart; nothing if it is not one.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<LEAF_FIXED_BYTES>()?;
        let revision = Revision(page::u64_at(fixed, 0));
        let (key, rest) = rest.split_at_checked(usize::from(page::u16_at(fixed, 12)))?;
        let key = KeyRef { namespace: Namespace(page::u32_at(fixed, 8)), key, revision };
        let flags = page::u16_at(fixed, 14);
        if flags == 0 {
            let attributes = Attributes::created(revision);
            return Some(Self { key, attributes, payload: Payload::Inline(rest) });
        }
        Self::parse_fields(key, flags, rest)
    }

    /// Takes the rest of a cell apart that is more than a key and a value.
    fn parse_fields(key: KeyRef<'a>, flags: u16, rest: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(rest);
        let attributes = read_attributes(&mut reader, flags, key.revision)?;
        let payload = match flags & (flag::TOMBSTONE | flag::LARGE) {
            0 => Payload::Inline(reader.rest()),
            flag::TOMBSTONE if reader.is_empty() => Payload::Tombstone,
            flag::LARGE => Payload::Large(read_extents(&mut reader)?),
            _ => return None,
        };
        Some(Self { key, attributes, payload })
    }

    /// Whether this is a deletion.
    pub(crate) const fn is_tombstone(&self) -> bool {
        matches!(self.payload, Payload::Tombstone)
    }
}

/// The key of a cell whose page was checked.
#[allow(clippy::indexing_slicing, reason = "the cell was parsed when its page came in")]
pub(crate) fn key_of(cell: &[u8]) -> KeyRef<'_> {
    let key_bytes = usize::from(page::u16_at(cell, 12));
    KeyRef {
        namespace: Namespace(page::u32_at(cell, 8)),
        key: &cell[LEAF_FIXED_BYTES..LEAF_FIXED_BYTES + key_bytes],
        revision: Revision(page::u64_at(cell, 0)),
    }
}

/// Flags of a cell whose page was checked.
pub(crate) fn flags_of(cell: &[u8]) -> u16 {
    page::u16_at(cell, 14)
}

/// What a new cell holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewPayload<'a> {
    Tombstone,
    Inline(&'a [u8]),
    Large { value_bytes: u32, extents: &'a [ExtentPointer] },
}

/// Bytes of a cell with a value of this length in it.
pub(crate) fn inline_cell_bytes(key: &KeyRef<'_>, attributes: &Attributes, value_bytes: usize) -> usize {
    let flags = attribute_flags(attributes, key.revision);
    LEAF_FIXED_BYTES + key.key.len() + attribute_bytes(attributes, flags) + value_bytes
}

/// Appends a cell.
#[allow(clippy::cast_possible_truncation, reason = "keys are within the limit, which fits")]
pub(crate) fn encode(out: &mut Vec<u8>, key: &KeyRef<'_>, attributes: &Attributes, payload: NewPayload<'_>) {
    let payload_flag = match payload {
        NewPayload::Tombstone => flag::TOMBSTONE,
        NewPayload::Inline(_) => 0,
        NewPayload::Large { .. } => flag::LARGE,
    };
    let flags = attribute_flags(attributes, key.revision);
    out.put_u64(key.revision.get());
    out.put_u32(key.namespace.get());
    out.put_u16(key.key.len() as u16);
    out.put_u16(flags | payload_flag);
    out.put_bytes(key.key);
    write_attributes(out, attributes, flags);
    match payload {
        NewPayload::Tombstone => {}
        NewPayload::Inline(value) => out.put_bytes(value),
        NewPayload::Large { value_bytes, extents } => {
            out.put_u32(value_bytes);
            extents.iter().for_each(|extent| extent.encode(out));
        }
    }
}

/// The flags of the attributes that are not at their defaults.
pub(crate) fn attribute_flags(attributes: &Attributes, revision: Revision) -> u16 {
    let present = [
        (attributes.create_revision != revision, flag::CREATE_REVISION),
        (attributes.version != 1, flag::VERSION),
        (attributes.lease != 0, flag::LEASE),
        (attributes.type_tag != 0, flag::TYPE_TAG),
        (attributes.expiry_ms != 0, flag::EXPIRY),
        (attributes.flags != 0, flag::FLAGS),
    ];
    present.iter().filter(|(is_present, _)| *is_present).fold(0, |flags, (_, flag)| flags | flag)
}

/// Appends the attributes that `flags` announces.
pub(crate) fn write_attributes(out: &mut Vec<u8>, attributes: &Attributes, flags: u16) {
    if flags & flag::CREATE_REVISION != 0 {
        out.put_u64(attributes.create_revision.get());
    }
    if flags & flag::VERSION != 0 {
        put_varint(out, attributes.version);
    }
    if flags & flag::LEASE != 0 {
        out.put_u64(attributes.lease);
    }
    if flags & flag::TYPE_TAG != 0 {
        out.put_u8(attributes.type_tag);
    }
    if flags & flag::EXPIRY != 0 {
        out.put_u64(attributes.expiry_ms);
    }
    if flags & flag::FLAGS != 0 {
        out.put_u16(attributes.flags);
    }
}

/// Reads the attributes that `flags` announces; nothing if a flag is unknown or bytes are missing.
pub(crate) fn read_attributes(reader: &mut Reader<'_>, flags: u16, revision: Revision) -> Option<Attributes> {
    if flags & !flag::KNOWN != 0 {
        return None;
    }
    let mut attributes = Attributes::created(revision);
    if flags & flag::CREATE_REVISION != 0 {
        attributes.create_revision = Revision(reader.u64()?);
    }
    if flags & flag::VERSION != 0 {
        attributes.version = read_varint(reader)?;
    }
    if flags & flag::LEASE != 0 {
        attributes.lease = reader.u64()?;
    }
    if flags & flag::TYPE_TAG != 0 {
        attributes.type_tag = reader.u8()?;
    }
    if flags & flag::EXPIRY != 0 {
        attributes.expiry_ms = reader.u64()?;
    }
    if flags & flag::FLAGS != 0 {
        attributes.flags = reader.u16()?;
    }
    Some(attributes)
}

/// Bytes of the attributes that `flags` announces.
pub(crate) fn attribute_bytes(attributes: &Attributes, flags: u16) -> usize {
    let fixed = [
        (flag::CREATE_REVISION, 8),
        (flag::LEASE, 8),
        (flag::TYPE_TAG, 1),
        (flag::EXPIRY, 8),
        (flag::FLAGS, 2),
    ];
    let fixed: usize = fixed.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, bytes)| bytes).sum();
    let version = if flags & flag::VERSION == 0 { 0 } else { varint_bytes(attributes.version) };
    fixed + version
}

fn read_extents<'a>(reader: &mut Reader<'a>) -> Option<ExtentList<'a>> {
    let value_bytes = usize::try_from(reader.u32()?).ok()?;
    let list = ExtentList { value_bytes, encoded: reader.rest() };
    let count = list.encoded.len() / ExtentPointer::BYTES;
    let total: u64 = list.iter().map(|extent| u64::from(extent.value_bytes)).sum();
    let whole = list.encoded.len().is_multiple_of(ExtentPointer::BYTES) && count <= EXTENTS_MAX;
    let is_sound = |extent: ExtentPointer| {
        let fits = extent.value_bytes > 0 && extent.value_bytes as usize <= extent_value_bytes_max();
        fits && extent.pointer.is_stored()
    };
    (whole && list.iter().all(is_sound) && total == value_bytes as u64).then_some(list)
}

#[allow(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn read_varint(reader: &mut Reader<'_>) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = reader.u8()?;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

const fn varint_bytes(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn a_cell_is_what_was_encoded(
            key: Vec<u8>, revision: u64, fields: (u64, u64, u64, u8, u64, u16), value: Vec<u8>
        ) -> bool {
            let key = KeyRef { namespace: Namespace(7), key: &key, revision: Revision(revision) };
            let attributes = Attributes {
                create_revision: Revision(fields.0),
                version: fields.1,
                lease: fields.2 % 2,
                type_tag: fields.3 % 2,
                expiry_ms: fields.4 % 3,
                flags: fields.5 % 2,
            };
            let mut bytes = Vec::new();
            encode(&mut bytes, &key, &attributes, NewPayload::Inline(&value));
            let cell = Cell::parse(&bytes).unwrap();
            cell.key == key && key_of(&bytes) == key && cell.attributes == attributes
                && cell.payload == Payload::Inline(&value)
                && bytes.len() == inline_cell_bytes(&key, &attributes, value.len())
        }

        fn bytes_that_are_no_cell_are_refused_without_a_panic(bytes: Vec<u8>) -> bool {
            Cell::parse(&bytes).is_none_or(|cell| cell.key.key.len() <= bytes.len())
        }
    }

    #[test]
    fn a_small_cell_is_small() {
        let key = KeyRef { namespace: Namespace::USER, key: b"0123456789abcdef", revision: Revision(9) };
        let mut bytes = Vec::new();
        encode(&mut bytes, &key, &Attributes::created(Revision(9)), NewPayload::Inline(b"value"));
        assert_eq!(bytes.len(), 16 + 16 + 5);
    }

    #[test]
    fn the_largest_value_needs_nine_extents() {
        assert_eq!(EXTENTS_MAX, 9);
    }
}
