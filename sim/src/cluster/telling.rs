//! Events as lines of a trace: what a frame says, what a disk does, instead of bytes and numbers.
//!
//! Whatever a line leaves out of a frame or of a write is in its checksum, so two runs that differ in a byte differ in
//! their lines.

use std::fmt;

use bytes::Bytes;
use mesh_base::Revision;
use mesh_base::checksum::xxh3;
use mesh_base::io::IoOp;
use mesh_server::core::DirectoryKey;
use mesh_wire::{FrameDecoder, FrameRef, PeerMessage, RaftMessage, Request, Response};

use super::{Event, Node, Peer};
use crate::history::Stamp;
use crate::net::NetEvent;

/// An event that is about to happen to the nodes.
pub(super) struct Told<'a> {
    pub(super) event: &'a Event,
    pub(super) nodes: &'a [Node],
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.event {
            Event::Disk(node, op) => {
                write!(f, "n{node} disk ")?;
                match self.nodes.get(*node).and_then(|node| node.disk.find(*op)) {
                    Some((directory, op)) => tell_disk(f, directory, op),
                    None => f.write_str("completes nothing, for a crash came first"),
                }
            }
            Event::Net(NetEvent::Frame(frame)) => {
                write!(f, "{} -> {} ", frame.from, frame.to)?;
                tell_frame(f, &frame.bytes)
            }
            Event::Net(NetEvent::Reset { node, peer, class }) => {
                write!(f, "{node} learns that its connection with {peer} broke ({class:?})")
            }
            Event::Turn { node, core, incarnation } => {
                write!(f, "n{node} turn of core {core}, run {incarnation}")
            }
            Event::Tick { node, incarnation } => write!(f, "n{node} tick, run {incarnation}"),
            Event::Think(client) => write!(f, "client {client} begins"),
            Event::Alarm { client, attempt } => write!(f, "client {client} waited for attempt {attempt}"),
            Event::Restart(node) => write!(f, "n{node} starts, if it is down"),
            // The faults, by their names.
            fault => write!(f, "{fault:?}"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "n{node}"),
            Self::Client(client) => write!(f, "client {client}"),
            Self::Operator => f.write_str("operator"),
        }
    }
}

fn tell_disk(f: &mut fmt::Formatter<'_>, directory: DirectoryKey, op: &IoOp) -> fmt::Result {
    write!(f, "{} {directory}", op.verb())?;
    if let Some(file) = op.file() {
        write!(f, "/{file}")?;
    }
    match op {
        IoOp::Write { offset, data, .. } => {
            write!(f, " at {offset} ({} bytes, {:016x})", data.len(), xxh3(data))
        }
        IoOp::Read { offset, length, .. } => write!(f, " at {offset} ({length} bytes)"),
        IoOp::Allocate { offset, length, .. } => write!(f, " at {offset} ({length} bytes)"),
        IoOp::Truncate { length, .. } => write!(f, " to {length} bytes"),
        IoOp::Rename { to, .. } => write!(f, " to {to}"),
        _ => Ok(()),
    }
}

fn tell_frame(f: &mut fmt::Formatter<'_>, bytes: &Bytes) -> fmt::Result {
    if let Ok(Some(frame)) = FrameDecoder::new().peek(bytes) {
        f.write_str(frame.header.kind.name())?;
        if let Some(shard) = frame.header.envelope.shard {
            write!(f, " shard {shard}")?;
        }
        if frame.header.envelope.request.0 > 0 {
            write!(f, " {:?}", frame.header.envelope.request)?;
        }
        tell_payload(f, &frame)?;
    }
    write!(f, " ({} bytes, {:016x})", bytes.len(), xxh3(bytes))
}

fn tell_payload(f: &mut fmt::Formatter<'_>, frame: &FrameRef<'_>) -> fmt::Result {
    if let Ok(request) = frame.request() {
        return tell_request(f, &request);
    }
    if let Ok(response) = frame.response() {
        return tell_response(f, &response);
    }
    match frame.peer() {
        Ok(PeerMessage::Raft(raft)) => raft.messages.iter().try_for_each(|message| tell_raft(f, &message)),
        _ => Ok(()),
    }
}

