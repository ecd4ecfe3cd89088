//! Real nodes: processes on real disks and sockets, killed, starved and lied to. What was acknowledged is compared key by
//! key with what is there afterwards.
//!
//! The simulator looks for rare orders of events; these tests show that the host keeps what the simulator assumes of it.

#![cfg(feature = "host")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::print_stderr, reason = "figures, and what nodes said, are for whoever runs the test")]

mod cluster;
mod conditions;
mod damage;
mod files;
mod load;
mod memory;
mod offline;
mod quorum;
mod raw;
mod refusals;
mod sizes;
mod starts;
mod survival;
mod volume;
