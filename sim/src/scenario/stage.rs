//! The cluster of a scenario: time, and what concerns all of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use mesh_base::{CheckpointNo, Instant, ShardId};
use mesh_server::core::Notice;
use mesh_server::shard::status::{Condition, Role};
use mesh_server::shard::{ShardOptions, ShardStatus};

use super::damage;
use super::messages::{Message, reaches};
use super::node::{Clock, Node, NodeNo};
use super::operations::Operation;
use super::when::{When, when};
use super::{Power, ms, secs};
use crate::cluster::{Errand, Progress, Scripted};
use crate::history::{Action, OpId, Outcome, Stamp};
use crate::latency::Latency;
use crate::net::{Direction, LinkOptions};
use crate::options::Options;
use crate::trace::Trace;

/// How long is waited for something that is to come.
const PATIENCE: Duration = secs(30);
/// How long everyone has to be served again, when a story is over.
const PEACE: Duration = secs(60);

/// The cluster of a scenario.
pub struct Stage<'a> {
    pub(super) script: Scripted,
    trace: Trace<'a>,
    /// What was written, by the stamps in front of it.
    texts: BTreeMap<Stamp, String>,
}

/// The operator's request to replace a node.
#[derive(Clone, Debug)]
pub struct Replacement {
    node: NodeNo,
    request: Bytes,
}

impl<'a> Stage<'a> {
    pub(super) fn new(options: &Options, sizes: impl FnOnce(&mut ShardOptions), trace: Trace<'a>) -> Self {
        Self { script: Scripted::new(options, sizes), trace, texts: BTreeMap::new() }
    }

    /// All nodes, in the order of their names; the first is to lead the first shard when all are well.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    #[track_caller]
    pub fn nodes<const N: usize>(&self) -> [NodeNo; N] {
        assert_eq!(N, self.script.node_count(), "the nodes of the cluster");
        std::array::from_fn(NodeNo)
    }

    // --- time

    /// True time.
    #[must_use]
    pub const fn now(&self) -> Instant {
        self.script.now()
    }

    /// Lets time pass.
    #[track_caller]
    pub fn run_for(&mut self, time: Duration) {
        let limit = self.now() + time;
        while self.step(limit) == Progress::Made {}
    }

    /// Lets time pass until it is so.
    ///
    /// # Panics
    /// When it is not for a long time.
    #[track_caller]
    pub fn until(&mut self, it_is_so: When) {
        self.within(PATIENCE, it_is_so);
    }

    /// Lets time pass until it is so, which must be within a time.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "a story names what it waits for, in place")]
    pub fn within(&mut self, time: Duration, it_is_so: When) {
        let limit = self.now() + time;
        while !it_is_so.holds(self) {
            if self.step(limit) == Progress::TimeIsUp {
                self.fail(&format!("within {time:?}: {it_is_so}"));
            }
        }
    }

    /// Lets time pass, in which it must never be so.
    ///
    /// # Panics
    /// When it is.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "a story names what it waits for, in place")]
    pub fn never_for(&mut self, time: Duration, it_is_so: When) {
        let limit = self.now() + time;
        loop {
            if it_is_so.holds(self) {
                self.fail(&format!("never for {time:?}: {it_is_so}"));
            }
            if self.step(limit) == Progress::TimeIsUp {
                return;
            }
        }
    }

    /// Whether it is so now.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "a story names what it waits for, in place")]
    pub fn holds(&self, it_is_so: When) -> bool {
        it_is_so.holds(self)
    }

    #[track_caller]
    fn step(&mut self, limit: Instant) -> Progress {
        match self.script.step(limit, &mut self.trace) {
            Ok(progress) => progress,
            Err(failure) => self.fail(&failure.to_string()),
        }
    }

    #[track_caller]
    #[allow(clippy::panic, reason = "a story that goes wrong fails its test")]
    pub(super) fn fail(&self, what: &str) -> ! {
        panic!("at {:?}: {what}\n{}", self.now(), self.script.describe());
    }

