//! Several keys in one call: split by shard, all shards at the same time.
//!
//! Invariants:
//! - What a batch writes to one shard is applied there as a whole or not at all. Over several shards it is not: each
//!   does its part or not, and [`Error::Partial`] tells which items were written.
//! - Nothing is sent of a batch that has a key or a part which is too large.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use mesh_base::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX};
use mesh_base::{Revision, ShardId};
use mesh_wire::{Delete, GetBatch, KeyValue, PutBatch, Request, Response};

use super::{Options, Pending, at_most, check_key, check_value, deadline, not_told};
use crate::core::Core;
use crate::request::{Aim, Call, Deadline, Failure, unexpected};
use crate::{Cluster, Deleted, Error, Item, Result, Topology, Written};

/// Reads several keys; made by [`Cluster::get_many`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct GetMany<'c, K> {
    options: Options<'c>,
    keys: Vec<K>,
}

/// Writes several keys; made by [`Cluster::put_many`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct PutMany<'c, K, V> {
    options: Options<'c>,
    items: Vec<(K, V)>,
}

/// Deletes several keys; made by [`Cluster::delete_many`] and done by awaiting it.
#[must_use = "a call is done when it is awaited"]
pub struct DeleteMany<'c, K> {
    options: Options<'c>,
    keys: Vec<K>,
}

impl<'c, K> GetMany<'c, K> {
    pub(crate) fn new(cluster: &'c Cluster, keys: impl IntoIterator<Item = K>) -> Self {
        Self { options: Options::of(cluster), keys: keys.into_iter().collect() }
    }

    deadline!();
}

impl<'c, K, V> PutMany<'c, K, V> {
    pub(crate) fn new(cluster: &'c Cluster, items: impl IntoIterator<Item = (K, V)>) -> Self {
        Self { options: Options::of(cluster), items: items.into_iter().collect() }
    }

    deadline!();
}

impl<'c, K> DeleteMany<'c, K> {
    pub(crate) fn new(cluster: &'c Cluster, keys: impl IntoIterator<Item = K>) -> Self {
        Self { options: Options::of(cluster), keys: keys.into_iter().collect() }
    }

    deadline!();
}

impl<'c, K: AsRef<[u8]> + Send + Sync + 'c> IntoFuture for GetMany<'c, K> {
    type Output = Result<Vec<Option<Item>>>;
    type IntoFuture = Pending<'c, Vec<Option<Item>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let keys: Vec<_> = self.keys.iter().map(AsRef::as_ref).collect();
            get_many(self.options, &keys).await
        })
    }
}

impl<'c, K, V> IntoFuture for PutMany<'c, K, V>
where
    K: AsRef<[u8]> + Send + Sync + 'c,
    V: AsRef<[u8]> + Send + Sync + 'c,
{
    type Output = Result<Vec<Written>>;
    type IntoFuture = Pending<'c, Vec<Written>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let items =
                self.items.iter().map(|(key, value)| KeyValue { key: key.as_ref(), value: value.as_ref() });
            let items: Vec<_> = items.collect();
            let done = write_many(self.options, Change::Put(&items)).await?;
            Ok(done.into_iter().map(|done| Written { revision: done.revision }).collect())
        })
    }
}

impl<'c, K: AsRef<[u8]> + Send + Sync + 'c> IntoFuture for DeleteMany<'c, K> {
    type Output = Result<Deleted>;
    type IntoFuture = Pending<'c, Deleted>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let keys: Vec<_> = self.keys.iter().map(AsRef::as_ref).collect();
            let done = write_many(self.options, Change::Delete(&keys)).await?;
            let revision = done.iter().map(|done| done.revision).max().unwrap_or_default();
            Ok(Deleted { revision, deleted: done.iter().map(|done| u64::from(done.deleted)).sum() })
        })
    }
}

impl<K> fmt::Debug for GetMany<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetMany").field("keys", &self.keys.len()).finish()
    }
}

impl<K, V> fmt::Debug for PutMany<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutMany").field("items", &self.items.len()).finish()
    }
}

impl<K> fmt::Debug for DeleteMany<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeleteMany").field("keys", &self.keys.len()).finish()
    }
}

/// The items of a batch that one shard has: their places in the batch.
struct Part {
    shard: ShardId,
    places: Vec<usize>,
}

