//! What an operator tells a node.

use std::path::PathBuf;

use mesh_base::limits::{NODE_NAME_BYTES_MAX, NODES_MAX, SHARDS_MAX};

use crate::core::NodeName;
use crate::router::Placement;

/// One node's configuration, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    /// The node's name.
    pub name: NodeName,
    /// Where it listens: `host:port` or `:port`.
    pub listen: String,
    /// The address other nodes and clients reach it at.
    pub advertise: String,
    /// The other nodes of a cluster to be born, and who to ask when joining one.
    pub peers: Vec<(NodeName, String)>,
    /// Where its files lie.
    pub data: PathBuf,
    /// The processors its cores are pinned to; one core each.
    pub cpus: Vec<usize>,
    /// Shards of a cluster to be born; `None` means one per core of the first node.
    pub shards: Option<u16>,
    /// Memory the node may use, in bytes.
    pub memory_bytes: u64,
    /// Bytes of snapshots that each of its cores sends in a second.
    pub snapshot_bytes_per_second: u64,
}

/// Least memory of a core, in bytes: below it a replica could not hold its largest entry.
pub const CORE_MEMORY_BYTES_MIN: u64 = 96 * 1024 * 1024;

impl NodeConfig {
    /// Which core owns which shard.
    #[must_use]
    pub fn placement(&self) -> Placement {
        Placement::new(u16::try_from(self.cpus.len()).unwrap_or(u16::MAX).max(1))
    }

    /// The memory of one shard's replica on this node, of `shards` in all, in bytes.
    #[must_use]
    pub fn replica_memory_bytes(&self, shards: u16) -> u64 {
        self.memory_bytes / u64::from(shards.max(1))
    }

    /// Checks what the operator gave.
    ///
    /// # Errors
    /// Names the flag and the limit that it breaks.
    pub fn validate(&self) -> Result<(), String> {
        check_name(self.name.as_str()).map_err(|why| format!("--node: {why}"))?;
        for (name, _) in &self.peers {
            check_name(name.as_str()).map_err(|why| format!("--peers: {why}"))?;
            if *name == self.name {
                return Err(format!("--peers: `{name}` is this node itself; name only the others"));
            }
            if self.peers.iter().filter(|(other, _)| other == name).count() > 1 {
                return Err(format!("--peers: `{name}` is named twice"));
            }
        }
        if self.peers.len() >= NODES_MAX {
            return Err(format!("--peers: a cluster has at most {NODES_MAX} nodes"));
        }
        if self.cpus.is_empty() {
            return Err("--cores: at least one core is needed".into());
        }
        if let Some(shards) = self.shards
            && !(1..=SHARDS_MAX).contains(&usize::from(shards))
        {
            return Err(format!("--shards: {shards} is not between 1 and {SHARDS_MAX}"));
        }
        if self.snapshot_bytes_per_second == 0 {
            return Err("--snapshot-rate: without any, no node that fell behind would catch up".into());
        }
        let least = CORE_MEMORY_BYTES_MIN * self.cpus.len() as u64;
        if self.memory_bytes < least {
            let mib = least / (1024 * 1024);
            return Err(format!("--memory: {} core(s) need at least {mib}MiB", self.cpus.len()));
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NODE_NAME_BYTES_MAX || !name.chars().all(is_plain) {
        return Err(format!(
            "`{name}` is not a node name: 1 to {NODE_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`"
        ));
    }
    Ok(())
}