fn tell_request(f: &mut fmt::Formatter<'_>, request: &Request<'_>) -> fmt::Result {
    match request {
        Request::Put(put) => {
            write!(f, " \"{}\"", put.key.escape_ascii())?;
            tell_value(f, put.value)?;
            write!(f, ", {:?}/{}", put.ctx.session, put.ctx.seq)
        }
        Request::Delete(delete) => {
            delete.keys.iter().try_for_each(|key| write!(f, " \"{}\"", key.escape_ascii()))?;
            write!(f, ", {:?}/{}", delete.ctx.session, delete.ctx.seq)
        }
        Request::PutBatch(put) => {
            for item in put.items {
                write!(f, " \"{}\"", item.key.escape_ascii())?;
                tell_value(f, item.value)?;
            }
            write!(f, ", {:?}/{}", put.ctx.session, put.ctx.seq)
        }
        Request::Get(get) => write!(f, " \"{}\"", get.key.escape_ascii()),
        Request::GetBatch(get) => {
            get.keys.iter().try_for_each(|key| write!(f, " \"{}\"", key.escape_ascii()))
        }
        Request::Range(range) if range.at > Revision::ZERO => write!(f, " at {}", range.at),
        _ => Ok(()),
    }
}

fn tell_response(f: &mut fmt::Formatter<'_>, response: &Response<'_>) -> fmt::Result {
    match response {
        Response::Written(written) => write!(f, " at {}", written.revision),
        Response::Deleted(deleted) => write!(f, " {} at {}", deleted.deleted, deleted.revision),
        Response::Get(answer) => match answer.item {
            Some(item) => {
                tell_value(f, item.value)?;
                write!(f, " of {}, at {}", item.revision, answer.revision)
            }
            None => write!(f, " nothing, at {}", answer.revision),
        },
        Response::GetBatch(answer) => {
            for item in answer.items {
                match item {
                    Some(item) => tell_value(f, item.value)?,
                    None => f.write_str(" nothing")?,
                }
            }
            write!(f, ", at {}", answer.revision)
        }
        Response::Range(page) => write!(f, " {} items at {}", page.items.len(), page.revision),
        Response::Error(error) => write!(f, " {error}"),
        _ => Ok(()),
    }
}

/// A value by its stamp, as the checkers name it.
fn tell_value(f: &mut fmt::Formatter<'_>, value: &[u8]) -> fmt::Result {
    match value.first_chunk() {
        Some(stamp) => write!(f, " {}", Stamp(u64::from_le_bytes(*stamp))),
        None => write!(f, " {} bytes", value.len()),
    }
}

fn tell_raft(f: &mut fmt::Formatter<'_>, message: &RaftMessage<'_>) -> fmt::Result {
    let RaftMessage { from, to, term, log_term, index, commit, .. } = message;
    let name = RAFT_TYPES.get(usize::from(message.msg_type)).copied().unwrap_or("unknown");
    write!(f, " [{name} shard {} {from}->{to} term {term}", message.shard)?;
    write!(f, " at {log_term}.{index} commit {commit}")?;
    if !message.entries.is_empty() {
        write!(f, ", {} entries", message.entries.len())?;
    }
    f.write_str(if message.reject { ", rejected]" } else { "]" })
}

/// What raft's message types are called, by their numbers.
const RAFT_TYPES: [&str; 19] = [
    "campaign",
    "beat",
    "propose",
    "append",
    "append answer",
    "vote",
    "vote answer",
    "snapshot",
    "heartbeat",
    "heartbeat answer",
    "unreachable",
    "snapshot status",
    "check quorum",
    "transfer leader",
    "timeout now",
    "read index",
    "read index answer",
    "pre-vote",
    "pre-vote answer",
];
