//! Connections that this core makes to other nodes.
//!
//! There is one per node, class and core of that node, made when there is something to send and made again, after a
//! pause that grows, when it breaks. They carry frames one way: the other side answers on connections of its own. (What
//! comes back all the same is taken in like any other frame of that node.)
//!
//! Which core of a node owns a shard is told by the answer to a hello. Until the first, what is to be sent waits on one
//! line per class, whose only purpose is to get that answer; then everything goes to the line of its core.
//!
//! Invariants:
//! - What waits for a connection is bounded. What cannot be sent is dropped and counted: a frame may be lost, and is
//!   never sent twice or to another node than its own.
//! - Frames of one line stay in order.

mod line;
mod queue;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use mesh_base::prng::Prng;
use mesh_base::{CoreId, Instant, ShardId};

use self::line::Line;
use super::clock;
use super::inbox::Inbox;
use super::server::Greeter;
use super::sockets::Sockets;
use crate::core::{LinkClass, NodeName, PeerPlacement};

/// A node without shards is asked again, when there is something to send, after this long.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The outbound connections of one core.
pub(super) struct Links {
    inbox: Rc<Inbox>,
    greeter: Rc<dyn Greeter>,
    prng: RefCell<Prng>,
    peers: RefCell<BTreeMap<NodeName, Peer>>,
    /// Frames that were dropped because there was no connection, or too much waited for it.
    dropped: Cell<u64>,
    sockets: Rc<Sockets>,
}

/// What is known of a node.
struct Peer {
    address: String,
    placement: Option<Learned>,
    /// By class and core; no core while the placement is not known.
    lines: BTreeMap<(LinkClass, Option<CoreId>), Rc<Line>>,
}

struct Learned {
    placement: PeerPlacement,
    at: Instant,
}

impl Learned {
    /// A node that has no shards yet will have them before long, and does not say so by itself.
    fn is_out_of_date(&self) -> bool {
        self.placement.cores.is_empty() && clock::now().monotonic.since(self.at) > ASK_AGAIN_AFTER
    }
}

impl Links {
    pub(super) fn new(
        inbox: Rc<Inbox>,
        greeter: Rc<dyn Greeter>,
        sockets: Rc<Sockets>,
        prng: Prng,
    ) -> Rc<Self> {
        Rc::new(Self {
            inbox,
            greeter,
            prng: RefCell::new(prng),
            peers: RefCell::default(),
            dropped: Cell::new(0),
            sockets,
        })
    }

    /// Reaches these nodes, at these addresses, and no others.
    pub(super) fn dial(&self, nodes: Vec<(NodeName, String)>) {
        let mut peers = self.peers.borrow_mut();
        let mut former = std::mem::take(&mut *peers);
        for (name, address) in nodes {
            let peer = match former.remove(&name) {
                Some(peer) if peer.address == address => peer,
                moved => {
                    self.count_dropped(moved.iter().map(Peer::cut).sum());
                    Peer { address, placement: None, lines: BTreeMap::new() }
                }
            };
            peers.insert(name, peer);
        }
        self.count_dropped(former.values().map(Peer::cut).sum());
    }

    /// Sends a frame to the core that owns a shard on a node, or drops it.
    pub(super) fn send(self: &Rc<Self>, to: &NodeName, class: LinkClass, shard: ShardId, frame: Bytes) {
        let mut peers = self.peers.borrow_mut();
        let Some(peer) = peers.get_mut(to) else {
            self.count_dropped(1);
            return;
        };
        if peer.placement.as_ref().is_some_and(Learned::is_out_of_date) {
            peer.placement = None;
            self.count_dropped(peer.cut());
            peer.lines.clear();
        }
        let core = peer.placement.as_ref().map(|learned| learned.placement.core_of(shard));
        let line = peer.lines.entry((class, core)).or_insert_with(|| {
            let line = Rc::new(Line::new(to.clone(), class, core));
            glommio::spawn_local(line::run(Rc::clone(self), Rc::clone(&line))).detach();
            line
        });
        self.count_dropped(line.push((shard, frame)));
    }

    /// Ends every connection.
    pub(super) fn close(&self) {
        let former = std::mem::take(&mut *self.peers.borrow_mut());
        self.count_dropped(former.values().map(Peer::cut).sum());
    }

    fn count_dropped(&self, frames: u64) {
        self.dropped.set(self.dropped.get() + frames);
    }

    fn address(&self, of: &NodeName) -> Option<String> {
        self.peers.borrow().get(of).map(|peer| peer.address.clone())
    }

    /// Takes note of where a node has its shards. If that is news, every line to it is cut, and what waited there goes
    /// to new ones.
    fn learn(self: &Rc<Self>, name: &NodeName, placement: PeerPlacement) {
        let mut waiting = Vec::new();
        if let Some(peer) = self.peers.borrow_mut().get_mut(name) {
            if peer.placement.as_ref().is_some_and(|learned| learned.placement == placement) {
                return;
            }
            peer.placement = Some(Learned { placement, at: clock::now().monotonic });
            for ((class, _), line) in std::mem::take(&mut peer.lines) {
                waiting.extend(line.cut().into_iter().map(|letter| (class, letter)));
            }
        }
        for (class, (shard, frame)) in waiting {
            self.send(name, class, shard, frame);
        }
    }
}

impl Peer {
    /// Ends every line; returns how many frames waited there.
    fn cut(&self) -> u64 {
        self.lines.values().map(|line| line.cut().len() as u64).sum()
    }
}
