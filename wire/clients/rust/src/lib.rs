//! The client library of Mesh, a replicated key/value store.
//!
//! ```no_run
//! # async fn example() -> mesh_client::Result<()> {
//! use mesh_client::{Cluster, Range};
//!
//! let cluster = Cluster::connect(["127.0.0.1:7700"]).await?;
//! cluster.put("greeting", "hello").await?;
//! if let Some(item) = cluster.get("greeting").await? {
//!     assert_eq!(&item.value[..], b"hello");
//! }
//! for entry in cluster.range(Range::prefix("gr")).collect().await? {
//!     println!("{}", entry.key.escape_ascii());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What can be relied on
//!
//! - Every read gives the newest there is: nothing that was written before it is missing.
//! - A write is applied once, however often it had to be sent; one that ended with an error was certainly not applied and
//!   never will be, unless the error is [`Error::Unknown`] (or [`Error::Partial`], which tells which part was, or
//!   [`Error::Forgotten`], which says that it was).
//! - A call ends by its deadline, 5 seconds unless set otherwise. Until then it follows leaders, reconnects and waits as
//!   needed.
//! - What is in flight, and what a range holds, is bounded.
//!
//! # How it works
//!
//! One node that answers is enough to begin with: it tells the [`Topology`], and requests then go straight to the core that
//! owns their shard on the node that leads it. All requests to one core share a connection, many at a time, with answers in
//! any order. Connections and sessions are made, and pages of a range fetched, by tasks of their own, which get on whether or
//! not the call that wants them is polled, and end with the last handle. Dropping a call gives it up; a write that was sent by then may still be applied, once.
//!
//! Deliberately absent: caching, and any blocking interface.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod admin;
mod backoff;
mod calls;
mod cluster;
mod connection;
mod core;
mod error;
mod item;
mod keeper;
mod making;
mod opening;
mod options;
mod pool;
mod range;
mod request;
mod session;
mod status;
mod sync;
mod topology;
mod view;

pub use bytes::Bytes;
pub use mesh_base::{
    CheckpointNo, ClusterId, CoreId, LogIndex, NodeId, ReplicaId, Revision, ShardId, SlotEpoch, SlotNo, Term,
};

pub use self::calls::{
    Delete, DeleteMany, DeletePrevious, Get, GetMany, Increment, Pending, Put, PutMany, PutPrevious,
};
pub use self::cluster::Cluster;
pub use self::error::{Error, Result, Tried};
pub use self::item::{Deleted, Entry, Incremented, Item, Swapped, Written};
pub use self::options::ClusterBuilder;
pub use self::range::{Cursor, CursorFlaw, Items, Range};
pub use self::status::{Member, NodeReport, NodeStatus, Replaced, ReplicaRole, ReplicaState, ReplicaStatus};
pub use self::topology::{Leadership, Node, NodeState, Topology};

/// The versions of the protocol that this library speaks, for messages.
const VERSIONS: &str = "version 1";

const _: () = assert!(mesh_wire::PROTOCOL_VERSION_MIN == 1 && mesh_wire::PROTOCOL_VERSION_MAX == 1);
