//! How much upkeep may be done in a tick.
//!
//! Invariant: what upkeep itself makes dirty does not count as a write that it has to make way for.

use mesh_base::limits::{
    TICKS_PER_SECOND, UPKEEP_BYTES_PER_SECOND_MAX, UPKEEP_BYTES_PER_SECOND_MIN, UPKEEP_PAGES_PER_TICK_MAX,
    UPKEEP_PAGES_PER_TICK_MIN, UPKEEP_SWEEP_PAGES_PER_TICK_MAX,
};

use crate::store::Store;
use crate::tree::Density;

/// Ticks over which the rate of writes is averaged.
const AVERAGE_TICKS: u64 = 64;
const BYTES_PER_TICK_MAX: u64 = UPKEEP_BYTES_PER_SECOND_MAX / TICKS_PER_SECOND;
const BYTES_PER_TICK_MIN: u64 = UPKEEP_BYTES_PER_SECOND_MIN / TICKS_PER_SECOND;
/// Writes that make less dirty in a tick are hardly any.
const CALM_BYTES_PER_TICK: u64 = BYTES_PER_TICK_MAX / 64;
/// Each byte that writes make dirty takes so many from upkeep.
const BYTES_PER_WRITTEN_BYTE: u64 = 4;
/// Ticks for which what may be made dirty is saved up.
const SAVED_TICKS_MAX: i64 = 4;
/// A sweep that drops so many cells from a page, on average, is worth going faster.
const CELLS_PER_PAGE_SWEPT: usize = 4;

#[derive(Debug)]
pub(super) struct Pace {
    /// Pages that may be looked at in this tick by a walk, and by a sweep.
    pages: usize,
    sweep_pages: usize,
    /// Pages that a sweep may look at in each tick.
    sweep_pages_per_tick: usize,
    /// Bytes that may be made dirty now.
    allowance: i64,
    /// What was ever made dirty, when that was last asked.
    dirtied: u64,
    /// What writes made dirty in a tick, on average, times the ticks that are averaged over.
    writes: u64,
}

impl Default for Pace {
    fn default() -> Self {
        let sweep_pages_per_tick = UPKEEP_PAGES_PER_TICK_MIN;
        Self { pages: 0, sweep_pages: 0, sweep_pages_per_tick, allowance: 0, dirtied: 0, writes: 0 }
    }
}

/// A piece of upkeep, for what it costs.
pub(super) struct Work {
    dirtied: u64,
    dirty: usize,
}

impl Work {
    pub(super) const fn begin(store: &Store) -> Self {
        Self { dirtied: store.dirtied_bytes(), dirty: store.dirty_bytes() }
    }
}

impl Pace {
    pub(super) fn tick(&mut self, dirtied: u64) {
        let written = dirtied.saturating_sub(std::mem::replace(&mut self.dirtied, dirtied));
        self.writes = self.writes - self.writes / AVERAGE_TICKS + written;
        let others = BYTES_PER_WRITTEN_BYTE * self.writes_per_tick();
        let earned = BYTES_PER_TICK_MAX.saturating_sub(others).max(BYTES_PER_TICK_MIN).cast_signed();
        self.allowance = self.allowance.saturating_add(earned).min(earned * SAVED_TICKS_MAX);
        self.pages = if self.is_calm() { UPKEEP_PAGES_PER_TICK_MAX } else { UPKEEP_PAGES_PER_TICK_MIN };
        self.sweep_pages = self.sweep_pages_per_tick;
    }

    const fn writes_per_tick(&self) -> u64 {
        self.writes / AVERAGE_TICKS
    }

    /// Whether hardly any writes come.
    pub(super) const fn is_calm(&self) -> bool {
        self.writes_per_tick() < CALM_BYTES_PER_TICK
    }

    pub(super) const fn density(&self) -> Density {
        if self.is_calm() { Density::Dense } else { Density::Loose }
    }

    /// Takes the pages and bytes that a walk has left in this tick.
    pub(super) fn take_pages(&mut self) -> (usize, usize) {
        let bytes = usize::try_from(self.allowance).unwrap_or(0);
        let pages = if bytes > 0 { std::mem::take(&mut self.pages) } else { 0 };
        (pages, bytes)
    }

    /// Of the pages that were taken one was missing, and the others were not looked at.
    pub(super) const fn missed_page(&mut self, taken: usize) {
        self.pages = taken.saturating_sub(1);
    }

    /// Takes the pages that a sweep has left in this tick. It makes no more dirty than the garbage that it drops.
    pub(super) const fn take_sweep_pages(&mut self) -> usize {
        let pages = self.sweep_pages;
        self.sweep_pages = 0;
        pages
    }

    pub(super) const fn missed_sweep_page(&mut self, taken: usize) {
        self.sweep_pages = taken.saturating_sub(1);
    }

    /// A sweep looked at so many pages and dropped so many cells: where there is much to drop it goes faster.
    pub(super) fn swept(&mut self, pages: usize, dropped: usize) {
        let now = self.sweep_pages_per_tick;
        let next = if dropped >= pages * CELLS_PER_PAGE_SWEPT { now * 2 } else { now / 2 };
        let least = if self.is_calm() { UPKEEP_PAGES_PER_TICK_MAX } else { UPKEEP_PAGES_PER_TICK_MIN };
        self.sweep_pages_per_tick = next.clamp(least, UPKEEP_SWEEP_PAGES_PER_TICK_MAX);
    }

    /// A piece of work is done. A page that was copied and is gone again, or was dirty already, costs no write.
    pub(super) fn spend(&mut self, work: &Work, store: &Store) {
        self.dirtied += store.dirtied_bytes() - work.dirtied;
        let dirty = store.dirty_bytes().saturating_sub(work.dirty) as u64;
        self.allowance = self.allowance.saturating_sub_unsigned(dirty);
    }
}
