//! The page store of one replica, and the effects that log entries carry.
//!
//! Bird's-eye view: [`Opening`] opens or makes a [`Store`]. The owner applies entries by [`Store::write`], reads by
//! [`Store::get`] and [`Store::scan`], fetches what these miss, and takes checkpoints, from which and from the raft
//! log everything comes back after a crash. [`effect`] is the encoding of an entry's payload.
//!
//! The rooms, from the bottom up: `page`, `cell`, `pointer`, `superblock` are the bytes of the file (FORMAT.md);
//! `allocator` knows which pages are free, `frames` which are in memory; `tree` is the B+tree over both, without I/O;
//! `store` is the part that submits I/O and takes completions; `upkeep` decides what is tidied up in it, and when.
//!
//! Invariants:
//! - Nothing here waits, opens a file, reads a clock or draws randomness.
//! - Bytes from a disk or a peer are checked and refused with an error; assertions are for our own bugs.
//!
//! Deliberately absent: raft, sessions, locks, watches. When a checkpoint begins and how fast it is written is for the owner to
//! say; `pace` is the rule for it, and upkeep only asks for one.

mod allocator;
mod cell;
pub mod effect;
mod error;
mod frames;
pub mod inspect;
mod key;
mod options;
mod pace;
mod page;
mod pointer;
mod read;
mod sealed;
mod store;
mod superblock;
#[cfg(test)]
mod tests;
mod tree;
mod upkeep;
mod write;

pub use error::StoreError;
pub use frames::{MemoryAhead, MemoryOrders};
pub use key::{CellKey, KeyRef};
pub use options::{PAGE_BYTES_MAX, PAGE_BYTES_MIN, StoreOptions};
pub use pace::{CheckpointPace, Unsaved};
pub use read::{
    KeyAt, Lookup, Misses, ScanDirection, ScanEnd, ScanOutcome, ScanRequest, ScanRest, Value, Version, Want,
};
pub use store::{
    AffectedKeys, CheckpointInfo, CheckpointMeta, CheckpointProgress, FetchId, IngestProgress, KeyRange,
    OpenWarning, Opened, Opening, PinId, SnapshotChunk, Store, StoreEvent, StorePart, StoreStatistics,
    VerifyProblem, VerifyReport, WalkedCell,
};
pub use superblock::SnapshotSource;
pub use tree::{Density, GROUP_KEYS, PackPoint, PackProgress, RangeChange, SweepPoint, SweepProgress};
pub use upkeep::Upkeep;
pub use write::{Attributes, CellWrite, Change};
