//! Who is in the cluster and where its shards are.

use flatbuffers::WIPOffset;
use mesh_base::limits::{NODES_MAX, SHARDS_MAX};
use mesh_base::slot::SLOTS;
use mesh_base::{CoreId, NodeId, ReplicaId, ShardId, SlotEpoch, SlotNo, Term};

use super::{
    ELEMENT_OVERHEAD_BYTES, MESSAGE_OVERHEAD_BYTES, Message, check_address, check_name, check_shard,
    check_shard_count, open,
};
use crate::builder::{Builder, Root};
use crate::generated::mesh::wire as fb;
use crate::wire_error::{at_most, ensure};
use crate::{List, WireError};

open! {
    /// How far a node takes part.
    NodeState {
        /// It was given its place and has not caught up.
        Joining,
        /// Its replicas receive what is written and do not vote.
        Learner,
        /// Its replicas vote.
        Voter,
        /// Its place is being taken away.
        Leaving,
    }
}

/// Slots that belong to one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotRange {
    /// The first slot.
    pub first: SlotNo,
    /// The last slot, included.
    pub last: SlotNo,
    /// Their shard.
    pub shard: ShardId,
}

impl SlotRange {
    pub(crate) fn view(wire: &fb::SlotRange) -> Self {
        Self { first: SlotNo(wire.first()), last: SlotNo(wire.last()), shard: ShardId(wire.shard()) }
    }

    fn check(&self) -> Result<(), WireError> {
        check_shard(self.shard)?;
        ensure!(self.first <= self.last && self.last.0 < SLOTS, "slot range");
        Ok(())
    }
}

/// Where a shard is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardPlace {
    /// The shard.
    pub shard: ShardId,
    /// The node that leads it, as far as the answering node knows.
    pub leader: Option<NodeId>,
    /// The term that the leader is of: of two places the one with the higher term is newer.
    pub term: Term,
    /// The core that owns the shard's replica on the answering node.
    pub core: CoreId,
}

impl ShardPlace {
    pub(crate) fn view(wire: fb::ShardPlace<'_>) -> Self {
        Self {
            shard: ShardId(wire.shard()),
            leader: node_or_none(wire.leader()),
            term: Term(wire.term()),
            core: CoreId(wire.core()),
        }
    }

    fn build(self, to: &mut Builder) -> WIPOffset<fb::ShardPlace<'static>> {
        let args = fb::ShardPlaceArgs {
            shard: self.shard.0,
            leader: self.leader.unwrap_or_default().0,
            term: self.term.0,
            core: self.core.0,
        };
        fb::ShardPlace::create(&mut to.flat, &args)
    }
}

/// A node of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeEntry<'a> {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub address: &'a str,
    /// How far it takes part.
    pub state: NodeState,
}

impl<'a> NodeEntry<'a> {
    pub(crate) fn view(wire: fb::Node<'a>) -> Self {
        Self {
            id: NodeId(wire.id()),
            name: wire.name(),
            address: wire.address(),
            state: NodeState::from_wire(wire.state()),
        }
    }

    pub(crate) fn check(&self) -> Result<(), WireError> {
        check_name(self.name)?;
        check_address(self.address)
    }

    pub(crate) fn size_hint(&self) -> usize {
        ELEMENT_OVERHEAD_BYTES + self.name.len() + self.address.len()
    }

    pub(crate) fn build(&self, to: &mut Builder) -> WIPOffset<fb::Node<'static>> {
        let args = fb::NodeArgs {
            id: self.id.0,
            name: Some(to.name(self.name)),
            address: Some(to.name(self.address)),
            state: self.state.to_wire(),
        };
        fb::Node::create(&mut to.flat, &args)
    }
}

/// Everything that a client needs in order to send each request to the right place. Answers the topology request, and
/// comes with the answer to the hello.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Topology<'a> {
    /// The version of the slot map.
    pub epoch: SlotEpoch,
    /// How many shards there are.
    pub shard_count: u16,
    /// The slot map: ranges in ascending order that do not overlap.
    pub slots: List<'a, SlotRange>,
    /// The shards.
    pub shards: List<'a, ShardPlace>,
    /// The nodes.
    pub nodes: List<'a, NodeEntry<'a>>,
}

