//! The I/O seam: the few operations that a replica asks of a disk, as values.
//!
//! A component below the host puts [`Submission`]s into an [`IoQueue`] and is later stepped with the [`Completion`] of
//! each. The host (or the simulator) does the work in between.
//!
//! Invariants:
//! - Order exists only as *completion, then next submission*. Two submitted operations are unordered, and either may be
//!   durable after a crash without the other, in part or whole, until its completion (and, where the file's kind asks
//!   for it, the completion of a later [`IoOp::Sync`] or [`IoOp::SyncDirectory`]) was seen.
//! - Offsets and lengths of reads and writes are multiples of [`SECTOR_BYTES`].
//! - A write is complete as a whole or fails. A failed write or sync leaves unknown bytes behind: whoever sees one
//!   stops using the file until it was recovered.
//!
//! Deliberately absent: paths, descriptors, cancellation, timeouts. A submitted operation always completes.

use std::fmt;

use bytes::Bytes;

use crate::limits::SECTOR_BYTES;
use crate::{PageNo, SegmentNo};

/// A file of a directory that one replica (or the node itself) owns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum FileId {
    /// Who the node is. Only in the node's own directory.
    Identity,
    /// A segment of the log.
    Segment(SegmentNo),
    /// A segment's space taken in advance or kept for reuse; not yet, or no longer, part of the log.
    SpareSegment(u64),
    /// The page store.
    Store,
    /// A page store that a snapshot is being received into.
    StagedStore,
}

impl FileId {
    /// How writes to this file become durable.
    #[must_use]
    pub const fn durability(self) -> WriteDurability {
        match self {
            Self::Identity | Self::Segment(_) | Self::SpareSegment(_) => WriteDurability::OnCompletion,
            Self::Store | Self::StagedStore => WriteDurability::OnSync,
        }
    }

    /// The file's name in its directory.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Identity => "identity".into(),
            Self::Segment(no) => format!("{:016}.log", no.0),
            Self::SpareSegment(no) => format!("{no:016}.spare"),
            Self::Store => "store".into(),
            Self::StagedStore => "store.staged".into(),
        }
    }

    /// The file that a name of [`FileId::name`]'s form stands for.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "identity" => return Some(Self::Identity),
            "store" => return Some(Self::Store),
            "store.staged" => return Some(Self::StagedStore),
            _ => {}
        }
        let (stem, kind) = name.split_once('.')?;
        let number = (stem.len() == 16).then(|| stem.parse().ok())??;
        match kind {
            "log" => Some(Self::Segment(SegmentNo(number))),
            "spare" => Some(Self::SpareSegment(number)),
            _ => None,
        }
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// When a completed write is durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteDurability {
    /// The completion of the write says so (`O_DSYNC`).
    OnCompletion,
    /// Only the completion of a later [`IoOp::Sync`] says so.
    OnSync,
}

/// The component a completion returns to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// The node's identity.
    Node,
    /// The raft log.
    Log,
    /// The live page store.
    Store,
    /// A page store being received.
    StagedStore,
    /// The replica itself: renames and removals between the others.
    Replica,
}

/// Names one submitted operation within the directory it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IoToken {
    /// Who submitted it.
    pub lane: Lane,
    /// Its number within the lane, from 1.
    pub number: u64,
}

/// One operation on a directory's files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IoOp {
    /// The files of the directory and their lengths, ordered by [`FileId`]. Completes with [`IoValue::Listing`].
    List,
    /// Makes an empty file. Fails with [`IoErrorKind::Exists`]. Its name is durable after [`IoOp::SyncDirectory`].
    Create {
        /// The new file.
        file: FileId,
    },
    /// Takes disk space for a range of the file, and lengthens the file where the range ends beyond it; bytes
    /// never written read as zeros. Where it fails with [`IoErrorKind::NoSpace`] the file is as long as it was; a crash may
    /// leave it longer. Not to be submitted while a write behind the end of the file is in flight.
    Allocate {
        /// The file.
        file: FileId,
        /// Start of the range in bytes.
        offset: u64,
        /// Length of the range in bytes.
        length: u64,
    },
    /// Shortens the file to at most this length, and gives the disk space behind it back; does nothing where the file is
    /// no longer. Durable after [`IoOp::Sync`]; until then a crash may bring back the old length and the old bytes.
    /// Not to be submitted while a write behind the new end is in flight.
    Truncate {
        /// The file.
        file: FileId,
        /// Its new length in bytes, at most.
        length: u64,
    },
    /// Writes bytes. See [`FileId::durability`] for what its completion means.
    Write {
        /// The file.
        file: FileId,
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: Bytes,
    },
    /// Reads bytes; fewer come back only at the end of the file. Completes with [`IoValue::Read`].
    Read {
        /// The file.
        file: FileId,
        /// Where, in bytes.
        offset: u64,
        /// How many, in bytes.
        length: usize,
    },
    /// Makes every write to the file that completed before this was submitted durable.
    Sync {
        /// The file.
        file: FileId,
    },
    /// Gives a file another name, replacing what had it. Durable after [`IoOp::SyncDirectory`].
    Rename {
        /// The file.
        from: FileId,
        /// Its new name.
        to: FileId,
    },
    /// Removes a file. Durable after [`IoOp::SyncDirectory`]. Removing what is not there succeeds.
    Remove {
        /// The file.
        file: FileId,
    },
    /// Makes every creation, renaming and removal that completed before this was submitted durable.
    SyncDirectory,
}

