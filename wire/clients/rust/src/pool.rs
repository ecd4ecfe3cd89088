//! The connections to all nodes: made when they are needed, shared by all who need them, made anew when they break.
//!
//! A node tells which of its cores owns which shard, so that there is one connection (or a few) to each core and a request
//! arrives where it is served. What it has not told of yet, a new connection finds out.
//!
//! Invariants:
//! - One connection to a core is being made at a time, however many wait for it.
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
use crate::options::Settings;
use crate::single::Single;
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
    /// Finds out which core owns a shard that is not known yet.
    first: Single<()>,
}

struct LinksState {
    /// By the shard's number; empty until the node was heard of.
    cores: Vec<CoreId>,
    links: BTreeMap<(CoreId, usize), Arc<Single<Arc<Connection>>>>,
    /// Where it says it is, and where it was reached.
    addresses: Vec<String>,
    failures: u32,
    failed: Option<(Tried, Instant)>,
}

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
        self.settle(&links, greeted, ShardId(0), 0);
    }

    /// A connection for a shard's requests.
    pub(crate) async fn connect(
        &self,
        topology: &Topology,
        node: NodeId,
        shard: ShardId,
        stripe: usize,
    ) -> Result<Arc<Connection>, NoConnection> {
        let links = self.links(node);
        if let Some(node) = topology.node(node) {
            links.advertised(&node.address);
        }
        loop {
            if !links.knows(shard) {
                links.first.get(async { self.make(&links, shard, stripe).await.map(|_| ()) }).await?;
                links.first.retire(|()| true);
            }
            let link = links.link(shard, stripe);
            let connection = link.get(self.make(&links, shard, stripe)).await?;
            if connection.is_open() {
                return Ok(connection);
            }
            link.retire(|current| Arc::ptr_eq(current, &connection));
        }
    }

    /// Any open connection to a node.
    pub(crate) fn any(&self, node: NodeId) -> Option<Arc<Connection>> {
        let links = Arc::clone(lock(&self.nodes).get(&node)?);
        let state = lock(&links.state);
        let mut open = state.links.values().filter_map(|link| link.peek());
        open.find(|connection| connection.is_open())
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

    /// Closes all connections; no more are made.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        let nodes = std::mem::take(&mut *lock(&self.nodes));
        for links in nodes.into_values() {
            let all = std::mem::take(&mut lock(&links.state).links);
            for connection in all.into_values().filter_map(|link| link.peek()) {
                connection.close("the cluster's handle was closed");
            }
        }
    }

    fn links(&self, node: NodeId) -> Arc<Links> {
        let make = || Arc::new(Links::new(node));
        Arc::clone(lock(&self.nodes).entry(node).or_insert_with(make))
    }

    /// Makes a connection, and lets everyone know what its node said.
    async fn make(
        &self,
        links: &Links,
        shard: ShardId,
        stripe: usize,
    ) -> Result<Arc<Connection>, NoConnection> {
        if self.is_closed() {
            return Err(NoConnection::Refused(Error::Closed));
        }
        if let Some(failed) = links.paused() {
            return Err(failed);
        }
        let hello = Hello { name: &self.settings.name, cluster: Some(self.cluster), wanted_shard: shard };
        let mut last = Tried { endpoint: links.node.to_string(), why: "its address is not known".into() };
        for address in links.addresses() {
            match reach(&address, links.node, &hello).await {
                Ok(greeted) => return Ok(self.settle(links, greeted, shard, stripe)),
                Err(DialError::Refused(error)) => return Err(NoConnection::Refused(error)),
                Err(DialError::Failed(why)) => last = Tried { endpoint: address, why },
            }
        }
        Err(links.failed(last, &self.dice))
    }

    fn settle(&self, links: &Links, mut greeted: Greeted, shard: ShardId, stripe: usize) -> Arc<Connection> {
        let topology = greeted.topology.take();
        let cores = std::mem::take(&mut greeted.cores);
        let core = cores.get(usize::from(shard.0)).copied().unwrap_or_default();
        tracing::debug!(node = greeted.name, endpoint = greeted.endpoint, %core, "connected");
        let connection = Arc::new(Connection::start(greeted, core, self.settings.in_flight_max));
        links.connected(&connection, cores, stripe);
        if let Some(topology) = topology {
            self.view.hear(&topology, links.node);
        }
        connection
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
    fn new(node: NodeId) -> Self {
        let state = LinksState {
            cores: Vec::new(),
            links: BTreeMap::new(),
            addresses: Vec::new(),
            failures: 0,
            failed: None,
        };
        Self { node, state: Mutex::new(state), first: Single::new() }
    }

    /// Whether it is known which core owns a shard.
    fn knows(&self, shard: ShardId) -> bool {
        lock(&self.state).cores.len() > usize::from(shard.0)
    }

    /// The connection for a shard. Of one that the node does not know yet any core can tell that.
    fn link(&self, shard: ShardId, stripe: usize) -> Arc<Single<Arc<Connection>>> {
        let mut state = lock(&self.state);
        let core = state.cores.get(usize::from(shard.0)).copied().unwrap_or_default();
        let link = state.links.entry((core, stripe)).or_insert_with(|| Arc::new(Single::new()));
        Arc::clone(link)
    }

    fn addresses(&self) -> Vec<String> {
        lock(&self.state).addresses.clone()
    }

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

    fn paused(&self) -> Option<NoConnection> {
        let state = lock(&self.state);
        let (tried, until) = state.failed.clone().filter(|(_, until)| *until > Instant::now())?;
        Some(NoConnection::Later { tried, until })
    }

    fn failed(&self, tried: Tried, dice: &Dice) -> NoConnection {
        let mut state = lock(&self.state);
        state.failures = state.failures.saturating_add(1);
        let until = Instant::now() + dice.jitter(pause(state.failures, CLIENT_RETRY_PAUSE_MAX));
        tracing::debug!(%tried, "a node could not be reached");
        state.failed = Some((tried.clone(), until));
        NoConnection::Later { tried, until }
    }

    fn connected(&self, connection: &Arc<Connection>, cores: Vec<CoreId>, stripe: usize) {
        let mut state = lock(&self.state);
        (state.failures, state.failed) = (0, None);
        assert!(!cores.is_empty(), "a node of a cluster knows its shards");
        state.cores = cores;
        let link = state.links.entry((connection.core(), stripe)).or_insert_with(|| Arc::new(Single::new()));
        // The one that made it inside `Single::get` finds it there as well; any other open connection stays.
        if link.peek().is_none_or(|current| !current.is_open()) {
            link.put(Arc::clone(connection));
        }
    }
}
