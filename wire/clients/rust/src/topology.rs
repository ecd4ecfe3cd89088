//! Who is in the cluster, and which node leads which shard: what nodes say, and how what several say is brought together.
//!
//! Invariants:
//! - Every slot has a shard: a topology with a gap is refused.
//! - The leader of a shard is the one of the highest term heard of. A node that knows of none changes nothing.
//! - Nodes are removed only on the word of the leader of shard 0, which keeps the membership; others may be behind.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use mesh_base::slot::{SLOTS, slot_of};
use mesh_base::{ClusterId, NodeId, ShardId, SlotEpoch, SlotNo, Term};

use crate::{Error, Result};

/// How far a node takes part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeState {
    /// It was given its place and has not caught up.
    Joining,
    /// Its replicas receive what is written and do not vote.
    Learner,
    /// Its replicas vote.
    Voter,
    /// Its place is being taken away.
    Leaving,
    /// A state that this version does not know.
    Other(u8),
}

impl From<mesh_wire::NodeState> for NodeState {
    fn from(state: mesh_wire::NodeState) -> Self {
        match state {
            mesh_wire::NodeState::Joining => Self::Joining,
            mesh_wire::NodeState::Learner => Self::Learner,
            mesh_wire::NodeState::Voter => Self::Voter,
            mesh_wire::NodeState::Leaving => Self::Leaving,
            mesh_wire::NodeState::Other(number) => Self::Other(number),
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joining => f.write_str("joining"),
            Self::Learner => f.write_str("learner"),
            Self::Voter => f.write_str("voter"),
            Self::Leaving => f.write_str("leaving"),
            Self::Other(number) => write!(f, "state {number}"),
        }
    }
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its address, `host:port`; empty if it is not known.
    pub address: String,
    /// How far it takes part.
    pub state: NodeState,
}

/// Who leads a shard, as far as is known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Leadership {
    /// The node.
    pub leader: Option<NodeId>,
    /// The term that it leads in.
    pub term: Term,
}

/// Who is in the cluster, and which node leads which shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topology {
    cluster: ClusterId,
    epoch: SlotEpoch,
    slots: Arc<[ShardId]>,
    shards: Vec<Leadership>,
    nodes: Vec<Node>,
}

impl Topology {
    /// The cluster's id.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The version of the slot map.
    #[must_use]
    pub const fn epoch(&self) -> SlotEpoch {
        self.epoch
    }

    /// The shards, in order.
    pub fn shards(&self) -> impl ExactSizeIterator<Item = ShardId> + use<> {
        // A cluster has at most 1024 shards, which is checked when a topology is taken in.
        (0..u16::try_from(self.shards.len()).unwrap_or(u16::MAX)).map(ShardId)
    }

    /// The nodes, ordered by id.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its id.
    #[must_use]
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.binary_search_by_key(&id, |node| node.id).ok().and_then(|at| self.nodes.get(at))
    }

    /// The node of a cluster of one.
    pub(crate) fn only_node(&self) -> Option<NodeId> {
        if let [node] = self.nodes.as_slice() { Some(node.id) } else { None }
    }

    /// A node by its name or address.
    #[must_use]
    pub fn find(&self, name_or_address: &str) -> Option<&Node> {
        let mut nodes = self.nodes.iter();
        nodes.find(|node| node.name == name_or_address || node.address == name_or_address)
    }

    /// Who leads a shard.
    #[must_use]
    pub fn leadership(&self, shard: ShardId) -> Leadership {
        self.shards.get(usize::from(shard.0)).copied().unwrap_or_default()
    }

    /// The shard of a key.
    #[must_use]
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        self.shard_of_slot(slot_of(key))
    }

    /// The runs of slots of a shard, ascending.
    pub fn slots(&self, shard: ShardId) -> impl Iterator<Item = RangeInclusive<SlotNo>> + '_ {
        let mut slot = 0_usize;
        std::iter::from_fn(move || {
            let rest = self.slots.get(slot..)?;
            let first = slot + rest.iter().position(|&owner| owner == shard)?;
            let length = self.slots.get(first..)?.iter().take_while(|&&owner| owner == shard).count();
            slot = first + length;
            Some(slot_number(first)..=slot_number(slot - 1))
        })
    }

    /// The shard of a slot.
    pub(crate) fn shard_of_slot(&self, slot: SlotNo) -> ShardId {
        self.slots.get(usize::from(slot.0)).copied().unwrap_or_default()
    }

    /// Takes in what a node says.
    pub(crate) fn read(cluster: ClusterId, wire: &mesh_wire::Topology<'_>) -> Result<Self> {
        let broken = |what: &str| Error::Protocol { what: format!("a topology {what}") };
        let count = usize::from(wire.shard_count);
        if count == 0 {
            return Err(broken("has no shards"));
        }
        let mut slots = vec![ShardId(u16::MAX); usize::from(SLOTS)];
        for range in wire.slots {
            let run = slots.get_mut(usize::from(range.first.0)..=usize::from(range.last.0));
            run.ok_or_else(|| broken("has slots that do not exist"))?.fill(range.shard);
        }
        if slots.iter().any(|shard| usize::from(shard.0) >= count) {
            return Err(broken("has slots without a shard"));
        }
        let mut shards = vec![Leadership::default(); count];
        for place in wire.shards {
            if let Some(shard) = shards.get_mut(usize::from(place.shard.0)) {
                *shard = Leadership { leader: place.leader, term: place.term };
            }
        }
        let mut nodes: Vec<_> = wire.nodes.iter().map(|node| read_node(&node)).collect();
        nodes.sort_by_key(|node| node.id);
        nodes.dedup_by_key(|node| node.id);
        Ok(Self { cluster, epoch: wire.epoch, slots: slots.into(), shards, nodes })
    }

    /// What is known after `from` has said `theirs`; `None` if that is nothing new.
    pub(crate) fn merged(&self, theirs: &Self, from: NodeId) -> Option<Self> {
        let mut merged = self.clone();
        if theirs.epoch > self.epoch {
            merged.epoch = theirs.epoch;
            merged.slots = Arc::clone(&theirs.slots);
            merged.shards.resize(theirs.shards.len(), Leadership::default());
        }
        for (ours, theirs) in merged.shards.iter_mut().zip(&theirs.shards) {
            let newer = theirs.term > ours.term || (theirs.term == ours.term && ours.leader.is_none());
            if newer && theirs.leader.is_some() {
                *ours = *theirs;
            }
        }
        let keeper = merged.leadership(ShardId(0)).leader;
        if keeper == Some(from) {
            merged.nodes.clone_from(&theirs.nodes);
        } else {
            let unknown = theirs.nodes.iter().filter(|node| self.node(node.id).is_none());
            merged.nodes.extend(unknown.cloned());
            merged.nodes.sort_by_key(|node| node.id);
        }
        (merged != *self).then_some(merged)
    }
}

