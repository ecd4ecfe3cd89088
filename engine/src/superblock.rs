//! The superblock: where a checkpoint's tree begins, and whose store this is. Four copies, written in turn.
//!
//! Invariants:
//! - Checkpoint n is in copy n mod 4, so writing one never touches the copy of the checkpoint before it.
//! - Copies lie at fixed offsets, whatever the page size. Magic, versions, checksum algorithm and the place of the
//!   checksum stay where they are in every later format, so an older release can say that a file is newer.

use bytes::Bytes;
use mesh_base::bytesio::{Reader, Writer};
use mesh_base::checksum::{self, ChecksumAlgorithm};
use mesh_base::io::FileId;
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{CheckpointNo, ClusterId, LogIndex, ReplicaId, ReplicaIdentity, Revision, ShardId, Term};

use crate::allocator::{AllocatorRoot, INDEX_PAGES_MAX};
use crate::error::StoreError;
use crate::options::PAGE_BYTES_MAX;
use crate::pointer::PagePointer;

/// The format this release writes, and the newest it reads.
pub(crate) const STORE_FORMAT: u16 = 1;
/// The least reader that what this release writes asks for.
const STORE_MIN_READER: u16 = 1;
/// Copies of the superblock.
pub(crate) const COPIES: usize = 4;
/// Bytes of a copy.
pub(crate) const COPY_BYTES: usize = SECTOR_BYTES;
/// Bytes at the start of the file that belong to the superblock.
pub(crate) const REGION_BYTES: usize = COPIES * PAGE_BYTES_MAX;

/// A checkpoint that no store comes to, and from which none can count to the end of the numbers.
const CHECKPOINT_MAX: CheckpointNo = CheckpointNo(1 << 63);

const MAGIC: [u8; 8] = *b"MESHPAGE";
const CHECKSUM_OFFSET: usize = COPY_BYTES - 8;
const INDEX_OFFSET: usize = 192;
const SOURCE_OFFSET: usize = INDEX_OFFSET + INDEX_PAGES_MAX * PagePointer::BYTES;

const _: () = assert!(SOURCE_OFFSET + SnapshotSource::BYTES <= CHECKSUM_OFFSET && SOURCE_OFFSET == 3264);

/// Which checkpoint of which replica a staged store is made from. No two snapshots have the same: a replica never takes a
/// checkpoint of one number and one index twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotSource {
    /// The replica. Never 0.
    pub replica: ReplicaId,
    /// Its checkpoint.
    pub checkpoint: CheckpointNo,
    /// The log up to this index is in it.
    pub applied: LogIndex,
    /// The term of the entry at that index.
    pub term: Term,
}

impl SnapshotSource {
    const BYTES: usize = 32;

    fn encode(self, out: &mut Vec<u8>) {
        out.put_u64(self.replica.get());
        out.put_u64(self.checkpoint.get());
        out.put_u64(self.applied.get());
        out.put_u64(self.term.get());
    }

    /// Nothing if bytes are missing; no source if they are zeros.
    fn decode(reader: &mut Reader<'_>) -> Option<Option<Self>> {
        let source = Self {
            replica: ReplicaId(reader.u64()?),
            checkpoint: CheckpointNo(reader.u64()?),
            applied: LogIndex(reader.u64()?),
            term: Term(reader.u64()?),
        };
        Some((source.replica != ReplicaId(0)).then_some(source))
    }
}

/// The root of a tree, and the level of its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Root {
    pub(crate) pointer: PagePointer,
    pub(crate) level: u8,
}

/// What a superblock says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Superblock {
    pub(crate) identity: ReplicaIdentity,
    pub(crate) page_bytes: u32,
    pub(crate) key_bytes_max: u32,
    pub(crate) checkpoint: CheckpointNo,
    pub(crate) applied: LogIndex,
    pub(crate) applied_term: Term,
    pub(crate) revision: Revision,
    pub(crate) horizon: Revision,
    pub(crate) root: Root,
    pub(crate) cells: u64,
    pub(crate) keys: u64,
    pub(crate) file_pages: u64,
    pub(crate) shape: Shape,
    pub(crate) allocator: AllocatorRoot,
    /// While the store is made from a snapshot.
    pub(crate) source: Option<SnapshotSource>,
}

/// The pages of a tree, and how full its leaves are.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Shape {
    pub(crate) leaves: u64,
    pub(crate) interiors: u64,
    /// Bytes of the leaves' cells and their slots.
    pub(crate) leaf_bytes: u64,
}

/// Which of the copies is a checkpoint's.
pub(crate) fn copy_index(checkpoint: CheckpointNo) -> usize {
    // It is less than the number of copies.
    usize::try_from(checkpoint.0 % COPIES as u64).unwrap_or_default()
}

