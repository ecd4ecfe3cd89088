//! One file: what is durable of it, and what is only written.
//!
//! Invariants:
//! - A block is its durable bytes under its cached versions, oldest first; a read sees the newest.
//! - A version that becomes durable takes every older version of its block with it, so no crash brings one back over it.
//! - A file gets shorter only by a crash and by a truncation. That is a change like a write: of zeros over what it cuts
//!   off, and of the length; a crash keeps all of it or nothing.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use mesh_base::io::WriteDurability;
use mesh_base::limits::SECTOR_BYTES;
use mesh_base::prng::Prng;

use super::crash::Fate;
use super::{Damage, TEAR_BYTES};

const BLOCK: u64 = SECTOR_BYTES as u64;
const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];
const TEARS_PER_BLOCK: usize = SECTOR_BYTES / TEAR_BYTES;

/// Numbers the changes of one file, or of the names of one directory, in the order of their completion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct ChangeNo(pub(super) u64);

/// A write whose effect is still to come.
#[derive(Clone, Debug)]
pub(super) struct InFlightWrite {
    pub(super) offset: u64,
    pub(super) data: Bytes,
    pub(super) durability: WriteDurability,
}

#[derive(Clone, Default, Debug)]
pub(super) struct File {
    blocks: BTreeMap<u64, Block>,
    length: u64,
    durable_length: u64,
    /// Changes that are visible and not durable.
    changes: BTreeMap<ChangeNo, Change>,
    next: ChangeNo,
}

#[derive(Clone, Default, Debug)]
struct Block {
    /// `None` is zeros.
    durable: Option<Bytes>,
    cached: Vec<Version>,
    medium: Medium,
}

/// Whether the medium gives back what is stored.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Medium {
    #[default]
    Sound,
    /// Not until the block is written again.
    Unreadable,
}

#[derive(Clone, Debug)]
struct Version {
    change: ChangeNo,
    data: Bytes,
}

#[derive(Clone, Debug)]
struct Change {
    /// None for an allocation.
    blocks: Range<u64>,
    length: LengthChange,
    hope: Hope,
}

/// What a change does to the length of the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LengthChange {
    /// It is at least this.
    AtLeast(u64),
    /// It is at most this.
    AtMost(u64),
}

impl LengthChange {
    fn of(self, length: u64) -> u64 {
        match self {
            Self::AtLeast(least) => length.max(least),
            Self::AtMost(most) => length.min(most),
        }
    }
}

/// Whether a sync can still make a change durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hope {
    /// The next one will.
    Sync,
    /// None will: the sync, or the write itself, failed. A crash may keep it all the same.
    Luck,
}

impl InFlightWrite {
    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.data.len() as u64
    }

    /// How many units a crash may tear it into.
    pub(super) fn tears(&self) -> usize {
        self.data.len() / TEAR_BYTES
    }

    /// Lets a drawn part of the write be seen in `bytes`, which were read from `range`.
    #[allow(clippy::indexing_slicing, reason = "tears lie inside both the write and the range")]
    #[allow(clippy::cast_possible_truncation, reason = "offsets within a buffer")]
    pub(super) fn show_through(&self, bytes: &mut [u8], range: Range<u64>, prng: &mut Prng) {
        let both = self.offset.max(range.start)..self.range().end.min(range.end);
        let mut at = both.start;
        while at < both.end {
            if prng.chance_per_mille(500) {
                let from = (at - self.offset) as usize;
                let to = (at - range.start) as usize;
                bytes[to..to + TEAR_BYTES].copy_from_slice(&self.data[from..from + TEAR_BYTES]);
            }
            at += TEAR_BYTES as u64;
        }
    }

    fn blocks(&self) -> Range<u64> {
        self.offset / BLOCK..self.range().end / BLOCK
    }

    /// The write's blocks with their bytes.
    fn parts(&self) -> impl Iterator<Item = (u64, Bytes)> + '_ {
        let starts = (0..self.data.len()).step_by(SECTOR_BYTES);
        self.blocks().zip(starts.map(|start| self.data.slice(start..start + SECTOR_BYTES)))
    }
}

impl File {
    /// The visible length in bytes.
    pub(super) const fn length(&self) -> u64 {
        self.length
    }

    /// The offset of a byte that is not in a hole.
    pub(super) fn draw_stored(&self, prng: &mut Prng) -> Option<u64> {
        let stored: Vec<u64> = self
            .blocks
            .iter()
            .filter(|(_, block)| block.visible().is_some())
            .map(|(block, _)| *block)
            .collect();
        let block = prng.choose(&stored)?;
        Some(block * BLOCK + prng.range(0..BLOCK))
    }

