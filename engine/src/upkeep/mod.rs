//! Upkeep: garbage is dropped, thin pages are packed, and the end of the file is given back, a little with each tick of the
//! store's owner.
//!
//! | what | begins when | ends when |
//! |---|---|---|
//! | a sweep for versions below the horizon that no write comes by | the horizon has risen, and what are not live keys became a quarter more since the last one, or some seconds passed | all leaves were looked at |
//! | a walk that packs ([`crate::Density`]) | an eighth of the leaves could be gained, beyond what the last walk left | all pages were |
//! | a walk that moves pages from the end of the file to its front | the file has spare pages, twice as many as it is to keep | no page is behind the place where the file is to end |
//! | giving up the end | the same, and nothing is left to be moved | the file is shorter |
//!
//! Pace (`UPKEEP_*` in [`mesh_base::limits`]): what is made dirty in a second is bounded; each byte that writes make dirty
//! takes four from that, down to a least rate. While writes come pages are packed loosely, once they have calmed down
//! densely. Most garbage goes when the leaf that it is in becomes full; the sweep is for what is left in leaves that no write
//! comes to, and goes as fast as it finds garbage: keys that are overwritten without a pause would leave old versions
//! behind faster than it drops them.
//!
//! Spare pages are those that were available all the time in each of the last two windows of some seconds, and
//! through a whole checkpoint at least: what a load needs again and again, from one checkpoint to the next, is not given
//! back only to be taken again. A chunk of growth and a thirty-second of the pages in use stay in the file in any case.
//!
//! Invariants:
//! - Nothing here is needed for the store to be right, and what it holds is unchanged by it.
//! - A walk that came to its end and could not reach its aim is not begun again before something has changed.

mod pace;
mod spare;

use mesh_base::limits::UPKEEP_SWEEP_PERIOD_TICKS;
use mesh_base::{CheckpointNo, PageNo, Revision};

use self::pace::Pace;
use self::spare::Spare;
use crate::error::StoreError;
use crate::read::Lookup;
use crate::store::{Store, StoreStatistics};
use crate::tree::{Density, PackPlan, PackPoint, SweepPoint};

/// A walk is worth its while when it may gain one leaf of so many.
const LEAVES_PER_GAIN: u64 = 8;
/// The pages in use, beside each so many of which the file keeps a free one.
const USED_PER_KEPT: u64 = 32;

/// Walks that try to move the same pages, each with a quarter of the file more.
const MOVES_MAX: u64 = 3;

/// The upkeep of one store.
#[derive(Default, Debug)]
pub struct Upkeep {
    pace: Pace,
    spare: Spare,
    sweep: Option<Sweep>,
    walk: Option<Walk>,
    /// Cells that are the owner's own records.
    own_cells: u64,
    /// How many dead cells were left when the last sweep ended, and how many ticks ago that was.
    left_dead: u64,
    rested_ticks: u32,
    /// The horizon when the last sweep began.
    swept: Revision,
    /// Leaves that could have been gained when the last walk of each density ended.
    left: Left,
    /// What was to be moved, or given up, when that was last tried.
    tried_to_move: Option<(Obstacle, u64)>,
    tried_to_give_up: Option<Obstacle>,
    /// The checkpoint that what was done last will be part of.
    changed: Option<CheckpointNo>,
    /// The checkpoint that is asked for.
    wanted: Option<CheckpointNo>,
}

#[derive(Debug)]
struct Sweep {
    /// Where it goes on; nothing at its start.
    next: Option<SweepPoint>,
}

/// A walk that packs or moves.
#[derive(Debug)]
struct Walk {
    next: PackPoint,
    before: Option<PageNo>,
    packs: Packs,
    /// The least density with which it packed so far.
    density: Density,
    /// Where a page was to move last, and no lower one was available.
    stuck_at: Option<PackPoint>,
    /// It goes on when this checkpoint is durable.
    waits_for: Option<CheckpointNo>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Packs {
    Yes,
    No,
}

#[derive(Default, Debug)]
struct Left {
    loose: u64,
    dense: u64,
}

impl Left {
    const fn of(&mut self, density: Density) -> &mut u64 {
        match density {
            Density::AsIs | Density::Loose => &mut self.loose,
            Density::Dense => &mut self.dense,
        }
    }
}

/// How long the file is, and how many pages keep its end from being given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Obstacle {
    file_pages: u64,
    pages: u64,
}

