//! What replicas of one node say to those of another: gathered over a turn, one frame for each link.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_base::limits::{FRAME_PAYLOAD_BYTES_MAX, FRAME_TABLES_MAX, REVISION_AHEAD_MAX};
use mesh_base::{Now, Revision, ShardId};
use mesh_wire::{Envelope, Frame, PeerMessage as WirePeer, Raft, RequestId};
use raft::eraftpb::Message;

use super::Core;
use super::event::{CoreEffect, LinkClass, MeshMessage, NodeName, PeerNode};
use crate::shard::messages::{WireParts, accept};
use crate::shard::snapshot::{Ack, Chunk, Offer};
use crate::shard::{PeerMessage, PeerSend, ShardEvent};

/// Tables of a frame that a message takes beside its entries.
const TABLES_PER_MESSAGE: usize = 4;

/// Where a message goes: the node, the link, and which of the node's cores.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Destination {
    to: NodeName,
    class: LinkClass,
    core: u16,
}

/// The messages of a turn.
#[derive(Default, Debug)]
pub(super) struct Outbox {
    raft: BTreeMap<Destination, Vec<(ShardId, Message)>>,
    frames: Vec<(NodeName, LinkClass, ShardId, Bytes)>,
}

impl Core {
    /// Puts a message into the outbox. One to a replica of no known node is dropped, as the network might have.
    pub(super) fn post(&mut self, shard: ShardId, send: PeerSend) {
        let directory = self.directory.as_ref();
        let Some(to) =
            directory.and_then(|known| known.by_replica(shard, send.to)).map(|entry| entry.name.clone())
        else {
            return;
        };
        match send.message {
            PeerMessage::Raft(message) => {
                // Until the other node's cores are known, each shard is taken to have its own.
                let core = self.peer_cores.get(&to).map_or(shard.0, |cores| shard.0 % cores);
                let destination = Destination { to, class: send.class, core };
                self.outbox.raft.entry(destination).or_default().push((shard, message));
            }
            PeerMessage::Frame(frame) => self.outbox.frames.push((to, send.class, shard, frame)),
        }
    }

    /// Sends what the turn gathered.
    pub(super) fn send_outbox(&mut self, effects: &mut Vec<CoreEffect>) {
        for (destination, messages) in std::mem::take(&mut self.outbox.raft) {
            let mut rest = messages.as_slice();
            while let Some(((shard, _), _)) = rest.split_first() {
                let (now, later) = rest.split_at(fitting(rest));
                self.send_raft(&destination, *shard, now, effects);
                rest = later;
            }
        }
        for (to, class, shard, frame) in self.outbox.frames.drain(..) {
            effects.push(CoreEffect::Peer { to, class, shard, frame });
        }
    }

    fn send_raft(
        &mut self,
        destination: &Destination,
        shard: ShardId,
        messages: &[(ShardId, Message)],
        effects: &mut Vec<CoreEffect>,
    ) {
        let parts: Vec<_> = messages.iter().map(|(_, message)| WireParts::of(message)).collect();
        let wire: Vec<_> = parts
            .iter()
            .zip(messages)
            .map(|(parts, (shard, message))| parts.message(*shard, message))
            .collect();
        let raft = WirePeer::Raft(Raft { newest_revision: self.newest, messages: (&wire).into() });
        match self.writer.frame(&self.peer_envelope(shard), &raft) {
            Ok(frame) => {
                let (to, class) = (destination.to.clone(), destination.class);
                effects.push(CoreEffect::Peer { to, class, shard, frame });
            }
            Err(error) => tracing::error!(%error, "a message of raft's could not be encoded"),
        }
    }

    pub(super) fn peer_envelope(&self, shard: ShardId) -> Envelope {
        Envelope { request: RequestId(0), shard: Some(shard), epoch: self.slot_epoch() }
    }