    /// The number of the next change: a sync submitted now covers those before it.
    pub(super) const fn next_change(&self) -> ChangeNo {
        self.next
    }

    /// The visible bytes of a range of whole blocks.
    pub(super) fn read(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(usize::try_from(range.end - range.start).unwrap_or(0));
        for block in range.start / BLOCK..range.end / BLOCK {
            match self.blocks.get(&block).and_then(Block::visible) {
                Some(data) => bytes.extend_from_slice(data),
                None => bytes.resize(bytes.len() + SECTOR_BYTES, 0),
            }
        }
        bytes
    }

    /// Whether the medium gives all of a range of whole blocks back.
    pub(super) fn is_readable(&self, range: Range<u64>) -> bool {
        let mut blocks = self.blocks.range(range.start / BLOCK..range.end.div_ceil(BLOCK));
        blocks.all(|(_, block)| block.medium == Medium::Sound)
    }

    /// A write to a file that is durable on completion.
    pub(super) fn write_durable(&mut self, write: &InFlightWrite) {
        // What cut the file off before its end is durable with it, and does not cut it off.
        let end = write.range().end;
        let is_before = |change: &Change| matches!(change.length, LengthChange::AtMost(most) if most < end);
        let cuts: Vec<ChangeNo> =
            self.changes.iter().filter(|(_, change)| is_before(change)).map(|(number, _)| *number).collect();
        cuts.into_iter().for_each(|number| self.settle(number));
        for (number, data) in write.parts() {
            let block = self.blocks.entry(number).or_default();
            block.cached.clear();
            block.medium = Medium::Sound;
            block.set_durable(data);
        }
        self.durable_length = self.durable_length.max(write.range().end);
        self.length = self.length.max(self.durable_length);
    }

    /// A write to a file that is durable on a sync.
    pub(super) fn write_cached(&mut self, write: &InFlightWrite) {
        let change = self.record(write.blocks(), Hope::Sync, LengthChange::AtLeast(write.range().end));
        for (block, data) in write.parts() {
            let block = self.blocks.entry(block).or_default();
            block.medium = Medium::Sound;
            block.cached.push(Version { change, data });
        }
    }

    /// A write that failed, or that its process did not live to see completed: a part of it is visible.
    pub(super) fn land_abandoned(&mut self, write: &InFlightWrite, fate: &Fate) {
        self.land(write, fate, Hope::Luck);
    }

    /// A write in flight when its process was killed.
    pub(super) fn land_orphaned(&mut self, write: &InFlightWrite, fate: &Fate) {
        self.land(write, fate, Hope::Sync);
    }

    pub(super) fn allocate(&mut self, end: u64) {
        self.record(0..0, Hope::Sync, LengthChange::AtLeast(end));
    }

    /// Cuts off what lies behind `end`, as far as there is anything.
    pub(super) fn truncate(&mut self, end: u64) {
        if end >= self.length {
            return;
        }
        let gone = end / BLOCK..self.length.div_ceil(BLOCK);
        let change = self.record(gone.clone(), Hope::Sync, LengthChange::AtMost(end));
        for (_, block) in self.blocks.range_mut(gone) {
            block.medium = Medium::Sound;
            block.cached.push(Version { change, data: Bytes::from_static(&ZEROS) });
        }
    }

    /// Makes the changes before `before` durable.
    pub(super) fn sync(&mut self, before: ChangeNo) {
        let covered: Vec<ChangeNo> = self
            .changes
            .range(..before)
            .filter(|(_, change)| change.hope == Hope::Sync)
            .map(|(number, _)| *number)
            .collect();
        covered.into_iter().for_each(|number| self.settle(number));
    }

    /// A change is durable.
    fn settle(&mut self, number: ChangeNo) {
        let Some(change) = self.changes.remove(&number) else { return };
        for block in change.blocks {
            if let Some(block) = self.blocks.get_mut(&block) {
                block.make_durable(number);
            }
        }
        self.durable_length = change.length.of(self.durable_length);
    }

    /// A sync failed: what it covered is past saving. A truncation that is lost is lost at once: what is written later is
    /// not to be cut off by it.
    pub(super) fn fail_sync(&mut self, before: ChangeNo) {
        self.changes
            .retain(|number, change| *number >= before || matches!(change.length, LengthChange::AtLeast(_)));
        self.changes.range_mut(..before).for_each(|(_, change)| change.hope = Hope::Luck);
    }

