//! Pages: the header they share, the slotted layout of the tree's pages, and the check of a page that comes in.
//!
//! Invariants:
//! - A page was checked once, when it came from the disk ([`check::check`]); everything after relies on its offsets.
//! - A header names the page's number and the checkpoint that wrote it; the checksum is in the pointer, not here.

pub(crate) mod check;
pub(crate) mod extent;
pub(crate) mod interior;
pub(crate) mod leaf;
mod prefetch;
pub(crate) mod search;
pub(crate) mod slotted;

use mesh_base::checksum::ChecksumAlgorithm;
use mesh_base::{CheckpointNo, PageNo};

/// Bytes of the header every page and extent begins with.
pub(crate) const HEADER_BYTES: usize = 64;
/// Bytes of one slot: the head of a cell's key, the offset and the length of the cell.
pub(crate) const SLOT_BYTES: usize = 8;

/// Bytes of a page after its header.
pub(crate) const fn payload_bytes(page_bytes: usize) -> usize {
    page_bytes - HEADER_BYTES
}

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum PageKind {
    Leaf = 1,
    Interior = 2,
    Bitmap = 3,
    BitmapIndex = 4,
    Extent = 5,
}

/// What a page is expected to be, by whoever points at it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// A page of the tree at this level; leaves are at level 0.
    Node { level: u8 },
    /// An extent with this many bytes of a value.
    Extent { value_bytes: u32 },
    /// A page of the allocator.
    Allocator(PageKind),
}

impl Expected {
    pub(crate) const fn kind(self) -> PageKind {
        match self {
            Self::Node { level: 0 } => PageKind::Leaf,
            Self::Node { .. } => PageKind::Interior,
            Self::Extent { .. } => PageKind::Extent,
            Self::Allocator(kind) => kind,
        }
    }

    pub(crate) const fn level(self) -> u8 {
        match self {
            Self::Node { level } => level,
            Self::Extent { .. } | Self::Allocator(_) => 0,
        }
    }
}

/// Offsets of the header's fields.
mod offset {
    pub(super) const KIND: usize = 0;
    pub(super) const LEVEL: usize = 1;
    pub(super) const CODEC: usize = 2;
    pub(super) const ALGORITHM: usize = 3;
    pub(super) const CELLS: usize = 4;
    pub(super) const HEAP_START: usize = 6;
    pub(super) const PAGE: usize = 8;
    pub(super) const CHECKPOINT: usize = 16;
    pub(super) const KEY_ID: usize = 24;
    pub(super) const DEAD: usize = 28;
    pub(super) const PREFIX: usize = 30;
    pub(super) const AUTH_TAG: usize = 32;
    pub(super) const TOMBSTONES: usize = 48;
    pub(super) const RESERVED: usize = 50;
}

const _: () = {
    assert!(offset::DEAD + 4 == offset::AUTH_TAG && offset::KEY_ID + 4 == offset::DEAD);
    assert!(offset::PREFIX == offset::DEAD + 2 && offset::AUTH_TAG + 16 == offset::TOMBSTONES);
    assert!(offset::TOMBSTONES + 2 == offset::RESERVED && offset::RESERVED + 14 == HEADER_BYTES);
};

/// Who wrote a page, and as which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageStamp {
    pub(crate) page: PageNo,
    pub(crate) checkpoint: CheckpointNo,
}

#[allow(clippy::indexing_slicing, reason = "the header's fields lie within a page, and every page is longer")]
mod fields {
    use super::{CheckpointNo, ChecksumAlgorithm, Expected, HEADER_BYTES, PageNo, PageStamp, offset};

    pub(crate) fn u16_at(page: &[u8], at: usize) -> u16 {
        u16::from_le_bytes([page[at], page[at + 1]])
    }

    pub(crate) fn u32_at(page: &[u8], at: usize) -> u32 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&page[at..at + 4]);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn u64_at(page: &[u8], at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&page[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    #[allow(clippy::cast_possible_truncation, reason = "offsets and counts within a page of at most 16 KiB")]
    pub(crate) fn set_u16(page: &mut [u8], at: usize, value: usize) {
        debug_assert!(value <= usize::from(u16::MAX));
        page[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    }

    pub(crate) fn set_u64(page: &mut [u8], at: usize, value: u64) {
        page[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Writes the header of an empty page over whatever was there.
    pub(crate) fn write_header(page: &mut [u8], expected: Expected, stamp: PageStamp) {
        page[..HEADER_BYTES].fill(0);
        page[offset::KIND] = expected.kind() as u8;
        page[offset::LEVEL] = expected.level();
        page[offset::ALGORITHM] = ChecksumAlgorithm::Xxh3 as u8;
        if matches!(expected, Expected::Node { .. }) {
            let end = page.len();
            set_u16(page, offset::HEAP_START, end);
        }
        set_stamp(page, stamp);
    }

    /// Gives a copied page its new number and checkpoint.
    pub(crate) fn set_stamp(page: &mut [u8], stamp: PageStamp) {
        set_u64(page, offset::PAGE, stamp.page.get());
        set_u64(page, offset::CHECKPOINT, stamp.checkpoint.get());
    }

    pub(crate) fn stamp(page: &[u8]) -> PageStamp {
        PageStamp {
            page: PageNo(u64_at(page, offset::PAGE)),
            checkpoint: CheckpointNo(u64_at(page, offset::CHECKPOINT)),
        }
    }

    pub(crate) fn level(page: &[u8]) -> u8 {
        page[offset::LEVEL]
    }

    pub(super) fn kind_byte(page: &[u8]) -> u8 {
        page[offset::KIND]
    }

    pub(super) fn codec_byte(page: &[u8]) -> u8 {
        page[offset::CODEC]
    }

    pub(super) fn algorithm_byte(page: &[u8]) -> u8 {
        page[offset::ALGORITHM]
    }

    pub(super) fn key_id(page: &[u8]) -> u32 {
        u32_at(page, offset::KEY_ID)
    }
}

pub(crate) use fields::{level, set_stamp, set_u64, stamp, u16_at, u32_at, u64_at, write_header};
