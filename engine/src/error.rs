//! Everything that can go wrong in this crate.

use mesh_base::io::{FileId, IoError};
use mesh_base::{CheckpointNo, ReplicaIdentity, Revision};

use crate::key::CellKey;

/// A failure of the page store, or bytes from outside that it refuses.
///
/// After [`StoreError::Io`] and [`StoreError::Corrupt`] the store is poisoned: it answers every call with
/// [`StoreError::Poisoned`], acknowledges nothing more, and is opened again or rebuilt.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// Bytes on the disk are not those that were written.
    #[error("{file}: damaged at byte {offset}: {what}")]
    Corrupt {
        /// The file.
        file: FileId,
        /// Where the damaged structure begins, in bytes.
        offset: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The newest superblock is older than one that is known to have been durable: a copy was lost.
    #[error("{file}: newest checkpoint is {found}, but {least} was durable: a superblock copy was lost")]
    Stale {
        /// The file.
        file: FileId,
        /// The newest checkpoint found.
        found: CheckpointNo,
        /// The least that must exist.
        least: CheckpointNo,
    },
    /// The file belongs to another replica.
    #[error("{file}: belongs to {found:?}, not to {expected:?}")]
    WrongIdentity {
        /// The file.
        file: FileId,
        /// Who it says it belongs to.
        found: ReplicaIdentity,
        /// Who opened it.
        expected: ReplicaIdentity,
    },
    /// The file was written by a newer release and says that this one cannot read it.
    #[error("{file}: format {version} needs a reader of format {min_reader}, this one reads {supported}")]
    NewerFormat {
        /// The file.
        file: FileId,
        /// Its format.
        version: u16,
        /// The least reader it asks for.
        min_reader: u16,
        /// What this release reads.
        supported: u16,
    },
    /// A size that was fixed when the file was made differs from the option it is opened with.
    #[error("{file}: made with {what} {found}, opened with {expected}")]
    Size {
        /// The file.
        file: FileId,
        /// Which size.
        what: &'static str,
        /// The file's.
        found: u64,
        /// The option's.
        expected: u64,
    },
    /// There is no such file.
    #[error("{file}: no such file")]
    Missing {
        /// The file.
        file: FileId,
    },
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] IoError),
    /// An earlier failure ended this store's use.
    #[error("the store failed earlier: {first}")]
    Poisoned {
        /// That failure.
        first: Box<StoreError>,
    },
    /// A read below the horizon: versions there may be gone.
    #[error("versions below revision {oldest} are compacted")]
    Compacted {
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// A key or a value that no cell can hold.
    #[error("{what} of {bytes} bytes, at most {limit}")]
    TooLarge {
        /// Key or value.
        what: &'static str,
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Bytes that are not a chunk of a snapshot.
    #[error("malformed snapshot chunk: {what}")]
    MalformedChunk {
        /// What is wrong.
        what: &'static str,
    },
    /// A chunk that does not begin where the one before it ended.
    #[error("snapshot chunk out of place: begins at {found:?}, expected {expected:?}")]
    ChunkOutOfPlace {
        /// Where it begins.
        found: Box<CellKey>,
        /// Where the next must begin; nothing when the last was received.
        expected: Option<Box<CellKey>>,
    },
    /// Bytes that are not an entry's payload.
    #[error("malformed entry: {what}")]
    MalformedEntry {
        /// What is wrong.
        what: &'static str,
    },
    /// An entry or chunk of a newer release, which says that this one cannot read it.
    #[error("{what} of format {version} needs a reader of format {min_reader}, this one reads {supported}")]
    NewerEncoding {
        /// Entry or chunk.
        what: &'static str,
        /// Its format.
        version: u16,
        /// The least reader it asks for.
        min_reader: u16,
        /// What this release reads.
        supported: u16,
    },
}
