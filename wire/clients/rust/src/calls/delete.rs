//! Deleting a key.

use std::fmt;

use mesh_wire::{Action, Request, Response};

use super::guard::{Guard, guards, transact};
use super::{Options, Pending, check_key, deadline, not_told, of_one_key};
use crate::request::{Aim, Call, unexpected};
use crate::{Cluster, Deleted, Result, Swapped};

/// Deletes a key; made by [`Cluster::delete`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct Delete<'c, K> {
    options: Options<'c>,
    key: K,
    guard: Guard,
}

impl<'c, K> Delete<'c, K> {
    pub(crate) const fn new(cluster: &'c Cluster, key: K) -> Self {
        Self { options: Options::of(cluster), key, guard: Guard::None }
    }

    deadline!();
    guards!();

    /// Asks for what the key held before.
    pub const fn previous(self) -> DeletePrevious<'c, K> {
        DeletePrevious { delete: self }
    }
}

impl<'c, K: AsRef<[u8]> + Send + Sync + 'c> IntoFuture for Delete<'c, K> {
    type Output = Result<Deleted>;
    type IntoFuture = Pending<'c, Deleted>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if self.guard == Guard::None {
                return delete(self.options, self.key.as_ref()).await;
            }
            let done = guarded(&self).await?;
            Ok(Deleted { revision: done.revision, deleted: done.previous.is_some().into() })
        })
    }
}

impl<K> fmt::Debug for Delete<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delete").finish_non_exhaustive()
    }
}

/// Deletes a key and tells what it held; made by [`Delete::previous`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct DeletePrevious<'c, K> {
    delete: Delete<'c, K>,
}

impl<'c, K: AsRef<[u8]> + Send + Sync + 'c> IntoFuture for DeletePrevious<'c, K> {
    type Output = Result<Swapped>;
    type IntoFuture = Pending<'c, Swapped>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { guarded(&self.delete).await })
    }
}

impl<K> fmt::Debug for DeletePrevious<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeletePrevious").finish_non_exhaustive()
    }
}

async fn guarded<K: AsRef<[u8]>>(delete: &Delete<'_, K>) -> Result<Swapped> {
    let key = delete.key.as_ref();
    check_key(key)?;
    let done = transact(delete.options, key, delete.guard, Action::Delete { previous: true }).await?;
    Ok(Swapped { revision: done.revision, previous: done.found })
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
