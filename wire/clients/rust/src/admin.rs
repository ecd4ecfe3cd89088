//! What concerns nodes instead of keys: how they are, and the replacing of one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use mesh_base::ShardId;
use mesh_wire::{Frame, Outgoing, ReplaceNode, Request, Response};
use tokio::time::timeout_at;

use crate::calls::not_told;
use crate::connection::{Answer, Connection, DialError, Hello, NotSent, Room, dial, with_port};
use crate::core::Core;
use crate::error::Tried;
use crate::options::Settings;
use crate::pool::NoConnection;
use crate::request::{Aim, Call, Deadline, Failure, unexpected};
use crate::{Cluster, Error, Node, NodeReport, NodeStatus, Replaced, Result};

impl Cluster {
    /// How every node of the cluster is. Nodes that do not answer are told with the reason.
    pub async fn status(&self) -> Vec<NodeReport> {
        let topology = self.core().view.topology();
        let asked = topology.nodes().iter().map(|node| async {
            let status = status_of(self.core(), node).await;
            NodeReport { node: node.clone(), status }
        });
        join_all(asked).await
    }

    /// How one node is, by its name or address.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the cluster has no such node; [`Error::Unreachable`] if it does not answer.
    pub async fn status_of(&self, name_or_address: &str) -> Result<NodeStatus> {
        let topology = self.core().view.topology();
        let Some(node) = topology.find(name_or_address) else {
            return Err(Error::NotFound { what: format!("node `{name_or_address}` in this cluster") });
        };
        status_of(self.core(), node).await
    }

    /// How the node at an address is, be it part of a cluster or not. No handle of a cluster is needed for it.
    ///
    /// # Errors
    /// [`Error::BadEndpoint`]; [`Error::Unreachable`] if it does not answer within the deadline.
    pub async fn status_at(endpoint: &str, deadline: Duration) -> Result<NodeStatus> {
        let address = with_port(endpoint)?;
        let settings = Settings::default();
        let hello = Hello { name: &settings.name, cluster: None, wanted_shard: ShardId(0) };
        let unreachable =
            |why: String| Error::Unreachable { tried: vec![Tried { endpoint: address.clone(), why }] };
        let asking = async {
            let greeted = match dial(&address, &hello).await {
                Ok(greeted) => greeted,
                Err(DialError::Refused(error)) => return Err(error),
                Err(DialError::Failed(why)) => return Err(unreachable(why)),
            };
            let connection = Connection::start(greeted, mesh_base::CoreId(0), settings.in_flight_max);
            let frame = ask(&connection, &Request::Status).await?;
            read_status(&frame, deadline)
        };
        match timeout_at(Deadline::after(deadline).at, asking).await {
            Ok(status) => status,
            Err(_) => Err(unreachable("it did not answer in time".into())),
        }
    }

    /// Gives the place of a lost node to an empty one that is started under the same name. How far that has come is in
    /// the [status](Cluster::status).
    ///
    /// Asking again for a replacement that is under way changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the cluster has no such node; [`Error::Unknown`] if it may be under way; otherwise as for
    /// other calls.
    pub async fn replace_node(&self, name: &str) -> Result<Replaced> {
        let deadline = Deadline::after(self.core().settings.deadline);
        // The first shard keeps the membership.
        let aim = Aim::Shard(ShardId(0));
        let nonce = self.core().dice.number();
        let mut call = Call::new(Request::ReplaceNode(ReplaceNode { name, nonce }), aim, deadline);
        let frame = self.core().perform(&mut call).await.map_err(|failure| match failure {
            Failure::Error(error) => error,
            Failure::Rerouted => Error::NotReady { why: "slots are moving".into() },
        })?;
        match frame.response() {
            Ok(Response::Replace(replaced)) => {
                self.core().keeper.nudge();
                Ok(Replaced { node: replaced.node, replica: replaced.replica, state: replaced.state.into() })
            }
            Ok(other) => Err(not_told(unexpected(&other))),
            Err(error) => Err(not_told(error)),
        }
    }
}

async fn status_of(core: &Arc<Core>, node: &Node) -> Result<NodeStatus> {
    let deadline = Deadline::after(core.settings.deadline);
    let topology = core.view.topology();
    let unreachable =
        |why: String| Error::Unreachable { tried: vec![Tried { endpoint: node.address.clone(), why }] };
    let asking = async {
        let connection = match core.pool.connect(&topology, node.id, ShardId(0), 0).await {
            Ok(connection) => connection,
            Err(NoConnection::Later { tried, .. }) => return Err(Error::Unreachable { tried: vec![tried] }),
            Err(NoConnection::Refused(error)) => return Err(error),
        };
        let frame = ask(&connection, &Request::Status).await?;
        read_status(&frame, deadline.whole)
    };
    match timeout_at(deadline.at, asking).await {
        Ok(status) => status,
        Err(_) => Err(unreachable("it did not answer in time".into())),
    }
}

/// Asks over a connection, once.
async fn ask(connection: &Connection, request: &Request<'_>) -> Result<Frame> {
    let lost = |why: &str| {
        let why = format!("the connection was lost: {why}");
        Error::Unreachable { tried: vec![Tried { endpoint: connection.endpoint().to_owned(), why }] }
    };
    let answer: Answer = connection
        .send(Room::FOR_PROBE, None, Default::default(), request, request.size_hint())
        .map_err(|not_sent| match not_sent {
            NotSent::Lost(by) => lost(&by.why),
            NotSent::Invalid(error) => error.into(),
        })?;
    answer.await.map_err(|by| lost(&by.why))
}

fn read_status(frame: &Frame, deadline: Duration) -> Result<NodeStatus> {
    match frame.response()? {
        Response::Status(status) => Ok(NodeStatus::read(&status)),
        Response::Error(error) => Err(Error::of(error, ShardId(0), deadline)),
        other => Err(unexpected(&other)),
    }
}
