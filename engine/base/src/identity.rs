//! Who a file belongs to.

use crate::{ClusterId, ReplicaId, ShardId};

/// The replica that a log or a page store belongs to; written into every file and compared when it is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The shard.
    pub shard: ShardId,
    /// The incarnation of this node's copy of the shard.
    pub replica: ReplicaId,
}
