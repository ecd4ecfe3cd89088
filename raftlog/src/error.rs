//! What can go wrong with a log, and what each failure tells its owner.

use mesh_base::io::{FileId, IoError};
use mesh_base::{ClusterId, LogIndex, ReplicaId, ShardId};

/// A failure of the log.
///
/// All but [`LogError::EntryTooLarge`] end the use of the log or of the recovery that answered it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// A segment belongs to another cluster.
    #[error("{file}: belongs to cluster {found}, expected {expected}")]
    WrongCluster {
        /// The segment.
        file: FileId,
        /// The cluster of the replica that was opened.
        expected: ClusterId,
        /// The cluster that the segment names.
        found: ClusterId,
    },
    /// A segment belongs to another shard.
    #[error("{file}: belongs to shard {found}, expected {expected}")]
    WrongShard {
        /// The segment.
        file: FileId,
        /// The shard of the replica that was opened.
        expected: ShardId,
        /// The shard that the segment names.
        found: ShardId,
    },
    /// A segment belongs to another incarnation of the replica.
    #[error("{file}: belongs to replica {found}, expected {expected}")]
    WrongReplica {
        /// The segment.
        file: FileId,
        /// The replica that was opened.
        expected: ReplicaId,
        /// The replica that the segment names.
        found: ReplicaId,
    },
    /// A segment or batch was written by a newer version that this one cannot read.
    #[error(
        "{file} at byte {offset}: needs a reader of format version {needs}, this one reads up to {supported}"
    )]
    NewerFormat {
        /// The segment.
        file: FileId,
        /// Where in the file, in bytes.
        offset: u64,
        /// The least version that can read it.
        needs: u16,
        /// The version of this reader.
        supported: u16,
    },
    /// A segment or batch is intact and uses what this version does not know.
    #[error("{file} at byte {offset}: {what} {value} is not known to this version")]
    Unsupported {
        /// The segment.
        file: FileId,
        /// Where in the file, in bytes.
        offset: u64,
        /// What it uses.
        what: &'static str,
        /// The value met.
        value: u64,
    },
    /// Something that was durable is damaged or missing. The replica must not take part under its old id.
    #[error("{file} at byte {offset}: {what}")]
    Corrupt {
        /// The segment.
        file: FileId,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// The disk has no room for the segment that a recovery or creation needs. Nothing on disk was harmed: start it
    /// again when there is space.
    #[error("no space for a segment of {bytes} bytes")]
    NoSpace {
        /// The space that was asked for, in bytes.
        bytes: u64,
    },
    /// A log was to be created where there is one.
    #[error("{file}: there is a log already")]
    AlreadyExists {
        /// A segment of the log that exists.
        file: FileId,
    },
    /// An entry does not fit into a segment. Nothing was changed.
    #[error("entry {index} takes {bytes} bytes of at most {limit}")]
    EntryTooLarge {
        /// The entry.
        index: LogIndex,
        /// Its bytes in the log.
        bytes: usize,
        /// Most bytes of an entry in the log.
        limit: usize,
    },
    /// An operation failed; the log is poisoned by it.
    #[error(transparent)]
    Io(#[from] IoError),
    /// An earlier failure ended the use of this log: nothing more is acknowledged until it was recovered.
    #[error("the log stopped after: {cause}")]
    Poisoned {
        /// The earlier failure.
        cause: String,
    },
}