    /// One node after the other loses its power under way and comes back.
    pub fn lose_power_in_turn<const N: usize>(&mut self) {
        for node in self.nodes::<N>() {
            self.run_for(ms(300));
            self.node(node).crash(Power);
            self.run_for(ms(600));
            self.node(node).start();
        }
    }

    // --- what clients do

    /// Begins to write, and does not wait.
    pub fn put(&mut self, key: &str, text: &str) -> Operation {
        self.put_errand(&[(key, text)], None)
    }

    /// Begins to write, at a node of choice first.
    pub fn put_at(&mut self, node: NodeNo, key: &str, text: &str) -> Operation {
        self.put_errand(&[(key, text)], Some(node))
    }

    /// Begins to write several keys of one shard at once, at a node of choice first.
    pub fn put_all_at(&mut self, node: NodeNo, texts: &[(&str, &str)]) -> Operation {
        self.put_errand(texts, Some(node))
    }

    /// Begins to read.
    pub fn get(&mut self, key: &str) -> Operation {
        self.errand(Errand::Get(vec![bytes(key)]), None)
    }

    /// Begins to read, at a node of choice first.
    pub fn get_at(&mut self, node: NodeNo, key: &str) -> Operation {
        self.errand(Errand::Get(vec![bytes(key)]), Some(node))
    }

    /// Begins to write a key that must not exist, at a node of choice first.
    pub fn create_at(&mut self, node: NodeNo, key: &str, text: &str) -> Operation {
        let operation = self.errand(Errand::Create(bytes(key), bytes(text)), Some(node));
        if let Action::Put(stamp) = self.script.history().get(operation.0).action {
            self.texts.insert(stamp, text.to_owned());
        }
        operation
    }

    /// Begins to remove.
    pub fn delete(&mut self, key: &str) -> Operation {
        self.errand(Errand::Delete(bytes(key)), None)
    }

    /// Writes, and waits until it is acknowledged.
    #[track_caller]
    pub fn write(&mut self, key: &str, text: &str) {
        let put = self.put(key, text);
        self.until(put.acknowledged());
    }

    /// Reads, and waits for what is found.
    #[track_caller]
    pub fn read(&mut self, key: &str) -> Option<String> {
        let get = self.get(key);
        self.until(get.acknowledged());
        self.found(get)
    }

    /// Writes several keys of one shard at once, and waits until it is acknowledged.
    #[track_caller]
    pub fn write_all(&mut self, texts: &[(&str, &str)]) {
        let put = self.put_errand(texts, None);
        self.until(put.acknowledged());
    }

    /// Reads several keys of one shard at once, and waits for what is found.
    #[track_caller]
    pub fn read_all<const N: usize>(&mut self, keys: [&str; N]) -> [Option<String>; N] {
        let gets = self.script.send_errand(Errand::Get(keys.map(bytes).to_vec()), None);
        self.until(self.last_of(&gets).acknowledged());
        let mut found = gets.into_iter().map(|get| self.found(Operation(get)));
        std::array::from_fn(|_| found.next().flatten())
    }

    /// What a read has found.
    #[must_use]
    pub fn found(&self, get: Operation) -> Option<String> {
        match self.script.history().get(get.0).outcome() {
            Outcome::Found(stamp, _) => self.texts.get(&stamp).cloned(),
            _ => None,
        }
    }

    /// What a node last said against an operation, as long as its client has not begun another.
    #[must_use]
    pub fn refusal(&self, operation: Operation) -> Option<String> {
        self.script.refusal(operation.0).map(ToString::to_string)
    }

    /// Reads of the load that were given up because their revision was compacted.
    #[must_use]
    pub fn compacted(&self) -> u64 {
        self.script.compacted()
    }

    /// Operations of the load that ended well so far.
    #[must_use]
    pub fn served(&self) -> u64 {
        self.script.served().iter().sum()
    }

