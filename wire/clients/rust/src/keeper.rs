//! Keeps the topology up to date: when someone finds that it may be wrong, all nodes are asked, once for all who wonder.
//!
//! Invariants:
//! - A node is asked one question at a time, and no more often than every 20 ms; less often when that brings no news.
//! - A connection that does not answer a question in time is closed, so that those who wait for it go elsewhere.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use mesh_base::limits::{CLIENT_PROBE_TIMEOUT, CLIENT_TOPOLOGY_PAUSE};
use mesh_base::{NodeId, ShardId};
use mesh_wire::{Outgoing, Request, Response};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::connection::{Connection, Lost, NotSent, Room};
use crate::core::Core;
use crate::{Error, Result, Topology};

/// Rounds without news that follow each other quickly; an election is over by then, if there can be one.
const QUICK_ROUNDS: u32 = 20;

/// The task that asks; ends when this is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Keeper {
    wanted: Arc<Wanted>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Wanted {
    once: Notify,
    /// How many wait for news.
    by: AtomicUsize,
}

/// As long as this lives, the nodes are asked again and again.
pub(crate) struct Asking<'k>(&'k Wanted);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.by.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Keeper {
    /// Called inside a tokio runtime.
    pub(crate) fn start(core: &Weak<Core>) -> Self {
        let wanted = Arc::new(Wanted::default());
        let task = tokio::spawn(keep(Weak::clone(core), Arc::clone(&wanted))).abort_handle();
        Self { wanted, task }
    }

    /// Asks no more.
    pub(crate) fn stop(&self) {
        self.task.abort();
    }

    /// Someone finds that the topology may be wrong.
    pub(crate) fn nudge(&self) {
        self.wanted.once.notify_one();
    }

    /// Someone waits for news.
    pub(crate) fn keep_asking(&self) -> Asking<'_> {
        self.wanted.by.fetch_add(1, Ordering::Relaxed);
        self.nudge();
        Asking(&self.wanted)
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(core: Weak<Core>, wanted: Arc<Wanted>) {
    let mut not_before = Instant::now();
    let mut last: Weak<Topology> = Weak::new();
    let mut rounds_without_news = 0;
    let mut asking = BTreeSet::new();
    let mut questions: JoinSet<NodeId> = JoinSet::new();
    loop {
        let due = async {
            sleep_until(not_before).await;
            if wanted.by.load(Ordering::Relaxed) == 0 {
                wanted.once.notified().await;
            }
        };
        tokio::select! {
            () = due => {
                let Some(core) = core.upgrade() else { return };
                let topology = core.view.topology();
                let is_news = last.as_ptr() != Arc::as_ptr(&topology);
                rounds_without_news = if is_news { 0 } else { rounds_without_news + 1 };
                last = Arc::downgrade(&topology);
                let slowness = if rounds_without_news < QUICK_ROUNDS { 2 } else { 10 };
                not_before = Instant::now() + core.dice.jitter(slowness * CLIENT_TOPOLOGY_PAUSE);
                for node in topology.nodes().iter().map(|node| node.id).filter(|&node| asking.insert(node)) {
                    let (core, topology) = (Arc::clone(&core), Arc::clone(&topology));
                    questions.spawn(async move {
                        ask_node(&core, &topology, node).await;
                        node
                    });
                }
            }
            Some(asked) = questions.join_next() => match asked {
                Ok(node) => {
                    asking.remove(&node);
                }
                // A question that panicked is ours to find; the others go on.
                Err(_) => asking.clear(),
            }
        }
    }
}

/// Asks a node, over a connection that there is or a new one.
async fn ask_node(core: &Core, topology: &Topology, node: NodeId) {
    match core.pool.any(node) {
        Some(connection) => ask(core, &connection).await,
        // Whatever a new connection's hello tells is taken in by the pool, and failures are kept there.
        None => drop(core.pool.connect(topology, node, ShardId(0), 0).await),
    }
}

/// Asks over a connection, and closes it if nothing comes back.
pub(crate) async fn ask(core: &Core, connection: &Connection) {
    match timeout(CLIENT_PROBE_TIMEOUT, question(core, connection)).await {
        Ok(Ok(topology)) => core.view.hear(&topology, connection.node()),
        Ok(Err(error)) => tracing::debug!(?connection, %error, "a node did not tell the topology"),
        Err(_) => connection.close("the node did not answer in time"),
    }
}

async fn question(core: &Core, connection: &Connection) -> Result<Topology> {
    let request = Request::Topology;
    let bytes = request.size_hint();
    let lost = |lost: Lost| Error::NotReady { why: lost.why.to_string() };
    let answer = connection.send(Room::FOR_PROBE, None, core.view.epoch(), &request, bytes);
    let answer = answer.map_err(|not_sent| match not_sent {
        NotSent::Lost(why) => lost(why),
        NotSent::Invalid(error) => error.into(),
    })?;
    let frame = answer.await.map_err(lost)?;
    match frame.response()? {
        Response::Topology(topology) => Topology::read(core.view.topology().cluster(), &topology),
        Response::Error(error) => Err(Error::of(error, ShardId(0), CLIENT_PROBE_TIMEOUT)),
        other => Err(Error::Protocol {
            what: format!("a question for the topology was answered by {}", other.kind()),
        }),
    }
}
