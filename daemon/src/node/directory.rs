//! The membership of a cluster: its nodes, their replica ids, the slot map.
//!
//! The record lives in the system namespace of shard 0, is changed only by entries of shard 0's log, and every node
//! keeps a copy: in memory for routing, in its identity file for the next start.
//!
//! Invariants:
//! - A node id is one incarnation of one data directory, and the raft id of all its replicas. It is never reused:
//!   ids come from `next_node`, which only grows.
//! - Versions grow by one with every change; a copy is replaced only by a newer one.
//! - A node that is to join is told its id once: the directory remembers the attempt that was told.

use std::fmt;

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::limits::{NODE_ADDRESS_BYTES_MAX, NODE_NAME_BYTES_MAX, NODES_MAX};
use mesh_base::{ClusterId, NodeId, ReplicaId, ShardId};

use crate::core::NodeName;
use crate::router::SlotMap;

/// The version of the stored form.
const FORMAT_VERSION: u16 = 1;

/// A node's standing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It holds replicas.
    Member,
    /// It was replaced, and the new incarnation has not yet come for its id.
    Expected,
    /// The new incarnation came for its id, in the attempt with this number.
    Joined {
        /// Drawn by the node and durable there before it asked.
        attempt: u64,
    },
}

/// One node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeEntry {
    /// Its name.
    pub name: NodeName,
    /// Its incarnation.
    pub node: NodeId,
    /// Where it is reached.
    pub address: String,
    /// Its standing.
    pub standing: Standing,
    /// The nonce of the request that it was replaced by last; 0 for none.
    pub replacement: u64,
}

impl NodeEntry {
    /// The raft id of the node's replica of a shard.
    #[must_use]
    pub const fn replica(&self, _shard: ShardId) -> ReplicaId {
        ReplicaId(self.node.0)
    }
}

/// The membership of a cluster in one version.
#[derive(Clone, PartialEq, Eq)]
pub struct Directory {
    version: u64,
    cluster: ClusterId,
    next_node: NodeId,
    slots: SlotMap,
    shards: u16,
    nodes: Vec<NodeEntry>,
}

/// Why a membership change is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DirectoryError {
    /// No node has this name.
    #[error("no node is named `{0}`")]
    NoSuchNode(NodeName),
    /// The node has joined, or another attempt of it has.
    #[error("node `{0}` has been given its id already; replace it again to let a wiped node back in")]
    AlreadyJoined(NodeName),
}

impl Directory {
    /// The directory of a cluster at its birth: all nodes are members, numbered from 1 in the order given.
    #[must_use]
    pub fn at_birth(cluster: ClusterId, shards: u16, members: &[(NodeName, String)]) -> Self {
        let nodes: Vec<_> = (1..)
            .zip(members)
            .map(|(number, (name, address))| NodeEntry {
                name: name.clone(),
                node: NodeId(number),
                address: address.clone(),
                standing: Standing::Member,
                replacement: 0,
            })
            .collect();
        let next_node = NodeId(nodes.len() as u64 + 1);
        Self { version: 1, cluster, next_node, slots: SlotMap::even(shards), shards, nodes }
    }

    /// The version; a higher one is newer.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The cluster.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The shards, in order.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    /// How many shards there are.
    #[must_use]
    pub const fn shard_count(&self) -> u16 {
        self.shards
    }

    /// The owner of every slot.
    #[must_use]
    pub const fn slots(&self) -> &SlotMap {
        &self.slots
    }

    /// The nodes, in the order of their names at birth.
    #[must_use]
    pub fn nodes(&self) -> &[NodeEntry] {
        &self.nodes
    }

    /// The node with a name.
    #[must_use]
    pub fn by_name(&self, name: &NodeName) -> Option<&NodeEntry> {
        self.nodes.iter().find(|entry| entry.name == *name)
    }

    /// The node with an id.
    #[must_use]
    pub fn by_id(&self, node: NodeId) -> Option<&NodeEntry> {
        self.nodes.iter().find(|entry| entry.node == node)
    }

