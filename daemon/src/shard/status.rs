//! What a replica reports of itself.

use mesh_base::{CheckpointNo, LogIndex, NodeId, ReplicaId, ShardId, Term};

/// A replica's report.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its part in the group.
    pub role: Role,
    /// What it can do at present.
    pub condition: Condition,
    /// Its term.
    pub term: Term,
    /// The node it takes for the leader.
    pub leader: Option<NodeId>,
    /// The last entry known to be committed.
    pub commit: LogIndex,
    /// The last entry applied.
    pub applied: LogIndex,
    /// The first entry in the log.
    pub first_index: LogIndex,
    /// The last entry in the log.
    pub last_index: LogIndex,
    /// The newest durable checkpoint.
    pub checkpoint: CheckpointNo,
    /// The last entry in that checkpoint.
    pub checkpoint_applied: LogIndex,
    /// Bytes of the page store's file.
    pub store_bytes: u64,
    /// Live keys.
    pub keys: u64,
    /// Bytes of the log's files.
    pub log_bytes: u64,
    /// How often, since it was opened, old entries of the log were found damaged. The log begins behind them since.
    pub log_damages: u64,
    /// Bytes of pages and entries in memory.
    pub resident_bytes: u64,
    /// Bytes of pages changed since the last checkpoint.
    pub dirty_bytes: u64,
    /// Sessions.
    pub sessions: u32,
    /// The replicas that vote.
    pub voters: Vec<ReplicaId>,
    /// The replicas that only receive.
    pub learners: Vec<ReplicaId>,
}

/// A replica's part in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It follows.
    Follower,
    /// It asks whether it could win an election.
    PreCandidate,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
    /// It receives and does not vote.
    Learner,
}

/// What a replica can do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It reads its files.
    Recovering,
    /// It takes part.
    Serving,
    /// It receives a snapshot.
    ReceivingSnapshot,
    /// It takes part, and its disk is full.
    ReadOnly,
    /// It is out.
    Damaged(String),
    /// It has stopped.
    Stopped,
}

impl ShardStatus {
    /// The report of a replica that does not run.
    #[must_use]
    pub const fn idle(shard: ShardId, replica: ReplicaId, condition: Condition) -> Self {
        Self {
            shard,
            replica,
            role: Role::Follower,
            condition,
            term: Term(0),
            leader: None,
            commit: LogIndex(0),
            applied: LogIndex(0),
            first_index: LogIndex(0),
            last_index: LogIndex(0),
            checkpoint: CheckpointNo(0),
            checkpoint_applied: LogIndex(0),
            store_bytes: 0,
            keys: 0,
            log_bytes: 0,
            log_damages: 0,
            resident_bytes: 0,
            dirty_bytes: 0,
            sessions: 0,
            voters: Vec::new(),
            learners: Vec::new(),
        }
    }
}
