//! The append log of one replica: what raft must not forget.
//!
//! Entries and hard state go into segment files as batches, one write each. [`Recovery`] brings a log back after a stop
//! of any kind, [`Creation`] makes a new one, [`Log`] is the log in use and raft's [`raft::Storage`]. FORMAT.md has the
//! byte tables and argues every point at which a crash can come.
//!
//! Invariants:
//! - An acknowledged batch is never forgotten; what a recovery cut never comes back.
//! - Batches are acknowledged in order, and only when durable. Written is not durable.
//! - After the first failure nothing is acknowledged any more, until the log was recovered.
//!
//! Deliberately absent: clocks, threads, paths, waiting. Everything is a value in or out: [`mesh_base::io`] has the
//! operations. Absent too: what entries mean, and when to take a checkpoint.

mod base;
mod begin;
mod contents;
mod creation;
mod error;
mod fetch;
mod footer;
mod format;
mod forming;
pub mod inspect;
mod log;
mod options;
mod purge;
mod recovery;
mod spare;
mod switch;
mod writer;

#[cfg(test)]
mod tests;

pub use base::{CheckpointMark, EntryPosition, SnapshotBase};
pub use creation::{Creation, FirstState};
pub use error::LogError;
pub use footer::RevisionRange;
pub use log::{HoldId, Log, LogEvents};
pub use options::LogOptions;
pub use recovery::{Recovered, RecoveredLog, Recovery, TornTail};
pub use spare::Space;
pub use writer::Durable;