    /// A frame from another node.
    pub(super) fn on_peer_frame(
        &mut self,
        now: Now,
        from: &PeerNode,
        frame: Frame,
        effects: &mut Vec<CoreEffect>,
    ) {
        // A connection may be older than what either side knows of its cluster by now.
        let ours = self.cluster();
        if from.cluster.is_some() && ours.is_some() && from.cluster != ours {
            tracing::debug!(from = %from.name, "a frame of another cluster is dropped");
            return;
        }
        let shard = frame.header.envelope.shard.unwrap_or(ShardId(0));
        let owner = self.placement.core_of(shard);
        if owner != self.id {
            let message = MeshMessage::Peer { from: from.clone(), frame };
            effects.push(CoreEffect::Mesh { to: owner, message });
            return;
        }
        let message = match frame.peer() {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(from = %from.name, %error, "a peer's frame cannot be read");
                return;
            }
        };
        let is_for_a_replica = matches!(
            message,
            WirePeer::Raft(_)
                | WirePeer::SnapshotChunk(_)
                | WirePeer::SnapshotAck(_)
                | WirePeer::SnapshotOffer(_)
        );
        if is_for_a_replica && (ours.is_none() || from.cluster != ours) {
            return;
        }
        let from = &from.name;
        match message {
            WirePeer::Raft(raft) => self.on_raft(now, from, &raft, &frame.payload, effects),
            WirePeer::SnapshotChunk(chunk) => {
                let event = ShardEvent::Chunk(Chunk::of(&chunk, &frame.payload));
                self.step_shard(now, chunk.shard, event, effects);
            }
            WirePeer::SnapshotAck(ack) => match Ack::of(&ack) {
                Some(own) => self.step_shard(now, ack.shard, ShardEvent::Ack(own), effects),
                None => tracing::warn!(%from, "a snapshot's position cannot be read"),
            },
            WirePeer::SnapshotOffer(offer) => {
                let event = ShardEvent::Offer(Offer::of(&offer));
                self.step_shard(now, offer.shard, event, effects);
            }
            other => self.on_node_message(now, from, &other, effects),
        }
    }

    fn on_raft(
        &mut self,
        now: Now,
        from: &NodeName,
        raft: &Raft<'_>,
        payload: &Bytes,
        effects: &mut Vec<CoreEffect>,
    ) {
        self.observe(now, raft.newest_revision);
        for wire in raft.messages {
            let Some(slot) = self.shards.get(&wire.shard) else { continue };
            match accept(&wire, payload, slot.shard.replica()) {
                Ok(message) => self.step_shard(now, wire.shard, ShardEvent::Raft(message), effects),
                Err(why) => tracing::debug!(%from, shard = %wire.shard, why, "a peer's message is dropped"),
            }
        }
    }

    /// Takes note of a revision assigned elsewhere, unless its clock is far ahead of ours.
    fn observe(&mut self, now: Now, revision: Revision) {
        if is_plausible(now, revision) {
            self.newest = self.newest.max(revision);
        }
    }
}

/// Whether a revision seen elsewhere is not too far ahead of this node's clock.
pub(super) fn is_plausible(now: Now, revision: Revision) -> bool {
    let ahead = u64::try_from(REVISION_AHEAD_MAX.as_millis()).unwrap_or(u64::MAX);
    revision.unix_ms() <= now.wall.0.saturating_add(ahead)
}

/// How many of the messages fit into one frame; at least one.
fn fitting(messages: &[(ShardId, Message)]) -> usize {
    let (mut bytes, mut tables) = (0, 1);
    let mut fits = |(_, message): &&(ShardId, Message)| {
        let entries = message.entries.iter().map(|entry| entry.data.len() + entry.context.len() + 128);
        bytes += 1024 + message.context.len() + entries.sum::<usize>();
        tables += TABLES_PER_MESSAGE + message.entries.len();
        bytes <= FRAME_PAYLOAD_BYTES_MAX && tables <= FRAME_TABLES_MAX
    };
    messages.iter().take_while(|message| fits(message)).count().max(1)
}
