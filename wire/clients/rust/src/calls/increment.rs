//! Counting.

use std::fmt;

use mesh_wire::Action;

use super::guard::{Guard, transact};
use super::{Options, Pending, check_key, deadline};
use crate::{Cluster, Error, Incremented, Result};

/// Adds to the number that a key holds; made by [`Cluster::increment`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct Increment<'c, K> {
    options: Options<'c>,
    key: K,
    delta: i64,
}

impl<'c, K> Increment<'c, K> {
    pub(crate) const fn new(cluster: &'c Cluster, key: K, delta: i64) -> Self {
        Self { options: Options::of(cluster), key, delta }
    }

    deadline!();
}

impl<'c, K: AsRef<[u8]> + Send + Sync + 'c> IntoFuture for Increment<'c, K> {
    type Output = Result<Incremented>;
    type IntoFuture = Pending<'c, Incremented>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { increment(self.options, self.key.as_ref(), self.delta).await })
    }
}

impl<K> fmt::Debug for Increment<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Increment").finish_non_exhaustive()
    }
}

async fn increment(options: Options<'_>, key: &[u8], delta: i64) -> Result<Incremented> {
    check_key(key)?;
    let done = transact(options, key, Guard::None, Action::Increment { delta }).await?;
    let value = done.found.and_then(|item| std::str::from_utf8(&item.value).ok()?.parse().ok());
    let value = value
        .ok_or_else(|| Error::Protocol { what: "an increment was answered without its number".into() })?;
    Ok(Incremented { revision: done.revision, value })
}
