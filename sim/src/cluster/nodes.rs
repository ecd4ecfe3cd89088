//! The nodes of a cluster: their processes, and what the world does with what a core asks for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mesh_base::CoreId;
use mesh_server::core::{CoreEffect, CoreEvent, DirectoryKey, LinkClass as ServerClass, NodeName, Notice};
use mesh_server::node::NodeConfig;

use super::ambush::Moment;
use super::client::address_of;
use super::peace::Part;
use super::process::{Process, Wake};
use super::{CORES_MAX, Event, Peer, World};
use crate::disk::{Crash, DiskOpNo};
use crate::latency::Latency;
use crate::net::LinkClass;

/// How long a core's events wait for its turn.
const TURN: Latency = Latency::between(Duration::ZERO, Duration::from_micros(30));
/// How long a node may take to stop in order, whatever goes wrong meanwhile.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// What a replica says whose log forgot what it had acknowledged: found out by another, which no fault excuses.
const LOST_ENTRIES: &str = "acknowledged entries were lost";

impl World {
    pub(super) fn restart(&mut self, number: usize) {
        let peers = self.peers_of(number);
        let now = self.heap.now();
        let shards = self.shards;
        let options = Arc::clone(&self.shard_options);
        let Some(node) = self.nodes.get_mut(number) else { return };
        if node.process.is_some() || node.part == Part::Down {
            return;
        }
        node.incarnations += 1;
        self.checks.starts(number);
        let cores = 1 + node.prng.index(CORES_MAX);
        let config = Arc::new(NodeConfig {
            name: node.name.clone(),
            listen: address_of(number),
            advertise: address_of(number),
            peers,
            data: PathBuf::from(format!("/{}", node.name)),
            cpus: (0..cores).collect(),
            shards: Some(shards),
            memory_bytes: 1 << 30,
            snapshot_bytes_per_second: self.options.snapshot_bytes_per_second,
        });
        let mut process = Process::new(&config, &options, node.incarnations, &mut node.prng);
        let effects = process.start(node.clock.read(now));
        let incarnation = process.incarnation;
        node.process = Some(process);
        for (core, effects) in effects {
            self.perform(number, core, effects);
        }
        self.schedule_tick(number, incarnation);
        let relapses = self.is_hostile && self.options.faults.crash_every.is_some();
        if relapses && incarnation > 1 && self.prng.chance_per_mille(self.options.faults.relapse_per_mille) {
            let kind = self.draw_crash();
            self.lie_in_wait(number, kind);
        }
    }