impl Upkeep {
    /// A tick of the owner's clock passed. `own_cells` are those that are not counted as live keys and are not garbage: the
    /// records of the owner.
    pub fn tick(&mut self, store: &Store, own_cells: u64) {
        self.own_cells = own_cells;
        self.rested_ticks = self.rested_ticks.saturating_add(1);
        self.pace.tick(store.dirtied_bytes());
        self.spare.tick(store);
    }

    /// Does what may be done now. To be called after each tick, and again when what it missed was fetched.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`].
    pub fn step(&mut self, store: &mut Store) -> Result<Lookup<()>, StoreError> {
        self.choose(store);
        let dirtied = store.dirtied_bytes();
        let done = match self.step_sweep(store)? {
            Lookup::Ready(()) => self.step_walk(store)?,
            Lookup::Miss(misses) => Lookup::Miss(misses),
        };
        let next = store.next_checkpoint();
        if store.dirtied_bytes() > dirtied {
            self.changed = Some(next);
        }
        // Nobody else may have a reason to save what was done, and only then the pages that it freed are free.
        let is_idle = self.sweep.is_none() && self.walk.is_none();
        if is_idle && self.changed == Some(next) && self.pace.is_calm() {
            self.wanted = Some(next);
        }
        Ok(done)
    }

    /// Whether a checkpoint should be taken, although nothing was applied since the last perhaps.
    #[must_use]
    pub fn wants_checkpoint(&self, store: &Store) -> bool {
        self.wanted == Some(store.next_checkpoint())
    }

    /// Cells that are neither live keys nor the owner's own records: garbage, and what is history still.
    fn dead(&self, store: &Store) -> u64 {
        let figures = store.statistics();
        figures.cells.saturating_sub(figures.keys + self.own_cells)
    }

    /// Begins what is due.
    fn choose(&mut self, store: &mut Store) {
        let dead = self.dead(store);
        let has_grown = dead > self.left_dead + self.left_dead / 4;
        let is_worth_it = dead > 0 && (has_grown || self.rested_ticks >= UPKEEP_SWEEP_PERIOD_TICKS);
        if self.sweep.is_none() && is_worth_it && self.swept < store.horizon() {
            self.swept = store.horizon();
            self.sweep = Some(Sweep { next: None });
        }
        if self.walk.is_some() {
            return;
        }
        let figures = store.statistics();
        if self.is_thin(&figures, store) {
            self.walk = Some(Walk::new(Packs::Yes, None));
        } else if let Some(before) = self.give_back(store, &figures) {
            self.walk = Some(Walk::new(Packs::No, Some(before)));
        }
    }

    fn step_sweep(&mut self, store: &mut Store) -> Result<Lookup<()>, StoreError> {
        let Some(sweep) = &mut self.sweep else { return Ok(Lookup::Ready(())) };
        let pages = self.pace.take_sweep_pages();
        if pages == 0 {
            return Ok(Lookup::Ready(()));
        }
        let work = pace::Work::begin(store);
        match store.sweep(sweep.next.as_ref(), pages)? {
            Lookup::Ready(progress) => {
                self.pace.swept(pages, progress.dropped);
                self.pace.spend(&work, store);
                sweep.next = progress.next;
                if sweep.next.is_none() {
                    self.sweep = None;
                    (self.left_dead, self.rested_ticks) = (self.dead(store), 0);
                }
                Ok(Lookup::Ready(()))
            }
            Lookup::Miss(misses) => {
                self.pace.missed_sweep_page(pages);
                Ok(Lookup::Miss(misses))
            }
        }
    }

