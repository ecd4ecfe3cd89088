//! The connections to all nodes: made when they are needed, shared by all who need them, made anew when they break.
//!
//! A node tells which of its cores owns which shard, so that there is one connection (or a few) to each core and a request
//! arrives where it is served. What it has not told of yet, a new connection finds out.
//!
//! Invariants:
//! - One connection to a core is being made at a time, however many wait for it. The making is a task of its own: it goes on
//!   when those who wait give up, and ends with the pool.
//! - A node that could not be reached is not dialled again before a pause, which doubles.
//! - A connection is used only if the node that answers is the one that was meant.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use mesh_base::limits::CLIENT_RETRY_PAUSE_MAX;
use mesh_base::{ClusterId, CoreId, NodeId, ShardId};
use tokio::time::Instant;

use crate::backoff::{Dice, pause};
use crate::connection::{Connection, DialError, Greeted, Hello, dial, with_port};
use crate::error::Tried;
use crate::making::{Making, Outcome};
use crate::options::Settings;
use crate::sync::lock;
use crate::view::View;
use crate::{Error, Topology};

/// Why there is no connection to a node now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NoConnection {
    /// It could not be reached; it makes no sense to try again before `until`.
    Later {
        /// Where it was tried.
        tried: Tried,
        /// When to try again.
        until: Instant,
    },
    /// It refuses.
    Refused(Error),
}

/// The connections to all nodes.
pub(crate) struct Pool {
    nodes: Mutex<BTreeMap<NodeId, Arc<Links>>>,
    cluster: ClusterId,
    settings: Settings,
    dice: Arc<Dice>,
    view: Arc<View>,
    is_closed: AtomicBool,
}

/// The connections to one node.
struct Links {
    node: NodeId,
    state: Mutex<LinksState>,
}

/// The place of a connection: a core, and a number if there are several to it.
type Link = (CoreId, usize);

#[derive(Default)]
struct LinksState {
    /// By the shard's number; empty until the node was heard of.
    cores: Vec<CoreId>,
    connections: BTreeMap<Link, Arc<Connection>>,
    /// The last making of a connection for each place; for none, to find out which core owns a shard.
    dials: BTreeMap<Option<Link>, Making<Dialled>>,
    /// Where it says it is, and where it was reached.
    addresses: Vec<String>,
    failures: u32,
    failed: Option<(Tried, Instant)>,
}

/// What came of the making of a connection.
type Dialled = Result<(), NoConnection>;

impl Pool {
    pub(crate) fn new(settings: Settings, dice: Arc<Dice>, view: Arc<View>) -> Self {
        let (nodes, cluster) = (Mutex::default(), view.topology().cluster());
        Self { nodes, cluster, settings, dice, view, is_closed: AtomicBool::new(false) }
    }

    /// Takes in a connection that was made before the cluster was known, to the core of shard 0.
    pub(crate) fn adopt(&self, greeted: Greeted) {
        let links = self.links(greeted.node);
        let endpoint = greeted.endpoint.clone();
        links.remember(&endpoint);
        // A pool is not closed before its handle is there.
        let _ = self.settle(&links, greeted, ShardId(0), 0);
    }

