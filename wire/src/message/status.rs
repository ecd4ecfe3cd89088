//! How a node and its replicas are.

use flatbuffers::WIPOffset;
use mesh_base::limits::{NODES_MAX, SHARDS_MAX, TEXT_BYTES_MAX};
use mesh_base::{CheckpointNo, ClusterId, CoreId, LogIndex, NodeId, ReplicaId, ShardId, Term};

use super::cluster::node_or_none;
use super::{MESSAGE_OVERHEAD_BYTES, Message, check_address, check_name, check_shard, open};
use crate::builder::{Builder, Root, cluster, read_id128};
use crate::generated::mesh::wire as fb;
use crate::wire_error::at_most;
use crate::{List, WireError};

open! {
    /// What a replica is in its group.
    ReplicaRole {
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
    }
}

open! {
    /// How a replica is.
    ReplicaState {
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
    }
}

/// A member of a group: a replica and the node that it is on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// Its node.
    pub node: NodeId,
}

impl Member {
    pub(crate) fn view(wire: &fb::Member) -> Self {
        Self { replica: ReplicaId(wire.replica()), node: NodeId(wire.node()) }
    }

    fn to_wire(self) -> fb::Member {
        fb::Member::new(self.replica.0, self.node.0)
    }
}

/// How one replica is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaStatus<'a> {
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
    pub detail: &'a str,
    /// Members of the group that vote.
    pub voters: List<'a, Member>,
    /// Members of the group that do not.
    pub learners: List<'a, Member>,
}

impl<'a> ReplicaStatus<'a> {
    pub(crate) fn view(wire: fb::ReplicaStatus<'a>) -> Self {
        Self {
            shard: ShardId(wire.shard()),
            core: CoreId(wire.core()),
            replica: ReplicaId(wire.replica()),
            role: ReplicaRole::from_wire(wire.role()),
            term: Term(wire.term()),
            leader: node_or_none(wire.leader()),
            commit: LogIndex(wire.commit()),
            applied: LogIndex(wire.applied()),
            first_index: LogIndex(wire.first_index()),
            last_index: LogIndex(wire.last_index()),
            checkpoint: CheckpointNo(wire.checkpoint()),
            checkpoint_applied: LogIndex(wire.checkpoint_applied()),
            store_bytes: wire.store_bytes(),
            keys: wire.keys(),
            log_bytes: wire.log_bytes(),
            resident_bytes: wire.resident_bytes(),
            dirty_bytes: wire.dirty_bytes(),
            sessions: wire.sessions(),
            state: ReplicaState::from_wire(wire.state()),
            detail: wire.detail().unwrap_or_default(),
            voters: wire.voters().into(),
            learners: wire.learners().into(),
        }
    }

    fn check(&self) -> Result<(), WireError> {
        check_shard(self.shard)?;
        at_most("voters", self.voters.len(), NODES_MAX)?;
        at_most("learners", self.learners.len(), NODES_MAX)
    }

    fn size_hint(&self) -> usize {
        let members = self.voters.len() + self.learners.len();
        MESSAGE_OVERHEAD_BYTES + members * size_of::<fb::Member>() + self.detail.len().min(TEXT_BYTES_MAX)
    }

    fn build(&self, to: &mut Builder) -> WIPOffset<fb::ReplicaStatus<'static>> {
        let detail = to.text_if_any(self.detail);
        let voters = to.flat_list(self.voters.iter().map(Member::to_wire));
        let learners = to.flat_list(self.learners.iter().map(Member::to_wire));
        let args = fb::ReplicaStatusArgs {
            shard: self.shard.0,
            core: self.core.0,
            replica: self.replica.0,
            role: self.role.to_wire(),
            term: self.term.0,
            leader: self.leader.unwrap_or_default().0,
            commit: self.commit.0,
            applied: self.applied.0,
            first_index: self.first_index.0,
            last_index: self.last_index.0,
            checkpoint: self.checkpoint.0,
            checkpoint_applied: self.checkpoint_applied.0,
            store_bytes: self.store_bytes,
            keys: self.keys,
            log_bytes: self.log_bytes,
            resident_bytes: self.resident_bytes,
            dirty_bytes: self.dirty_bytes,
            sessions: self.sessions,
            state: self.state.to_wire(),
            detail,
            voters: Some(voters),
            learners: Some(learners),
        };
        fb::ReplicaStatus::create(&mut to.flat, &args)
    }
}

/// How a node is. Answers the status request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusAnswer<'a> {
    /// The node; 0 before the cluster's birth.
    pub node: NodeId,
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub address: &'a str,
    /// The software and its version.
    pub software: &'a str,
    /// Its cluster; none before its birth.
    pub cluster: Option<ClusterId>,
    /// Milliseconds since it was started.
    pub uptime_ms: u64,
    /// How many cores it uses.
    pub cores: u16,
    /// Bytes of memory that it may use.
    pub memory_budget_bytes: u64,
    /// Bytes of memory that it uses.
    pub memory_used_bytes: u64,
    /// How many other nodes answer it.
    pub peers_reachable: u32,
    /// Its replicas, ordered by shard.
    pub replicas: List<'a, ReplicaStatus<'a>>,
}

impl<'a> Message<'a> for StatusAnswer<'a> {
    type Table = fb::StatusAnswer<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            node: NodeId(table.node()),
            name: table.name(),
            address: table.address(),
            software: table.software(),
            cluster: table.cluster().map(|id| ClusterId(read_id128(id))),
            uptime_ms: table.uptime_ms(),
            cores: table.cores(),
            memory_budget_bytes: table.memory_budget_bytes(),
            memory_used_bytes: table.memory_used_bytes(),
            peers_reachable: table.peers_reachable(),
            replicas: table.replicas().into(),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_name(self.name)?;
        check_address(self.address)?;
        at_most("bytes of the software's version", self.software.len(), TEXT_BYTES_MAX)?;
        at_most("replicas", self.replicas.len(), SHARDS_MAX)?;
        self.replicas.iter().try_for_each(|replica| replica.check())
    }

    fn build(&self, to: &mut Builder) -> Root {
        let name = to.name(self.name);
        let address = to.name(self.address);
        let software = to.name(self.software);
        let replicas = to.list(self.replicas.iter(), |to, replica| replica.build(to));
        let cluster = cluster(self.cluster);
        let args = fb::StatusAnswerArgs {
            node: self.node.0,
            name: Some(name),
            address: Some(address),
            software: Some(software),
            cluster: cluster.as_ref(),
            uptime_ms: self.uptime_ms,
            cores: self.cores,
            memory_budget_bytes: self.memory_budget_bytes,
            memory_used_bytes: self.memory_used_bytes,
            peers_reachable: self.peers_reachable,
            replicas: Some(replicas),
        };
        fb::StatusAnswer::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        let texts = self.name.len() + self.address.len() + self.software.len();
        MESSAGE_OVERHEAD_BYTES
            + texts
            + self.replicas.iter().map(|replica| replica.size_hint()).sum::<usize>()
    }
}
