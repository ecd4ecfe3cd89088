//! Reading a key.

use std::fmt;

use mesh_base::Revision;
use mesh_wire::{Request, Response};

use super::{Options, Pending, check_key, deadline, of_one_key};
use crate::request::{Aim, Call, unexpected};
use crate::{Cluster, Item, Result};

/// Reads a key; made by [`Cluster::get`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct Get<'c, K> {
    options: Options<'c>,
    key: K,
    at: Revision,
}

impl<'c, K> Get<'c, K> {
    pub(crate) const fn new(cluster: &'c Cluster, key: K) -> Self {
        Self { options: Options::of(cluster), key, at: Revision::ZERO }
    }

    deadline!();

    /// Reads the key as it was at a revision. The newest is read unless set.
    ///
    /// The call ends with [`crate::Error::Compacted`] if that lies too far in the past.
    pub const fn at(mut self, revision: Revision) -> Self {
        self.at = revision;
        self
    }
}

impl<'c, K: AsRef<[u8]> + Send + Sync + 'c> IntoFuture for Get<'c, K> {
    type Output = Result<Option<Item>>;
    type IntoFuture = Pending<'c, Option<Item>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { get(self.options, self.key.as_ref(), self.at).await })
    }
}

impl<K> fmt::Debug for Get<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Get").field("at", &self.at).finish_non_exhaustive()
    }
}

async fn get(options: Options<'_>, key: &[u8], at: Revision) -> Result<Option<Item>> {
    check_key(key)?;
    let core = options.cluster.core();
    let get = mesh_wire::Get { key, at, ..Default::default() };
    let mut call = Call::new(Request::Get(get), Aim::Key(key), options.deadline());
    let frame = core.perform(&mut call).await.map_err(of_one_key)?;
    match frame.response()? {
        Response::Get(answer) => {
            core.saw(answer.revision);
            Ok(answer.item.map(|item| Item::of(&item, &frame.payload)))
        }
        other => Err(unexpected(&other)),
    }
}
