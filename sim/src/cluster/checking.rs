//! The checkers that look inside: called after every turn, after every crash, and when a run is over.

use std::collections::BTreeMap;

use mesh_base::io::FileId;
use mesh_base::prng::Prng;
use mesh_base::{Instant, LogIndex, ReplicaIdentity, ShardId};
use mesh_server::core::DirectoryKey;
use mesh_server::shard::{Inspection, Shard};

use super::process::Process;
use super::{Node, World};
use crate::checks::leases::LeaderView;
use crate::checks::logs::Logs;
use crate::checks::states::States;
use crate::checks::{bounds, leases, stores};
use crate::disk::SimDisk;
use crate::driver::Failure;

/// The checkers of a run, and what they have to know of its nodes.
pub(super) struct Checks {
    logs: Logs,
    states: States,
    /// By node and shard, the replicas that have served: their files are whole from then on.
    replicas: BTreeMap<(usize, ShardId), Known>,
}

#[derive(Clone, Copy)]
struct Known {
    identity: ReplicaIdentity,
    applied: LogIndex,
}

impl Known {
    const fn directory(&self) -> DirectoryKey {
        DirectoryKey::Replica { shard: self.identity.shard, replica: self.identity.replica }
    }
}

/// Which states are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Compare {
    /// Those at the moments drawn.
    Drawn,
    /// This one.
    Now,
}

impl Checks {
    pub(super) fn new(prng: Prng) -> Self {
        Self { logs: Logs::default(), states: States::new(prng), replicas: BTreeMap::new() }
    }

    /// A node's directory is empty.
    pub(super) fn wiped(&mut self, node: usize) {
        self.replicas.retain(|(of, _), _| *of != node);
    }

    /// A node starts: what it serves with is looked at anew.
    pub(super) fn starts(&mut self, node: usize) {
        for ((_, shard), known) in self.replicas.range((node, ShardId(0))..(node + 1, ShardId(0))) {
            self.logs.forget(*shard, known.identity.replica);
        }
    }

    fn look(
        &mut self,
        node: usize,
        disk: &SimDisk<DirectoryKey>,
        replica: &Inspection<'_>,
        compare: Compare,
    ) -> Result<(), String> {
        let identity = replica.identity();
        bounds::check(replica.levels())?;
        let damages = disk.statistics().damaged + disk.statistics().device_errors;
        if replica.log_damages() > 0 && damages == 0 {
            return Err("old entries of its log are damaged, and no disk did that".into());
        }
        self.logs.observe(identity.shard, replica)?;
        let applied = replica.applied().index;
        let known = Known { identity, applied };
        let before = self.replicas.insert((node, identity.shard), known);
        let is_new = before.is_none_or(|before| before.applied != applied) && self.states.wants(applied);
        if is_new || compare == Compare::Now { self.compare(disk, known, replica) } else { Ok(()) }
    }

    fn compare(
        &mut self,
        disk: &SimDisk<DirectoryKey>,
        known: Known,
        replica: &Inspection<'_>,
    ) -> Result<(), String> {
        let owner = known.directory();
        let read = |offset, length| disk.bytes(owner, FileId::Store, offset, length).map(Into::into);
        let Known { identity, applied } = known;
        match replica.state(&read) {
            Ok(Some(state)) => self.states.observe(identity.shard, identity.replica, applied, state),
            Ok(None) => Ok(()),
            // A page that a fault has damaged, and that the replica did not need yet.
            Err(_) if disk.is_damaged(owner) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl World {
    /// A core had a turn: its replicas are looked at.
    pub(super) fn look_into(&mut self, number: usize, core: usize) {
        if let Err(complaint) = self.look(number, core, Compare::Drawn) {
            self.complaint.get_or_insert(complaint);
        }
    }

    fn look(&mut self, number: usize, core: usize, compare: Compare) -> Result<(), String> {
        let now = self.heap.now();
        let Self { nodes, checks, .. } = self;
        let Some(node) = nodes.get(number) else { return Ok(()) };
        let replicas = node.process.iter().flat_map(|process| process.replicas(core));
        for replica in replicas.filter_map(Shard::inspect) {
            let shard = replica.identity().shard;
            let seen = checks.look(number, &node.disk, &replica, compare);
            let seen = if replica.leads() {
                seen.and_then(|()| leases::check(&leaders(nodes, shard, now)))
            } else {
                seen
            };
            seen.map_err(|what| format!("node {number}, shard {shard}: {what}"))?;
        }
        Ok(())
    }

    /// A node's process has ended, with what became of its disk.
    pub(super) fn look_at_remains(&mut self, number: usize) {
        if let Err(complaint) = self.verify_stores(number) {
            self.complaint.get_or_insert(complaint);
        }
    }

    /// What is left when all is quiet: every state, and every page store's file, of nodes that are down too.
    pub(super) fn check_remains(&mut self) -> Result<(), Failure> {
        for number in 0..self.nodes.len() {
            let cores =
                self.nodes.get(number).and_then(|node| node.process.as_ref()).map(Process::core_count);
            for core in 0..cores.unwrap_or(0) {
                self.look(number, core, Compare::Now).map_err(Failure::Safety)?;
            }
            self.verify_stores(number).map_err(Failure::Safety)?;
        }
        Ok(())
    }

    fn verify_stores(&self, number: usize) -> Result<(), String> {
        let Some(node) = self.nodes.get(number) else { return Ok(()) };
        let range = (number, ShardId(0))..(number + 1, ShardId(0));
        for ((_, shard), known) in self.checks.replicas.range(range) {
            if node.disk.is_damaged(known.directory()) {
                continue;
            }
            stores::check(&node.disk, known.directory(), known.identity, &self.shard_options.store)
                .map_err(|what| format!("node {number}, shard {shard}: the page store: {what}"))?;
        }
        Ok(())
    }
}

/// The replicas of a shard that lead.
fn leaders(nodes: &[Node], shard: ShardId, now: Instant) -> Vec<LeaderView> {
    let leads = |node: &Node| {
        let replica = node.process.as_ref()?.replica(shard)?.inspect()?;
        let holds_lease = replica.holds_lease(node.clock.read(now).monotonic);
        let view = LeaderView { replica: replica.identity().replica, term: replica.term(), holds_lease };
        replica.leads().then_some(view)
    };
    nodes.iter().filter_map(leads).collect()
}