    /// Power is lost: each change that is not durable meets the fate that `draw` gives it for its number of tears.
    /// An allocation has one, and so has a truncation.
    pub(super) fn lose_power(&mut self, mut draw: impl FnMut(usize) -> Fate) {
        let mut fates = BTreeMap::new();
        for (number, change) in std::mem::take(&mut self.changes) {
            let blocks = usize::try_from(change.blocks.end - change.blocks.start).unwrap_or(0);
            let tears = match change.length {
                LengthChange::AtLeast(_) => (blocks * TEARS_PER_BLOCK).max(1),
                LengthChange::AtMost(_) => 1,
            };
            let fate = draw(tears);
            if fate.keeps_any() {
                self.durable_length = change.length.of(self.durable_length);
            }
            fates.insert(number, (change.blocks.start, fate));
        }
        for (&number, block) in &mut self.blocks {
            for version in std::mem::take(&mut block.cached) {
                let Some((first, fate)) = fates.get(&version.change) else { continue };
                let tear = usize::try_from(number - first).unwrap_or(usize::MAX) * TEARS_PER_BLOCK;
                let survives = |index: usize| fate.keeps(tear + index);
                let merged = overlay(block.durable.as_deref(), &version.data, survives);
                block.set_durable(merged.into());
            }
        }
        self.length = self.durable_length;
        self.blocks.retain(|_, block| block.durable.is_some());
        assert!(
            self.blocks.last_key_value().is_none_or(|(&last, _)| (last + 1) * BLOCK <= self.length),
            "bytes kept beyond the end of a file"
        );
    }

    /// Damages the byte at `offset`, or its sector, wherever a read would find it.
    #[allow(clippy::indexing_slicing, reason = "a sector lies inside its block")]
    #[allow(clippy::cast_possible_truncation, reason = "an offset within a block")]
    pub(super) fn damage(&mut self, offset: u64, damage: Damage, prng: &mut Prng) {
        let block = self.blocks.entry(offset / BLOCK).or_default();
        let within = (offset % BLOCK) as usize;
        let sector = within / TEAR_BYTES * TEAR_BYTES;
        let mut bytes = block.visible().map_or_else(|| vec![0; SECTOR_BYTES], <[u8]>::to_vec);
        match damage {
            Damage::FlipBit => bytes[within] ^= 1 << prng.range(0..8),
            Damage::ZeroSector => bytes[sector..sector + TEAR_BYTES].fill(0),
            Damage::ScrambleSector => prng.fill(&mut bytes[sector..sector + TEAR_BYTES]),
            Damage::LoseSector => block.medium = Medium::Unreadable,
        }
        match block.cached.last_mut() {
            Some(version) => version.data = Bytes::from(bytes),
            None => block.set_durable(bytes.into()),
        }
    }

    fn land(&mut self, write: &InFlightWrite, fate: &Fate, hope: Hope) {
        if !fate.keeps_any() {
            return;
        }
        let change = self.record(write.blocks(), hope, LengthChange::AtLeast(write.range().end));
        for (index, (number, data)) in write.parts().enumerate() {
            let block = self.blocks.entry(number).or_default();
            let survives = |tear: usize| fate.keeps(index * TEARS_PER_BLOCK + tear);
            let merged = overlay(block.visible(), &data, survives);
            block.medium = Medium::Sound;
            block.cached.push(Version { change, data: Bytes::from(merged) });
        }
    }

    fn record(&mut self, blocks: Range<u64>, hope: Hope, length: LengthChange) -> ChangeNo {
        let change = self.next;
        self.next = ChangeNo(change.0 + 1);
        self.length = length.of(self.length);
        self.changes.insert(change, Change { blocks, length, hope });
        change
    }
}

impl Block {
    fn visible(&self) -> Option<&[u8]> {
        self.cached.last().map(|version| &*version.data).or(self.durable.as_deref())
    }

    fn set_durable(&mut self, data: Bytes) {
        debug_assert_eq!(data.len(), SECTOR_BYTES);
        self.durable = (*data != ZEROS).then_some(data);
    }

    fn make_durable(&mut self, change: ChangeNo) {
        if let Some(position) = self.cached.iter().position(|version| version.change == change) {
            let newest = self.cached.drain(..=position).next_back();
            if let Some(version) = newest {
                self.set_durable(version.data);
            }
        }
    }
}

/// A block of which some sectors are new.
fn overlay(old: Option<&[u8]>, new: &[u8], survives: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut bytes = old.map_or_else(|| vec![0; SECTOR_BYTES], <[u8]>::to_vec);
    for (index, (to, from)) in bytes.chunks_mut(TEAR_BYTES).zip(new.chunks(TEAR_BYTES)).enumerate() {
        if survives(index) {
            to.copy_from_slice(from);
        }
    }
    bytes
}
