//! Places on a disk that a story damages, found by reading the files as their format pages have it, not by the code that
//! wrote them.

use std::ops::Range;

use mesh_base::io::FileId;
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{CheckpointNo, LogIndex, ShardId};
use mesh_server::core::DirectoryKey;
use mesh_server::node::identity::SLOT_BYTES;

use crate::cluster::Scripted;

/// A place on a node's disk, of the first shard's replica unless it is of another or of the node itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    shard: ShardId,
    part: Part,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    LogRecord(LogIndex),
    Superblock,
    Leaf,
    StagedRoot,
    IdentityCopy(u64),
}

/// The record of an entry in the log: the newest with that index.
#[must_use]
pub const fn log_record(index: u64) -> Place {
    Place { shard: ShardId(0), part: Part::LogRecord(LogIndex(index)) }
}

/// The newest copy of the page store's superblock.
#[must_use]
pub const fn superblock() -> Place {
    Place { shard: ShardId(0), part: Part::Superblock }
}

/// The first leaf of the page store's tree, as of its newest checkpoint: the replica's own records.
#[must_use]
pub const fn leaf() -> Place {
    Place { shard: ShardId(0), part: Part::Leaf }
}

/// The root of the tree in what a replica has received of a snapshot, as of its newest checkpoint.
#[must_use]
pub const fn staged_root() -> Place {
    Place { shard: ShardId(0), part: Part::StagedRoot }
}

/// One of the two copies of the node's identity.
#[must_use]
pub const fn identity_copy(copy: u64) -> Place {
    Place { shard: ShardId(0), part: Part::IdentityCopy(copy) }
}

impl Place {
    /// The same place of another shard's replica.
    #[must_use]
    pub const fn of(self, shard: ShardId) -> Self {
        Self { shard, ..self }
    }

    /// Where that is: directory, file and offset of a byte in its midst.
    pub(super) fn find(self, script: &Scripted, node: usize) -> Option<(DirectoryKey, FileId, u64)> {
        if let Part::IdentityCopy(copy) = self.part {
            // Its sequence number.
            return Some((DirectoryKey::Node, FileId::Identity, copy * SLOT_BYTES as u64 + 8));
        }
        let (disk, directory) = (script.disk(node)?, script.directory_of(node, self.shard)?);
        if let Part::LogRecord(index) = self.part {
            let files = disk.files(directory).into_iter().rev();
            let mut segments = files.filter(|(file, _)| matches!(file, FileId::Segment(_)));
            let (file, offset) = segments.find_map(|(file, _)| {
                let segment = disk.contents(directory, file)?;
                Some((file, entry_in_segment(&segment, index)?))
            })?;
            return Some((directory, file, offset as u64));
        }
        let file = if self.part == Part::StagedRoot { FileId::StagedStore } else { FileId::Store };
        let store = disk.contents(directory, file)?;
        let copy = newest_superblock(&store)?;
        let offset = match self.part {
            Part::Leaf => first_leaf(&store, copy)?,
            Part::StagedRoot => root(&store, copy)?,
            _ => copy,
        };
        Some((directory, file, offset as u64 + 100))
    }
}

/// The newest checkpoint of which a superblock copy of the first shard's store can be read.
pub(super) fn written_checkpoint(script: &Scripted, node: usize) -> Option<CheckpointNo> {
    let (disk, directory) = (script.disk(node)?, script.directory_of(node, ShardId(0))?);
    let store = disk.contents(directory, FileId::Store)?;
    u64_at(&store, newest_superblock(&store)? + 48).map(CheckpointNo)
}

/// The last byte of the newest record of an entry in a segment of the log.
fn entry_in_segment(segment: &[u8], index: LogIndex) -> Option<usize> {
    const HEADER_SALT: usize = 56;
    const BATCH_HEADER_BYTES: usize = 80;
    let salt = u64_at(segment, HEADER_SALT)?;
    let mut found = None;
    let mut batch = SECTOR_BYTES;
    while segment.get(batch..batch + 4) == Some(b"MLB\xB1") && u64_at(segment, batch + 16) == Some(salt) {
        let payload = u32_at(segment, batch + 44)?;
        let mut record = batch + BATCH_HEADER_BYTES;
        let end = record + payload;
        while record < end {
            let (kind, length) = (*segment.get(record)?, u32_at(segment, record + 4)?);
            if kind == 1 && u64_at(segment, record + 8) == Some(index.0) {
                found = Some(record + 8 + length - 1);
            }
            record += 8 + length;
        }
        batch = end.next_multiple_of(SECTOR_BYTES);
    }
    found
}

/// The offset of the superblock copy with the highest checkpoint.
fn newest_superblock(store: &[u8]) -> Option<usize> {
    const COPIES: Range<usize> = 0..4;
    const COPY_STRIDE: usize = 16384;
    let offsets = COPIES.map(|copy| copy * COPY_STRIDE);
    let written = offsets.filter(|&offset| store.get(offset..offset + 8) == Some(b"MESHPAGE"));
    written.max_by_key(|&offset| u64_at(store, offset + 48))
}

/// The offset of the root that a superblock points at.
fn root(store: &[u8], superblock: usize) -> Option<usize> {
    Some(usize::try_from(u64_at(store, superblock + 88)?).ok()? * u32_at(store, superblock + 36)?)
}

/// The offset of the leaf that comes first below a superblock.
fn first_leaf(store: &[u8], superblock: usize) -> Option<usize> {
    const FIRST_CELL_OFFSET_AT: usize = 68;
    let page_bytes = u32_at(store, superblock + 36)?;
    let mut page = root(store, superblock)?;
    let is_leaf = |page: usize| store.get(page + 1) == Some(&0);
    while !is_leaf(page) {
        let slot = store
            .get(page + FIRST_CELL_OFFSET_AT..)?
            .first_chunk()
            .map(|bytes| u16::from_le_bytes(*bytes))?;
        page = usize::try_from(u64_at(store, page + usize::from(slot))?).ok()? * page_bytes;
    }
    Some(page)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<usize> {
    let number = bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))?;
    usize::try_from(number).ok()
}
