//! Writing a key.

use std::fmt;

use mesh_wire::{Request, Response};

use super::{Options, Pending, check_key, check_value, deadline, not_told, of_one_key};
use crate::request::{Aim, Call, unexpected};
use crate::{Cluster, Result, Written};

/// Writes a key; made by [`Cluster::put`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct Put<'c, K, V> {
    options: Options<'c>,
    key: K,
    value: V,
    type_tag: u8,
}

impl<'c, K, V> Put<'c, K, V> {
    pub(crate) const fn new(cluster: &'c Cluster, key: K, value: V) -> Self {
        Self { options: Options::of(cluster), key, value, type_tag: 0 }
    }

    deadline!();

    /// What the value is, in a number of the program's choice that is kept beside it. 0, plain bytes, unless set.
    pub const fn type_tag(mut self, type_tag: u8) -> Self {
        self.type_tag = type_tag;
        self
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
        Box::pin(
            async move { put(self.options, self.key.as_ref(), self.value.as_ref(), self.type_tag).await },
        )
    }
}

impl<K, V> fmt::Debug for Put<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put").finish_non_exhaustive()
    }
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
