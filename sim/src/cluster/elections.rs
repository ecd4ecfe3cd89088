//! Whether a shard has at most one leader in a term.
//!
//! Checked: of what the replicas of a shard say of themselves at their ticks, whatever node they are on, no two ever lead
//! in one term.
//!
//! Not checked: a leader that steps down before its node's next tick; what a leader does with its office.

use std::collections::BTreeMap;

use mesh_base::{ReplicaId, ShardId, Term};
use mesh_server::shard::status::{Role, ShardStatus};

/// Who led in which term.
#[derive(Default, Debug)]
pub(super) struct Elections {
    leaders: BTreeMap<(ShardId, Term), ReplicaId>,
}

impl Elections {
    /// Takes in what replicas say of themselves; answers what is wrong with it.
    pub(super) fn observe(&mut self, statuses: impl Iterator<Item = ShardStatus>) -> Option<String> {
        for status in statuses.filter(|status| status.role == Role::Leader) {
            let ShardStatus { shard, term, replica, .. } = status;
            let first = *self.leaders.entry((shard, term)).or_insert(replica);
            if first != replica {
                return Some(format!("shard {shard}: {first} and {replica} both lead in term {term}"));
            }
        }
        None
    }
}
