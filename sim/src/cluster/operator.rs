//! The operator: who replaces a node that lost its directory.

use std::time::Duration;

use mesh_base::ShardId;
use mesh_server::shard::status::Condition;

use super::client;
use super::process::Process;
use super::{Event, Peer, World, name_of};
use crate::net::LinkClass;

/// How long an operator takes to see that something is to be done, and to try it again.
pub(super) const OPERATOR: Duration = Duration::from_millis(400);

impl World {
    /// The operator replaces a node that lost its directory, until it is back.
    pub(super) fn operate(&mut self) {
        self.heap.schedule(OPERATOR, Event::Operator);
        let lost = self.nodes.iter().enumerate().find_map(|(number, node)| Some((number, node.lost?)));
        let Some((lost, replica)) = lost else { return };
        if self.is_back(lost) {
            if let Some(node) = self.nodes.get_mut(lost) {
                node.lost = None;
            }
            return;
        }
        let runs = self.nodes.get(lost).is_some_and(|node| node.process.is_some());
        if runs && !self.was_replaced(lost) {
            let name = name_of(lost);
            let frame = client::replace_request(&mut self.operator, &name, replica, self.heap.now().0);
            let to = self.prng.index(self.nodes.len());
            self.send(Peer::Operator, Peer::Node(to), LinkClass::CLIENT, frame);
        }
    }

    /// Whether every shard counts the node's present incarnation among its voters.
    pub(super) fn is_back(&self, number: usize) -> bool {
        let Some(process) = self.nodes.get(number).and_then(|node| node.process.as_ref()) else {
            return false;
        };
        let statuses: Vec<_> = process.statuses().collect();
        statuses.len() == usize::from(self.shards)
            && statuses.iter().all(|status| {
                status.condition == Condition::Serving && status.voters.contains(&status.replica)
            })
    }

    /// Whether the node has an identity again, or a group is without its lost replica already.
    fn was_replaced(&self, number: usize) -> bool {
        let Some(node) = self.nodes.get(number) else { return true };
        let Some(lost) = node.lost else { return true };
        let has_replicas = node.process.as_ref().is_some_and(|process| process.statuses().next().is_some());
        let others = self.nodes.iter().filter_map(|node| node.process.as_ref());
        has_replicas
            || others.flat_map(Process::statuses).any(|status| {
                let members = || status.voters.iter().chain(&status.learners);
                status.shard == ShardId(0) && members().next().is_some() && members().all(|it| *it != lost)
            })
    }
}
