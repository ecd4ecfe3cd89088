//! The end of a run: faults stop, and all nodes are healed, or a random majority alone: the rest stays down or cut off.
//!
//! Then, within a bound of true time:
//! - every client is served again, more than once;
//! - every key is read through the protocol, until it is answered, so that a write that was lost is a read that is wrong;
//! - every healed node has *caught up*: of each shard one of them leads, all of them serve in its term, and there is a moment
//!   at which all their logs end with one entry that all know to be committed and have applied;
//! - in some runs, every page store has packed its leaves and given back the disk space that it does not need.

use std::collections::VecDeque;
use std::time::Duration;

use mesh_base::ShardId;
use mesh_server::shard::status::Condition;
use mesh_server::shard::{Inspection, Shard};

use super::client::{Client, Step, Wish};
use super::{Event, Peer, World};
use crate::checks::bounds;
use crate::disk::Crash;
use crate::driver::Failure;
use crate::net::{Direction, LinkOptions};
use crate::report::Fault;
use crate::trace::Trace;

/// Registers up to which each is also read by itself, not only in a range.
const KEYS_READ_EACH_MAX: usize = 20;
/// Operations that a client must have had served after the hostile time.
const SERVED_AGAIN: u64 = 3;

/// The runs at whose end the page stores are left alone until they have given back what they do not need.
const RESTS_PER_MILLE: u64 = 250;
/// How long that may take.
const REST_MAX: Duration = Duration::from_secs(60);

/// What a node does when the others are healed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// It is healed.
    Healed,
    /// It does not run, and is not started again.
    Down,
    /// It runs, and hears nobody but those that are cut off with it.
    CutOff,
}

impl World {
    /// Lets the cluster come to rest, and says whether it did.
    pub(super) fn come_to_rest(&mut self, trace: &mut Trace<'_>) -> Result<(), Failure> {
        self.make_peace();
        let parts: Vec<Part> = self.nodes.iter().map(|node| node.part).collect();
        trace.step(self.heap.now(), format_args!("peace: {parts:?}"));
        let served: Vec<u64> = self.clients.iter().map(Client::served).collect();
        self.until("not everyone was served in time", trace, |world| world.is_well(&served))?;
        self.wishes = Some(self.last_wishes());
        self.until("not every key was read in time", trace, Self::is_all_read)?;
        self.until("not every node caught up in time", trace, Self::is_level)?;
        if self.prng.chance_per_mille(RESTS_PER_MILLE) {
            self.alive_until = self.alive_until.max(self.heap.now() + REST_MAX);
            self.until("a page store takes space that it does not need", trace, Self::is_compact)?;
        }
        Ok(())
    }

    fn until(
        &mut self,
        complaint: &str,
        trace: &mut Trace<'_>,
        is_so: impl Fn(&Self) -> bool,
    ) -> Result<(), Failure> {
        while !is_so(self) {
            match self.heap.pop_until(self.alive_until) {
                Some(event) => self.step(event, trace)?,
                None => return Err(Failure::Liveness(self.describe(complaint))),
            }
        }
        Ok(())
    }

    /// Faults end; a majority is repaired and stays so.
    fn make_peace(&mut self) {
        self.is_hostile = false;
        self.alive_until = self.heap.now() + self.options.alive_within;
        self.net.heal();
        // A node that was lost comes back over a long chain of messages: it has not the time for one straggler after another.
        let peers = self.options.peers;
        let latency = if self.is_someone_lost() { peers.latency.without_tail() } else { peers.latency };
        let calm = LinkOptions { loss_per_mille: 0, latency, ..peers };
        let everyone = self.everyone();
        for &from in &everyone {
            for &to in &everyone {
                self.net.degrade(from, to, calm);
            }
        }
        self.draw_parts();
        for number in 0..self.nodes.len() {
            if let Some(node) = self.nodes.get_mut(number) {
                node.disk.set_device_errors(0);
            }
            self.repair_disk(number);
            match self.nodes.get(number).map(|node| node.part) {
                Some(Part::Down) => self.end(number, Crash::Process),
                _ => self.heap.schedule(Duration::ZERO, Event::Restart(number)),
            }
        }
        let (cut_off, rest): (Vec<Peer>, Vec<Peer>) =
            everyone.into_iter().partition(|peer| self.part_of(*peer) == Part::CutOff);
        self.net.partition(&cut_off, &rest, Direction::Both);
    }

