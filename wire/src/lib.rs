//! The protocol of Mesh: frames, the messages in them, and the errors that requests are answered with. What is on the
//! wire is described in PROTOCOL.md.
//!
//! A message is written by a [`FrameWriter`] and read in two steps: [`FrameDecoder`] finds a whole frame, and
//! [`Frame::request`], [`Frame::response`] or [`Frame::peer`] verifies its payload and gives a view that borrows from
//! it. A key or value of a view is made to share the frame's memory by `frame.payload.slice_ref(key)`.
//!
//! ```
//! use bytes::BytesMut;
//! use mesh_base::ShardId;
//! use mesh_wire::{Envelope, FrameDecoder, FrameWriter, Get, Request, RequestId};
//!
//! let envelope = Envelope { request: RequestId(7), shard: Some(ShardId(0)), ..Envelope::default() };
//! let get = Request::Get(Get { key: b"greeting", ..Get::default() });
//! let mut stream = Vec::new();
//! FrameWriter::new().append(&envelope, &get, &mut stream)?;
//!
//! let mut buffer = BytesMut::from(&stream[..]);
//! let frame = FrameDecoder::new().decode(&mut buffer)?.expect("a whole frame");
//! assert_eq!(frame.header.envelope, envelope);
//! assert_eq!(frame.request()?, get);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Invariants:
//! - Nothing is allocated for bytes that were not looked at: a frame's length, the number of its tables and how deep they
//!   lie are bounded by [`mesh_base::limits`].
//! - Whatever bytes come in, the answer is a value or an error, never a panic.
//! - What the decoder accepts and what the writer lets out keep the same rules.
//!
//! Deliberately absent: sockets, raft, and any knowledge of what a request does.

mod builder;
mod direct;
mod error;
mod foreign;
mod form;
mod frame;
mod header;
mod kind;
mod list;
mod message;
mod views;
mod wire_error;
mod writer;

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    missing_docs,
    unreachable_pub,
    unsafe_code,
    unused_qualifications,
    reason = "written by flatc, see the script `generate`"
)]
#[rustfmt::skip]
#[path = "generated/mesh_generated.rs"]
mod generated;

pub use error::{Error, LeaderAt, Text};
pub use foreign::Foreign;
pub use frame::{Frame, FrameDecoder, FrameError, FrameRef};
pub use header::{Envelope, FRAME_VERSION, HEADER_BYTES, Header, MAGIC, NO_SHARD, RequestId};
pub use kind::{Kind, KindClass};
pub use list::{List, ListIter};
pub use message::{
    Action, Auth, BirthAccept, BirthDecided, BirthMember, BirthPropose, Branch, Condition, ConfState, Delete,
    Deleted, Directory, ELEMENT_OVERHEAD_BYTES, Expect, Get, GetAnswer, GetBatch, GetBatchAnswer, Hello,
    HelloAnswer, Item, JoinAnswer, JoinRequest, KeyRange, KeyValue, LinkClass, MESSAGE_OVERHEAD_BYTES,
    Member, NodeEntry, NodeProbe, NodeState, OpenSession, Operation, Ping, ProbeState, Put, PutBatch, Raft,
    RaftEntry, RaftMessage, RaftSnapshot, Range, RangeAnswer, RangeItem, ReadContext, ReplaceAnswer,
    ReplaceNode, ReplicaRole, ReplicaState, ReplicaStatus, Role, SessionOpened, ShardPlace, SlotRange,
    SnapshotAck, SnapshotChunk, SnapshotMeta, SnapshotOffer, SnapshotPosition, SnapshotStatus, StatusAnswer,
    Topology, TraceId, Transact, Transacted, WriteContext, Written,
};
pub use views::{Outgoing, PeerMessage, Request, Response};
pub use wire_error::WireError;
pub use writer::FrameWriter;

/// The oldest version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// The newest version of the protocol that this crate speaks.
pub const PROTOCOL_VERSION_MAX: u16 = 1;

/// The version that a connection speaks whose opener said what it speaks: the newest that both do.
///
/// # Errors
/// [`Error::Unsupported`] if there is none.
pub fn negotiate(hello: &Hello<'_>) -> Result<u16, Error> {
    let newest = hello.version_max.min(PROTOCOL_VERSION_MAX);
    if newest < hello.version_min.max(PROTOCOL_VERSION_MIN) {
        return Err(Error::Unsupported {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
        });
    }
    Ok(newest)
}
