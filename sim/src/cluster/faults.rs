//! What breaks while a run is hostile.
//!
//! Faults keep to what the cluster must survive: at most one node at a time has lost its directory and is not yet back
//! among the voters of every shard.

use std::time::Duration;

use mesh_base::ReplicaId;

use super::process::Process;
use super::{Event, Node, Peer, World};
use crate::disk::Crash;
use crate::latency::draw_between;
use crate::net::Direction;
use crate::report::Fault;

/// Mean time that a disk is slow or full.
const DISK_AILS: Duration = Duration::from_secs(2);

impl World {
    /// Lets a fault happen after a time with the mean `every`.
    pub(super) fn plan(&mut self, every: Option<Duration>, fault: Event) {
        if let Some(every) = every {
            let wait = draw_between(&mut self.prng, Duration::ZERO, every * 2);
            self.heap.schedule(wait, fault);
        }
    }

    /// What ends with the next crash.
    pub(super) fn draw_crash(&mut self) -> Crash {
        let is_power = self.prng.chance_per_mille(self.options.faults.power_per_mille);
        if is_power { Crash::Power } else { Crash::Process }
    }

    pub(super) fn crash(&mut self) {
        if !self.is_hostile {
            return;
        }
        let kind = self.draw_crash();
        let faults = &self.options.faults;
        let is_everyone = self.prng.chance_per_mille(faults.everyone_per_mille);
        let every = faults.crash_every;
        let is_orderly = self.prng.chance_per_mille(faults.orderly_per_mille);
        let is_ambush = self.prng.chance_per_mille(faults.ambush_per_mille);
        let chosen = self.prng.index(self.nodes.len());
        for node in 0..self.nodes.len() {
            match is_everyone || node == chosen {
                true if is_orderly => {
                    self.injected.count(Fault::OrderlyStop);
                    self.stop(node);
                }
                true if is_ambush => self.lie_in_wait(node, kind),
                true => {
                    self.injected.count(Fault::of_crash(kind));
                    self.end(node, kind);
                }
                false => {}
            }
        }
        self.injected.add(Fault::EveryoneAtOnce, is_everyone.into());
        self.plan(every, Event::Crash);
    }

    pub(super) fn partition(&mut self) {
        if !self.is_hostile {
            return;
        }
        let nodes = (0..self.nodes.len()).map(Peer::Node);
        let everyone = nodes.chain((0..self.clients.len()).map(Peer::Client));
        let (first, second): (Vec<Peer>, Vec<Peer>) = everyone.partition(|_| self.prng.chance_per_mille(500));
        let direction = if self.prng.chance_per_mille(700) { Direction::Both } else { Direction::OneWay };
        self.net.partition(&first, &second, direction);
        self.injected.count(Fault::of_partition(direction));
        let lasting = self.options.faults.partition_for.map_or(Duration::ZERO, |it| it.draw(&mut self.prng));
        self.heap.schedule(lasting, Event::Heal);
        self.plan(self.options.faults.partition_every, Event::Partition);
    }

    /// A partition ends. What is cut off in the end stays so.
    pub(super) fn heal(&mut self) {
        if self.is_hostile {
            self.net.heal();
        }
    }

    /// A node's directory is lost, if the cluster can bear it.
    pub(super) fn wipe(&mut self) {
        if !self.is_hostile {
            return;
        }
        let replica = |node: &Node| {
            let serving = node.process.iter().flat_map(Process::statuses).find(|it| it.applied.0 > 0);
            serving.map(|status| status.replica)
        };
        let can_bear = self.nodes.iter().all(|node| node.lost.is_none() && replica(node).is_some());
        let number = self.victim.unwrap_or_else(|| self.prng.index(self.nodes.len()));
        if let Some(lost) = self.nodes.get(number).and_then(replica).filter(|_| can_bear) {
            self.injected.count(Fault::Wipe);
            self.lose(number, lost);
        }
        self.plan(self.options.faults.wipe_every, Event::Wipe);
    }

    /// A node's directory and its replicas are gone.
    pub(super) fn lose(&mut self, number: usize, replica: ReplicaId) {
        self.end(number, Crash::Power);
        if let Some(node) = self.nodes.get_mut(number) {
            node.disk.wipe();
            node.cluster = None;
            node.lost = Some(replica);
        }
        self.checks.wiped(number);
    }

    pub(super) fn jump_clock(&mut self) {
        if !self.is_hostile {
            return;
        }
        let most = u64::try_from(self.options.clock.skew_max.as_millis()).unwrap_or(0);
        let jump =
            i64::try_from(self.prng.range(0..2 * most + 1)).unwrap_or(0) - i64::try_from(most).unwrap_or(0);
        let number = self.prng.index(self.nodes.len());
        let now = self.heap.now();
        if let Some(node) = self.nodes.get_mut(number) {
            node.clock.jump_wall(now, jump);
        }
        self.injected.count(Fault::ClockJump);
        self.plan(self.options.faults.clock_jump_every, Event::ClockJump);
    }

    /// A node's disk is much slower for a while.
    pub(super) fn slow_disk(&mut self) {
        if !self.is_hostile {
            return;
        }
        let number = self.prng.index(self.nodes.len());
        let factor = self.prng.choose(&[3, 10, 50]).copied().unwrap_or(1);
        if let Some(node) = self.nodes.get_mut(number) {
            node.disk.set_slowdown(factor);
        }
        self.injected.count(Fault::SlowDisk);
        self.plan(Some(DISK_AILS), Event::DiskRepaired(number));
        self.plan(self.options.faults.slow_disk_every, Event::SlowDisk);
    }

    /// A node's disk has no more space than what is in use, or little more, for a while.
    pub(super) fn fill_disk(&mut self) {
        if !self.is_hostile {
            return;
        }
        let number = self.prng.index(self.nodes.len());
        let room = self.prng.choose(&[0, 0, 64 * 1024, 512 * 1024]).copied().unwrap_or(0);
        if let Some(node) = self.nodes.get_mut(number) {
            node.disk.set_capacity_bytes(node.disk.used_bytes() + room);
        }
        self.injected.count(Fault::FullDisk);
        self.plan(Some(DISK_AILS), Event::DiskRepaired(number));
        self.plan(self.options.faults.full_disk_every, Event::FullDisk);
    }

    pub(super) fn repair_disk(&mut self, number: usize) {
        if let Some(node) = self.nodes.get_mut(number) {
            node.disk.set_slowdown(1);
            node.disk.set_capacity_bytes(self.options.disk.capacity_bytes);
        }
    }
}