fn read_node(node: &mesh_wire::NodeEntry<'_>) -> Node {
    Node {
        id: node.id,
        name: node.name.to_owned(),
        address: node.address.to_owned(),
        state: node.state.into(),
    }
}

fn slot_number(index: usize) -> SlotNo {
    SlotNo(u16::try_from(index).unwrap_or(SLOTS - 1))
}

#[cfg(test)]
mod tests {
    use mesh_base::CoreId;
    use mesh_wire::{NodeEntry, ShardPlace, SlotRange};

    use super::*;

    fn said(epoch: u64, leaders: &[(u64, u64)], nodes: &[u64]) -> Topology {
        let shards: Vec<_> = (0..)
            .zip(leaders)
            .map(|(shard, &(leader, term))| ShardPlace {
                shard: ShardId(shard),
                leader: (leader != 0).then_some(NodeId(leader)),
                term: Term(term),
                core: CoreId(0),
            })
            .collect();
        let half = SLOTS / 2;
        let slots = [
            SlotRange { first: SlotNo(0), last: SlotNo(half - 1), shard: ShardId(0) },
            SlotRange { first: SlotNo(half), last: SlotNo(SLOTS - 1), shard: ShardId(1) },
        ];
        let nodes: Vec<_> = nodes
            .iter()
            .map(|&id| NodeEntry {
                id: NodeId(id),
                name: "n",
                address: "h:1",
                state: mesh_wire::NodeState::Voter,
            })
            .collect();
        let wire = mesh_wire::Topology {
            epoch: SlotEpoch(epoch),
            shard_count: 2,
            slots: (&slots).into(),
            shards: (&shards).into(),
            nodes: (&nodes).into(),
        };
        Topology::read(ClusterId([1; 16]), &wire).unwrap()
    }

    fn leader(topology: &Topology, shard: u16) -> Option<NodeId> {
        topology.leadership(ShardId(shard)).leader
    }

    #[test]
    fn of_two_leaders_the_one_of_the_higher_term_counts() {
        let known = said(1, &[(1, 5), (2, 5)], &[1, 2]);
        let merged = known.merged(&said(1, &[(2, 6), (1, 4)], &[1, 2]), NodeId(2)).unwrap();
        assert_eq!((leader(&merged, 0), leader(&merged, 1)), (Some(NodeId(2)), Some(NodeId(2))));
    }

    #[test]
    fn a_node_that_knows_no_leader_changes_nothing() {
        let known = said(1, &[(1, 5), (2, 5)], &[1, 2]);
        assert_eq!(known.merged(&said(1, &[(0, 9), (0, 9)], &[1, 2]), NodeId(2)), None);
    }

    #[test]
    fn nodes_are_removed_only_on_the_word_of_the_leader_of_shard_0() {
        let known = said(1, &[(1, 5), (2, 5)], &[1, 2, 3]);
        let behind = said(1, &[(1, 5), (2, 5)], &[1, 2, 4]);
        let heard = known.merged(&behind, NodeId(2)).unwrap();
        assert_eq!(heard.nodes().iter().map(|node| node.id.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
        let told = known.merged(&behind, NodeId(1)).unwrap();
        assert_eq!(told.nodes().iter().map(|node| node.id.0).collect::<Vec<_>>(), [1, 2, 4]);
    }

    #[test]
    fn the_slots_of_a_shard_are_told_in_runs() {
        let topology = said(1, &[(1, 5), (2, 5)], &[1, 2]);
        let runs: Vec<_> = topology.slots(ShardId(1)).collect();
        assert_eq!(runs, [SlotNo(SLOTS / 2)..=SlotNo(SLOTS - 1)]);
        assert_eq!(topology.slots(ShardId(2)).count(), 0);
        assert_eq!(topology.shard_of(b"{tag}1"), topology.shard_of(b"{tag}2"));
    }

    #[test]
    fn a_topology_with_a_gap_is_refused() {
        let slots = [SlotRange { first: SlotNo(0), last: SlotNo(10), shard: ShardId(0) }];
        let wire =
            mesh_wire::Topology { shard_count: 1, slots: (&slots).into(), ..mesh_wire::Topology::default() };
        let refused = Topology::read(ClusterId([1; 16]), &wire);
        assert!(matches!(refused, Err(Error::Protocol { .. })));
    }
}