    /// The longest time since `from` in which no client got a good answer.
    #[must_use]
    pub fn longest_silence_since(&self, from: Instant) -> Duration {
        let answers = self.script.history().operations().iter().filter_map(|operation| operation.response);
        let good = answers.filter(|it| !matches!(it.outcome, Outcome::Unknown | Outcome::NotApplied));
        let mut times: Vec<Instant> = good.map(|it| it.at).filter(|at| *at > from).collect();
        times.push(self.now());
        times.sort_unstable();
        let silences = times.iter().scan(from, |before, &at| Some(at.since(std::mem::replace(before, at))));
        silences.max().unwrap_or_default()
    }

    fn put_errand(&mut self, texts: &[(&str, &str)], at: Option<NodeNo>) -> Operation {
        let errand = Errand::Put(texts.iter().map(|(key, text)| (bytes(key), bytes(text))).collect());
        let puts = self.script.send_errand(errand, at.map(|node| node.0));
        for (put, (_, text)) in puts.iter().zip(texts) {
            if let Action::Put(stamp) = self.script.history().get(*put).action {
                self.texts.insert(stamp, (*text).to_owned());
            }
        }
        self.last_of(&puts)
    }

    fn errand(&mut self, errand: Errand, at: Option<NodeNo>) -> Operation {
        let operations = self.script.send_errand(errand, at.map(|node| node.0));
        self.last_of(&operations)
    }

    /// The operations of a request end together; of two puts of one key only the last counts.
    fn last_of(&self, operations: &[OpId]) -> Operation {
        operations.last().map_or_else(|| self.fail("nothing was asked for"), |last| Operation(*last))
    }

    // --- what can be seen

    /// The report of a node's replica of the first shard, if the node runs and has one.
    #[must_use]
    pub fn status(&self, node: NodeNo) -> Option<ShardStatus> {
        self.status_of(node, ShardId(0))
    }

    /// The report of a node's replica of a shard, if the node runs and has one.
    #[must_use]
    pub fn status_of(&self, node: NodeNo, shard: ShardId) -> Option<ShardStatus> {
        self.script.statuses(node.0).into_iter().find(|status| status.shard == shard)
    }

    /// The newest checkpoint of a node's replica of the first shard of which a superblock can be read on its disk, whether
    /// it is durable or not.
    #[must_use]
    pub fn written_checkpoint(&self, node: NodeNo) -> Option<CheckpointNo> {
        damage::written_checkpoint(&self.script, node.0)
    }

    /// What a node told its operator.
    #[must_use]
    pub fn told_by(&self, node: NodeNo) -> &[Notice] {
        self.script.notices(node.0)
    }

    /// Who leads the first shard.
    #[must_use]
    pub fn leader(&self) -> Option<NodeNo> {
        self.leader_of(ShardId(0))
    }

    /// Who leads a shard: of those that think so, the one of the newest term.
    #[must_use]
    pub fn leader_of(&self, shard: ShardId) -> Option<NodeNo> {
        let nodes = (0..self.script.node_count()).map(NodeNo);
        let led = nodes.filter_map(|node| Some((node, self.status_of(node, shard)?)));
        let leaders = led.filter(|(_, status)| status.role == Role::Leader);
        leaders.max_by_key(|(_, status)| status.term).map(|(node, _)| node)
    }

    // --- what can be done

    /// A node, to do something to.
    pub const fn node(&mut self, node: NodeNo) -> Node<'_, 'a> {
        Node { stage: self, node }
    }

    /// The clocks of a node.
    pub const fn clock(&mut self, node: NodeNo) -> Clock<'_, 'a> {
        Clock { stage: self, node }
    }

    /// The nodes of either side no longer hear those of the other.
    pub fn partition(&mut self, first: &[NodeNo], second: &[NodeNo]) {
        self.script.partition(&numbers(first), &numbers(second), Direction::Both);
    }

    /// The second nodes no longer hear the first.
    pub fn silence(&mut self, first: &[NodeNo], second: &[NodeNo]) {
        self.script.partition(&numbers(first), &numbers(second), Direction::OneWay);
    }