    /// The node that holds a replica of a shard.
    #[must_use]
    pub fn by_replica(&self, shard: ShardId, replica: ReplicaId) -> Option<&NodeEntry> {
        self.nodes.iter().find(|entry| entry.replica(shard) == replica)
    }

    /// The replica ids a shard is to have.
    pub fn replicas(&self, shard: ShardId) -> impl Iterator<Item = ReplicaId> + '_ {
        self.nodes.iter().map(move |entry| entry.replica(shard))
    }

    /// The node that is to lead a shard when all are well: leaders are dealt out in turn.
    #[must_use]
    pub fn preferred_leader(&self, shard: ShardId) -> Option<&NodeEntry> {
        let turn = usize::from(shard.0).checked_rem(self.nodes.len())?;
        self.nodes.get(turn)
    }

    /// The directory after a node is replaced: it gets a new id, and waits for a node of its name to come for it. Itself if
    /// the node was replaced by the request with this nonce before; 0 is none.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchNode`].
    pub fn replaced(&self, name: &NodeName, nonce: u64) -> Result<Self, DirectoryError> {
        if nonce != 0 && self.by_name(name).is_some_and(|entry| entry.replacement == nonce) {
            return Ok(self.clone());
        }
        let id = self.next_node;
        let mut next = self.changed(name, |entry| {
            entry.node = id;
            entry.standing = Standing::Expected;
            entry.replacement = nonce;
            Ok(())
        })?;
        next.next_node = id.next();
        Ok(next)
    }

    /// The directory after a replaced node came for its id; itself if this attempt came before.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchNode`], [`DirectoryError::AlreadyJoined`].
    pub fn joined(&self, name: &NodeName, address: &str, attempt: u64) -> Result<Self, DirectoryError> {
        let entry = self.by_name(name).ok_or_else(|| DirectoryError::NoSuchNode(name.clone()))?;
        match entry.standing {
            Standing::Joined { attempt: told } if told == attempt => Ok(self.clone()),
            Standing::Expected => self.changed(name, |entry| {
                entry.standing = Standing::Joined { attempt };
                address.clone_into(&mut entry.address);
                Ok(())
            }),
            Standing::Member | Standing::Joined { .. } => Err(DirectoryError::AlreadyJoined(name.clone())),
        }
    }

    /// The directory after a node moved to another address.
    ///
    /// # Errors
    /// [`DirectoryError::NoSuchNode`].
    pub fn moved(&self, name: &NodeName, address: &str) -> Result<Self, DirectoryError> {
        self.changed(name, |entry| {
            address.clone_into(&mut entry.address);
            Ok(())
        })
    }

    fn changed(
        &self,
        name: &NodeName,
        change: impl FnOnce(&mut NodeEntry) -> Result<(), DirectoryError>,
    ) -> Result<Self, DirectoryError> {
        let mut next = self.clone();
        let entry = next.nodes.iter_mut().find(|entry| entry.name == *name);
        change(entry.ok_or_else(|| DirectoryError::NoSuchNode(name.clone()))?)?;
        next.version += 1;
        Ok(next)
    }

    /// The stored form: format u16, cluster 16 bytes, version u64, next node u64, shards u16, the slot map, count u16, and
    /// of each node: id u64, standing u8, attempt u64, replacement u64, name (length u16, bytes), address (length u16, bytes).
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(256);
        to.put_u16(FORMAT_VERSION);
        to.put_bytes(&self.cluster.0);
        to.put_u64(self.version);
        to.put_u64(self.next_node.0);
        to.put_u16(self.shards);
        self.slots.encode(&mut to);
        to.put_u16(u16::try_from(self.nodes.len()).unwrap_or(u16::MAX));
        for entry in &self.nodes {
            to.put_u64(entry.node.0);
            let (standing, attempt) = match entry.standing {
                Standing::Member => (1, 0),
                Standing::Expected => (2, 0),
                Standing::Joined { attempt } => (3, attempt),
            };
            to.put_u8(standing);
            to.put_u64(attempt);
            to.put_u64(entry.replacement);
            for text in [entry.name.as_str(), &entry.address] {
                to.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
                to.put_bytes(text.as_bytes());
            }
        }
        to
    }

    /// Reads the stored form; `None` if it is of another format or damaged.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = Reader::new(bytes);
        if from.u16()? != FORMAT_VERSION {
            return None;
        }
        let cluster = ClusterId(from.array()?);
        let version = from.u64()?;
        let next_node = NodeId(from.u64()?);
        let shards = from.u16()?;
        let slots = SlotMap::decode(&mut from)?;
        let count = usize::from(from.u16()?);
        if count > NODES_MAX || shards == 0 {
            return None;
        }
        let nodes = (0..count).map(|_| decode_node(&mut from)).collect::<Option<Vec<_>>>()?;
        from.is_empty().then_some(Self { version, cluster, next_node, slots, shards, nodes })
    }
}