impl<'a> Topology<'a> {
    pub(crate) fn view_table(table: fb::Topology<'a>) -> Self {
        Self {
            epoch: SlotEpoch(table.epoch()),
            shard_count: table.shard_count(),
            slots: table.slots().into(),
            shards: table.shards().into(),
            nodes: table.nodes().into(),
        }
    }

    pub(crate) fn build_table(&self, to: &mut Builder) -> WIPOffset<fb::Topology<'static>> {
        let slots = to.flat_list(
            self.slots.iter().map(|slots| fb::SlotRange::new(slots.first.0, slots.last.0, slots.shard.0)),
        );
        let shards = to.list(self.shards.iter(), |to, place| place.build(to));
        let nodes = to.list(self.nodes.iter(), |to, node| node.build(to));
        let args = fb::TopologyArgs {
            epoch: self.epoch.0,
            shard_count: self.shard_count,
            slots: Some(slots),
            shards: Some(shards),
            nodes: Some(nodes),
        };
        fb::Topology::create(&mut to.flat, &args)
    }
}

impl<'a> Message<'a> for Topology<'a> {
    type Table = fb::Topology<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self::view_table(table))
    }

    fn check(&self) -> Result<(), WireError> {
        check_shard_count(self.shard_count)?;
        at_most("slot ranges", self.slots.len(), usize::from(SLOTS))?;
        at_most("shards", self.shards.len(), SHARDS_MAX)?;
        at_most("nodes", self.nodes.len(), NODES_MAX)?;
        self.slots.iter().try_for_each(|slots| slots.check())?;
        let ascending = self.slots.iter().is_sorted_by(|slots, next| slots.last < next.first);
        ensure!(ascending, "order of slot ranges");
        self.shards.iter().try_for_each(|place| check_shard(place.shard))?;
        self.nodes.iter().try_for_each(|node| node.check())
    }

    fn build(&self, to: &mut Builder) -> Root {
        self.build_table(to).into()
    }

    fn size_hint(&self) -> usize {
        let slots = self.slots.len() * size_of::<fb::SlotRange>();
        let nodes = self.nodes.iter().map(|node| node.size_hint());
        let shards = self.shards.len() * ELEMENT_OVERHEAD_BYTES;
        MESSAGE_OVERHEAD_BYTES + slots + shards + nodes.sum::<usize>()
    }
}

/// Gives the place of a node that is lost to the empty node of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplaceNode<'a> {
    /// The node's name.
    pub name: &'a str,
    /// A random number by which the shard knows a request that is sent again; 0 for none.
    pub nonce: u64,
}

impl<'a> Message<'a> for ReplaceNode<'a> {
    type Table = fb::ReplaceNode<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self { name: table.name(), nonce: table.nonce() })
    }

    fn check(&self) -> Result<(), WireError> {
        check_name(self.name)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args = fb::ReplaceNodeArgs { name: Some(to.name(self.name)), nonce: self.nonce };
        fb::ReplaceNode::create(&mut to.flat, &args).into()
    }
}

/// Answers [`ReplaceNode`]. How far the new node has come is in the status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplaceAnswer {
    /// The new node.
    pub node: NodeId,
    /// The id of its replicas.
    pub replica: ReplicaId,
    /// How far it takes part already.
    pub state: NodeState,
}

impl<'a> Message<'a> for ReplaceAnswer {
    type Table = fb::ReplaceAnswer<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            node: NodeId(table.node()),
            replica: ReplicaId(table.replica()),
            state: NodeState::from_wire(table.state()),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        Ok(())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let args =
            fb::ReplaceAnswerArgs { node: self.node.0, replica: self.replica.0, state: self.state.to_wire() };
        fb::ReplaceAnswer::create(&mut to.flat, &args).into()
    }
}

/// Ids of nodes start at 1; 0 is nobody.
pub(crate) const fn node_or_none(id: u64) -> Option<NodeId> {
    if id == 0 { None } else { Some(NodeId(id)) }
}
