//! The handle of a cluster: connecting, and what can be asked of it.

use std::fmt;
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_base::ShardId;
use mesh_base::limits::CLIENT_RETRY_PAUSE_MAX;
use tokio::time::{sleep, timeout_at};

use crate::backoff::{Dice, pause};
use crate::calls::{Delete, DeleteMany, Get, GetMany, Increment, Put, PutMany};
use crate::connection::{DialError, Greeted, Hello, dial, with_port};
use crate::core::{Core, Handle};
use crate::error::Tried;
use crate::options::{ClusterBuilder, Settings};
use crate::request::Deadline;
use crate::{Error, Items, Range, Result, Topology};

/// A cluster. Cheap to clone; clones share connections and sessions, which end with the last of them and of the ranges
/// that are read.
///
/// It is used inside of the tokio runtime that it was connected in.
#[derive(Clone)]
pub struct Cluster {
    handle: Arc<Handle>,
}

impl Cluster {
    /// Connects to the cluster that the nodes at these addresses (`host:port`) belong to. One that answers is enough: the
    /// others are learned from it.
    ///
    /// # Errors
    /// As [`ClusterBuilder::connect`].
    pub async fn connect(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Result<Self> {
        Self::builder().connect(endpoints).await
    }

    /// Connects with options.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    /// Writes a key. Awaiting it gives the revision that it was written at.
    ///
    /// The write is applied once, however often it has to be sent.
    ///
    /// ```no_run
    /// # async fn example(cluster: mesh_client::Cluster) -> mesh_client::Result<()> {
    /// use std::time::Duration;
    ///
    /// let written = cluster.put("greeting", "hello").deadline(Duration::from_secs(1)).await?;
    /// println!("written at revision {}", written.revision);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn put<K, V>(&self, key: K, value: V) -> Put<'_, K, V>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        Put::new(self, key, value)
    }

    /// Reads a key. Awaiting it gives what the key holds, or nothing if it does not exist; never anything older than what
    /// was written before the call.
    pub const fn get<K: AsRef<[u8]>>(&self, key: K) -> Get<'_, K> {
        Get::new(self, key)
    }

    /// Deletes a key. Awaiting it tells whether it existed.
    pub const fn delete<K: AsRef<[u8]>>(&self, key: K) -> Delete<'_, K> {
        Delete::new(self, key)
    }

    /// Adds to the number that a key holds, in decimal digits; a key that does not exist counts as 0. Awaiting it gives the sum. However
    /// often it had to be sent, it counts once.
    pub const fn increment<K: AsRef<[u8]>>(&self, key: K, delta: i64) -> Increment<'_, K> {
        Increment::new(self, key, delta)
    }

    /// Reads several keys. Awaiting it gives what each holds, in their order.
    ///
    /// The keys of one shard are read at one revision; those of several shards are not.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> GetMany<'_, K> {
        GetMany::new(self, keys)
    }

    /// Writes several keys. Awaiting it gives the revision of each, in their order.
    ///
    /// The keys of one shard are written at one revision, all of them or none. Over several shards each does its part or
    /// not; if only some did, the error is [`Error::Partial`]. Keys with the same tag, the part of the key inside the first
    /// `{` and `}`, are of one shard. For one shard a batch has at most 4096 keys and 4 MiB. Of a key that comes twice the
    /// later value counts.
    pub fn put_many<K, V>(&self, items: impl IntoIterator<Item = (K, V)>) -> PutMany<'_, K, V>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        PutMany::new(self, items)
    }

    /// Deletes several keys. Awaiting it tells how many existed. What is said of [`Cluster::put_many`] holds for it too.
    pub fn delete_many<K: AsRef<[u8]>>(&self, keys: impl IntoIterator<Item = K>) -> DeleteMany<'_, K> {
        DeleteMany::new(self, keys)
    }

    /// Reads keys in order, page by page, as they are asked for.
    ///
    /// Each shard is read at one revision, however many pages are fetched; several shards are not read at one instant.
    ///
    /// ```no_run
    /// # async fn example(cluster: mesh_client::Cluster) -> mesh_client::Result<()> {
    /// use mesh_client::Range;
    ///
    /// let mut users = cluster.range(Range::prefix("users/"));
    /// while let Some(user) = users.next().await {
    ///     let user = user?;
    ///     println!("{}: {} bytes", user.key.escape_ascii(), user.item.value.len());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn range(&self, range: Range) -> Items {
        Items::new(Arc::clone(&self.handle), range)
    }

    /// What is known of the cluster: its nodes, and which of them leads which shard.
    #[must_use]
    pub fn topology(&self) -> Arc<Topology> {
        self.core().view.topology()
    }

    /// Closes all connections. Calls that are under way, and later ones, end with [`Error::Closed`], or with
    /// [`Error::Unknown`] if they are writes that may have been applied.
    pub fn close(&self) {
        self.core().shut();
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        self.handle.core()
    }

    pub(crate) async fn open(settings: Settings, endpoints: &[String]) -> Result<Self> {
        let endpoints: Vec<_> =
            endpoints.iter().map(|endpoint| with_port(endpoint)).collect::<Result<_>>()?;
        if endpoints.is_empty() {
            return Err(Error::NoEndpoints);
        }
        let dice = Arc::new(Dice::new());
        let mut heard = vec![Heard::Nothing; endpoints.len()];
        let deadline = Deadline::after(settings.connect_deadline).at;
        let found = timeout_at(deadline, search(&settings, &dice, &endpoints, &mut heard)).await;
        let (greeted, topology) = found.unwrap_or_else(|_| Err(verdict(endpoints, heard)))?;
        let core = Core::new(settings, dice, topology);
        core.pool.adopt(greeted);
        // The other nodes may know better who leads.
        core.keeper.nudge();
        Ok(Self { handle: Arc::new(Handle::new(core)) })
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("cluster", &self.topology().cluster()).finish_non_exhaustive()
    }
}

