//! What an operator can do for a replica that takes no further part.
//!
//! Where the other voters are a majority without it they hold all of it, and the node is replaced. A single node has nobody
//! to be rebuilt from, and of two the other one cannot decide anything alone: the files stay as they are, whatever is wrong
//! with them, until the operator has put them right.

use mesh_base::ReplicaIdentity;

use super::error::ShardError;
use crate::node::Directory;

/// The least number of nodes of which one can be lost and replaced.
const REPLACEABLE_NODES_MIN: usize = 3;

/// The remedy for an error, in words that follow the error's own.
pub(super) fn remedy(error: &ShardError, identity: &ReplicaIdentity, directory: &Directory) -> String {
    if error.is_of_the_disk() {
        return "see to the disk and start the node again, what is on it is checked then".into();
    }
    let node = directory.by_replica(identity.shard, identity.replica);
    match node.filter(|_| directory.nodes().len() >= REPLACEABLE_NODES_MIN) {
        Some(node) => format!(
            "the other nodes have it all: move this node's data directory away and run `mesh node replace {}`",
            node.name
        ),
        None => "no other node can rebuild it, and nothing was removed: stop the node, run `mesh-server verify --data DIR` to see \
                 what is damaged and what is not, and put back a copy or a backup"
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use mesh_base::io::{FileId, IoError, IoErrorKind};
    use mesh_base::{ClusterId, ReplicaId, ShardId};
    use mesh_engine::StoreError;

    use super::*;
    use crate::core::NodeName;

    fn told(nodes: &[&str], error: &ShardError) -> String {
        let cluster = ClusterId([7; 16]);
        let members: Vec<_> = nodes.iter().map(|name| (NodeName::from(*name), format!("{name}:1"))).collect();
        let directory = Directory::at_birth(cluster, 2, &members);
        remedy(error, &ReplicaIdentity { cluster, shard: ShardId(1), replica: ReplicaId(1) }, &directory)
    }

    #[test]
    fn what_no_majority_can_rebuild_is_looked_at_and_others_are_replaced() {
        let damaged = StoreError::Corrupt { file: FileId::Store, offset: 4096, what: "torn" }.into();
        assert!(told(&["a", "b", "c"], &damaged).ends_with("`mesh node replace a`"));
        for nodes in [&["a"][..], &["a", "b"]] {
            assert!(told(nodes, &damaged).contains("`mesh-server verify --data DIR`"));
        }
        let (kind, detail) = (IoErrorKind::Device, "cable".to_owned());
        let failed = ShardError::Io(IoError { kind, verb: "read", file: None, detail });
        assert!(told(&["a"], &failed).contains("start the node again"));
    }
}
