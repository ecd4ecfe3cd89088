//! Faults of the surroundings that no state is lost by: processes that stand still, restarts one after the other, links
//! that flap or are slow. While a run is hostile; afterwards each of them ends by itself or with the peace.

use std::time::Duration;

use mesh_base::Instant;

use super::{Event, Peer, World};
use crate::latency::{Latency, draw_between};
use crate::net::{Direction, LinkOptions};
use crate::report::Fault;

const MS: Duration = Duration::from_millis(1);
/// How long a link that flaps stays as it is.
const FLAP: Latency = Latency::between(MS, Duration::from_millis(250));
/// How often a link that flaps changes, at most.
const FLAPS_MAX: u64 = 40;
/// Mean time that a link is slow.
const LINK_AILS: Duration = Duration::from_secs(1);
/// How often it is looked whether a node that was restarted is back.
const ROLL_LOOK: Duration = Duration::from_millis(100);

/// One step of a disturbance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Disturbance {
    /// A process stands still for a while: it is swapped out, its machine is being moved, a debugger has it.
    Pause,
    /// The nodes are restarted in order, from this one on, each when the one before is back.
    Roll { node: usize },
    /// This one was restarted.
    Rolling { node: usize },
    /// A link between two nodes begins to come and go.
    Flap,
    /// It changes, and will so many times more.
    Flapping { link: (usize, usize), left: u64 },
    /// One way between two nodes becomes slow.
    SlowLink,
    /// It is as fast as ever.
    LinkRestored { link: (usize, usize) },
}

impl World {
    /// Plans the first disturbances of a run.
    pub(super) fn plan_disturbances(&mut self) {
        let faults = self.options.faults.clone();
        self.plan(faults.pause_every, Event::Disturbance(Disturbance::Pause));
        self.plan(faults.roll_every, Event::Disturbance(Disturbance::Roll { node: 0 }));
        if self.nodes.len() > 1 {
            self.plan(faults.flap_every, Event::Disturbance(Disturbance::Flap));
            self.plan(faults.slow_link_every, Event::Disturbance(Disturbance::SlowLink));
        }
    }

    pub(super) fn disturb(&mut self, disturbance: Disturbance) {
        if !self.is_hostile {
            return;
        }
        match disturbance {
            Disturbance::Pause => self.pause(),
            Disturbance::Roll { node } => self.roll(node),
            Disturbance::Rolling { node } => self.roll_on(node),
            Disturbance::Flap => {
                let left = self.prng.range(1..FLAPS_MAX);
                let link = self.draw_link();
                self.injected.count(Fault::FlappingLink);
                self.flap(link, left);
                self.plan(self.options.faults.flap_every, Event::Disturbance(Disturbance::Flap));
            }
            Disturbance::Flapping { link, left } => self.flap(link, left),
            Disturbance::SlowLink => self.slow_link(),
            Disturbance::LinkRestored { link: (from, to) } => {
                self.net.restore_between(Peer::Node(from), Peer::Node(to));
            }
        }
    }

    /// Until when a node's process stands still.
    pub(super) fn paused_until(&self, number: usize) -> Option<Instant> {
        let until = self.nodes.get(number)?.paused_until;
        (self.is_hostile && until > self.heap.now()).then_some(until)
    }

    fn pause(&mut self) {
        let number = self.prng.index(self.nodes.len());
        let lasting = self.options.faults.pause_for.map_or(Duration::ZERO, |it| it.draw(&mut self.prng));
        let until = self.heap.now() + lasting;
        if let Some(node) = self.nodes.get_mut(number) {
            node.paused_until = until;
        }
        self.injected.count(Fault::Pause);
        self.plan(self.options.faults.pause_every, Event::Disturbance(Disturbance::Pause));
    }

    fn roll(&mut self, node: usize) {
        if node < self.nodes.len() {
            self.injected.count(Fault::RollingRestart);
            self.stop(node);
            self.heap.schedule(ROLL_LOOK, Event::Disturbance(Disturbance::Rolling { node }));
        } else {
            self.plan(self.options.faults.roll_every, Event::Disturbance(Disturbance::Roll { node: 0 }));
        }
    }

    fn roll_on(&mut self, node: usize) {
        let next = if self.is_back(node) {
            Disturbance::Roll { node: node + 1 }
        } else {
            Disturbance::Rolling { node }
        };
        self.heap.schedule(ROLL_LOOK, Event::Disturbance(next));
    }

    fn flap(&mut self, link: (usize, usize), left: u64) {
        let (a, b) = (Peer::Node(link.0), Peer::Node(link.1));
        if left == 0 || self.net.is_blocked(a, b) {
            self.net.heal_between(a, b);
        } else {
            self.net.partition(&[a], &[b], Direction::Both);
        }
        if left > 0 {
            let wait = FLAP.draw(&mut self.prng);
            let next = Disturbance::Flapping { link, left: left - 1 };
            self.heap.schedule(wait, Event::Disturbance(next));
        }
    }

    fn slow_link(&mut self) {
        let link = self.draw_link();
        let latency = Latency::between(MS * 5, MS * self.prng.choose(&[10, 50, 200]).copied().unwrap_or(10));
        let bytes_per_second = self.prng.choose(&[100_000, 1_000_000]).copied().unwrap_or(1_000_000);
        let slow = LinkOptions { latency, bytes_per_second, ..self.options.peers };
        self.net.degrade(Peer::Node(link.0), Peer::Node(link.1), slow);
        self.injected.count(Fault::SlowLink);
        let lasting = draw_between(&mut self.prng, Duration::ZERO, LINK_AILS * 2);
        self.heap.schedule(lasting, Event::Disturbance(Disturbance::LinkRestored { link }));
        self.plan(self.options.faults.slow_link_every, Event::Disturbance(Disturbance::SlowLink));
    }

    /// A way from one node to another; there are two at least.
    fn draw_link(&mut self) -> (usize, usize) {
        let nodes = self.nodes.len();
        let from = self.prng.index(nodes);
        (from, (from + 1 + self.prng.index(nodes - 1)) % nodes)
    }
}
