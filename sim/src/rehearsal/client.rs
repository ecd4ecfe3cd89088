//! A client: one operation at a time, in two rounds over a majority of the nodes.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_base::prng::Prng;
use mesh_base::{Instant, Revision};

use super::message::Message;
use super::{Flaw, Record, Version};
use crate::history::{Action, ClientNo, History, OpId, Outcome, Stamp};

/// What a step of a client asks for.
#[derive(Default, Debug)]
pub(super) struct Effects {
    /// Goes to every node.
    pub(super) to_all: Option<Message>,
    /// An operation began, and must not wait for ever.
    pub(super) begun: Option<u64>,
    /// An operation is over.
    pub(super) is_over: bool,
}

#[derive(Debug)]
pub(super) struct Client {
    id: usize,
    nodes: usize,
    keys: usize,
    flaw: Flaw,
    prng: Prng,
    operation: Option<Operation>,
    /// Numbers operations and rounds alike.
    last_round: u64,
    last_counter: u64,
    served: u64,
}

#[derive(Debug)]
struct Operation {
    number: u64,
    round: u64,
    id: OpId,
    key: u64,
    action: Action,
    /// What is being stored, in the second round.
    stored: Option<Record>,
    answers: BTreeMap<usize, Record>,
}

impl Client {
    pub(super) fn new(id: usize, nodes: usize, keys: usize, flaw: Flaw, prng: Prng) -> Self {
        Self { id, nodes, keys, flaw, prng, operation: None, last_round: 0, last_counter: 0, served: 0 }
    }

    /// Operations that were answered.
    pub(super) const fn served(&self) -> u64 {
        self.served
    }

    pub(super) fn begin(&mut self, now: Instant, history: &mut History) -> Effects {
        assert!(self.operation.is_none(), "one operation at a time");
        let number = self.next_round();
        let key = self.prng.index(self.keys) as u64;
        let action = match self.prng.range(0..10) {
            0 => Action::Delete,
            1..=4 => Action::Put(Stamp(number << 8 | self.id as u64)),
            _ => Action::Get,
        };
        let name = Bytes::from(format!("key{key}"));
        let id = history.invoke(now, ClientNo(self.id as u64), name, action);
        let answers = BTreeMap::new();
        let mut operation = Operation { number, round: number, id, key, action, stored: None, answers };
        let message = if self.flaw == Flaw::GuessesVersion && action != Action::Get {
            self.begin_store(&mut operation, Record::default())
        } else {
            Message::Query { round: number, key }
        };
        self.operation = Some(operation);
        Effects { to_all: Some(message), begun: Some(number), is_over: false }
    }

    pub(super) fn lose_patience(&mut self, number: u64, now: Instant, history: &mut History) -> Effects {
        let Some(mut operation) = self.operation.take_if(|operation| operation.number == number) else {
            return Effects::default();
        };
        if self.flaw == Flaw::RetriesAsNew && operation.action != Action::Get {
            operation.number = self.next_round();
            operation.round = operation.number;
            operation.stored = None;
            operation.answers.clear();
            let query = Message::Query { round: operation.round, key: operation.key };
            let begun = Some(operation.number);
            self.operation = Some(operation);
            return Effects { to_all: Some(query), begun, is_over: false };
        }
        history.respond(now, operation.id, Outcome::Unknown);
        Effects { is_over: true, ..Effects::default() }
    }

    pub(super) fn receive(
        &mut self,
        node: usize,
        message: &Message,
        now: Instant,
        history: &mut History,
    ) -> Effects {
        let (round, record) = match *message {
            Message::Newest { round, record } => (round, record),
            Message::Stored { round } => (round, Record::default()),
            Message::Query { .. } | Message::Store { .. } => unreachable!("a question to a client"),
        };
        let Some(mut operation) = self.operation.take() else { return Effects::default() };
        if operation.round == round {
            operation.answers.insert(node, record);
        }
        if operation.round != round || operation.answers.len() <= self.nodes / 2 {
            self.operation = Some(operation);
            return Effects::default();
        }
        let newest = operation.answers.values().max().copied().unwrap_or_default();
        let skips_second_round = self.flaw == Flaw::NoWriteBack && operation.action == Action::Get;
        match operation.stored {
            None if !skips_second_round => {
                let message = self.begin_store(&mut operation, newest);
                self.operation = Some(operation);
                Effects { to_all: Some(message), ..Effects::default() }
            }
            stored => {
                history.respond(now, operation.id, outcome(operation.action, stored.unwrap_or(newest)));
                self.served += 1;
                Effects { is_over: true, ..Effects::default() }
            }
        }
    }

    fn begin_store(&mut self, operation: &mut Operation, newest: Record) -> Message {
        let record = match operation.action {
            Action::Get => newest,
            // Never a version again that an operation given up may have stored somewhere.
            Action::Put(_) | Action::Delete => {
                self.last_counter = self.last_counter.max(newest.version.counter) + 1;
                let version = Version { counter: self.last_counter, writer: self.id as u64 };
                let stamp = if let Action::Put(stamp) = operation.action { stamp.0 } else { 0 };
                Record { version, stamp }
            }
        };
        operation.round = self.next_round();
        operation.stored = Some(record);
        operation.answers.clear();
        Message::Store { round: operation.round, key: operation.key, record }
    }

    const fn next_round(&mut self) -> u64 {
        self.last_round += 1;
        self.last_round
    }
}

fn outcome(action: Action, record: Record) -> Outcome {
    let revision = Revision(record.version.counter << 8 | record.version.writer);
    match action {
        Action::Put(_) | Action::Delete => Outcome::Written(revision),
        Action::Get if record.stamp == 0 => Outcome::Absent,
        Action::Get => Outcome::Found(Stamp(record.stamp), revision),
    }
}
