//! What ends a replica's part in its group.

use mesh_base::io::{IoError, IoErrorKind};
use mesh_engine::StoreError;
use mesh_raftlog::LogError;

/// Why a replica can take no further part. The node goes on; the replica comes back under another id.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The log failed or is damaged.
    #[error("log: {0}")]
    Log(#[from] LogError),
    /// The page store failed or is damaged.
    #[error("store: {0}")]
    Store(#[from] StoreError),
    /// A file operation between log and store failed.
    #[error("{0}")]
    Io(#[from] IoError),
    /// raft refuses to go on.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// A record that the replica wrote itself cannot be read.
    #[error("the record `{record}` of the system namespace is damaged")]
    Record {
        /// The record's key.
        record: String,
    },
    /// The leader's view of this replica contradicts what the replica has: it lost something it had acknowledged.
    #[error(
        "the leader knows entry {known} of this replica, whose log ends at {last}: acknowledged entries were lost"
    )]
    LostEntries {
        /// An index that the leader knows this replica had.
        known: u64,
        /// The last index of the log.
        last: u64,
    },
    /// The log and the page store do not fit together.
    #[error(
        "the page store holds entry {applied} and the log begins after entry {truncated}: entries between are missing"
    )]
    Gap {
        /// The last entry in the page store.
        applied: u64,
        /// The entry before the log's first.
        truncated: u64,
    },
    /// The log's files are gone.
    #[error("the log's files are gone, and with them what this replica promised")]
    LostLog,
    /// raft took in a snapshot whose cells were not received.
    #[error("raft took in the snapshot of entry {index} without its cells; this is a bug of Mesh")]
    NoStagedStore {
        /// The snapshot's index.
        index: u64,
    },
    /// A committed entry cannot be read.
    #[error("the committed entry {index} cannot be read: {why}")]
    Entry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
}

impl ShardError {
    /// Whether there was no space for a file that was to be made or to grow.
    pub(super) fn is_no_space(&self) -> bool {
        let full = |error: &IoError| error.kind == IoErrorKind::NoSpace;
        match self {
            Self::Log(LogError::NoSpace { .. }) => true,
            Self::Log(LogError::Io(error)) | Self::Store(StoreError::Io(error)) | Self::Io(error) => {
                full(error)
            }
            _ => false,
        }
    }

    /// Whether the disk failed in an operation: that says nothing of what is on it.
    pub(super) fn is_of_the_disk(&self) -> bool {
        let failed = |error: &IoError| error.kind == IoErrorKind::Device;
        match self {
            Self::Log(LogError::Io(error)) | Self::Store(StoreError::Io(error)) | Self::Io(error) => {
                failed(error)
            }
            _ => false,
        }
    }
}