impl IoOp {
    /// The file it is about, where it is about one.
    #[must_use]
    pub const fn file(&self) -> Option<FileId> {
        match self {
            Self::List | Self::SyncDirectory => None,
            Self::Create { file }
            | Self::Allocate { file, .. }
            | Self::Truncate { file, .. }
            | Self::Write { file, .. }
            | Self::Read { file, .. }
            | Self::Sync { file }
            | Self::Remove { file } => Some(*file),
            Self::Rename { from, .. } => Some(*from),
        }
    }

    /// The operation's name, for messages.
    #[must_use]
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create { .. } => "create",
            Self::Allocate { .. } => "allocate",
            Self::Truncate { .. } => "truncate",
            Self::Write { .. } => "write",
            Self::Read { .. } => "read",
            Self::Sync { .. } => "sync",
            Self::Rename { .. } => "rename",
            Self::Remove { .. } => "remove",
            Self::SyncDirectory => "sync directory",
        }
    }

    fn is_aligned(&self) -> bool {
        let unit = SECTOR_BYTES as u64;
        match self {
            Self::Write { offset, data, .. } => {
                offset.is_multiple_of(unit) && data.len().is_multiple_of(SECTOR_BYTES) && !data.is_empty()
            }
            Self::Read { offset, length, .. } => {
                offset.is_multiple_of(unit) && length.is_multiple_of(SECTOR_BYTES) && *length > 0
            }
            Self::Allocate { offset, length, .. } => {
                offset.is_multiple_of(unit) && length.is_multiple_of(unit)
            }
            Self::Truncate { length, .. } => length.is_multiple_of(unit),
            _ => true,
        }
    }
}

/// An operation on its way to the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Submission {
    /// Comes back with the completion.
    pub token: IoToken,
    /// What to do.
    pub op: IoOp,
}

/// The end of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Completion {
    /// The submission's.
    pub token: IoToken,
    /// How it went.
    pub result: Result<IoValue, IoError>,
}

/// What a successful operation brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IoValue {
    /// It is done.
    Done,
    /// The bytes read.
    Read(Bytes),
    /// The files of the directory with their lengths in bytes, ordered by [`FileId`].
    Listing(Vec<(FileId, u64)>),
}

/// Why an operation failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{verb} {}: {detail}", file.map_or_else(|| "directory".to_owned(), FileId::name))]
pub struct IoError {
    /// What a program can act on.
    pub kind: IoErrorKind,
    /// The operation.
    pub verb: &'static str,
    /// The file, where there was one.
    pub file: Option<FileId>,
    /// The system's words.
    pub detail: String,
}

/// Kinds of I/O failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoErrorKind {
    /// The file system is full.
    NoSpace,
    /// There is no such file.
    NotFound,
    /// The file exists already.
    Exists,
    /// The device or file system failed; the file's contents are unknown.
    Device,
}

/// Where components put their operations: drained by the shard's owner after each step.
#[derive(Default, Debug)]
pub struct IoQueue {
    submissions: Vec<Submission>,
}

impl IoQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        Self { submissions: Vec::new() }
    }

    /// Takes what was submitted, in the order of submission.
    pub fn drain(&mut self) -> impl Iterator<Item = Submission> + '_ {
        self.submissions.drain(..)
    }

    /// Whether nothing was submitted since the last drain.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.submissions.is_empty()
    }
}

/// Numbers the submissions of one lane.
#[derive(Debug)]
pub struct IoPort {
    lane: Lane,
    last: u64,
}

impl IoPort {
    /// A port whose first token has the number 1.
    #[must_use]
    pub const fn new(lane: Lane) -> Self {
        Self { lane, last: 0 }
    }

    /// Puts an operation into the queue and returns the token its completion will carry.
    ///
    /// # Panics
    /// When the operation is not aligned to [`SECTOR_BYTES`]: a bug of the caller.
    pub fn submit(&mut self, queue: &mut IoQueue, op: IoOp) -> IoToken {
        assert!(op.is_aligned(), "unaligned {op:?}");
        self.last += 1;
        let token = IoToken { lane: self.lane, number: self.last };
        queue.submissions.push(Submission { token, op });
        token
    }
}

/// The byte offset of a page of `page_bytes` bytes. A number that is too high for any file, as damage may bring it, has
/// that of the last page that can be.
#[must_use]
pub const fn page_offset(page: PageNo, page_bytes: usize) -> u64 {
    let last = u64::MAX / page_bytes as u64 - 1;
    let page = if page.0 < last { page.0 } else { last };
    page * page_bytes as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_again_by_its_name() {
        let files = [
            FileId::Identity,
            FileId::Segment(SegmentNo(7)),
            FileId::SpareSegment(12),
            FileId::Store,
            FileId::StagedStore,
        ];
        for file in files {
            assert_eq!(FileId::from_name(&file.name()), Some(file));
        }
        for name in ["", "store.old", "12.log", "000000000000000x.log", "0000000000000001.tmp"] {
            assert_eq!(FileId::from_name(name), None);
        }
    }

    #[test]
    fn the_offset_of_a_page_that_no_file_has_is_aligned() {
        assert_eq!(page_offset(PageNo(3), 4096), 12_288);
        for bytes in [4096, 16_384] {
            let offset = page_offset(PageNo(u64::MAX), bytes);
            assert!(offset.is_multiple_of(bytes as u64) && offset.checked_add(bytes as u64).is_some());
        }
    }

    #[test]
    #[should_panic(expected = "unaligned")]
    fn an_unaligned_write_is_a_bug_of_the_caller() {
        let mut queue = IoQueue::new();
        let data = Bytes::from_static(b"x");
        IoPort::new(Lane::Log).submit(&mut queue, IoOp::Write { file: FileId::Store, offset: 0, data });
    }
}
