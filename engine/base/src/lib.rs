//! What every other crate of Mesh stands on: ids, limits, the I/O seam, time as a value, checksums and the
//! seeded random number generator.
//!
//! Invariants:
//! - Nothing here waits, reads a clock, opens a file or draws randomness: all of these are arguments or results.
//! - Every bound of the product is in [`limits`], and the relations between bounds are asserted there.
//!
//! Deliberately absent: any executor, any file, any socket. Those live in the server's host alone.

pub mod aligned;
pub mod buffers;
pub mod bytesio;
pub mod checksum;
pub mod flaw;
pub mod identity;
pub mod ids;
pub mod io;
pub mod limits;
pub mod memory;
pub mod prng;
pub mod slot;
pub mod table;
pub mod time;

pub use identity::ReplicaIdentity;
pub use ids::{
    BatchSeq, CheckpointNo, ClusterId, CoreId, LogIndex, Namespace, NodeId, PageNo, ReplicaId, Revision,
    SegmentNo, SessionId, SessionSeq, ShardId, SlotEpoch, SlotNo, Term,
};
pub use time::{Instant, Now, WallMillis};