    /// A connection for a shard's requests. It was open a moment ago.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        topology: &Topology,
        node: NodeId,
        shard: ShardId,
        stripe: usize,
    ) -> Result<Arc<Connection>, NoConnection> {
        let links = self.links(node);
        if let Some(node) = topology.node(node) {
            links.advertised(&node.address);
        }
        let (mut is_told, mut is_made) = (false, false);
        loop {
            let (dial, is_for_link) = {
                let mut state = lock(&links.state);
                let core = state.core_of(shard);
                // Any core takes the requests for a shard that the node does not know yet.
                let core = core.or_else(|| is_told.then(CoreId::default));
                let link = core.map(|core| (core, stripe));
                let connection = link.and_then(|link| state.connections.get(&link));
                // One that was closed right after it was made is not made again without a pause.
                if let Some(connection) = connection.filter(|connection| is_made || connection.is_open()) {
                    return Ok(Arc::clone(connection));
                }
                (self.dial(&links, &mut state, link, (shard, stripe))?, link.is_some())
            };
            match dial.wait().await {
                Some(Ok(())) => (is_told, is_made) = (true, is_for_link),
                Some(Err(failed)) => return Err(failed),
                None if self.is_closed() => return Err(NoConnection::Refused(Error::Closed)),
                None => {
                    let why = "the making of a connection was given up".into();
                    return Err(links.failed(Tried { endpoint: node.to_string(), why }, &self.dice));
                }
            }
        }
    }

    /// The making of a connection: the one that is under way, or a new one.
    fn dial(
        self: &Arc<Self>,
        links: &Arc<Links>,
        state: &mut LinksState,
        link: Option<Link>,
        (shard, stripe): (ShardId, usize),
    ) -> Result<Outcome<Dialled>, NoConnection> {
        if self.is_closed() {
            return Err(NoConnection::Refused(Error::Closed));
        }
        if let Some(dial) = state.dials.get(&link).filter(|dial| dial.is_under_way()) {
            return Ok(dial.outcome());
        }
        if let Some(failed) = state.paused() {
            return Err(failed);
        }
        let (pool, links) = (Arc::clone(self), Arc::clone(links));
        let addresses = state.addresses.clone();
        let making = async move { Some(pool.make(&links, addresses, shard, stripe).await) };
        let dial = Making::begin(making);
        let outcome = dial.outcome();
        state.dials.insert(link, dial);
        Ok(outcome)
    }

    /// Any open connection to a node.
    pub(crate) fn any(&self, node: NodeId) -> Option<Arc<Connection>> {
        let links = Arc::clone(lock(&self.nodes).get(&node)?);
        let state = lock(&links.state);
        state.connections.values().find(|connection| connection.is_open()).cloned()
    }

    /// Whether there is an open connection to any node.
    pub(crate) fn is_connected(&self) -> bool {
        let nodes: Vec<_> = lock(&self.nodes).keys().copied().collect();
        nodes.into_iter().any(|node| self.any(node).is_some())
    }

    /// What was last heard of the nodes that could not be reached.
    pub(crate) fn failures(&self) -> Vec<Tried> {
        let nodes: Vec<_> = lock(&self.nodes).values().cloned().collect();
        nodes.iter().filter_map(|links| lock(&links.state).failed.clone()).map(|(tried, _)| tried).collect()
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Closes all connections, and ends the making of others; no more are made.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        let nodes = std::mem::take(&mut *lock(&self.nodes));
        for links in nodes.into_values() {
            // Whoever puts something there from now on sees that the pool is closed.
            let LinksState { connections, dials, .. } = std::mem::take(&mut *lock(&links.state));
            drop(dials);
            for connection in connections.into_values() {
                connection.close("the cluster's handle was closed");
            }
        }
    }

    fn links(&self, node: NodeId) -> Arc<Links> {
        let make = || Arc::new(Links { node, state: Mutex::default() });
        Arc::clone(lock(&self.nodes).entry(node).or_insert_with(make))
    }

    /// Makes a connection, and lets everyone know what its node said.
    async fn make(&self, links: &Links, addresses: Vec<String>, shard: ShardId, stripe: usize) -> Dialled {
        let hello = Hello { name: &self.settings.name, cluster: Some(self.cluster), wanted_shard: shard };
        let mut last = Tried { endpoint: links.node.to_string(), why: "its address is not known".into() };
        for address in addresses {
            match reach(&address, links.node, &hello).await {
                Ok(greeted) => return self.settle(links, greeted, shard, stripe),
                Err(DialError::Refused(error)) => return Err(NoConnection::Refused(error)),
                Err(DialError::Failed(why)) => last = Tried { endpoint: address, why },
            }
        }
        Err(links.failed(last, &self.dice))
    }

    fn settle(&self, links: &Links, mut greeted: Greeted, shard: ShardId, stripe: usize) -> Dialled {
        let topology = greeted.topology.take();
        let cores = std::mem::take(&mut greeted.cores);
        let core = cores.get(usize::from(shard.0)).copied().unwrap_or_default();
        tracing::debug!(node = greeted.name, endpoint = greeted.endpoint, %core, "connected");
        let connection = Arc::new(Connection::start(greeted, core, self.settings.in_flight_max));
        {
            let mut state = lock(&links.state);
            if self.is_closed() {
                return Err(NoConnection::Refused(Error::Closed));
            }
            state.connected(connection, cores, stripe);
        }
        if let Some(topology) = topology {
            self.view.hear(&topology, links.node);
        }
        Ok(())
    }
}

/// Dials a node at one of its addresses.
async fn reach(address: &str, node: NodeId, hello: &Hello<'_>) -> Result<Greeted, DialError> {
    let greeted = dial(address, hello).await?;
    if greeted.node != node {
        return Err(DialError::Failed(format!("another node answers there: {}", greeted.name)));
    }
    if greeted.topology.is_none() {
        return Err(DialError::Failed("it is not part of a cluster yet".into()));
    }
    Ok(greeted)
}

impl Links {
    /// The node was reached at an address.
    fn remember(&self, address: &str) {
        let mut state = lock(&self.state);
        state.addresses.retain(|known| known != address);
        state.addresses.push(address.to_owned());
    }

    /// The node says that it is reached at an address: that comes first, another that worked after it.
    fn advertised(&self, address: &str) {
        let Ok(address) = with_port(address) else { return };
        let mut state = lock(&self.state);
        if state.addresses.first() != Some(&address) {
            let worked = state.addresses.last().filter(|&known| *known != address).cloned();
            state.addresses = [Some(address), worked].into_iter().flatten().collect();
        }
    }

    fn failed(&self, tried: Tried, dice: &Dice) -> NoConnection {
        let mut state = lock(&self.state);
        state.failures = state.failures.saturating_add(1);
        let until = Instant::now() + dice.jitter(pause(state.failures, CLIENT_RETRY_PAUSE_MAX));
        tracing::debug!(%tried, "a node could not be reached");
        state.failed = Some((tried.clone(), until));
        NoConnection::Later { tried, until }
    }
}

impl LinksState {
    /// Which core owns a shard, if that is known.
    fn core_of(&self, shard: ShardId) -> Option<CoreId> {
        self.cores.get(usize::from(shard.0)).copied()
    }

    fn paused(&self) -> Option<NoConnection> {
        let (tried, until) = self.failed.clone().filter(|(_, until)| *until > Instant::now())?;
        Some(NoConnection::Later { tried, until })
    }

    fn connected(&mut self, connection: Arc<Connection>, cores: Vec<CoreId>, stripe: usize) {
        assert!(!cores.is_empty(), "a node of a cluster knows its shards");
        (self.failures, self.failed, self.cores) = (0, None, cores);
        let link = (connection.core(), stripe);
        // One that is open stays: others may be using it.
        if self.connections.get(&link).is_none_or(|current| !current.is_open()) {
            self.connections.insert(link, connection);
        }
    }
}