/// The byte offset of a checkpoint's copy.
pub(crate) fn copy_offset(checkpoint: CheckpointNo) -> u64 {
    (copy_index(checkpoint) * PAGE_BYTES_MAX) as u64
}

impl Superblock {
    /// The bytes of a copy.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(COPY_BYTES);
        out.put_bytes(&MAGIC);
        out.put_u16(STORE_FORMAT);
        out.put_u16(STORE_MIN_READER);
        out.put_u8(ChecksumAlgorithm::Xxh3 as u8);
        out.pad_to(16);
        out.put_bytes(&self.identity.cluster.0);
        out.put_u16(self.identity.shard.get());
        out.put_u16(0);
        out.put_u32(self.page_bytes);
        out.put_u64(self.identity.replica.get());
        out.put_u64(self.checkpoint.get());
        out.put_u64(self.applied.get());
        out.put_u64(self.applied_term.get());
        out.put_u64(self.revision.get());
        out.put_u64(self.horizon.get());
        assert!(self.root.pointer.is_some() && self.root.pointer.checksum.is_sealed(), "root is not sealed");
        self.root.pointer.encode(&mut out);
        out.put_u8(self.root.level);
        out.pad_to(116);
        out.put_u32(self.key_bytes_max);
        out.put_u64(self.cells);
        out.put_u64(self.keys);
        out.put_u64(self.file_pages);
        out.put_u32(0);
        assert!(self.allocator.index.len() <= INDEX_PAGES_MAX, "file larger than a superblock can describe");
        out.put_u32(u32::try_from(self.allocator.index.len()).unwrap_or(u32::MAX));
        out.put_u64(self.shape.leaves);
        out.put_u64(self.shape.interiors);
        out.put_u64(self.shape.leaf_bytes);
        out.pad_to(INDEX_OFFSET);
        self.allocator.index.iter().for_each(|pointer| pointer.encode(&mut out));
        out.pad_to(SOURCE_OFFSET);
        if let Some(source) = self.source {
            source.encode(&mut out);
        }
        out.pad_to(CHECKSUM_OFFSET);
        out.put_u64(checksum::xxh3(&out));
        assert_eq!(out.len(), COPY_BYTES);
        out.into()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        reader.bytes(16)?;
        let cluster = ClusterId(reader.array()?);
        let shard = ShardId(reader.u16()?);
        reader.u16()?;
        let page_bytes = reader.u32()?;
        let identity = ReplicaIdentity { cluster, shard, replica: ReplicaId(reader.u64()?) };
        let checkpoint = CheckpointNo(reader.u64()?);
        let (applied, applied_term) = (LogIndex(reader.u64()?), Term(reader.u64()?));
        let (revision, horizon) = (Revision(reader.u64()?), Revision(reader.u64()?));
        let root = Root { pointer: PagePointer::decode(&mut reader)?, level: reader.u8()? };
        reader.bytes(3)?;
        let key_bytes_max = reader.u32()?;
        let (cells, keys, file_pages) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let key_id = reader.u32()?;
        let index_pages = usize::try_from(reader.u32()?).ok()?;
        let shape = Shape { leaves: reader.u64()?, interiors: reader.u64()?, leaf_bytes: reader.u64()? };
        let mut reader = Reader::new(bytes.get(INDEX_OFFSET..)?);
        let is_possible = checkpoint <= CHECKPOINT_MAX && index_pages <= INDEX_PAGES_MAX;
        if key_id != 0 || !is_possible || !root.pointer.is_stored() {
            return None;
        }
        let index = (0..index_pages).map(|_| PagePointer::decode(&mut reader)).collect::<Option<Vec<_>>>()?;
        if !index.iter().all(|pointer| pointer.is_stored() || !pointer.is_some()) {
            return None;
        }
        let allocator = AllocatorRoot { index };
        let source = SnapshotSource::decode(&mut Reader::new(bytes.get(SOURCE_OFFSET..)?))?;
        Some(Self {
            identity,
            page_bytes,
            key_bytes_max,
            checkpoint,
            applied,
            applied_term,
            revision,
            horizon,
            root,
            cells,
            keys,
            file_pages,
            shape,
            allocator,
            source,
        })
    }
}

/// What was found where a copy belongs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Copy {
    /// Nothing was ever written there.
    Empty,
    /// Bytes that are no superblock of this place.
    Damaged(&'static str),
    /// A superblock that this release cannot read.
    Newer { version: u16, min_reader: u16 },
    /// A superblock.
    Valid(Box<Superblock>),
}

