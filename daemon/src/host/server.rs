//! What the host asks of the pure server on a core.
//!
//! [`Core`] is the one in production. The trait costs nothing, the host being generic over it, and
//! lets the host's own tests run with servers of a few lines.

use std::cell::RefCell;

use bytes::Bytes;
use mesh_base::{Now, ShardId};
use mesh_wire::Frame;

use crate::core::{Core, CoreEffect, CoreEvent, HelloOutcome, LinkClass, NodeName, PeerPlacement};

/// A synchronous, deterministic server of one core: events in, effects out.
pub trait Server: 'static {
    /// Called once, before anything else.
    fn start(&mut self, now: Now, effects: &mut Vec<CoreEffect>);
    /// Handles the events, and empties them; called once per turn.
    fn step(&mut self, now: Now, events: &mut Vec<CoreEvent>, effects: &mut Vec<CoreEffect>);
    /// The first frame of a connection that was made to this node.
    fn hello(&mut self, frame: &Frame) -> HelloOutcome;
    /// The first frame of a connection to another node, to the core that owns the shard there.
    fn greet(&mut self, class: LinkClass, shard: ShardId) -> Bytes;
    /// The other node's answer to it: which of its cores owns which shard.
    ///
    /// # Errors
    /// Why the node refused us, or we refuse it.
    fn greeted(&mut self, from: &NodeName, answer: &Frame) -> Result<PeerPlacement, String>;
}

impl Server for Core {
    fn start(&mut self, now: Now, effects: &mut Vec<CoreEffect>) {
        self.start(now, effects);
    }

    fn step(&mut self, now: Now, events: &mut Vec<CoreEvent>, effects: &mut Vec<CoreEffect>) {
        self.step(now, events, effects);
    }

    fn hello(&mut self, frame: &Frame) -> HelloOutcome {
        self.hello(frame)
    }

    fn greet(&mut self, class: LinkClass, shard: ShardId) -> Bytes {
        self.greet(class, shard)
    }

    fn greeted(&mut self, from: &NodeName, answer: &Frame) -> Result<PeerPlacement, String> {
        self.greeted(from, answer)
    }
}

/// What connections ask of the server outside of turns: a few frames in their lives.
pub(super) trait Greeter {
    /// See [`Server::hello`].
    fn hello(&self, frame: &Frame) -> HelloOutcome;
    /// See [`Server::greet`].
    fn greet(&self, class: LinkClass, shard: ShardId) -> Bytes;
    /// See [`Server::greeted`].
    fn greeted(&self, from: &NodeName, answer: &Frame) -> Result<PeerPlacement, String>;
}

/// A server that the turn and the connections of one core share. Nothing that borrows it waits.
impl<S: Server> Greeter for RefCell<S> {
    fn hello(&self, frame: &Frame) -> HelloOutcome {
        self.borrow_mut().hello(frame)
    }

    fn greet(&self, class: LinkClass, shard: ShardId) -> Bytes {
        self.borrow_mut().greet(class, shard)
    }

    fn greeted(&self, from: &NodeName, answer: &Frame) -> Result<PeerPlacement, String> {
        self.borrow_mut().greeted(from, answer)
    }
}
