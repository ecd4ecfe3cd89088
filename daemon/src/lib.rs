//! The server of Mesh.
//!
//! The parts, from the inside out:
//!
//! - [`shard`]: a replica of a shard: raft, evaluation, sessions, reads, checkpoints, snapshots. Pure.
//! - [`node`]: who the node is and who the others are: birth, membership, replacement. Pure.
//! - [`router`]: from key to shard to core. Pure.
//! - [`core`]: the shards of one core, their clients and peers: one turn is events in, effects out. Pure.
#![cfg_attr(feature = "host", doc = "- [`host`]: the only part that waits: executors, files, sockets.")]
#![cfg_attr(feature = "host", doc = "- [`cli`]: the command line of the two binaries.")]
//!
//! Pure parts read no clock, open no file, spawn nothing and draw no randomness; a test holds them to it.

#[cfg(feature = "host")]
pub mod cli;
pub mod core;
#[cfg(feature = "host")]
pub mod host;
pub mod node;
pub mod router;
pub mod shard;
