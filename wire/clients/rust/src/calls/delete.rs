//! Deleting a key.

use std::fmt;

use mesh_wire::{Request, Response};

use super::{Options, Pending, check_key, deadline, not_told, of_one_key};
use crate::request::{Aim, Call, unexpected};
use crate::{Cluster, Deleted, Result};

/// Deletes a key; made by [`Cluster::delete`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct Delete<'c, K> {
    options: Options<'c>,
    key: K,
}

impl<'c, K> Delete<'c, K> {
    pub(crate) const fn new(cluster: &'c Cluster, key: K) -> Self {
        Self { options: Options::of(cluster), key }
    }

    deadline!();
}

impl<'c, K: AsRef<[u8]> + Send + Sync + 'c> IntoFuture for Delete<'c, K> {
    type Output = Result<Deleted>;
    type IntoFuture = Pending<'c, Deleted>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { delete(self.options, self.key.as_ref()).await })
    }
}

impl<K> fmt::Debug for Delete<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delete").finish_non_exhaustive()
    }
}

async fn delete(options: Options<'_>, key: &[u8]) -> Result<Deleted> {
    check_key(key)?;
    let core = options.cluster.core();
    let keys = [key];
    let delete = mesh_wire::Delete { keys: (&keys).into(), ..Default::default() };
    let mut call = Call::new(Request::Delete(delete), Aim::Key(key), options.deadline());
    let frame = core.perform(&mut call).await.map_err(of_one_key)?;
    match frame.response() {
        Ok(Response::Deleted(deleted)) => {
            core.saw(deleted.revision);
            Ok(Deleted { revision: deleted.revision, deleted: deleted.deleted.into() })
        }
        Ok(other) => Err(not_told(unexpected(&other))),
        Err(error) => Err(not_told(error)),
    }
}
