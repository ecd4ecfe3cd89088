//! Writing a key.

use std::fmt;

use mesh_wire::{Action, Request, Response};

use super::guard::{Guard, guards, transact};
use super::{Options, Pending, check_key, check_value, deadline, not_told, of_one_key};
use crate::request::{Aim, Call, unexpected};
use crate::{Cluster, Result, Swapped, Written};

/// Writes a key; made by [`Cluster::put`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct Put<'c, K, V> {
    options: Options<'c>,
    key: K,
    value: V,
    type_tag: u8,
    guard: Guard,
}

impl<'c, K, V> Put<'c, K, V> {
    pub(crate) const fn new(cluster: &'c Cluster, key: K, value: V) -> Self {
        Self { options: Options::of(cluster), key, value, type_tag: 0, guard: Guard::None }
    }

    deadline!();
    guards!();

    /// Only if the key does not exist; [`Error::Conflict`](crate::Error::Conflict) if it does.
    pub const fn if_absent(mut self) -> Self {
        self.guard = Guard::Absent;
        self
    }

    /// What the value is, in a number of the program's choice that is kept beside it. 0, plain bytes, unless set.
    pub const fn type_tag(mut self, type_tag: u8) -> Self {
        self.type_tag = type_tag;
        self
    }

    /// Asks for what the key held before.
    pub const fn previous(self) -> PutPrevious<'c, K, V> {
        PutPrevious { put: self }
    }
}

impl<'c, K, V> IntoFuture for Put<'c, K, V>
where
    K: AsRef<[u8]> + Send + Sync + 'c,
    V: AsRef<[u8]> + Send + Sync + 'c,
{
    type Output = Result<Written>;
    type IntoFuture = Pending<'c, Written>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if self.guard == Guard::None {
                return put(self.options, self.key.as_ref(), self.value.as_ref(), self.type_tag).await;
            }
            let done = guarded(&self, Previous::Unwanted).await?;
            Ok(Written { revision: done.revision })
        })
    }
}

impl<K, V> fmt::Debug for Put<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put").finish_non_exhaustive()
    }
}

/// Writes a key and tells what it held; made by [`Put::previous`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct PutPrevious<'c, K, V> {
    put: Put<'c, K, V>,
}

impl<'c, K, V> IntoFuture for PutPrevious<'c, K, V>
where
    K: AsRef<[u8]> + Send + Sync + 'c,
    V: AsRef<[u8]> + Send + Sync + 'c,
{
    type Output = Result<Swapped>;
    type IntoFuture = Pending<'c, Swapped>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { guarded(&self.put, Previous::Wanted).await })
    }
}

impl<K, V> fmt::Debug for PutPrevious<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutPrevious").finish_non_exhaustive()
    }
}

/// Whether to tell what the key held.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Previous {
    Wanted,
    Unwanted,
}

async fn guarded<K, V>(put: &Put<'_, K, V>, previous: Previous) -> Result<Swapped>
where
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let (key, value) = (put.key.as_ref(), put.value.as_ref());
    check_key(key)?;
    check_value(value)?;
    let previous = previous == Previous::Wanted;
    let action = Action::Put { value, lease: 0, type_tag: put.type_tag, previous };
    let done = transact(put.options, key, put.guard, action).await?;
    Ok(Swapped { revision: done.revision, previous: done.found })
}

async fn put(options: Options<'_>, key: &[u8], value: &[u8], type_tag: u8) -> Result<Written> {
    check_key(key)?;
    check_value(value)?;
    let core = options.cluster.core();
    let put = mesh_wire::Put { key, value, type_tag, ..Default::default() };
    let mut call = Call::new(Request::Put(put), Aim::Key(key), options.deadline());
    let frame = core.perform(&mut call).await.map_err(of_one_key)?;
    match frame.response() {
        Ok(Response::Written(written)) => {
            core.saw(written.revision);
            Ok(Written { revision: written.revision })
        }
        Ok(other) => Err(not_told(unexpected(&other))),
        Err(error) => Err(not_told(error)),
    }
}