    fn step_walk(&mut self, store: &mut Store) -> Result<Lookup<()>, StoreError> {
        let density = self.pace.density();
        let Some(walk) = &mut self.walk else { return Ok(Lookup::Ready(())) };
        if walk.waits_for.is_some_and(|no| store.checkpoint().checkpoint < no) {
            return Ok(Lookup::Ready(()));
        }
        walk.waits_for = None;
        let (pages_max, bytes_max) = self.pace.take_pages();
        if pages_max == 0 {
            return Ok(Lookup::Ready(()));
        }
        let density = if walk.packs == Packs::Yes { density } else { Density::AsIs };
        let plan = PackPlan { density, before: walk.before, pages_max, bytes_max };
        let work = pace::Work::begin(store);
        let progress = match store.pack(&walk.next, &plan)? {
            Lookup::Ready(progress) => progress,
            Lookup::Miss(misses) => {
                self.pace.missed_page(pages_max);
                return Ok(Lookup::Miss(misses));
            }
        };
        self.pace.spend(&work, store);
        walk.density = walk.density.min(density);
        // Lower pages come free with the next checkpoint, or not at all.
        let is_over = progress.is_stuck && walk.stuck_at == progress.next;
        if progress.is_stuck && !is_over {
            walk.stuck_at.clone_from(&progress.next);
            walk.waits_for = Some(store.next_checkpoint());
            self.wanted = walk.waits_for;
        }
        match progress.next {
            Some(next) if !is_over => walk.next = next,
            _ => self.end_walk(store),
        }
        Ok(Lookup::Ready(()))
    }

    fn end_walk(&mut self, store: &Store) {
        if let Some(walk) = self.walk.take().filter(|walk| walk.packs == Packs::Yes) {
            *self.left.of(walk.density) = gain(&store.statistics(), store, walk.density);
        }
    }

    /// Whether packing would gain much more than what the last walk left.
    fn is_thin(&mut self, figures: &StoreStatistics, store: &Store) -> bool {
        let density = self.pace.density();
        let gain = gain(figures, store, density);
        let left = self.left.of(density);
        *left = (*left).min(gain);
        gain > *left + figures.leaves / LEAVES_PER_GAIN
    }

    /// Once in each window: where the file is to end, if pages have to be moved for that. If none has to, the next checkpoint
    /// gives up what is behind.
    fn give_back(&mut self, store: &mut Store, figures: &StoreStatistics) -> Option<PageNo> {
        let spare = self.spare.take()?;
        let kept = store.options().grow_pages() + figures.used_pages / USED_PER_KEPT;
        if spare <= 2 * kept {
            return None;
        }
        let end = PageNo(figures.file_pages.saturating_sub(spare - kept));
        let found = store.pages_behind(end);
        let to_move = Obstacle { file_pages: figures.file_pages, pages: found.movable };
        if found.movable > 0
            && let Some(before) = self.next_move(to_move, end)
        {
            return Some(before);
        }
        let to_give_up = Obstacle { file_pages: figures.file_pages, pages: found.needed };
        if self.tried_to_give_up != Some(to_give_up) {
            self.tried_to_give_up = Some(to_give_up);
            store.give_up_behind(end);
            self.wanted = Some(store.next_checkpoint());
        }
        None
    }

    /// The place behind which pages are to move, for the file to end at `end`. Runs of pages that a large value needs may
    /// be missing there; what was in vain is tried again with more of the file, so that single pages make way for them.
    fn next_move(&mut self, obstacle: Obstacle, end: PageNo) -> Option<PageNo> {
        let attempt = match self.tried_to_move {
            Some((tried, attempt)) if tried == obstacle => attempt + 1,
            _ => 0,
        };
        self.tried_to_move = Some((obstacle, attempt.min(MOVES_MAX)));
        (attempt < MOVES_MAX).then(|| PageNo(end.get() - end.get() / 4 * attempt))
    }
}

impl Walk {
    fn new(packs: Packs, before: Option<PageNo>) -> Self {
        Self {
            next: PackPoint::first(),
            before,
            packs,
            density: Density::Dense,
            stuck_at: None,
            waits_for: None,
        }
    }
}

/// Leaves that the tree would have less if all were packed.
fn gain(figures: &StoreStatistics, store: &Store, density: Density) -> u64 {
    let fill = density.fill_bytes(store.options().page_capacity()).max(1) as u64;
    figures.leaves.saturating_sub(figures.leaf_bytes.div_ceil(fill))
}
