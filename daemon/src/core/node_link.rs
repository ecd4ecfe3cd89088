//! The node's own messages on the wire, and admission of nodes that come back.

use mesh_base::{NodeId, Now, ShardId};
use mesh_wire::{
    BirthAccept, BirthDecided, BirthMember, BirthPropose, Directory as WireDirectory, JoinAnswer,
    JoinRequest, NodeProbe, PeerMessage as WirePeer, ProbeState,
};

use super::Core;
use super::event::{CoreEffect, LinkClass, NodeName};
use crate::node::message::{NodeMessage, NodeReport, Stage};
use crate::node::{Directory, Membership};

impl Core {
    /// Sends a node's message.
    pub(super) fn send_node_message(
        &mut self,
        to: NodeName,
        message: &NodeMessage,
        effects: &mut Vec<CoreEffect>,
    ) {
        let shard = ShardId(0);
        let envelope = self.peer_envelope(shard);
        let writer = &mut self.writer;
        let mut encode = |message: WirePeer<'_>| writer.frame(&envelope, &message);
        let frame = match message {
            NodeMessage::Probe(report) => with_probe(report, |probe| encode(WirePeer::Probe(probe))),
            NodeMessage::Answer(report) => with_probe(report, |probe| encode(WirePeer::ProbeAnswer(probe))),
            NodeMessage::Directory(directory) => {
                encode(WirePeer::Directory(WireDirectory { bytes: &directory.encode() }))
            }
            NodeMessage::Propose { cluster, members, shards } => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, address)| BirthMember { name: name.as_str(), address })
                    .collect();
                let members = (&members).into();
                encode(WirePeer::BirthPropose(BirthPropose {
                    cluster: *cluster,
                    members,
                    shard_count: *shards,
                }))
            }
            NodeMessage::Accept { cluster } => {
                encode(WirePeer::BirthAccept(BirthAccept { cluster: *cluster }))
            }
            NodeMessage::Decided { directory } => {
                encode(WirePeer::BirthDecided(BirthDecided { directory: &directory.encode() }))
            }
            NodeMessage::Join { address, attempt } => {
                encode(WirePeer::JoinRequest(JoinRequest { address, attempt: *attempt }))
            }
            NodeMessage::Joined { attempt, node, directory } => {
                let directory = &directory.encode();
                encode(WirePeer::JoinAnswer(JoinAnswer { attempt: *attempt, node: *node, directory }))
            }
        };
        match frame {
            Ok(frame) => effects.push(CoreEffect::Peer { to, class: LinkClass::Control, shard, frame }),
            Err(error) => tracing::error!(%error, "a node's message could not be encoded"),
        }
    }

    /// A node's message arrived.
    pub(super) fn on_node_message(
        &mut self,
        now: Now,
        from: &NodeName,
        message: &WirePeer<'_>,
        effects: &mut Vec<CoreEffect>,
    ) {
        let Some(message) = read(message) else {
            tracing::warn!(%from, "a node's message cannot be read");
            return;
        };
        self.with_membership(now, effects, |membership: &mut Membership, out| {
            membership.receive(now.monotonic, from, message, out);
        });
    }

    /// Tells a node that was replaced its id.
    pub(super) fn admit(
        &mut self,
        directory: &Directory,
        name: &NodeName,
        attempt: u64,
        effects: &mut Vec<CoreEffect>,
    ) {
        let Some(node) = directory.by_name(name).map(|entry| entry.node) else { return };
        let message = NodeMessage::Joined { attempt, node, directory: directory.clone() };
        self.send_node_message(name.clone(), &message, effects);
    }
}

fn with_probe<T>(report: &NodeReport, act: impl FnOnce(NodeProbe<'_>) -> T) -> T {
    let members: Vec<_> = report.members.iter().map(NodeName::as_str).collect();
    let (state, cluster, node, version) = match report.stage {
        Stage::Empty => (ProbeState::Empty, None, NodeId(0), 0),
        Stage::Forming(cluster) => (ProbeState::Forming, Some(cluster), NodeId(0), 0),
        Stage::Joining => (ProbeState::Joining, None, NodeId(0), 0),
        Stage::Born { cluster, node, version } => (ProbeState::Born, Some(cluster), node, version),
    };
    act(NodeProbe {
        address: &report.address,
        members: (&members).into(),
        shard_count: report.shards,
        state,
        cluster,
        node,
        version,
    })
}

fn read(message: &WirePeer<'_>) -> Option<NodeMessage> {
    Some(match message {
        WirePeer::Probe(probe) => NodeMessage::Probe(read_probe(probe)?),
        WirePeer::ProbeAnswer(probe) => NodeMessage::Answer(read_probe(probe)?),
        WirePeer::Directory(directory) => NodeMessage::Directory(Directory::decode(directory.bytes)?),
        WirePeer::BirthPropose(propose) => NodeMessage::Propose {
            cluster: propose.cluster,
            members: propose
                .members
                .iter()
                .map(|member| (NodeName::from(member.name), member.address.to_owned()))
                .collect(),
            shards: propose.shard_count,
        },
        WirePeer::BirthAccept(accept) => NodeMessage::Accept { cluster: accept.cluster },
        WirePeer::BirthDecided(decided) => {
            NodeMessage::Decided { directory: Directory::decode(decided.directory)? }
        }
        WirePeer::JoinRequest(join) => {
            NodeMessage::Join { address: join.address.to_owned(), attempt: join.attempt }
        }
        WirePeer::JoinAnswer(answer) => NodeMessage::Joined {
            attempt: answer.attempt,
            node: answer.node,
            directory: Directory::decode(answer.directory)?,
        },
        WirePeer::Raft(_)
        | WirePeer::SnapshotChunk(_)
        | WirePeer::SnapshotAck(_)
        | WirePeer::SnapshotOffer(_)
        | WirePeer::Ping(_)
        | WirePeer::Pong(_) => return None,
    })
}

fn read_probe(probe: &NodeProbe<'_>) -> Option<NodeReport> {
    let stage = match (probe.state, probe.cluster) {
        (ProbeState::Empty, _) => Stage::Empty,
        (ProbeState::Joining, _) => Stage::Joining,
        (ProbeState::Forming, Some(cluster)) => Stage::Forming(cluster),
        (ProbeState::Born, Some(cluster)) => {
            Stage::Born { cluster, node: probe.node, version: probe.version }
        }
        (ProbeState::Forming | ProbeState::Born, None) => return None,
    };
    Some(NodeReport {
        address: probe.address.to_owned(),
        members: probe.members.iter().map(NodeName::from).collect(),
        shards: probe.shard_count,
        stage,
    })
}
