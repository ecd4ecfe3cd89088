//! What a step of a shard gives back: operations, messages, answers, news. Plain values, performed by the core.

use std::sync::Arc;

use bytes::Bytes;
use mesh_base::io::IoQueue;
use mesh_base::limits::TURN_ANSWER_BYTES_MAX;
use mesh_base::{NodeId, ReplicaId, ShardId, SlotEpoch};
use mesh_wire::{Envelope, Error, FrameWriter, Outgoing, RequestId, Response};
use raft::eraftpb::Message;

use super::proposals::Waiter;
use crate::core::{LinkClass, Responder};
use crate::node::Directory;

/// Collects what steps give back until the core takes it.
pub struct Output {
    /// File operations of the replica's directory.
    pub io: IoQueue,
    /// Messages to other replicas of the shard.
    pub peers: Vec<PeerSend>,
    /// Answers to requests, as whole frames.
    pub replies: Vec<(Responder, Bytes)>,
    /// What the core wants to know.
    pub news: Vec<News>,
    /// Its part in the chunks of snapshots that its core makes.
    pub sending: Share,
    /// Its part in the chunks of snapshots that its core takes in.
    pub loading: Share,
    shard: ShardId,
    epoch: SlotEpoch,
    /// Bytes of the turn's answers, errors aside.
    reply_bytes: usize,
    again: Again,
    writer: FrameWriter,
}

/// Whether a replica has more to do than one turn had room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Again {
    /// It has; it wants to be stepped again soon.
    Yes,
    /// Not until something happens.
    No,
}

/// A message to another replica.
#[derive(Debug)]
pub struct PeerSend {
    /// The replica.
    pub to: ReplicaId,
    /// The link it travels on.
    pub class: LinkClass,
    /// The message.
    pub message: PeerMessage,
}

/// What replicas send each other.
#[derive(Debug)]
pub enum PeerMessage {
    /// raft's own.
    Raft(Message),
    /// A whole frame.
    Frame(Bytes),
}

/// A replica's part in work that its core lets one of its replicas do in a turn.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Share {
    part: Part,
    wish: Wish,
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Part {
    #[default]
    None,
    Granted,
    Used,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Wish {
    #[default]
    None,
    More,
}

impl Share {
    /// The core lets the replica work in this turn.
    pub const fn grant(&mut self) {
        self.part = Part::Granted;
    }

    /// Whether the replica may work now: once, if at all. If not, it has asked for a later turn.
    pub const fn take(&mut self) -> bool {
        let is_granted = matches!(self.part, Part::Granted);
        if is_granted {
            self.part = Part::Used;
        } else {
            self.wish = Wish::More;
        }
        is_granted
    }

    /// Asks for a later turn.
    pub const fn want(&mut self) {
        self.wish = Wish::More;
    }

    /// The work came to so many bytes.
    pub const fn spend(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// The bytes since this was asked last.
    pub const fn take_bytes(&mut self) -> usize {
        std::mem::replace(&mut self.bytes, 0)
    }

    /// Ends the turn: whether it was used, and whether another one is wanted.
    pub const fn settle(&mut self) -> (bool, bool) {
        let ended = std::mem::replace(self, Self { part: Part::None, wish: Wish::None, bytes: self.bytes });
        (matches!(ended.part, Part::Used), matches!(ended.wish, Wish::More))
    }
}

/// What happened to a shard that others want to know.
#[derive(Clone, Debug)]
pub enum News {
    /// The replica's files exist, durably.
    Created,
    /// Who leads changed.
    Leader {
        /// The leader's node.
        leader: Option<NodeId>,
        /// Its term.
        term: u64,
    },
    /// Shard 0 applied a membership.
    Directory(Arc<Directory>),
    /// A node that was replaced is given its id.
    Joined {
        /// The directory that says so.
        directory: Arc<Directory>,
        /// The node's name.
        name: crate::core::NodeName,
        /// The attempt it is told to.
        attempt: u64,
    },
    /// The replica cannot start yet, and tries again by itself: why, and what would help.
    Waiting(String),
    /// The replica is out.
    Damaged(String),
    /// The replica has stopped; everything it had to write is durable.
    Stopped,
}

impl Output {
    /// An empty output of a shard.
    #[must_use]
    pub fn new(shard: ShardId) -> Self {
        Self {
            io: IoQueue::new(),
            peers: Vec::new(),
            replies: Vec::new(),
            news: Vec::new(),
            sending: Share::default(),
            loading: Share::default(),
            shard,
            epoch: SlotEpoch(0),
            reply_bytes: 0,
            again: Again::No,
            writer: FrameWriter::new(),
        }
    }

    /// The slot map's version that answers carry from now on.
    pub const fn set_epoch(&mut self, epoch: SlotEpoch) {
        self.epoch = epoch;
    }

    /// Whether the turn may answer more reads.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.reply_bytes < TURN_ANSWER_BYTES_MAX
    }

    /// There is more to do than this turn has room for.
    pub const fn want_another_turn(&mut self) {
        self.again = Again::Yes;
    }

    /// Begins a new turn; answers whether the last one wanted another.
    pub const fn end_turn(&mut self) -> Again {
        self.reply_bytes = 0;
        std::mem::replace(&mut self.again, Again::No)
    }

    /// Answers a request.
    pub fn answer(&mut self, responder: Responder, message: &Response<'_>) {
        let envelope = self.envelope(RequestId(responder.request));
        match self.writer.answer(&envelope, message) {
            Ok(frame) => {
                self.reply_bytes += frame.len();
                self.replies.push((responder, frame));
            }
            Err(error) => {
                let what = format!("an answer could not be encoded: {error}").into();
                self.fail(responder, &Error::Internal { what });
            }
        }
    }

    /// Answers a request with an error.
    pub fn fail(&mut self, responder: Responder, error: &Error) {
        let envelope = self.envelope(RequestId(responder.request));
        match self.writer.frame(&envelope, &Response::Error(error.clone())) {
            Ok(frame) => self.replies.push((responder, frame)),
            Err(encoding) => tracing::error!(%encoding, %error, "an error could not be encoded"),
        }
    }

    /// Answers everyone who waits for a write with an error.
    pub fn fail_all(&mut self, waiters: impl IntoIterator<Item = Waiter>, error: &Error) {
        for waiter in waiters {
            self.fail(waiter.responder, error);
        }
    }

    /// Encodes a message to another replica as a whole frame.
    pub fn frame(&mut self, message: &impl Outgoing) -> Option<Bytes> {
        let envelope = self.envelope(RequestId(0));
        match self.writer.frame(&envelope, message) {
            Ok(frame) => Some(frame),
            Err(error) => {
                tracing::error!(%error, "a message to a peer could not be encoded");
                None
            }
        }
    }

    /// Sends a message of raft's.
    pub fn raft(&mut self, message: Message) {
        let to = ReplicaId(message.to);
        let class = if message.entries.is_empty() { LinkClass::Control } else { LinkClass::Bulk };
        self.peers.push(PeerSend { to, class, message: PeerMessage::Raft(message) });
    }

    fn envelope(&self, request: RequestId) -> Envelope {
        Envelope { request, shard: Some(self.shard), epoch: self.epoch }
    }
}