    /// The next part of a snapshot that reaches a node is not as its sender read it.
    pub fn spoil_next_chunk(&mut self, node: NodeNo) {
        self.until(reaches(Message::Chunk, node));
        self.script.spoil_next_chunk();
    }

    /// A node and the others no longer hear each other.
    pub fn isolate(&mut self, node: NodeNo) {
        let others: Vec<usize> = (0..self.script.node_count()).filter(|&other| other != node.0).collect();
        self.script.partition(&[node.0], &others, Direction::Both);
    }

    /// What a node answers does not reach its clients.
    pub fn lose_answers_of(&mut self, node: NodeNo) {
        self.script.part_from_clients(node.0, Direction::OneWay);
    }

    /// Clients and a node no longer hear each other.
    pub fn hide(&mut self, node: NodeNo) {
        self.script.part_from_clients(node.0, Direction::Both);
    }

    /// Everyone hears everyone again.
    pub fn heal(&mut self) {
        self.script.heal();
    }

    /// Whatever two nodes say to each other takes that long from now on.
    pub fn slow_link(&mut self, a: NodeNo, b: NodeNo, latency: Duration) {
        let latency = Latency::between(latency, latency + ms(1));
        self.script.degrade(a.0, b.0, LinkOptions { latency, ..LinkOptions::HEALTHY });
    }

    /// All links are fast again.
    pub fn restore_links(&mut self) {
        self.script.restore_links();
    }

    /// A node's directory is lost: its machine is new, and down.
    pub fn wipe(&mut self, node: NodeNo) {
        self.script.wipe(node.0);
    }

    /// The operator lets a node that lost its directory in again, under a new id.
    pub fn replace(&mut self, node: NodeNo) -> Replacement {
        Replacement { node, request: self.script.replace(node.0) }
    }

    /// A copy of the operator's request arrives, however late.
    pub fn repeat(&mut self, replacement: &Replacement) {
        self.script.request_of_operator(replacement.node.0, &replacement.request);
    }

    // --- the end

    /// Repairs everything, sees everyone served again, and checks what clients saw.
    #[track_caller]
    pub(super) fn end_well(mut self) -> Trace<'a> {
        self.script.make_peace();
        self.within(PEACE, no_node_is_being_replaced());
        let shards: Vec<ShardId> = (0..self.script.shard_count()).map(ShardId).collect();
        for shard in shards {
            let key = self.key_of(shard);
            let put = self.put(&key, "the end");
            self.within(PEACE, put.over());
            self.write(&key, "really");
            assert_eq!(self.read(&key).as_deref(), Some("really"));
        }
        let served = self.script.served();
        let again =
            move |it: &Stage<'_>| it.script.served().iter().zip(&served).all(|(now, then)| *now > then + 3);
        self.within(PEACE, when("everyone of the load is served again", again));
        if let Err(failure) = self.script.check() {
            self.fail(&failure.to_string());
        }
        self.trace
    }

    /// A key of a shard.
    fn key_of(&self, shard: ShardId) -> String {
        let mut keys = (0..).map(|number: u32| format!("end-{number}"));
        keys.find(|key| self.script.shard_of(key.as_bytes()) == shard).unwrap_or_default()
    }
}

impl fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stage").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// Whether every replica of every node serves, and every shard is led.
pub(super) fn everyone_serves() -> When {
    when("everyone serves", |it| {
        let shards = usize::from(it.script.shard_count());
        let serves = |node| {
            let statuses = it.script.statuses(node);
            statuses.len() == shards && statuses.iter().all(|status| status.condition == Condition::Serving)
        };
        let led = (0..it.script.shard_count()).all(|shard| it.leader_of(ShardId(shard)).is_some());
        led && (0..it.script.node_count()).all(serves)
    })
}

fn no_node_is_being_replaced() -> When {
    when("every node that is replaced is back", |it| {
        (0..it.script.node_count()).all(|node| !it.script.is_being_replaced(node))
    })
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn numbers(nodes: &[NodeNo]) -> Vec<usize> {
    nodes.iter().map(|node| node.0).collect()
}