/// What came of an endpoint.
#[derive(Clone, Debug)]
enum Heard {
    Nothing,
    Failed(String),
    /// It is a node that has no cluster yet.
    Unborn(String),
}

/// Tries all endpoints until one of them is a node of a cluster.
async fn search(
    settings: &Settings,
    dice: &Dice,
    endpoints: &[String],
    heard: &mut [Heard],
) -> Result<(Greeted, Topology)> {
    let mut rounds = 0;
    loop {
        let hello = Hello { name: &settings.name, cluster: None, wanted_shard: ShardId(0) };
        let dials = endpoints.iter().enumerate();
        let dials = dials.map(|(number, endpoint)| {
            let hello = &hello;
            async move { (number, dial(endpoint, hello).await) }
        });
        let mut dials: FuturesUnordered<_> = dials.collect();
        while let Some((number, dialled)) = dials.next().await {
            let came_of_it = match dialled {
                Ok(mut greeted) => match greeted.topology.clone() {
                    Some(topology) => return Ok((greeted, topology)),
                    None => Heard::Unborn(std::mem::take(&mut greeted.name)),
                },
                Err(DialError::Refused(error)) => return Err(error),
                Err(DialError::Failed(why)) => Heard::Failed(why),
            };
            if let Some(place) = heard.get_mut(number) {
                *place = came_of_it;
            }
        }
        rounds += 1;
        sleep(dice.jitter(pause(rounds, CLIENT_RETRY_PAUSE_MAX / 4))).await;
    }
}

/// Why none of the endpoints was of use.
fn verdict(endpoints: Vec<String>, heard: Vec<Heard>) -> Error {
    let unborn = heard.iter().find_map(|heard| match heard {
        Heard::Unborn(name) => Some(name),
        Heard::Nothing | Heard::Failed(_) => None,
    });
    if let Some(name) = unborn {
        return Error::NotReady { why: format!("node `{name}` waits for the other nodes of its cluster") };
    }
    let tried = endpoints.into_iter().zip(heard).map(|(endpoint, heard)| match heard {
        Heard::Failed(why) => Tried { endpoint, why },
        Heard::Nothing | Heard::Unborn(_) => Tried { endpoint, why: "it did not answer in time".into() },
    });
    Error::Unreachable { tried: tried.collect() }
}
