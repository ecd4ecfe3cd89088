//! Which of the other nodes answer, at which address to look for those that do not, and which turned out to be of another
//! cluster. Pure; a part of the membership.
//!
//! The cluster's directory has an address of each node, kept by the nodes themselves, and the operator gave some at the
//! start. Either may be out of date: while a node does not answer at the one, the other is tried, in turns.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_base::{ClusterId, Instant};

use crate::core::NodeName;

/// A node that has not answered for so long is not reached.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Whose word is taken for a node's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Source {
    Directory,
    Operator,
}

/// What is known of each of the other nodes.
#[derive(Default, Debug)]
pub(super) struct Reach {
    others: BTreeMap<NodeName, Other>,
}

#[derive(Debug)]
struct Other {
    heard: Option<Instant>,
    /// Since when it is looked for where it is.
    looked_since: Instant,
    source: Source,
    stranger: Option<ClusterId>,
    /// The stranger that the operator was told of.
    told: Option<ClusterId>,
}

impl Other {
    const fn new(now: Instant) -> Self {
        Self { heard: None, looked_since: now, source: Source::Directory, stranger: None, told: None }
    }

    fn answers(&self, now: Instant) -> bool {
        self.heard.is_some_and(|at| now.since(at) <= SILENCE_MAX)
    }
}

impl Reach {
    /// A node of this cluster, or of none yet, said something.
    pub(super) fn heard(&mut self, now: Instant, name: &NodeName) {
        let other = self.others.entry(name.clone()).or_insert_with(|| Other::new(now));
        other.heard = Some(now);
        (other.stranger, other.told) = (None, None);
    }

    /// At a node's address there is a node of another cluster.
    pub(super) fn met_stranger(&mut self, name: &NodeName, cluster: ClusterId) {
        self.others.entry(name.clone()).or_insert_with(|| Other::new(Instant::ZERO)).stranger = Some(cluster);
    }

    /// How many nodes answer.
    pub(super) fn answering(&self, now: Instant) -> usize {
        self.others.values().filter(|other| other.answers(now)).count()
    }

    /// Whose word to take for a node's address.
    pub(super) fn source(&self, name: &NodeName) -> Source {
        self.others.get(name).map_or(Source::Directory, |other| other.source)
    }

    /// Looks elsewhere for those of the nodes that have not answered for long; `true` if there are any.
    pub(super) fn look_elsewhere<'a>(
        &mut self,
        now: Instant,
        nodes: impl Iterator<Item = &'a NodeName>,
    ) -> bool {
        let mut changed = false;
        for name in nodes {
            let other = self.others.entry(name.clone()).or_insert_with(|| Other::new(now));
            if !other.answers(now) && now.since(other.looked_since) > SILENCE_MAX {
                other.looked_since = now;
                other.source = match other.source {
                    Source::Directory => Source::Operator,
                    Source::Operator => Source::Directory,
                };
                changed = true;
            }
        }
        changed
    }

    /// The strangers among the nodes that the operator was not told of yet.
    pub(super) fn news_of_strangers(&mut self) -> Vec<(NodeName, ClusterId)> {
        let untold = self.others.iter_mut().filter(|(_, other)| other.stranger != other.told);
        let news = untold.filter_map(|(name, other)| {
            other.told = other.stranger;
            Some((name.clone(), other.stranger?))
        });
        news.collect()
    }

    /// Whether all of the nodes are strangers, and none ever was anything else: then it is we who are in the wrong place.
    pub(super) fn is_alone_among_strangers<'a>(&self, mut nodes: impl Iterator<Item = &'a NodeName>) -> bool {
        let is_stranger = |name: &NodeName| {
            self.others.get(name).is_some_and(|other| other.stranger.is_some() && other.heard.is_none())
        };
        !self.others.is_empty() && nodes.all(is_stranger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_node_that_is_silent_is_looked_for_at_the_other_address_and_back() {
        let (b, mut reach) = (NodeName::from("b"), Reach::default());
        let mut sources = Vec::new();
        for second in 0..13 {
            reach.look_elsewhere(at(second), [&b].into_iter());
            sources.push(reach.source(&b));
        }
        assert_eq!(sources[..4], [Source::Directory; 4]);
        assert_eq!(sources[4..8], [Source::Operator; 4]);
        assert_eq!(sources[8..12], [Source::Directory; 4]);
        reach.heard(at(13), &b);
        let stays = reach.source(&b);
        assert!(!reach.look_elsewhere(at(16), [&b].into_iter()));
        assert_eq!((reach.source(&b), reach.answering(at(16)), reach.answering(at(17))), (stays, 1, 0));
    }

    #[test]
    fn one_stranger_is_told_once_and_only_strangers_are_a_reason_to_leave() {
        let (b, c, mut reach) = (NodeName::from("b"), NodeName::from("c"), Reach::default());
        assert!(!reach.is_alone_among_strangers([&b, &c].into_iter()));
        let theirs = ClusterId([9; 16]);
        reach.met_stranger(&b, theirs);
        assert_eq!(reach.news_of_strangers(), vec![(b.clone(), theirs)]);
        assert_eq!(reach.news_of_strangers(), vec![]);
        assert!(!reach.is_alone_among_strangers([&b, &c].into_iter()));
        reach.met_stranger(&c, theirs);
        assert!(reach.is_alone_among_strangers([&b, &c].into_iter()));
        // Who was once among friends stays.
        reach.heard(at(1), &c);
        reach.met_stranger(&c, theirs);
        assert!(!reach.is_alone_among_strangers([&b, &c].into_iter()));
    }
}