    fn peers_of(&self, number: usize) -> Vec<(NodeName, String)> {
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != number);
        others.map(|(other, node)| (node.name.clone(), address_of(other))).collect()
    }

    /// Hands an event to a core, and gives it a turn if it has none coming.
    pub(super) fn push(&mut self, number: usize, core: usize, event: CoreEvent) {
        let Some(process) = self.nodes.get_mut(number).and_then(|node| node.process.as_mut()) else { return };
        let core = core % process.core_count();
        process.push(core, event);
        self.wake(number, core);
    }

    /// Gives a core a turn, if it has none coming.
    fn wake(&mut self, number: usize, core: usize) {
        let Some(process) = self.nodes.get_mut(number).and_then(|node| node.process.as_mut()) else { return };
        let incarnation = process.incarnation;
        if process.wake(core) == Wake::Needed {
            let wait = TURN.draw(&mut self.prng);
            self.heap.schedule(wait, Event::Turn { node: number, core, incarnation });
        }
    }

    pub(super) fn turn(&mut self, number: usize, core: usize, incarnation: u64) {
        if let Some(until) = self.paused_until(number) {
            self.heap.schedule_at(until, Event::Turn { node: number, core, incarnation });
            return;
        }
        let now = self.now_of(number);
        let process = self.nodes.get_mut(number).and_then(|node| node.process.as_mut());
        if let Some(process) = process.filter(|process| process.incarnation == incarnation) {
            let mut effects = std::mem::take(&mut self.effects);
            process.turn(core, now, &mut effects);
            self.perform(number, core, effects.drain(..));
            self.effects = effects;
            self.look_into(number, core);
        }
    }

    pub(super) fn tick(&mut self, number: usize, incarnation: u64) {
        if let Some(until) = self.paused_until(number) {
            self.heap.schedule_at(until, Event::Tick { node: number, incarnation });
            return;
        }
        let Some(node) = self.nodes.get_mut(number) else { return };
        let process = node.process.as_ref().filter(|process| process.incarnation == incarnation);
        let Some(process) = process else { return };
        let terms = process.terms();
        let known = std::mem::replace(&mut node.terms, terms);
        for core in 0..process.core_count() {
            self.push(number, core, CoreEvent::Tick);
        }
        if (1..terms).contains(&known) {
            self.pass_ambush(number, Some(Moment::Election), mesh_base::limits::TICK);
        }
        self.schedule_tick(number, incarnation);
    }

    /// The next tick comes when the node's own clock says so.
    fn schedule_tick(&mut self, number: usize, incarnation: u64) {
        let now = self.now_of(number);
        if let Some(node) = self.nodes.get(number) {
            let at = node.clock.true_time_of(now.monotonic + mesh_base::limits::TICK);
            self.heap.schedule_at(at.max(self.heap.now()), Event::Tick { node: number, incarnation });
        }
    }

    pub(super) fn complete(&mut self, number: usize, op: DiskOpNo) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        let Some((directory, completion)) = node.disk.complete(op) else { return };
        let core = match directory {
            DirectoryKey::Node => 0,
            DirectoryKey::Replica { shard, .. } => usize::from(shard.0),
        };
        self.push(number, core, CoreEvent::Io { directory, completion });
    }

    fn perform(&mut self, number: usize, core: usize, effects: impl IntoIterator<Item = CoreEffect>) {
        for effect in effects {
            // One of the effects before may have been its end: what is handed to a disk after that would reach its next run.
            if self.nodes.get(number).is_none_or(|node| node.process.is_none()) {
                return;
            }
            match effect {
                CoreEffect::Io { directory, submission } => {
                    let Some(node) = self.nodes.get_mut(number) else { continue };
                    let moment = Moment::of(&submission.op);
                    let scheduled = node.disk.submit(directory, submission);
                    self.heap.schedule(scheduled.delay, Event::Disk(number, scheduled.op));
                    self.pass_ambush(number, moment, scheduled.delay);
                }
                CoreEffect::Reply { conn, frame } => {
                    let to = match usize::try_from(conn.0) {
                        Ok(client) if client < self.clients.len() => Peer::Client(client),
                        _ => Peer::Operator,
                    };
                    self.send(Peer::Node(number), to, LinkClass::CLIENT, frame);
                }
                CoreEffect::Peer { to, class, frame, .. } => {
                    let class = match class {
                        ServerClass::Control => LinkClass::CONTROL,
                        ServerClass::Bulk => LinkClass::BULK,
                    };
                    if let Some(node) = self.nodes.get_mut(number) {
                        let known = node.process.as_ref().and_then(Process::cluster);
                        node.cluster = known.or(node.cluster);
                    }
                    if let Some(to) = self.nodes.iter().position(|node| node.name == to) {
                        self.send(Peer::Node(number), Peer::Node(to), class, frame);
                    }
                }
                CoreEffect::Mesh { to, message } => {
                    let from = CoreId(u16::try_from(core).unwrap_or(0));
                    self.push(number, usize::from(to.0), CoreEvent::Mesh { from, message });
                }
                CoreEffect::RemoveDirectory { directory } => {
                    if let Some(node) = self.nodes.get_mut(number) {
                        node.disk.wipe_directory(directory);
                    }
                }
                CoreEffect::Notice(notice) => self.notice(number, notice),
                CoreEffect::Again => self.wake(number, core),
                CoreEffect::Stopped => self.stopped(number, core),
                CoreEffect::Dial { .. } => {}
            }
        }
    }

    fn notice(&mut self, number: usize, notice: Notice) {
        if let Some(kept) = self.nodes.get_mut(number).and_then(|node| node.notices.as_mut()) {
            kept.push(notice);
            return;
        }
        match notice {
            Notice::Damaged { reason, .. } | Notice::Fatal { reason }
                if self.victim == Some(number) && !reason.contains(LOST_ENTRIES) =>
            {
                self.found_damage(number);
            }
            Notice::Damaged { shard, reason } => {
                if self.options.disk.device_errors_per_million == 0 {
                    self.complaint = Some(format!("node {number}, shard {shard}: {reason}"));
                } else {
                    // An operator restarts a node whose disk failed.
                    self.end(number, Crash::Process);
                }
            }
            Notice::Fatal { reason } => {
                if self.options.disk.device_errors_per_million == 0 {
                    self.complaint = Some(format!("node {number}: {reason}"));
                } else {
                    self.end(number, Crash::Process);
                }
            }
            Notice::ClusterReady { .. } | Notice::Waiting { .. } => {}
        }
    }

    /// Asks a node to stop in order.
    pub(super) fn stop(&mut self, number: usize) {
        let process = self.nodes.get(number).and_then(|node| node.process.as_ref());
        let Some(incarnation) = process.map(|process| process.incarnation) else { return };
        self.push(number, 0, CoreEvent::Stop);
        self.heap.schedule(STOP_PATIENCE, Event::StopOverdue { node: number, incarnation });
    }

    /// A core has stopped. The process ends with the last of them.
    fn stopped(&mut self, number: usize, core: usize) {
        let process = self.nodes.get_mut(number).and_then(|node| node.process.as_mut());
        if process.is_some_and(|process| process.stopped(core)) {
            self.end(number, Crash::Process);
        }
    }

    pub(super) fn stop_overdue(&mut self, number: usize, incarnation: u64) {
        let process = self.nodes.get(number).and_then(|node| node.process.as_ref());
        if process.is_some_and(|process| process.incarnation == incarnation) {
            self.complaint = Some(format!("node {number} did not stop within {STOP_PATIENCE:?}"));
        }
    }

    pub(super) fn end(&mut self, number: usize, kind: Crash) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        node.disk.crash(kind);
        node.process = None;
        node.ambush = None;
        self.look_at_remains(number);
        if let Some(down_for) = self.options.faults.down_for {
            let down = down_for.draw(&mut self.prng);
            self.heap.schedule(down, Event::Restart(number));
        }
    }
}
