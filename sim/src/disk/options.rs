//! What a simulated disk is like, what can be done to it, and what happened to it.

use std::fmt;
use std::ops::AddAssign;
use std::time::Duration;

use mesh_base::io::IoOp;

use crate::latency::Latency;

/// How a disk behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskOptions {
    /// Of a read.
    pub read: Latency,
    /// Of a write.
    pub write: Latency,
    /// Of a sync of a file or of the directory.
    pub sync: Latency,
    /// Of everything else.
    pub metadata: Latency,
    /// What the length of a read or write adds to its latency.
    pub bytes_per_second: u64,
    /// Bytes that all files together may take.
    pub capacity_bytes: u64,
    /// Reads, writes and syncs that fail of a million.
    pub device_errors_per_million: u64,
}

impl DiskOptions {
    /// A healthy NVMe drive without a bound on its space.
    pub const HEALTHY: Self = Self {
        read: Latency::between(Duration::from_micros(60), Duration::from_micros(120)),
        write: Latency::between(Duration::from_micros(15), Duration::from_micros(90)),
        sync: Latency::between(Duration::from_micros(50), Duration::from_micros(500)),
        metadata: Latency::between(Duration::from_micros(10), Duration::from_micros(200)),
        bytes_per_second: 2_000_000_000,
        capacity_bytes: u64::MAX,
        device_errors_per_million: 0,
    };
}

impl fmt::Display for DiskOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "read {}, write {}, sync {}", self.read, self.write, self.sync)?;
        write!(f, ", metadata {}, {} MB/s", self.metadata, self.bytes_per_second / 1_000_000)?;
        if self.capacity_bytes < u64::MAX {
            write!(f, ", {} KiB", self.capacity_bytes / 1024)?;
        }
        write!(f, ", errors {}/1000000", self.device_errors_per_million)
    }
}

/// What ends suddenly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process: what it had completed is still seen, and what was not durable still is not.
    Process,
    /// The machine's power: what was not durable is kept, dropped or torn.
    Power,
}

/// What a failing medium does to stored bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// One bit of the byte is flipped.
    FlipBit,
    /// The sector of [`TEAR_BYTES`](super::TEAR_BYTES) around the byte reads as zeros.
    ZeroSector,
    /// That sector reads as random bytes.
    ScrambleSector,
    /// The sector of [`SECTOR_BYTES`](mesh_base::limits::SECTOR_BYTES) around the byte cannot be read until it is written
    /// again: a latent sector error.
    LoseSector,
}

/// What goes wrong once with the next operation of its kind on a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArmedFault {
    /// A read fails.
    FailRead,
    /// A write fails; any part of it may be on the disk.
    FailWrite,
    /// A sync fails; what it covered is visible, and no later sync makes it durable.
    FailSync,
    /// A write is reported done and was not.
    LoseWrite,
    /// A write is reported done and was done at another offset of the file.
    MisdirectWrite,
}

impl ArmedFault {
    pub(super) const fn concerns(self, op: &IoOp) -> bool {
        match self {
            Self::FailRead => matches!(op, IoOp::Read { .. }),
            Self::FailSync => matches!(op, IoOp::Sync { .. }),
            Self::FailWrite | Self::LoseWrite | Self::MisdirectWrite => matches!(op, IoOp::Write { .. }),
        }
    }

    /// How an operation fails when the device does.
    pub(super) const fn failure_of(op: &IoOp) -> Option<Self> {
        match op {
            IoOp::Read { .. } => Some(Self::FailRead),
            IoOp::Write { .. } => Some(Self::FailWrite),
            IoOp::Sync { .. } => Some(Self::FailSync),
            _ => None,
        }
    }
}

/// What happened on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DiskStatistics {
    /// Operations submitted.
    pub submitted: u64,
    /// Operations completed, failed ones included.
    pub completed: u64,
    /// Bytes of completed writes.
    pub written_bytes: u64,
    /// Crashes.
    pub crashes: u64,
    /// Operations that crashes swallowed.
    pub swallowed: u64,
    /// Writes not durable at a crash that it kept whole.
    pub kept: u64,
    /// Such writes that it dropped.
    pub dropped: u64,
    /// Such writes that it tore.
    pub torn: u64,
    /// Creations, renamings and removals that crashes dropped.
    pub names_dropped: u64,
    /// Operations refused for want of space.
    pub no_space: u64,
    /// Operations that failed.
    pub device_errors: u64,
    /// Writes reported done that were not.
    pub writes_lost: u64,
    /// Writes reported done that were done elsewhere.
    pub writes_misdirected: u64,
    /// Damages done to stored bytes.
    pub damaged: u64,
}

impl AddAssign for DiskStatistics {
    fn add_assign(&mut self, other: Self) {
        self.submitted += other.submitted;
        self.completed += other.completed;
        self.written_bytes += other.written_bytes;
        self.crashes += other.crashes;
        self.swallowed += other.swallowed;
        self.kept += other.kept;
        self.dropped += other.dropped;
        self.torn += other.torn;
        self.names_dropped += other.names_dropped;
        self.no_space += other.no_space;
        self.device_errors += other.device_errors;
        self.writes_lost += other.writes_lost;
        self.writes_misdirected += other.writes_misdirected;
        self.damaged += other.damaged;
    }
}