    /// Draws a minority that is not healed. A birth needs everyone, and a node that lost its directory, or may still find
    /// that its bad disk did, needs all others to come back.
    fn draw_parts(&mut self) {
        let count = self.nodes.len();
        let is_someone_unborn = self.nodes.iter().any(|node| node.cluster.is_none());
        if self.is_someone_lost() || is_someone_unborn || self.victim.is_some() {
            return;
        }
        let left_out = self.options.faults.left_out_per_mille;
        let mut numbers: Vec<usize> = (0..count).collect();
        self.prng.shuffle(&mut numbers);
        for number in numbers.into_iter().take((count - 1) / 2) {
            if !self.prng.chance_per_mille(left_out) {
                continue;
            }
            self.injected.count(Fault::LeftOut);
            let part = if self.prng.chance_per_mille(500) { Part::Down } else { Part::CutOff };
            if let Some(node) = self.nodes.get_mut(number) {
                node.part = part;
            }
        }
    }

    fn is_someone_lost(&self) -> bool {
        self.nodes.iter().any(|node| node.lost.is_some())
    }

    fn part_of(&self, peer: Peer) -> Part {
        match peer {
            Peer::Node(number) => self.nodes.get(number).map_or(Part::Down, |node| node.part),
            Peer::Client(_) | Peer::Operator => Part::Healed,
        }
    }

    fn everyone(&self) -> Vec<Peer> {
        let nodes = (0..self.nodes.len()).map(Peer::Node);
        let clients = (0..self.clients.len()).map(Peer::Client);
        nodes.chain(clients).chain([Peer::Operator]).collect()
    }

    /// Whether every client was served again, more than once, and every replica votes again.
    fn is_well(&self, served: &[u64]) -> bool {
        let mut clients = self.clients.iter().zip(served);
        clients.all(|(client, before)| client.served() > before + SERVED_AGAIN)
            && self.nodes.iter().all(|node| node.lost.is_none())
    }

    /// What is still to be read when the clients have had their say: every shard's range, and few keys each by itself.
    fn last_wishes(&self) -> VecDeque<Wish> {
        let ranges = (0..self.shards).map(|shard| Wish::Range(ShardId(shard)));
        let registers = self.shared.keys.registers();
        let keys = registers.iter().filter(|_| registers.len() <= KEYS_READ_EACH_MAX);
        ranges.chain(keys.cloned().map(Wish::Get)).collect()
    }

    /// A client has time: it does what comes to its mind or, at the end, what is still wished for.
    pub(super) fn think(&mut self, number: usize) {
        let now = self.heap.now();
        let Self { clients, shared, history, wishes, .. } = self;
        let Some(client) = clients.get_mut(number) else { return };
        let leaving = shared.options.load.leaving_per_mille;
        let leaves = self.is_hostile && wishes.is_none() && self.prng.chance_per_mille(leaving);
        let step = match wishes {
            None => Some(client.begin(now, shared, history)),
            Some(wishes) => {
                wishes.extend(client.unfulfilled());
                wishes.pop_front().map(|wish| client.fulfil(wish, now, shared, history))
            }
        };
        if leaves {
            client.leave();
        }
        self.follow(number, step);
        if leaves {
            self.follow(number, Some(Step::Done));
        }
    }

    fn is_all_read(&self) -> bool {
        let is_wished = self.wishes.as_ref().is_some_and(|wishes| !wishes.is_empty());
        !is_wished && self.clients.iter().all(Client::is_idle)
    }

    /// Whether the page stores of all healed nodes have given back what they do not need.
    fn is_compact(&self) -> bool {
        let healed = self.nodes.iter().filter(|node| node.part == Part::Healed);
        let processes = healed.filter_map(|node| node.process.as_ref());
        let replicas =
            processes.flat_map(|process| (0..self.shards).filter_map(|no| process.replica(ShardId(no))));
        replicas.filter_map(Shard::inspect).all(|replica| bounds::check(replica.space()).is_ok())
    }

    /// Whether every healed node has caught up: see the module.
    fn is_level(&self) -> bool {
        (0..self.shards).all(|shard| self.is_shard_level(ShardId(shard)))
    }

    fn is_shard_level(&self, shard: ShardId) -> bool {
        let healed = || self.nodes.iter().filter(|node| node.part == Part::Healed);
        let replicas = healed().filter_map(|node| node.process.as_ref()?.replica(shard));
        let looks: Vec<Inspection<'_>> = replicas.clone().filter_map(Shard::inspect).collect();
        let Some(leader) = looks.iter().find(|look| look.leads()) else { return false };
        let end = leader.log_end();
        looks.len() == healed().count()
            && looks.iter().filter(|look| look.leads()).count() == 1
            && looks.iter().all(|look| {
                look.term() == leader.term()
                    && (look.log_end(), look.commit(), look.applied().index) == (end, end, end)
            })
            && replicas.map(Shard::status).all(|status| status.condition == Condition::Serving)
    }
}
