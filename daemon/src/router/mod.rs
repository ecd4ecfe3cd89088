//! Which shard owns a key, and which core owns a shard. Pure.
//!
//! Invariants:
//! - Every slot belongs to exactly one shard of an epoch.
//! - A shard's core is a function of the shard and the node's number of cores, so that any core can tell.
//!
//! Deliberately absent: where leaders are. That changes by the second and is the [`crate::core`]'s to know.

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::limits::SHARDS_MAX;
use mesh_base::slot::{SLOTS, slot_of};
use mesh_base::{CoreId, ShardId, SlotEpoch, SlotNo};

/// A run of slots that belong to one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotRange {
    /// The first slot.
    pub first: SlotNo,
    /// The last slot, inclusive.
    pub last: SlotNo,
    /// Their shard.
    pub shard: ShardId,
}

/// The owner of every slot, in one version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotMap {
    epoch: SlotEpoch,
    ranges: Vec<SlotRange>,
}

impl SlotMap {
    /// The first map of a cluster: the slots divided evenly, in order, over `shards` shards.
    ///
    /// # Panics
    /// When there are no shards, or more than [`SHARDS_MAX`]: the caller checks its configuration first.
    #[must_use]
    pub fn even(shards: u16) -> Self {
        assert!(shards > 0 && usize::from(shards) <= SHARDS_MAX);
        let start = |shard: u16| u32::from(shard) * u32::from(SLOTS) / u32::from(shards);
        let slot = |number: u32| SlotNo(u16::try_from(number).unwrap_or(SLOTS - 1));
        let ranges = (0..shards)
            .map(|shard| SlotRange {
                first: slot(start(shard)),
                last: slot(start(shard + 1) - 1),
                shard: ShardId(shard),
            })
            .collect();
        Self { epoch: SlotEpoch(1), ranges }
    }

    /// The map's version.
    #[must_use]
    pub const fn epoch(&self) -> SlotEpoch {
        self.epoch
    }

    /// The ranges in the order of their slots.
    #[must_use]
    pub fn ranges(&self) -> &[SlotRange] {
        &self.ranges
    }

    /// The shard of a slot.
    #[must_use]
    pub fn shard_of_slot(&self, slot: SlotNo) -> ShardId {
        let at = self.ranges.partition_point(|range| range.last < slot);
        self.ranges.get(at).map_or(ShardId(0), |range| range.shard)
    }

    /// The shard of a key.
    #[must_use]
    pub fn shard_of_key(&self, key: &[u8]) -> ShardId {
        self.shard_of_slot(slot_of(key))
    }

    /// Appends the map's stored form: epoch u64, count u32, then first u16, last u16, shard u16 of each range.
    pub fn encode(&self, to: &mut Vec<u8>) {
        to.put_u64(self.epoch.0);
        to.put_u32(u32::try_from(self.ranges.len()).unwrap_or(u32::MAX));
        for range in &self.ranges {
            to.put_u16(range.first.0);
            to.put_u16(range.last.0);
            to.put_u16(range.shard.0);
        }
    }

    /// Reads a stored map; `None` if the ranges do not cover every slot exactly once, in order.
    pub fn decode(from: &mut Reader<'_>) -> Option<Self> {
        let epoch = SlotEpoch(from.u64()?);
        let count = from.u32()?;
        let mut ranges = Vec::new();
        let mut next = 0;
        for _ in 0..count {
            let range = SlotRange {
                first: SlotNo(from.u16()?),
                last: SlotNo(from.u16()?),
                shard: ShardId(from.u16()?),
            };
            if range.first.0 != next || range.last < range.first || range.last.0 >= SLOTS {
                return None;
            }
            next = range.last.0 + 1;
            ranges.push(range);
        }
        (next == SLOTS).then_some(Self { epoch, ranges })
    }
}

/// Which core of this node owns which shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    cores: u16,
}

impl Placement {
    /// Shards dealt out over `cores` cores in turn.
    ///
    /// # Panics
    /// When there are no cores: the caller checks its configuration first.
    #[must_use]
    pub fn new(cores: u16) -> Self {
        assert!(cores > 0);
        Self { cores }
    }

    /// The core of a shard.
    #[must_use]
    pub const fn core_of(self, shard: ShardId) -> CoreId {
        CoreId(shard.0 % self.cores)
    }

    /// The cores of the node.
    pub fn cores(self) -> impl Iterator<Item = CoreId> {
        (0..self.cores).map(CoreId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_has_one_shard_whatever_the_number_of_shards() {
        for shards in [1, 2, 3, 7, 16, 1024] {
            let map = SlotMap::even(shards);
            let mut owned = vec![0_u32; usize::from(shards)];
            for slot in 0..SLOTS {
                owned[usize::from(map.shard_of_slot(SlotNo(slot)).0)] += 1;
            }
            let (least, most) = (owned.iter().min().unwrap(), owned.iter().max().unwrap());
            assert!(most - least <= 1, "{shards} shards are uneven");
            let mut bytes = Vec::new();
            map.encode(&mut bytes);
            assert_eq!(SlotMap::decode(&mut Reader::new(&bytes)), Some(map));
        }
    }

    #[test]
    fn a_stored_map_with_a_gap_is_refused() {
        let mut bytes = Vec::new();
        SlotMap::even(2).encode(&mut bytes);
        bytes[12] = 1;
        assert_eq!(SlotMap::decode(&mut Reader::new(&bytes)), None);
        assert_eq!(SlotMap::decode(&mut Reader::new(&bytes[..bytes.len() - 1])), None);
    }
}
