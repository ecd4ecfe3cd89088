//! The simulated network: frames of bytes between nodes, with latency, loss, duplication, reordering, partitions and
//! broken connections.
//!
//! A frame that is sent becomes up to two events with a time each, which the harness puts into its heap. When one comes
//! up, [`SimNet::arrive`] says whether it gets through: a partition or a broken connection swallows what is under way.
//!
//! A link is a pair of nodes, a direction and a class. It delivers in one of two ways:
//! - [`Delivery::Datagram`]: every frame for itself. More hostile than TCP: frames are lost, come twice, overtake.
//! - [`Delivery::Stream`]: what a TCP connection shows. Frames come once and in order, until the connection breaks; then
//!   a suffix of them is lost and both ends are told, at the latest by their next frame.
//!
//! Invariants:
//! - A frame arrives unchanged, at the node it was sent to, after it was sent; as a stream's at most once, in order.
//! - Nothing crosses a blocked pair, neither what is sent then nor what is under way.
//!
//! Deliberately absent: damaged bytes (TCP and the frame's checksum are below this), flow control, names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter::Flatten;
use std::time::Duration;

use bytes::Bytes;
use mesh_base::Instant;
use mesh_base::prng::Prng;

use crate::latency::Latency;

/// Tells apart the connections of one pair of nodes: control, bulk, clients.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkClass(pub u8);

impl LinkClass {
    /// Votes, heartbeats, small appends.
    pub const CONTROL: Self = Self(0);
    /// Snapshots and large entries.
    pub const BULK: Self = Self(1);
    /// Requests and answers.
    pub const CLIENT: Self = Self(2);
}

/// What a link promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Delivery {
    /// Nothing.
    Datagram,
    /// Order and no duplicates, until it breaks.
    Stream,
}

/// How a link behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkOptions {
    /// What it promises.
    pub delivery: Delivery,
    /// From sending to arrival.
    pub latency: Latency,
    /// What a frame's length adds to its latency.
    pub bytes_per_second: u64,
    /// Frames lost of a thousand; of a stream, frames at which the connection breaks.
    pub loss_per_mille: u64,
    /// Frames of a thousand that come twice (datagrams only).
    pub duplicate_per_mille: u64,
    /// Frames of a thousand that may be overtaken (datagrams only).
    pub reorder_per_mille: u64,
}

impl LinkOptions {
    /// A healthy network inside one data centre, delivering streams.
    pub const HEALTHY: Self = Self {
        delivery: Delivery::Stream,
        latency: Latency::between(Duration::from_micros(50), Duration::from_micros(250)),
        bytes_per_second: 1_000_000_000,
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        reorder_per_mille: 0,
    };
}

impl fmt::Display for LinkOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delivery, latency, loss_per_mille, duplicate_per_mille, reorder_per_mille, .. } = self;
        write!(f, "{delivery:?}, latency {latency}, {} MB/s, ", self.bytes_per_second / 1_000_000)?;
        match delivery {
            Delivery::Stream => write!(f, "breaks {loss_per_mille}/1000"),
            Delivery::Datagram => {
                write!(f, "lost {loss_per_mille}/1000, twice {duplicate_per_mille}/1000, ")?;
                write!(f, "overtaken {reorder_per_mille}/1000")
            }
        }
    }
}

/// A frame under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame<N> {
    /// Who sent it.
    pub from: N,
    /// Who gets it.
    pub to: N,
    /// On which of their links.
    pub class: LinkClass,
    /// What was sent.
    pub bytes: Bytes,
    /// Of a stream, the connection that carries it.
    connection: u64,
}

/// What the network does to a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NetEvent<N> {
    /// A frame comes to its end: ask [`SimNet::arrive`] whether it got through.
    Frame(Frame<N>),
    /// `node` learns that a connection with `peer` broke. Frames sent on it may be lost.
    Reset {
        /// Who learns it.
        node: N,
        /// The other end.
        peer: N,
        /// Which connection.
        class: LinkClass,
    },
}

/// At most two events with their true times.
pub type NetEvents<N> = Flatten<std::array::IntoIter<Option<(Instant, NetEvent<N>)>, 2>>;

/// Which way a partition blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Neither side hears the other.
    Both,
    /// The second side does not hear the first, the first hears the second.
    OneWay,
}

/// What happened to frames.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NetStatistics {
    /// Frames sent.
    pub sent: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames that got through, second copies included.
    pub delivered: u64,
    /// Frames lost by chance.
    pub lost: u64,
    /// Frames swallowed by a partition.
    pub blocked: u64,
    /// Frames swallowed by a broken connection.
    pub broken: u64,
    /// Frames sent twice.
    pub duplicated: u64,
    /// Frames that may be overtaken.
    pub reordered: u64,
    /// Connections that broke.
    pub resets: u64,
}

