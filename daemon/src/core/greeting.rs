//! How connections begin: who is there, and which core should hold the connection.

use bytes::Bytes;
use mesh_base::{CoreId, NodeId, ShardId, Term};
use mesh_wire::{
    Envelope, Error, Frame, Hello, HelloAnswer, LinkClass as WireClass, NodeEntry, NodeState,
    PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, Request, RequestId, Response, Role, ShardPlace, SlotRange,
    Topology, negotiate,
};

use super::Core;
use super::event::{LinkClass, NodeName, PeerNode};
use crate::node::directory::Standing;

/// What becomes of a connection after its first frame.
#[derive(Debug)]
pub enum HelloOutcome {
    /// A client's. Its frames are [`super::CoreEvent::Request`]s.
    Client {
        /// The frame to answer with.
        answer: Bytes,
        /// The core that should hold the connection, if it is another.
        hand_to: Option<CoreId>,
    },
    /// Another node's. Its frames are [`super::CoreEvent::Peer`]s.
    Peer {
        /// The node.
        peer: PeerNode,
        /// The frame to answer with.
        answer: Bytes,
        /// The core that should hold the connection, if it is another.
        hand_to: Option<CoreId>,
    },
    /// Nobody's: answer and close.
    Refuse {
        /// The frame to answer with.
        answer: Bytes,
    },
}

/// Which core owns which shard on another node.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PeerPlacement {
    /// The core of each shard, by the shard's number. Empty before the cluster's birth.
    pub cores: Vec<CoreId>,
}

impl PeerPlacement {
    /// The core of a shard there; the first until it is known.
    #[must_use]
    pub fn core_of(&self, shard: ShardId) -> CoreId {
        self.cores.get(usize::from(shard.0)).copied().unwrap_or_default()
    }
}

impl Core {
    /// Looks at the first frame of an inbound connection.
    pub fn hello(&mut self, frame: &Frame) -> HelloOutcome {
        let request = frame.header.envelope.request;
        let hello = match frame.request() {
            Ok(Request::Hello(hello)) => hello,
            Ok(_) => {
                let what = "the first frame of a connection is a hello".into();
                return self.refuse(request, Error::Malformed { what });
            }
            Err(error) => return self.refuse(request, Error::from(error)),
        };
        let version = match negotiate(&hello) {
            Ok(version) => version,
            Err(error) => return self.refuse(request, error),
        };
        let ours = self.directory.as_ref().map(|directory| directory.cluster());
        if let (Some(theirs), Some(ours)) = (hello.cluster, ours)
            && theirs != ours
        {
            return self.refuse(request, Error::WrongCluster { theirs, ours });
        }
        let hand_to =
            hello.wanted_shard.map(|shard| self.placement.core_of(shard)).filter(|&core| core != self.id);
        match hello.role {
            Role::Client => HelloOutcome::Client { answer: self.welcome(request, version), hand_to },
            Role::Peer { node, .. } => {
                let name = NodeName::from(hello.name);
                let known = self.directory.as_ref().and_then(|directory| directory.by_name(&name));
                // Ids only grow: who has a lower one was replaced.
                if let Some(known) = known.filter(|known| node != NodeId(0) && node < known.node) {
                    let what = format!("node `{name}` was replaced: id {node} is now {}", known.node).into();
                    return self.refuse(request, Error::Malformed { what });
                }
                if name == self.config.name {
                    let what =
                        format!("node `{name}` cannot be its own peer: two nodes have one name").into();
                    return self.refuse(request, Error::Malformed { what });
                }
                let peer = PeerNode { name, cluster: hello.cluster };
                HelloOutcome::Peer { peer, answer: self.welcome(request, version), hand_to }
            }
        }
    }

    fn refuse(&mut self, request: RequestId, error: Error) -> HelloOutcome {
        HelloOutcome::Refuse { answer: self.hello_frame(request, &Response::Error(error)) }
    }

    /// The answer to a hello.
    fn welcome(&mut self, request: RequestId, version: u16) -> Bytes {
        let name = self.config.name.clone();
        let topology = OwnTopology::of(self);
        let nodes = topology.as_ref().map(OwnTopology::nodes).unwrap_or_default();
        let answer = Response::Hello(HelloAnswer {
            version,
            cluster: self.directory.as_ref().map(|directory| directory.cluster()),
            node: self.node,
            node_name: name.as_str(),
            auth: None,
            topology: topology.as_ref().map(|own| own.view(&nodes)),
        });
        let envelope = Envelope { request, shard: None, epoch: self.slot_epoch() };
        self.writer.frame(&envelope, &answer).unwrap_or_else(|error| {
            tracing::error!(%error, "the answer to a hello could not be encoded");
            Bytes::new()
        })
    }

