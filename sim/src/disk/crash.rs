//! What a crash leaves of a disk.

use std::fmt;

use mesh_base::io::{IoOp, WriteDurability};
use mesh_base::prng::Prng;

use super::file::InFlightWrite;
use super::in_flight::InFlight;
use super::{Crash, DiskStatistics, GiveBack, SimDisk};

/// What a crash makes of one write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Kept,
    Dropped,
    /// Which of its sectors are kept: some, not all.
    Torn(Vec<bool>),
}

/// How one crash treats writes, so that the rare outcomes of many independent draws come up too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    KeepsAll,
    DropsAll,
    Draws,
}

impl Fate {
    /// A fate for a write of so many sectors.
    pub(super) fn draw(sectors: usize, prng: &mut Prng) -> Self {
        let cut = prng.index(sectors + 1);
        let kept: Vec<bool> = match prng.range(0..6) {
            0 => return Self::Kept,
            1 => return Self::Dropped,
            2 => (0..sectors).map(|sector| sector < cut).collect(),
            3 => (0..sectors).map(|sector| sector >= cut).collect(),
            4 => (0..sectors).map(|sector| sector != cut).collect(),
            _ => {
                let density = prng.range(1..1000);
                (0..sectors).map(|_| prng.chance_per_mille(density)).collect()
            }
        };
        match kept.iter().filter(|&&it| it).count() {
            0 => Self::Dropped,
            count if count == sectors => Self::Kept,
            _ => Self::Torn(kept),
        }
    }

    pub(super) fn keeps(&self, sector: usize) -> bool {
        match self {
            Self::Kept => true,
            Self::Dropped => false,
            Self::Torn(kept) => kept.get(sector).copied().unwrap_or(false),
        }
    }

    pub(super) fn keeps_any(&self) -> bool {
        *self != Self::Dropped
    }
}

impl Mood {
    fn draw(prng: &mut Prng) -> Self {
        match prng.range(0..8) {
            0 => Self::KeepsAll,
            1 => Self::DropsAll,
            _ => Self::Draws,
        }
    }

    fn fate(self, sectors: usize, prng: &mut Prng, statistics: &mut DiskStatistics) -> Fate {
        let fate = match self {
            Self::KeepsAll => Fate::Kept,
            Self::DropsAll => Fate::Dropped,
            Self::Draws => Fate::draw(sectors, prng),
        };
        match fate {
            Fate::Kept => statistics.kept += 1,
            Fate::Dropped => statistics.dropped += 1,
            Fate::Torn(_) => statistics.torn += 1,
        }
        fate
    }
}

impl<O: Copy + Ord + fmt::Debug> SimDisk<O> {
    /// The process ends, or the machine loses power. What is in flight never completes; it may have happened, in part or
    /// whole, or not.
    pub fn crash(&mut self, crash: Crash) {
        let mut in_flight = self.in_flight.take();
        self.statistics.crashes += 1;
        self.statistics.swallowed += in_flight.len() as u64;
        // Operations in flight are unordered: whatever of them happens, happens in any order.
        self.prng.shuffle(&mut in_flight);
        let mood = Mood::draw(&mut self.prng);
        for operation in in_flight {
            self.abandon(&operation, crash, mood);
        }
        let owners: Vec<O> = self.directories.keys().copied().collect();
        for owner in owners {
            if crash == Crash::Power {
                self.lose_power(owner, mood);
            }
            self.collect(owner);
        }
    }

    fn lose_power(&mut self, owner: O, mood: Mood) {
        let Self { directories, prng, statistics, .. } = self;
        let Some(directory) = directories.get_mut(&owner) else { return };
        for file in directory.files.values_mut() {
            file.lose_power(|sectors| mood.fate(sectors, prng, statistics));
        }
        statistics.names_dropped += directory.names.lose_power(prng);
    }

    /// Lets an operation in flight happen as far as the crash lets it.
    fn abandon(&mut self, operation: &InFlight<O>, crash: Crash, mood: Mood) {
        let happens = crash == Crash::Power || self.prng.chance_per_mille(500);
        match operation.op {
            IoOp::Write { .. } => self.abandon_write(operation, crash, mood),
            IoOp::Allocate { offset, length, .. } if happens => {
                let end = offset + length;
                if self.reserve(operation, end).is_err() {
                    self.allocate_in_part(operation, GiveBack::No);
                } else if let Ok(file) = self.target(operation) {
                    file.allocate(end);
                }
            }
            IoOp::Truncate { length, .. } if happens => {
                if let Ok(file) = self.target(operation) {
                    file.truncate(length);
                }
            }
            // At a loss of power it joins the changes that are not durable, and is drawn with them.
            IoOp::Create { .. } | IoOp::Rename { .. } | IoOp::Remove { .. } if happens => {
                let _refused = self.change_name(operation);
            }
            _ => {}
        }
    }

    fn abandon_write(&mut self, operation: &InFlight<O>, crash: Crash, mood: Mood) {
        let Some(write) = operation.as_write() else { return };
        if self.reserve(operation, write.range().end).is_err() {
            return;
        }
        let fate = match crash {
            Crash::Process => mood.fate(write.tears(), &mut self.prng, &mut self.statistics),
            Crash::Power => Fate::Kept,
        };
        let write = InFlightWrite { durability: WriteDurability::OnSync, ..write };
        let Ok(file) = self.target(operation) else { return };
        match crash {
            Crash::Process => file.land_orphaned(&write, &fate),
            // Not durable like the completed ones, and drawn with them.
            Crash::Power => file.write_cached(&write),
        }
    }
}