/// The network between nodes of the type `N`.
#[derive(Clone, Debug)]
pub struct SimNet<N> {
    options: BTreeMap<LinkClass, LinkOptions>,
    degraded: BTreeMap<(N, N), LinkOptions>,
    blocked: BTreeSet<(N, N)>,
    /// The latest arrival so far of each link's frames in order.
    newest: BTreeMap<(N, N, LinkClass), Instant>,
    connections: BTreeMap<(N, N, LinkClass), Connection>,
    prng: Prng,
    statistics: NetStatistics,
}

#[derive(Clone, Copy, Default, Debug)]
struct Connection {
    number: u64,
    /// It broke on the way, and its ends do not know yet.
    broken: bool,
}

impl<N: Copy + Ord + fmt::Debug> SimNet<N> {
    /// A whole network whose links of each class behave as given.
    #[must_use]
    pub fn new(options: impl IntoIterator<Item = (LinkClass, LinkOptions)>, prng: Prng) -> Self {
        Self {
            options: options.into_iter().collect(),
            degraded: BTreeMap::new(),
            blocked: BTreeSet::new(),
            newest: BTreeMap::new(),
            connections: BTreeMap::new(),
            prng,
            statistics: NetStatistics::default(),
        }
    }

    /// Sends a frame at true time `now`. Returns what comes of it, and when.
    ///
    /// # Panics
    /// When a node sends to itself: a bug of the caller.
    pub fn send(&mut self, now: Instant, from: N, to: N, class: LinkClass, bytes: Bytes) -> NetEvents<N> {
        assert!(from != to, "{from:?} sends to itself");
        self.statistics.sent += 1;
        self.statistics.sent_bytes += bytes.len() as u64;
        let link = self.link(from, to, class);
        let frame = Frame { from, to, class, bytes, connection: 0 };
        match link.delivery {
            Delivery::Datagram => self.send_datagram(now, &link, frame),
            Delivery::Stream => self.send_on_stream(now, &link, frame),
        }
    }

    /// A frame's time has come: the frame, unless a partition or a broken connection swallowed it.
    pub fn arrive(&mut self, frame: Frame<N>) -> Option<Frame<N>> {
        let is_stream = self.link(frame.from, frame.to, frame.class).delivery == Delivery::Stream;
        let is_blocked = self.is_blocked(frame.from, frame.to);
        if is_stream {
            let connection = self.connections.entry(pair(frame.from, frame.to, frame.class)).or_default();
            if connection.number != frame.connection || connection.broken {
                self.statistics.broken += 1;
                return None;
            }
            // A stream has no gaps: what is lost here takes the rest of its connection along.
            connection.broken |= is_blocked;
        }
        if is_blocked {
            self.statistics.blocked += 1;
            return None;
        }
        self.statistics.delivered += 1;
        Some(frame)
    }

    /// Breaks the streams between `node` and everyone, as when its process ends. What is under way on them is lost.
    /// Returns what the other ends learn, and when.
    pub fn disconnect(&mut self, now: Instant, node: N) -> Vec<(Instant, NetEvent<N>)> {
        let ends: Vec<_> =
            self.connections.keys().filter(|&&(a, b, _)| a == node || b == node).copied().collect();
        let mut events = Vec::with_capacity(ends.len());
        for (a, b, class) in ends {
            let peer = if a == node { b } else { a };
            let link = self.link(node, peer, class);
            self.renew((a, b, class));
            let at = now + link.latency.draw(&mut self.prng);
            events.push((at, NetEvent::Reset { node: peer, peer: node, class }));
        }
        events
    }

    /// Lets the second side no longer hear the first or, both ways, each other.
    pub fn partition(&mut self, first: &[N], second: &[N], direction: Direction) {
        for (&from, &to) in first.iter().flat_map(|from| second.iter().map(move |to| (from, to))) {
            self.blocked.insert((from, to));
            if direction == Direction::Both {
                self.blocked.insert((to, from));
            }
        }
    }

    /// Lets everyone hear everyone again.
    pub fn heal(&mut self) {
        self.blocked.clear();
    }

    /// Lets two nodes hear each other again.
    pub fn heal_between(&mut self, a: N, b: N) {
        self.blocked.remove(&(a, b));
        self.blocked.remove(&(b, a));
    }

