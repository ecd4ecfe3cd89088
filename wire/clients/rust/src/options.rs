//! How a program wants to use a cluster.

use std::time::Duration;

use mesh_base::limits::{
    CLIENT_DEADLINE, CLIENT_REQUESTS_IN_FLIGHT, CONNECTION_REQUESTS_IN_FLIGHT_MAX, NODE_NAME_BYTES_MAX,
};

use crate::{Cluster, Error, Result};

/// Most connections to one core of a node.
const CONNECTIONS_PER_CORE_MAX: usize = 16;

/// Options of a [`Cluster`], and its connecting.
#[derive(Clone, Debug)]
#[must_use]
pub struct ClusterBuilder {
    settings: Settings,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) name: String,
    pub(crate) connect_deadline: Duration,
    pub(crate) deadline: Duration,
    pub(crate) connections_per_core: usize,
    pub(crate) in_flight_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "mesh-client".into(),
            connect_deadline: CLIENT_DEADLINE,
            deadline: CLIENT_DEADLINE,
            connections_per_core: 1,
            in_flight_max: CLIENT_REQUESTS_IN_FLIGHT,
        }
    }
}

impl ClusterBuilder {
    pub(crate) fn new() -> Self {
        Self { settings: Settings::default() }
    }

    /// What the program calls itself towards the nodes; at most 64 bytes. `mesh-client` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// How long [`ClusterBuilder::connect`] goes on trying to reach a node. 5 seconds unless set.
    pub const fn connect_deadline(mut self, deadline: Duration) -> Self {
        self.settings.connect_deadline = deadline;
        self
    }

    /// How long a call goes on trying, unless it has a deadline of its own. 5 seconds unless set.
    pub const fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Connections to each core of each node that leads a shard. 1 unless set, which is enough for a program that sends
    /// from few threads; between 1 and 16.
    pub fn connections_per_core(mut self, count: usize) -> Self {
        self.settings.connections_per_core = count.clamp(1, CONNECTIONS_PER_CORE_MAX);
        self
    }

    /// Requests in flight on one connection; a large one counts as several, each 16 KiB as one more. Further calls wait.
    /// 1024 unless set; between 1 and 4096.
    pub fn in_flight_max(mut self, count: usize) -> Self {
        self.settings.in_flight_max = count.clamp(1, CONNECTION_REQUESTS_IN_FLIGHT_MAX);
        self
    }

    /// Connects to the cluster that the nodes at these addresses belong to. One that answers is enough: the others are
    /// learned from it.
    ///
    /// # Errors
    /// [`Error::NoEndpoints`], [`Error::BadEndpoint`]; [`Error::Unreachable`] if none answers in time;
    /// [`Error::NotReady`] if one does and is not part of a cluster yet.
    pub async fn connect(self, endpoints: impl IntoIterator<Item = impl Into<String>>) -> Result<Cluster> {
        let name = self.settings.name.len();
        if !(1..=NODE_NAME_BYTES_MAX).contains(&name) {
            let (limit, actual) = (NODE_NAME_BYTES_MAX as u64, name as u64);
            return Err(Error::TooLarge { what: "bytes of the client's name".into(), limit, actual });
        }
        let endpoints: Vec<String> = endpoints.into_iter().map(Into::into).collect();
        Cluster::open(self.settings, &endpoints).await
    }
}
