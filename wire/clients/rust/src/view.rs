//! What is known of the cluster at present, and a way to wait until that changes.

use std::sync::Arc;

use mesh_base::{NodeId, SlotEpoch};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Topology;

/// The newest topology.
#[derive(Debug)]
pub(crate) struct View {
    known: watch::Sender<Arc<Topology>>,
}

impl View {
    pub(crate) fn new(topology: Topology) -> Self {
        Self { known: watch::Sender::new(Arc::new(topology)) }
    }

    /// The newest topology.
    pub(crate) fn topology(&self) -> Arc<Topology> {
        Arc::clone(&self.known.borrow())
    }

    /// The slot map's version.
    pub(crate) fn epoch(&self) -> SlotEpoch {
        self.known.borrow().epoch()
    }

    /// Takes in what a node says.
    pub(crate) fn hear(&self, theirs: &Topology, from: NodeId) {
        self.known.send_if_modified(|known| {
            if theirs.cluster() != known.cluster() {
                return false;
            }
            let merged = known.merged(theirs, from);
            merged.map(|merged| *known = Arc::new(merged)).is_some()
        });
    }

    /// Waits until something holds of the topology, or until a time.
    pub(crate) async fn wait(&self, until: Instant, mut holds: impl FnMut(&Topology) -> bool) {
        let mut changes = self.known.subscribe();
        // Time running out is one of the two ways that the wait ends, and the sender lives as long as this.
        let _ = tokio::time::timeout_at(until, changes.wait_for(|known| holds(known))).await;
    }
}
