//! Who leads which shard and where, as nodes have told.
//!
//! Invariant: the leader of a shard is the one of the highest term heard of. A node that knows of none changes nothing.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use mesh_base::slot::{SLOTS, slot_of};
use mesh_base::{NodeId, ShardId, SlotEpoch, Term};
use mesh_wire::Topology;

use crate::target::PartitionId;

/// See the module.
#[derive(Debug)]
pub(super) struct View {
    /// Where the operator said that nodes are.
    endpoints: Vec<String>,
    epoch: SlotEpoch,
    slots: Vec<ShardId>,
    leaders: Vec<(Option<NodeId>, Term)>,
    nodes: BTreeMap<NodeId, String>,
    /// What names stand for: asked for once, since that waits.
    resolved: BTreeMap<String, SocketAddr>,
}

impl View {
    pub(super) const fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            epoch: SlotEpoch(0),
            slots: Vec::new(),
            leaders: Vec::new(),
            nodes: BTreeMap::new(),
            resolved: BTreeMap::new(),
        }
    }

    pub(super) const fn epoch(&self) -> SlotEpoch {
        self.epoch
    }

    pub(super) fn endpoints(&self) -> &[String] {
        &self.endpoints
    }

    pub(super) fn shards(&self) -> usize {
        self.leaders.len()
    }

    /// The partition of a key: its shard's.
    pub(super) fn partition_of(&self, key: &[u8]) -> PartitionId {
        let shard = self.slots.get(usize::from(slot_of(key).0)).copied().unwrap_or_default();
        PartitionId(usize::from(shard.0))
    }

    /// Takes in what a node says of the cluster.
    pub(super) fn hear(&mut self, said: &Topology<'_>) {
        if said.epoch > self.epoch {
            self.epoch = said.epoch;
            self.slots = vec![ShardId(0); usize::from(SLOTS)];
            for range in said.slots {
                let run = self.slots.get_mut(usize::from(range.first.0)..=usize::from(range.last.0));
                run.unwrap_or_default().fill(range.shard);
            }
            self.leaders.resize(usize::from(said.shard_count), (None, Term(0)));
        }
        for place in said.shards {
            let Some(known) = self.leaders.get_mut(usize::from(place.shard.0)) else { continue };
            if place.leader.is_some() && (place.term > known.1 || known.0.is_none()) {
                *known = (place.leader, place.term);
            }
        }
        for node in said.nodes.iter().filter(|node| !node.address.is_empty()) {
            self.nodes.insert(node.id, node.address.to_owned());
        }
    }

    /// The leader of a shard, and its address.
    pub(super) fn leader(&self, shard: ShardId) -> Option<(NodeId, &str)> {
        let (leader, _) = self.leaders.get(usize::from(shard.0))?;
        let leader = (*leader)?;
        self.nodes.get(&leader).map(|address| (leader, address.as_str()))
    }

    /// Whom to ask at an attempt to reach a shard's leader: the leader itself, and every other time another node.
    pub(super) fn candidate(&self, shard: ShardId, attempt: u32) -> String {
        let mut others: Vec<_> = self.nodes.values().chain(&self.endpoints).collect();
        others.dedup();
        match self.leader(shard) {
            Some((_, address)) if attempt.is_multiple_of(2) => address.to_owned(),
            _ => {
                let turn = (attempt / 2 + u32::from(shard.0)) as usize % others.len().max(1);
                others.get(turn).map(|&other| other.clone()).unwrap_or_default()
            }
        }
    }

    /// The address of a name.
    ///
    /// # Errors
    /// There is none, or whoever knows cannot be asked.
    pub(super) fn resolve(&mut self, name: &str) -> io::Result<SocketAddr> {
        if let Some(known) = self.resolved.get(name) {
            return Ok(*known);
        }
        let address = name.to_socket_addrs()?.next();
        let address = address.ok_or_else(|| io::Error::other("the name has no address"))?;
        self.resolved.insert(name.to_owned(), address);
        Ok(address)
    }

    /// The names of where nodes listen.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.nodes.values().cloned().collect()
    }

    /// Where nodes listen.
    pub(super) fn servers(&mut self) -> Vec<SocketAddr> {
        self.addresses().iter().filter_map(|name| self.resolve(name).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use mesh_base::{CoreId, SlotNo};
    use mesh_wire::{NodeEntry, NodeState, ShardPlace, SlotRange};

    use super::*;

    fn hear(view: &mut View, leaders: &[(u64, u64)]) {
        let half = SLOTS / 2;
        let slots = [
            SlotRange { first: SlotNo(0), last: SlotNo(half - 1), shard: ShardId(0) },
            SlotRange { first: SlotNo(half), last: SlotNo(SLOTS - 1), shard: ShardId(1) },
        ];
        let shards: Vec<_> = (0..)
            .zip(leaders)
            .map(|(shard, &(leader, term))| ShardPlace {
                shard: ShardId(shard),
                leader: (leader != 0).then_some(NodeId(leader)),
                term: Term(term),
                core: CoreId(0),
            })
            .collect();
        let nodes = [(1, "127.0.0.1:1"), (2, "127.0.0.1:2")].map(|(id, address)| NodeEntry {
            id: NodeId(id),
            name: "n",
            address,
            state: NodeState::Voter,
        });
        view.hear(&Topology {
            epoch: SlotEpoch(1),
            shard_count: 2,
            slots: (&slots).into(),
            shards: (&shards).into(),
            nodes: (&nodes).into(),
        });
    }

    fn leader(view: &View, shard: u16) -> Option<u64> {
        view.leader(ShardId(shard)).map(|(node, _)| node.0)
    }

    #[test]
    fn of_two_leaders_the_one_of_the_higher_term_counts() {
        let mut view = View::new(vec!["127.0.0.1:1".into()]);
        hear(&mut view, &[(1, 5), (0, 9)]);
        assert_eq!((leader(&view, 0), leader(&view, 1)), (Some(1), None));
        hear(&mut view, &[(2, 4), (2, 4)]);
        assert_eq!((leader(&view, 0), leader(&view, 1)), (Some(1), Some(2)));
        hear(&mut view, &[(2, 6), (0, 7)]);
        assert_eq!((leader(&view, 0), leader(&view, 1)), (Some(2), Some(2)));
    }

    #[test]
    fn attempts_go_to_the_leader_and_to_everyone_in_turn() {
        let mut view = View::new(vec!["127.0.0.1:9".into()]);
        assert_eq!(view.candidate(ShardId(0), 0), "127.0.0.1:9");
        hear(&mut view, &[(1, 5), (2, 5)]);
        let tried: Vec<_> = (0..6).map(|attempt| view.candidate(ShardId(1), attempt)).collect();
        assert!(tried.iter().step_by(2).all(|address| address == "127.0.0.1:2"), "{tried:?}");
        for address in ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:9"] {
            assert!(tried.iter().any(|tried| tried == address), "{tried:?}");
        }
    }

    #[test]
    fn keys_belong_to_the_shard_of_their_slot() {
        let mut view = View::new(Vec::new());
        hear(&mut view, &[(1, 5), (2, 5)]);
        assert_eq!(view.partition_of(b"foo"), PartitionId(1), "slot 12182");
        assert_eq!(view.shards(), 2);
    }
}
