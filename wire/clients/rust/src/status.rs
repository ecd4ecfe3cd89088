//! How nodes and their replicas are.

use std::fmt;
use std::time::Duration;

use mesh_base::{CheckpointNo, ClusterId, CoreId, LogIndex, NodeId, ReplicaId, ShardId, Term};

use crate::{Node, Result};

/// A node of the cluster and how it is, or why that is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeReport {
    /// The node, as the cluster knows it.
    pub node: Node,
    /// What it says of itself.
    pub status: Result<NodeStatus>,
}

/// What a node says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeStatus {
    /// Its id; none before its cluster's birth.
    pub node: Option<NodeId>,
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// The software and its version.
    pub software: String,
    /// Its cluster; none before its birth.
    pub cluster: Option<ClusterId>,
    /// Time since it was started.
    pub uptime: Duration,
    /// Cores that it uses.
    pub cores: u16,
    /// Bytes of memory that it may use.
    pub memory_budget_bytes: u64,
    /// Bytes of memory that it uses.
    pub memory_used_bytes: u64,
    /// Other nodes that answer it.
    pub peers_reachable: u32,
    /// Its replicas, ordered by shard.
    pub replicas: Vec<ReplicaStatus>,
}

/// What a replica is in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaRole {
    /// It follows the leader, or waits for one.
    Follower,
    /// It asks whether it could win an election.
    PreCandidate,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
    /// It follows and has no vote.
    Learner,
    /// It votes and keeps a log, and no keys.
    Witness,
    /// A role that this version does not know.
    Other(u8),
}

/// How a replica is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplicaState {
    /// It reads its log and its store.
    Recovering,
    /// It does what it is for.
    Serving,
    /// It is being filled from another replica.
    ReceivingSnapshot,
    /// Its disk is full: it serves reads and takes part in elections.
    ReadOnly,
    /// Something on its disk is damaged: it serves nothing and is about to be rebuilt.
    Damaged,
    /// It was taken down.
    Stopped,
    /// A state that this version does not know.
    Other(u8),
}

/// A member of a shard's group: a replica and the node that it is on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

/// How one replica is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaStatus {
    /// Its shard.
    pub shard: ShardId,
    /// The core that owns it.
    pub core: CoreId,
    /// The replica.
    pub replica: ReplicaId,
    /// What it is in its group.
    pub role: ReplicaRole,
    /// Its term.
    pub term: Term,
    /// The node that leads the group, if it knows one.
    pub leader: Option<NodeId>,
    /// The last entry that it knows to be committed.
    pub commit: LogIndex,
    /// The last entry that it applied.
    pub applied: LogIndex,
    /// The first entry of its log.
    pub first_index: LogIndex,
    /// The last entry of its log.
    pub last_index: LogIndex,
    /// Its last checkpoint.
    pub checkpoint: CheckpointNo,
    /// The last entry that the checkpoint contains.
    pub checkpoint_applied: LogIndex,
    /// Bytes of its page store's file.
    pub store_bytes: u64,
    /// Keys that exist.
    pub keys: u64,
    /// Bytes of its log's files.
    pub log_bytes: u64,
    /// Bytes of pages in memory.
    pub resident_bytes: u64,
    /// Bytes of pages in memory that the last checkpoint does not contain.
    pub dirty_bytes: u64,
    /// Sessions that are open.
    pub sessions: u32,
    /// How it is.
    pub state: ReplicaState,
    /// More about its state, for people; empty if there is nothing to say.
    pub detail: String,
    /// Members of the group that vote.
    pub voters: Vec<Member>,
    /// Members of the group that do not.
    pub learners: Vec<Member>,
}

/// A node's place is being given to an empty node of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replaced {
    /// The new node's id.
    pub node: NodeId,
    /// The id of its replicas.
    pub replica: ReplicaId,
    /// How far it takes part already; its status tells when it is a voter.
    pub state: crate::NodeState,
}

impl NodeStatus {
    pub(crate) fn read(wire: &mesh_wire::StatusAnswer<'_>) -> Self {
        Self {
            node: Some(wire.node).filter(|node| node.0 != 0),
            name: wire.name.to_owned(),
            address: wire.address.to_owned(),
            software: wire.software.to_owned(),
            cluster: wire.cluster,
            uptime: Duration::from_millis(wire.uptime_ms),
            cores: wire.cores,
            memory_budget_bytes: wire.memory_budget_bytes,
            memory_used_bytes: wire.memory_used_bytes,
            peers_reachable: wire.peers_reachable,
            replicas: wire.replicas.iter().map(|replica| ReplicaStatus::read(&replica)).collect(),
        }
    }
}

impl ReplicaStatus {
    fn read(wire: &mesh_wire::ReplicaStatus<'_>) -> Self {
        let member = |member: mesh_wire::Member| Member { replica: member.replica, node: member.node };
        Self {
            shard: wire.shard,
            core: wire.core,
            replica: wire.replica,
            role: wire.role.into(),
            term: wire.term,
            leader: wire.leader,
            commit: wire.commit,
            applied: wire.applied,
            first_index: wire.first_index,
            last_index: wire.last_index,
            checkpoint: wire.checkpoint,
            checkpoint_applied: wire.checkpoint_applied,
            store_bytes: wire.store_bytes,
            keys: wire.keys,
            log_bytes: wire.log_bytes,
            resident_bytes: wire.resident_bytes,
            dirty_bytes: wire.dirty_bytes,
            sessions: wire.sessions,
            state: wire.state.into(),
            detail: wire.detail.to_owned(),
            voters: wire.voters.iter().map(member).collect(),
            learners: wire.learners.iter().map(member).collect(),
        }
    }
}

impl From<mesh_wire::ReplicaRole> for ReplicaRole {
    fn from(role: mesh_wire::ReplicaRole) -> Self {
        use mesh_wire::ReplicaRole as Wire;
        match role {
            Wire::Follower => Self::Follower,
            Wire::PreCandidate => Self::PreCandidate,
            Wire::Candidate => Self::Candidate,
            Wire::Leader => Self::Leader,
            Wire::Learner => Self::Learner,
            Wire::Witness => Self::Witness,
            Wire::Other(number) => Self::Other(number),
        }
    }
}

impl From<mesh_wire::ReplicaState> for ReplicaState {
    fn from(state: mesh_wire::ReplicaState) -> Self {
        use mesh_wire::ReplicaState as Wire;
        match state {
            Wire::Recovering => Self::Recovering,
            Wire::Serving => Self::Serving,
            Wire::ReceivingSnapshot => Self::ReceivingSnapshot,
            Wire::ReadOnly => Self::ReadOnly,
            Wire::Damaged => Self::Damaged,
            Wire::Stopped => Self::Stopped,
            Wire::Other(number) => Self::Other(number),
        }
    }
}

impl fmt::Display for ReplicaRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Follower => "follower",
            Self::PreCandidate => "pre-candidate",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Learner => "learner",
            Self::Witness => "witness",
            Self::Other(number) => return write!(f, "role {number}"),
        })
    }
}

impl fmt::Display for ReplicaState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recovering => "recovering",
            Self::Serving => "serving",
            Self::ReceivingSnapshot => "receiving a snapshot",
            Self::ReadOnly => "read-only",
            Self::Damaged => "damaged",
            Self::Stopped => "stopped",
            Self::Other(number) => return write!(f, "state {number}"),
        })
    }
}