    fn hello_frame(&mut self, request: RequestId, response: &Response<'_>) -> Bytes {
        let envelope = Envelope { request, shard: None, epoch: self.slot_epoch() };
        self.writer.frame(&envelope, response).unwrap_or_default()
    }

    /// The first frame of a connection to another node.
    pub fn greet(&mut self, class: LinkClass, shard: ShardId) -> Bytes {
        let link = match class {
            LinkClass::Control => WireClass::Control,
            LinkClass::Bulk => WireClass::Bulk,
        };
        let name = self.config.name.clone();
        let hello = Hello {
            role: Role::Peer { node: self.node, link },
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            cluster: self.directory.as_ref().map(|directory| directory.cluster()),
            auth: None,
            wanted_shard: Some(shard),
            name: name.as_str(),
        };
        let envelope = Envelope { request: RequestId(1), shard: None, epoch: self.slot_epoch() };
        self.writer.frame(&envelope, &Request::Hello(hello)).unwrap_or_default()
    }

    /// The answer to [`Core::greet`]: where the other node's shards are.
    ///
    /// # Errors
    /// Why the connection is of no use.
    pub fn greeted(&mut self, from: &NodeName, answer: &Frame) -> Result<PeerPlacement, String> {
        let answer = match answer.response() {
            Ok(Response::Hello(answer)) => answer,
            Ok(Response::Error(error)) => {
                // The words are the other node's: what it calls ours is its own.
                if let (Error::WrongCluster { ours: cluster, .. }, Some(membership)) =
                    (&error, &mut self.membership)
                {
                    membership.met_stranger(from, *cluster);
                }
                return Err(error.to_string());
            }
            Ok(_) => return Err("it did not answer the hello".into()),
            Err(error) => return Err(error.to_string()),
        };
        if answer.node_name != from.as_str() {
            return Err(format!("node `{}` answers at the address of node `{from}`", answer.node_name));
        }
        let Some(topology) = answer.topology else { return Ok(PeerPlacement::default()) };
        let cores: Vec<_> = topology.shards.iter().map(|place| place.core).collect();
        if let Some(most) = cores.iter().max() {
            self.peer_cores.insert(from.clone(), most.0 + 1);
        }
        Ok(PeerPlacement { cores })
    }
}

/// The topology as this node knows it, owned, so that a message can borrow it.
pub(super) struct OwnTopology {
    epoch: mesh_base::SlotEpoch,
    shard_count: u16,
    slots: Vec<SlotRange>,
    shards: Vec<ShardPlace>,
    nodes: Vec<(NodeId, NodeName, String, NodeState)>,
}

impl OwnTopology {
    /// The topology; `None` before the cluster's birth.
    pub(super) fn of(core: &Core) -> Option<Self> {
        let directory = core.directory.as_ref()?;
        let slots = directory.slots().ranges().iter().map(|range| SlotRange {
            first: range.first,
            last: range.last,
            shard: range.shard,
        });
        let shards = directory.shards().map(|shard| {
            let (leader, term) = core.leaders.get(&shard).copied().unwrap_or_default();
            ShardPlace { shard, leader, term: Term(term), core: core.placement.core_of(shard) }
        });
        let nodes = directory.nodes().iter().map(|entry| {
            let state = match entry.standing {
                Standing::Member | Standing::Joined { .. } => NodeState::Voter,
                Standing::Expected => NodeState::Joining,
            };
            (entry.node, entry.name.clone(), entry.address.clone(), state)
        });
        Some(Self {
            epoch: directory.slots().epoch(),
            shard_count: directory.shard_count(),
            slots: slots.collect(),
            shards: shards.collect(),
            nodes: nodes.collect(),
        })
    }

    /// The nodes as the wire has them.
    pub(super) fn nodes(&self) -> Vec<NodeEntry<'_>> {
        self.nodes
            .iter()
            .map(|(id, name, address, state)| NodeEntry {
                id: *id,
                name: name.as_str(),
                address,
                state: *state,
            })
            .collect()
    }

    /// The topology as the wire has it.
    pub(super) fn view<'a>(&'a self, nodes: &'a Vec<NodeEntry<'a>>) -> Topology<'a> {
        Topology {
            epoch: self.epoch,
            shard_count: self.shard_count,
            slots: (&self.slots).into(),
            shards: (&self.shards).into(),
            nodes: nodes.into(),
        }
    }
}
