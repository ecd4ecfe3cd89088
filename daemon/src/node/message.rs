//! What nodes tell each other before and beside raft: who they are, that a cluster is to be born, who may join.

use mesh_base::{ClusterId, NodeId};

use super::directory::Directory;
use crate::core::NodeName;

/// A message from one node to another. Any of them may be lost, repeated or late.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NodeMessage {
    /// "This is me; who are you?" Answered with [`NodeMessage::Answer`].
    Probe(NodeReport),
    /// "This is me."
    Answer(NodeReport),
    /// "I know a newer membership than you do."
    Directory(Directory),
    /// From the coordinator: "let us all be born into this cluster".
    Propose {
        /// The cluster to be.
        cluster: ClusterId,
        /// The coordinator's members, sorted: all must have the same.
        members: Vec<(NodeName, String)>,
        /// Its shards.
        shards: u16,
    },
    /// To the coordinator: "I promised, durably".
    Accept {
        /// The cluster to be.
        cluster: ClusterId,
    },
    /// From a born node: "all promised; the cluster exists".
    Decided {
        /// The cluster as it was born.
        directory: Directory,
    },
    /// From a node that was replaced: "give me my id".
    Join {
        /// Where the node is reached.
        address: String,
        /// Names the attempt.
        attempt: u64,
    },
    /// To that node: its id.
    Joined {
        /// The attempt.
        attempt: u64,
        /// The id.
        node: NodeId,
        /// The cluster.
        directory: Directory,
    },
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeReport {
    /// Where it is reached.
    pub address: String,
    /// The names it was given at start, its own among them, sorted. Empty once it is born.
    pub members: Vec<NodeName>,
    /// The number of shards it asks for; 0 if it leaves that to others.
    pub shards: u16,
    /// Where it stands.
    pub stage: Stage,
}

/// Where a node stands between nothing and membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It has no state.
    Empty,
    /// It promised to be born into this cluster.
    Forming(ClusterId),
    /// It asks for its id.
    Joining,
    /// It belongs to a cluster.
    Born {
        /// The cluster.
        cluster: ClusterId,
        /// The node's id.
        node: NodeId,
        /// The version of its directory.
        version: u64,
    },
}