fn decode_node(from: &mut Reader<'_>) -> Option<NodeEntry> {
    let node = NodeId(from.u64()?);
    let standing = match (from.u8()?, from.u64()?) {
        (1, _) => Standing::Member,
        (2, _) => Standing::Expected,
        (3, attempt) => Standing::Joined { attempt },
        _ => return None,
    };
    let replacement = from.u64()?;
    let name = NodeName::from(decode_text(from, NODE_NAME_BYTES_MAX)?);
    let address = decode_text(from, NODE_ADDRESS_BYTES_MAX)?.to_owned();
    Some(NodeEntry { name, node, address, standing, replacement })
}

fn decode_text<'a>(from: &mut Reader<'a>, length_max: usize) -> Option<&'a str> {
    let length = usize::from(from.u16()?);
    if length > length_max {
        return None;
    }
    std::str::from_utf8(from.bytes(length)?).ok()
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory(v{}, {} shards", self.version, self.shards)?;
        for entry in &self.nodes {
            write!(f, ", {}={}:{:?}", entry.name, entry.node.0, entry.standing)?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Directory {
        let members = ["a", "b", "c"].map(|name| (NodeName::from(name), format!("{name}:7700")));
        Directory::at_birth(ClusterId([7; 16]), 4, &members)
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let b = NodeName::from("b");
        let directory = three().replaced(&b, 77).unwrap().joined(&b, "elsewhere:1", 99).unwrap();
        assert_eq!(Directory::decode(&directory.encode()), Some(directory.clone()));
        let bytes = directory.encode();
        assert!((0..bytes.len()).all(|length| Directory::decode(&bytes[..length]).is_none()));
    }

    #[test]
    fn a_replaced_node_gets_an_id_that_no_node_had_before() {
        let b = NodeName::from("b");
        let once = three().replaced(&b, 0).unwrap();
        let twice = once.replaced(&b, 0).unwrap();
        assert_eq!(once.by_name(&b).unwrap().node, NodeId(4));
        assert_eq!(twice.by_name(&b).unwrap().node, NodeId(5));
        assert!(twice.by_id(NodeId(4)).is_none() && twice.by_id(NodeId(2)).is_none());
    }

    #[test]
    fn a_request_replaces_a_node_once_however_late_it_is_sent_again() {
        let b = NodeName::from("b");
        let joined = three().replaced(&b, 7).unwrap().joined(&b, "b:1", 1).unwrap();
        assert_eq!(joined.replaced(&b, 7), Ok(joined.clone()));
        assert_eq!(joined.replaced(&b, 8).unwrap().by_name(&b).unwrap().node, NodeId(5));
    }

    #[test]
    fn an_id_is_told_to_one_attempt_only() {
        let b = NodeName::from("b");
        assert_eq!(three().joined(&b, "b:1", 1), Err(DirectoryError::AlreadyJoined(b.clone())));
        let joined = three().replaced(&b, 0).unwrap().joined(&b, "b:1", 1).unwrap();
        assert_eq!(joined.joined(&b, "b:1", 1), Ok(joined.clone()));
        assert_eq!(joined.joined(&b, "b:1", 2), Err(DirectoryError::AlreadyJoined(b)));
    }
}
