//! Why a node cannot start, or did not stop as it should.

use std::io;
use std::path::PathBuf;

use mesh_base::CoreId;

/// Why the host refuses to run a node. Each message names what the operator gave and says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another process runs a node in the same data directory.
    #[error(
        "data directory {} is in use by process {pid} (node {node}); stop it, or choose another with --data",
        path.display()
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The process that holds it, as far as its lock file tells.
        pid: String,
        /// The node that it runs there.
        node: String,
    },
    /// The data directory, or a file in it, cannot be used.
    #[error("data directory: {}: {source}", path.display())]
    Data {
        /// What was tried to be used.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The data directory lies on a file system without direct I/O.
    #[error(
        "data directory {} is on {file_system}, which cannot write past the page cache (O_DIRECT); \
         choose one on a disk with ext4 or xfs with --data",
        path.display()
    )]
    NoDirectIo {
        /// The data directory.
        path: PathBuf,
        /// The file system, by name where it is known.
        file_system: String,
    },
    /// The data directory lies on a file system that copies on write.
    #[error(
        "data directory {} is on {file_system}, which writes elsewhere what is written over, and may then find no space \
         for what was promised some; choose one on ext4 or xfs with --data",
        path.display()
    )]
    CopiesOnWrite {
        /// The data directory.
        path: PathBuf,
        /// The file system.
        file_system: &'static str,
    },
    /// The listening address is taken.
    #[error("address {address} is in use by another program; choose another with --listen")]
    AddressInUse {
        /// What the operator gave.
        address: String,
    },
    /// The listening address cannot be used.
    #[error("--listen {address}: {source}")]
    Listen {
        /// What the operator gave.
        address: String,
        /// The system's words.
        source: io::Error,
    },
    /// A core cannot be started.
    #[error("core {core} on processor {cpu} (--cores): {reason}")]
    Core {
        /// The core.
        core: CoreId,
        /// The processor it was to be pinned to.
        cpu: usize,
        /// Why, in the system's words.
        reason: String,
    },
    /// The node was asked to stop, and some of its cores had not finished in time.
    #[error("{cores} core(s) did not finish in time; the next start recovers what they had under way")]
    StopTimeout {
        /// How many.
        cores: usize,
    },
}
