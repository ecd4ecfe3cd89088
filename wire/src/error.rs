//! What a request is answered with when it was not done: a closed list, each with what a program needs to go on.

use std::borrow::Cow;

use bytes::Bytes;
use mesh_base::{ClusterId, NodeId, Revision, ShardId, SlotEpoch};

/// A text that is mostly known when the program is built.
pub type Text = Cow<'static, str>;

/// Where a shard's leader is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaderAt {
    /// The leader's node.
    pub node: NodeId,
    /// Its address; empty if the answering node does not know it.
    pub address: String,
}

/// Why a request was not done. Displayed, it says what to do about it.
///
/// A write that got any error but those that [`Error::certainly_not_applied`] names may still take effect; sent again in
/// its session, it takes effect once.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// This node does not lead the shard.
    #[error("this node does not lead shard {shard}{}", leader_hint(leader.as_ref()))]
    NotLeader {
        /// The shard.
        shard: ShardId,
        /// Who leads it, if that is known.
        leader: Option<LeaderAt>,
    },
    /// The request was routed by a slot map of another epoch.
    #[error("the slot map has epoch {epoch}: fetch the topology and route again")]
    WrongEpoch {
        /// The epoch that this node has.
        epoch: SlotEpoch,
    },
    /// A key of the request is not in the shard that the frame names.
    #[error("a key belongs to shard {shard}: route by the topology; a batch has keys of one shard")]
    WrongShard {
        /// The shard of the key.
        shard: ShardId,
    },
    /// A queue is full.
    #[error("overloaded: try again in {retry_after_ms} ms or later, with fewer requests in flight")]
    Overloaded {
        /// When to try again, in milliseconds.
        retry_after_ms: u32,
    },
    /// A condition did not hold.
    #[error("a condition did not hold for key {}, whose revision is {revision}: read again and decide anew", key.escape_ascii())]
    Conflict {
        /// The key.
        key: Bytes,
        /// Its revision now; 0 if it does not exist.
        revision: Revision,
    },
    /// A transaction holds a lock that the request waited for too long.
    #[error("a transaction holds a lock on this: try again")]
    Locked,
    /// The past that was asked for is kept no longer.
    #[error("revisions before {oldest} are kept no longer: read at {oldest} or later, or the newest")]
    Compacted {
        /// The oldest revision that can be read.
        oldest: Revision,
    },
    /// Something is larger than it may be.
    #[error("{what}: {actual} is more than {limit}: send less at a time")]
    TooLarge {
        /// What is measured.
        what: Text,
        /// The most that may be.
        limit: u64,
        /// What is.
        actual: u64,
    },
    /// A key has no bytes.
    #[error("a key is empty: a key has at least one byte")]
    EmptyKey,
    /// A disk is full; reads go on.
    #[error("no disk space is left for writes: free space or add some; writes are taken again by themselves")]
    NoSpace,
    /// The shard has no quorum.
    #[error("too few replicas of the shard answer; the write was certainly not applied: try again later")]
    NoQuorum,
    /// Whether the write was applied is not known.
    #[error("whether the write was applied is not known: send it again in its session")]
    Unknown,
    /// The session is not known, or not any more.
    #[error("the session is not known and the write was certainly not applied: open another session")]
    UnknownSession,
    /// Too many writes of the session are not acknowledged.
    #[error("more than {limit} writes of the session are unacknowledged: raise acknowledged_below")]
    SessionWindow {
        /// The most that may be.
        limit: u32,
    },
    /// The deadline passed before anything was begun.
    #[error("the deadline passed and nothing was applied: allow more time or send fewer requests at once")]
    DeadlineExceeded,
    /// The connection has not said who it is, or not convincingly.
    #[error("not authenticated: check the credentials and the mechanism")]
    Unauthenticated,
    /// Whoever asks may not.
    #[error("not permitted for key {}: ask for the right to it", key.escape_ascii())]
    PermissionDenied {
        /// The key; empty where it is not about one.
        key: Bytes,
    },
    /// The request breaks the protocol.
    #[error("malformed request: {what}; this is a fault of the client's software")]
    Malformed {
        /// What is wrong.
        what: Text,
    },
    /// A value is not what the operation works on.
    #[error("the value of key {} is {what}: nothing was applied", key.escape_ascii())]
    WrongType {
        /// The key.
        key: Bytes,
        /// What is wrong with it.
        what: Text,
    },
    /// The node does not speak the version.
    #[error(
        "this node speaks the protocol's versions {version_min} to {version_max}: use a client of one of them"
    )]
    Unsupported {
        /// The oldest version that the node speaks.
        version_min: u16,
        /// The newest version that the node speaks.
        version_max: u16,
    },
    /// The node cannot serve yet.
    #[error("not ready yet: {why}; try again shortly")]
    NotReady {
        /// What it waits for.
        why: Text,
    },
    /// The node is going down.
    #[error("this node is shutting down: use another")]
    ShuttingDown,
    /// The other side belongs to another cluster.
    #[error("this node is of cluster {ours}, not {theirs}: check the address")]
    WrongCluster {
        /// The cluster that the request named.
        theirs: ClusterId,
        /// The cluster of the answering node.
        ours: ClusterId,
    },
    /// Something on this node's disk is damaged.
    #[error(
        "damaged on this node: {what}; the others serve on, and `mesh node replace NAME` rebuilds it from them"
    )]
    Damaged {
        /// What is damaged.
        what: Text,
    },
    /// There is no such thing.
    #[error("there is no {what}")]
    NotFound {
        /// What there is none of.
        what: Text,
    },
    /// The software is at fault.
    #[error("internal error: {what}; this is a fault of the server's software: please report it")]
    Internal {
        /// What happened.
        what: Text,
    },
}

fn leader_hint(leader: Option<&LeaderAt>) -> String {
    match leader {
        None => "; no leader is known: try again shortly".into(),
        Some(at) if at.address.is_empty() => format!("; node {} does: ask there", at.node),
        Some(at) => format!("; node {} at {} does: ask there", at.node, at.address),
    }
}

impl Error {
    /// Whether a write that was answered so has certainly had no effect and never will.
    ///
    /// Of a write that is sent again in its session, this speaks of all its sendings. The other errors leave it open,
    /// [`Error::Damaged`] among them: the damage may be found after the write went out to the other replicas.
    #[must_use]
    pub const fn certainly_not_applied(&self) -> bool {
        !matches!(self, Self::Unknown | Self::Damaged { .. } | Self::Internal { .. })
    }

    /// Whether the same request can succeed when it is sent again, after what the error asks for was done: following
    /// the leader, fetching the topology, waiting, opening a session, going to another node. A write is sent again in
    /// its session, unless [`Error::certainly_not_applied`].
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::NotLeader { .. }
            | Self::WrongEpoch { .. }
            | Self::WrongShard { .. }
            | Self::Overloaded { .. }
            | Self::Locked
            | Self::NoQuorum
            | Self::Unknown
            | Self::UnknownSession
            | Self::SessionWindow { .. }
            | Self::NotReady { .. }
            | Self::ShuttingDown
            | Self::Damaged { .. } => true,
            Self::Conflict { .. }
            | Self::WrongType { .. }
            | Self::Compacted { .. }
            | Self::TooLarge { .. }
            | Self::EmptyKey
            | Self::NoSpace
            | Self::DeadlineExceeded
            | Self::Unauthenticated
            | Self::PermissionDenied { .. }
            | Self::Malformed { .. }
            | Self::Unsupported { .. }
            | Self::WrongCluster { .. }
            | Self::NotFound { .. }
            | Self::Internal { .. } => false,
        }
    }
}