/// Splits by shard those items of a batch whose places are given.
fn split<'k>(topology: &Topology, places: &[usize], key: impl Fn(usize) -> &'k [u8]) -> Vec<Part> {
    let mut owned: Vec<_> = places.iter().map(|&place| (topology.shard_of(key(place)), place)).collect();
    owned.sort_unstable();
    let parts = owned.chunk_by(|(one, _), (other, _)| one == other);
    let part = |part: &[(ShardId, usize)]| {
        part.first().map(|&(shard, _)| Part { shard, places: part.iter().map(|&(_, place)| place).collect() })
    };
    parts.filter_map(part).collect()
}

#[allow(clippy::indexing_slicing, reason = "places are those of the items")]
async fn get_many(options: Options<'_>, keys: &[&[u8]]) -> Result<Vec<Option<Item>>> {
    keys.iter().try_for_each(|key| check_key(key))?;
    let (core, deadline) = (options.cluster.core(), options.deadline());
    let mut items = vec![None; keys.len()];
    let mut pending: Vec<usize> = (0..keys.len()).collect();
    let mut round = 0;
    while !pending.is_empty() {
        let parts = split(&core.view.topology(), &pending, |place| keys[place]);
        pending.clear();
        let reads = parts.iter().map(|part| get_part(core, part, keys, deadline, round));
        for (part, found) in parts.iter().zip(join_all(reads).await) {
            match found {
                Ok(found) => part.places.iter().zip(found).for_each(|(&place, item)| items[place] = item),
                Err(Failure::Rerouted) => pending.extend(&part.places),
                Err(Failure::Error(error)) => return Err(error),
            }
        }
        round += 1;
    }
    Ok(items)
}

/// Reads the keys of one shard, all at one revision, in as many requests as are needed.
#[allow(clippy::indexing_slicing, reason = "places are those of the items")]
async fn get_part(
    core: &Arc<Core>,
    part: &Part,
    keys: &[&[u8]],
    deadline: Deadline,
    round: u32,
) -> Result<Vec<Option<Item>>, Failure> {
    let keys: Vec<_> = part.places.iter().map(|&place| keys[place]).collect();
    let (mut items, mut at) = (Vec::with_capacity(keys.len()), Revision::ZERO);
    while items.len() < keys.len() {
        let rest = &keys[items.len()..];
        let mut bytes = 0;
        let fits = rest.iter().take(BATCH_OPS_MAX).take_while(|key| {
            bytes += key.len();
            bytes <= BATCH_BYTES_MAX
        });
        let chunk = &rest[..fits.count()];
        let batch = GetBatch { keys: chunk.into(), at, ..Default::default() };
        let mut call = Call::new(Request::GetBatch(batch), Aim::Shard(part.shard), deadline).in_round(round);
        let frame = core.perform(&mut call).await?;
        match frame.response().map_err(Error::from)? {
            Response::GetBatch(answer) if (1..=chunk.len()).contains(&answer.items.len()) => {
                core.saw(answer.revision);
                at = answer.revision;
                items
                    .extend(answer.items.iter().map(|item| item.map(|item| Item::of(&item, &frame.payload))));
            }
            Response::GetBatch(_) => {
                let what = "a batch was answered with more or fewer items than it has".into();
                return Err(Error::Protocol { what }.into());
            }
            other => return Err(unexpected(&other).into()),
        }
    }
    Ok(items)
}

/// What a batch changes.
#[derive(Clone, Copy)]
enum Change<'a> {
    Put(&'a [KeyValue<'a>]),
    Delete(&'a [&'a [u8]]),
}

#[allow(clippy::indexing_slicing, reason = "places are those of the items")]
impl<'a> Change<'a> {
    const fn len(self) -> usize {
        match self {
            Self::Put(items) => items.len(),
            Self::Delete(keys) => keys.len(),
        }
    }

    fn key(self, place: usize) -> &'a [u8] {
        match self {
            Self::Put(items) => items[place].key,
            Self::Delete(keys) => keys[place],
        }
    }

    fn check(self) -> Result<()> {
        match self {
            Self::Put(items) => items.iter().try_for_each(|item| {
                check_key(item.key)?;
                check_value(item.value)
            }),
            Self::Delete(keys) => keys.iter().try_for_each(|key| check_key(key)),
        }
    }

    fn check_part(self, part: &Part) -> Result<()> {
        at_most("items of a batch for one shard", part.places.len(), BATCH_OPS_MAX)?;
        let bytes = match self {
            Self::Put(items) => {
                part.places.iter().map(|&place| items[place].key.len() + items[place].value.len()).sum()
            }
            // A request for so many keys always fits; what a put writes is bounded by what an entry holds.
            Self::Delete(keys) => part.places.iter().map(|&place| keys[place].len()).sum(),
        };
        at_most("bytes of a batch for one shard", bytes, BATCH_BYTES_MAX)
    }
}