impl Copy {
    /// Reads the copy at an index.
    pub(crate) fn read(bytes: &[u8], index: usize) -> Self {
        if bytes.iter().all(|byte| *byte == 0) {
            return Self::Empty;
        }
        let Some((body, stored)) =
            bytes.split_at_checked(CHECKSUM_OFFSET).filter(|_| bytes.len() == COPY_BYTES)
        else {
            return Self::Damaged("superblock copy is cut short");
        };
        if Reader::new(stored).u64() != Some(checksum::xxh3(body)) {
            return Self::Damaged("superblock copy has a wrong checksum");
        }
        let mut reader = Reader::new(body);
        if reader.array() != Some(MAGIC) {
            return Self::Damaged("superblock copy has another magic");
        }
        let (version, min_reader) = (reader.u16().unwrap_or(0), reader.u16().unwrap_or(0));
        if min_reader > STORE_FORMAT {
            return Self::Newer { version, min_reader };
        }
        match Superblock::decode(body) {
            Some(superblock) if copy_index(superblock.checkpoint) == index => {
                Self::Valid(Box::new(superblock))
            }
            Some(_) => Self::Damaged("superblock copy of another place"),
            None => Self::Damaged("superblock copy with impossible fields"),
        }
    }
}

/// Takes the newest of the copies.
///
/// # Errors
/// [`StoreError::NewerFormat`], [`StoreError::WrongIdentity`], [`StoreError::Stale`], and [`StoreError::Corrupt`] when
/// no copy is valid.
pub(crate) fn choose(
    file: FileId,
    copies: &[Copy],
    identity: &ReplicaIdentity,
    least: CheckpointNo,
) -> Result<Box<Superblock>, StoreError> {
    if let Some((version, min_reader)) = copies.iter().find_map(|copy| match copy {
        Copy::Newer { version, min_reader } => Some((*version, *min_reader)),
        _ => None,
    }) {
        return Err(StoreError::NewerFormat { file, version, min_reader, supported: STORE_FORMAT });
    }
    let valid = copies.iter().filter_map(|copy| match copy {
        Copy::Valid(superblock) => Some(superblock),
        _ => None,
    });
    let Some(newest) = valid.max_by_key(|superblock| superblock.checkpoint) else {
        return Err(StoreError::Corrupt { file, offset: 0, what: "no valid superblock copy" });
    };
    if newest.identity != *identity {
        let (found, expected) = (newest.identity, *identity);
        return Err(StoreError::WrongIdentity { file, found, expected });
    }
    if newest.checkpoint < least {
        if let Some(Copy::Damaged(what)) = copies.get(copy_index(least)) {
            return Err(StoreError::Corrupt { file, offset: copy_offset(least), what });
        }
        return Err(StoreError::Stale { file, found: newest.checkpoint, least });
    }
    Ok(newest.clone())
}

#[cfg(test)]
mod tests {
    use mesh_base::PageNo;

    use super::*;
    use crate::pointer::Checksum;

    fn superblock(checkpoint: u64) -> Superblock {
        let pointer = PagePointer {
            page: PageNo(99),
            checksum: Checksum::of(b"x"),
            checkpoint: CheckpointNo(checkpoint),
        };
        Superblock {
            identity: ReplicaIdentity {
                cluster: ClusterId([7; 16]),
                shard: ShardId(3),
                replica: ReplicaId(11),
            },
            page_bytes: 8192,
            key_bytes_max: 2048,
            checkpoint: CheckpointNo(checkpoint),
            applied: LogIndex(5),
            applied_term: Term(2),
            revision: Revision(77),
            horizon: Revision(55),
            root: Root { pointer, level: 2 },
            cells: 10,
            keys: 9,
            file_pages: 1000,
            shape: Shape { leaves: 20, interiors: 3, leaf_bytes: 77_000 },
            allocator: AllocatorRoot { index: vec![pointer; 3] },
            source: checkpoint.is_multiple_of(2).then_some(SnapshotSource {
                replica: ReplicaId(12),
                checkpoint: CheckpointNo(40),
                applied: LogIndex(17),
                term: Term(3),
            }),
        }
    }

    #[test]
    fn a_copy_is_what_was_encoded_and_every_flipped_bit_is_noticed() {
        for checkpoint in [5, 7] {
            let written = superblock(checkpoint);
            let index = copy_index(CheckpointNo(checkpoint));
            assert_eq!(Copy::read(&written.encode(), index), Copy::Valid(Box::new(written)));
        }
        let written = superblock(6);
        let bytes = written.encode();
        assert_eq!(Copy::read(&bytes, 2), Copy::Valid(Box::new(written)));
        for byte in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[byte] ^= 0x10;
            assert!(matches!(Copy::read(&damaged, 2), Copy::Damaged(_)), "byte {byte}");
        }
    }

    #[test]
    fn a_copy_in_another_copys_place_is_not_taken() {
        let bytes = superblock(6).encode();
        assert!(matches!(Copy::read(&bytes, 3), Copy::Damaged(_)));
    }
}
