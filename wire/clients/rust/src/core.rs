//! What all clones of a cluster's handle share, and where a request is to be sent.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use mesh_base::limits::SHARDS_MAX;
use mesh_base::{NodeId, Revision, ShardId, Term};
use tokio::time::Instant;

use crate::backoff::Dice;
use crate::connection::Connection;
use crate::keeper::{Keeper, ask};
use crate::opening::CurrentSession;
use crate::options::Settings;
use crate::pool::Pool;
use crate::sync::lock;
use crate::view::View;
use crate::{Error, Topology};

/// What all clones of a cluster's handle share.
pub(crate) struct Core {
    pub(crate) settings: Settings,
    pub(crate) dice: Arc<Dice>,
    pub(crate) view: Arc<View>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) keeper: Keeper,
    shards: Box<[OnceLock<Shard>]>,
    revision_seen: AtomicU64,
}

/// What is kept of a shard.
pub(crate) struct Shard {
    pub(crate) session: CurrentSession,
    route: Mutex<Route>,
}

#[derive(Default)]
struct Route {
    hint: Option<Hint>,
    /// Where its requests were last sent, by stripe.
    connections: Vec<Option<Arc<Connection>>>,
    turn: usize,
    trouble: Option<(Instant, Error)>,
}

/// What a node said of a shard's leader when it refused a request. It counts until a topology of a newer term is known, or
/// the one that it names cannot be reached.
#[derive(Clone, Copy)]
struct Hint {
    leader: NodeId,
    term: Term,
}

/// Where a shard's requests are to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    pub(crate) term: Term,
}

/// What those hold who use a cluster. Tasks hold the core itself, and end when the last handle is dropped.
pub(crate) struct Handle(Arc<Core>);

impl Handle {
    pub(crate) const fn new(core: Arc<Core>) -> Self {
        Self(core)
    }

    pub(crate) const fn core(&self) -> &Arc<Core> {
        &self.0
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.shut();
    }
}

impl Core {
    /// Called inside a tokio runtime.
    pub(crate) fn new(settings: Settings, dice: Arc<Dice>, topology: Topology) -> Arc<Self> {
        let view = Arc::new(View::new(topology));
        Arc::new_cyclic(|core| Self {
            pool: Arc::new(Pool::new(settings.clone(), Arc::clone(&dice), Arc::clone(&view))),
            settings,
            dice,
            view,
            keeper: Keeper::start(core),
            shards: (0..SHARDS_MAX).map(|_| OnceLock::new()).collect(),
            revision_seen: AtomicU64::new(0),
        })
    }

    /// Ends all that is under way: connections, their making, openings of sessions. Nothing is begun any more.
    pub(crate) fn shut(&self) {
        self.pool.close();
        self.keeper.stop();
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            shard.session.abandon();
        }
    }

    /// What is kept of a shard.
    #[allow(clippy::indexing_slicing, reason = "the remainder is below the length")]
    pub(crate) fn shard(&self, shard: ShardId) -> &Shard {
        // A topology has at most so many shards, so the remainder is the number itself.
        self.shards[usize::from(shard.0) % SHARDS_MAX].get_or_init(Shard::new)
    }

    /// Where a shard's requests are to be sent, as far as is known.
    pub(crate) fn target(&self, topology: &Topology, shard: ShardId) -> Option<Target> {
        let known = topology.leadership(shard);
        let hint = lock(&self.shard(shard).route).hint.filter(|hint| hint.term == known.term);
        // The only node is asked in any case: it knows better than anybody why it does not lead.
        let node = hint.map(|hint| hint.leader).or(known.leader).or_else(|| topology.only_node())?;
        Some(Target { node, term: known.term })
    }

    /// Takes in that another node was said to lead a shard by the one that was asked. `false` if that is of no use: the
    /// node is not known, or the word is late and more is known by now.
    pub(crate) fn hint(&self, shard: ShardId, asked: Target, leader: NodeId) -> bool {
        let topology = self.view.topology();
        let is_of_use = topology.leadership(shard).term == asked.term && topology.node(leader).is_some();
        if is_of_use {
            lock(&self.shard(shard).route).hint = Some(Hint { leader, term: asked.term });
        }
        is_of_use
    }

    /// Forgets that a node was said to lead a shard.
    pub(crate) fn drop_hint(&self, shard: ShardId, leader: NodeId) {
        lock(&self.shard(shard).route).hint.take_if(|hint| hint.leader == leader);
    }

    /// Finds out whether a connection that should have answered lives, and whether its node still leads.
    pub(crate) fn suspect(self: &Arc<Self>, connection: &Arc<Connection>) {
        self.keeper.nudge();
        if connection.begin_probe() {
            let (core, connection) = (Arc::clone(self), Arc::clone(connection));
            tokio::spawn(async move {
                ask(&core, &connection).await;
                connection.end_probe();
            });
        }
    }

    /// The newest revision that was seen in any answer.
    pub(crate) fn revision_seen(&self) -> Revision {
        Revision(self.revision_seen.load(Ordering::Relaxed))
    }

    /// An answer had this revision.
    pub(crate) fn saw(&self, revision: Revision) {
        self.revision_seen.fetch_max(revision.0, Ordering::Relaxed);
    }
}

impl Shard {
    fn new() -> Self {
        Self { session: CurrentSession::default(), route: Mutex::default() }
    }

    /// The next stripe, and its connection to a node if it is known and open.
    pub(crate) fn next(&self, node: NodeId, stripes: usize) -> (usize, Option<Arc<Connection>>) {
        let mut route = lock(&self.route);
        route.turn = (route.turn + 1) % stripes;
        let turn = route.turn;
        let connection = route.connections.get(turn).cloned().flatten();
        (turn, connection.filter(|connection| connection.node() == node && connection.is_open()))
    }

    /// From now on a stripe's requests go here.
    pub(crate) fn use_connection(&self, stripe: usize, connection: &Arc<Connection>) {
        let mut route = lock(&self.route);
        let length = route.connections.len().max(stripe + 1);
        route.connections.resize(length, None);
        if let Some(place) = route.connections.get_mut(stripe) {
            *place = Some(Arc::clone(connection));
        }
    }

    /// A request could not be done.
    pub(crate) fn note(&self, trouble: Error) {
        lock(&self.route).trouble = Some((Instant::now(), trouble));
    }

    /// Why requests of this shard could not be done, if any met with trouble since.
    pub(crate) fn trouble_since(&self, since: Instant) -> Option<Error> {
        let trouble = lock(&self.route).trouble.clone();
        trouble.filter(|(at, _)| *at >= since).map(|(_, trouble)| trouble)
    }
}