/// What a shard did of a batch.
#[derive(Clone, Copy)]
struct Done {
    revision: Revision,
    deleted: u32,
}

/// Writes; the outcomes are in the order of the items, the number of deleted keys at one item of each shard.
#[allow(clippy::indexing_slicing, reason = "places are those of the items")]
async fn write_many(options: Options<'_>, change: Change<'_>) -> Result<Vec<Done>> {
    change.check()?;
    let (core, deadline) = (options.cluster.core(), options.deadline());
    let mut done: Vec<Option<Done>> = vec![None; change.len()];
    let mut pending: Vec<usize> = (0..change.len()).collect();
    let mut failed: Option<Error> = None;
    let mut round = 0;
    while !pending.is_empty() {
        let parts = split(&core.view.topology(), &pending, |place| change.key(place));
        pending.clear();
        // Nothing of a batch is sent if a part is too large, but slots may move when some of it is done already.
        if let Err(error) = parts.iter().try_for_each(|part| change.check_part(part)) {
            failed = Some(worse(failed, error));
            break;
        }
        let writes = parts.iter().map(|part| write_part(core, part, change, deadline, round));
        for (part, outcome) in parts.iter().zip(join_all(writes).await) {
            match outcome {
                Ok(outcome) => {
                    for (number, &place) in part.places.iter().enumerate() {
                        let deleted = if number == 0 { outcome.deleted } else { 0 };
                        done[place] = Some(Done { deleted, ..outcome });
                    }
                }
                Err(Failure::Rerouted) => pending.extend(&part.places),
                Err(Failure::Error(error)) => failed = Some(worse(failed, error)),
            }
        }
        round += 1;
    }
    let Some(error) = failed else { return Ok(done.into_iter().flatten().collect()) };
    let places = (0..).zip(&done).filter(|(_, done)| done.is_some()).map(|(place, _)| place);
    let places: Vec<usize> = places.collect();
    if places.is_empty() {
        return Err(error);
    }
    Err(Error::Partial { done: places, of: change.len(), error: Box::new(error) })
}

/// Of two errors the one that says less: what is not known counts above all.
fn worse(one: Option<Error>, other: Error) -> Error {
    match one {
        Some(one) if !matches!(other, Error::Unknown { .. }) => one,
        _ => other,
    }
}

#[allow(clippy::indexing_slicing, reason = "places are those of the items")]
async fn write_part(
    core: &Arc<Core>,
    part: &Part,
    change: Change<'_>,
    deadline: Deadline,
    round: u32,
) -> Result<Done, Failure> {
    let aim = Aim::Shard(part.shard);
    let frame = match change {
        Change::Put(items) => {
            let items: Vec<_> = part.places.iter().map(|&place| items[place]).collect();
            let batch = PutBatch { items: (&items).into(), ..Default::default() };
            core.perform(&mut Call::new(Request::PutBatch(batch), aim, deadline).in_round(round)).await?
        }
        Change::Delete(keys) => {
            let keys: Vec<_> = part.places.iter().map(|&place| keys[place]).collect();
            let delete = Delete { keys: (&keys).into(), ..Default::default() };
            core.perform(&mut Call::new(Request::Delete(delete), aim, deadline).in_round(round)).await?
        }
    };
    let done = match frame.response().map_err(not_told)? {
        Response::Written(written) => Done { revision: written.revision, deleted: 0 },
        Response::Deleted(deleted) => Done { revision: deleted.revision, deleted: deleted.deleted },
        other => return Err(not_told(unexpected(&other)).into()),
    };
    core.saw(done.revision);
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_failures_the_one_whose_outcome_is_not_known_is_told() {
        let unknown = Error::Unknown { last: None };
        assert_eq!(worse(Some(Error::NoSpace), unknown.clone()), unknown);
        assert_eq!(worse(Some(unknown.clone()), Error::NoSpace), unknown);
        assert_eq!(worse(None, Error::NoSpace), Error::NoSpace);
    }
}