    /// Whether `to` does not hear `from`.
    #[must_use]
    pub fn is_blocked(&self, from: N, to: N) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// Whether anyone does not hear anyone.
    #[must_use]
    pub fn is_partitioned(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Gives all links from one node to another other options, save what they promise.
    pub fn degrade(&mut self, from: N, to: N, options: LinkOptions) {
        self.degraded.insert((from, to), options);
    }

    /// Takes back [`SimNet::degrade`] from one node to another.
    pub fn restore_between(&mut self, from: N, to: N) {
        self.degraded.remove(&(from, to));
    }

    /// Takes back every [`SimNet::degrade`].
    pub fn restore(&mut self) {
        self.degraded.clear();
    }

    /// What happened so far.
    #[must_use]
    pub const fn statistics(&self) -> &NetStatistics {
        &self.statistics
    }

    fn link(&self, from: N, to: N, class: LinkClass) -> LinkOptions {
        let usual = self.options.get(&class).copied().unwrap_or(LinkOptions::HEALTHY);
        let degraded = self.degraded.get(&(from, to)).copied().unwrap_or(usual);
        LinkOptions { delivery: usual.delivery, ..degraded }
    }

    fn send_datagram(&mut self, now: Instant, link: &LinkOptions, frame: Frame<N>) -> NetEvents<N> {
        if self.is_blocked(frame.from, frame.to) {
            self.statistics.blocked += 1;
            return none();
        }
        if self.prng.chance_per_mille(link.loss_per_mille) {
            self.statistics.lost += 1;
            return none();
        }
        let at = if self.prng.chance_per_mille(link.reorder_per_mille) {
            self.statistics.reordered += 1;
            // Neither waits for those before it nor holds up those after it; late enough for some to pass.
            now + self.transit(link, frame.bytes.len()) + self.transit(link, 0) * 4
        } else {
            self.in_order(now, link, &frame)
        };
        let again = self.prng.chance_per_mille(link.duplicate_per_mille).then(|| {
            self.statistics.duplicated += 1;
            (now + self.transit(link, frame.bytes.len()) * 2, NetEvent::Frame(frame.clone()))
        });
        [Some((at, NetEvent::Frame(frame))), again].into_iter().flatten()
    }

    fn send_on_stream(&mut self, now: Instant, link: &LinkOptions, mut frame: Frame<N>) -> NetEvents<N> {
        let Frame { from, to, class, .. } = frame;
        let ends = pair(from, to, class);
        let connection = *self.connections.entry(ends).or_default();
        let is_blocked = self.is_blocked(from, to);
        let is_lost = self.prng.chance_per_mille(link.loss_per_mille);
        if is_blocked || is_lost || connection.broken {
            let counter = match (is_blocked, is_lost) {
                (true, _) => &mut self.statistics.blocked,
                (false, true) => &mut self.statistics.lost,
                (false, false) => &mut self.statistics.broken,
            };
            *counter += 1;
            self.renew(ends);
            let mut reset = |node, peer| {
                let at = now + link.latency.draw(&mut self.prng) * 2;
                Some((at, NetEvent::Reset { node, peer, class }))
            };
            return [reset(from, to), reset(to, from)].into_iter().flatten();
        }
        frame.connection = connection.number;
        let at = self.in_order(now, link, &frame);
        [Some((at, NetEvent::Frame(frame))), None].into_iter().flatten()
    }

    /// An arrival that is not before that of an earlier frame of the link.
    fn in_order(&mut self, now: Instant, link: &LinkOptions, frame: &Frame<N>) -> Instant {
        let alone = now + self.transit(link, frame.bytes.len());
        let newest = self.newest.entry((frame.from, frame.to, frame.class)).or_default();
        *newest = alone.max(*newest);
        *newest
    }

    fn transit(&mut self, link: &LinkOptions, bytes: usize) -> Duration {
        let sending = bytes as u128 * 1_000_000_000 / u128::from(link.bytes_per_second.max(1));
        link.latency.draw(&mut self.prng) + Duration::from_nanos(u64::try_from(sending).unwrap_or(u64::MAX))
    }

    fn renew(&mut self, ends: (N, N, LinkClass)) {
        let connection = self.connections.entry(ends).or_default();
        *connection = Connection { number: connection.number + 1, broken: false };
        self.statistics.resets += 1;
        // The next connection's frames do not queue behind the lost ones of this.
        let (a, b, class) = ends;
        self.newest.remove(&(a, b, class));
        self.newest.remove(&(b, a, class));
    }
}

/// The two ends of a connection, the same whoever asks.
fn pair<N: Ord>(a: N, b: N, class: LinkClass) -> (N, N, LinkClass) {
    if a < b { (a, b, class) } else { (b, a, class) }
}

fn none<N>() -> NetEvents<N> {
    [None, None].into_iter().flatten()
}

#[cfg(test)]
mod tests;
