//! Pointers to pages and extents: where, which write of it, and the checksum it must have.
//!
//! Invariants:
//! - A pointer knows its child: page number, checksum and the checkpoint that wrote it. A lost, misdirected or torn
//!   write is therefore caught when the child is read.
//! - A checksum is never stored as zero: zero means that the child was not sealed yet ([`Checksum::UNSEALED`]), which
//!   happens only in memory.

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::{CheckpointNo, PageNo, checksum};

use crate::page;

/// XXH3-64 of a page or an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Checksum(u64);

impl Checksum {
    /// That of a page which may still change.
    pub(crate) const UNSEALED: Self = Self(0);

    /// The checksum of bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(checksum::xxh3(bytes).max(1))
    }

    /// The stored form.
    pub(crate) const fn get(self) -> u64 {
        self.0
    }

    /// The checksum of a stored number.
    pub(crate) const fn from_stored(number: u64) -> Self {
        Self(number)
    }

    /// Whether it is known.
    pub(crate) const fn is_sealed(self) -> bool {
        self.0 != 0
    }
}

/// Points at a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PagePointer {
    pub(crate) page: PageNo,
    pub(crate) checksum: Checksum,
    /// The checkpoint that writes, or wrote, the page.
    pub(crate) checkpoint: CheckpointNo,
}

impl PagePointer {
    /// Bytes of the stored form.
    pub(crate) const BYTES: usize = 24;

    /// Points at nothing.
    pub(crate) const NONE: Self =
        Self { page: PageNo(0), checksum: Checksum::UNSEALED, checkpoint: CheckpointNo(0) };

    /// Whether this points at a page at all: page 0 belongs to the superblock.
    pub(crate) const fn is_some(&self) -> bool {
        self.page.0 != 0
    }

    /// Whether this points at a page as a pointer on the disk does: its checksum is known.
    pub(crate) const fn is_stored(&self) -> bool {
        self.is_some() && self.checksum.is_sealed()
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64(self.page.get());
        out.put_u64(self.checksum.get());
        out.put_u64(self.checkpoint.get());
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            page: PageNo(reader.u64()?),
            checksum: Checksum::from_stored(reader.u64()?),
            checkpoint: CheckpointNo(reader.u64()?),
        })
    }
}

/// Points at an extent: a run of pages that holds a part of a large value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExtentPointer {
    pub(crate) pointer: PagePointer,
    /// Bytes of the value in it.
    pub(crate) value_bytes: u32,
}

impl ExtentPointer {
    /// Bytes of the stored form.
    pub(crate) const BYTES: usize = PagePointer::BYTES + 4;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        self.pointer.encode(out);
        out.put_u32(self.value_bytes);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self { pointer: PagePointer::decode(reader)?, value_bytes: reader.u32()? })
    }

    /// How many pages it takes.
    pub(crate) const fn pages(&self, page_bytes: usize) -> u64 {
        (page::HEADER_BYTES as u64 + self.value_bytes as u64).div_ceil(page_bytes as u64)
    }

    /// The last of its pages.
    pub(crate) const fn last_page(&self, page_bytes: usize) -> PageNo {
        PageNo(self.pointer.page.get() + self.pages(page_bytes) - 1)
    }

    /// How many bytes it takes in the file.
    #[allow(clippy::cast_possible_truncation, reason = "an extent is at most EXTENT_BYTES_MAX long")]
    pub(crate) const fn file_bytes(&self, page_bytes: usize) -> usize {
        self.pages(page_bytes) as usize * page_bytes
    }
}
