//! Garbage: versions that no read at or above the horizon can see.
//!
//! Of a key's versions at or below the horizon only the newest can be seen; the older are dropped. If that newest is a
//! tombstone, it says the same as nothing at all, and is dropped too, but only when no older version is left behind
//! that would then come to light. Versions older than those in a leaf can be in a later leaf only if they are of the
//! leaf's last key and the separator after the leaf is a version of that key.

use mesh_base::flaw::{self, Flaw};
use mesh_base::{Namespace, Revision};

use super::Tree;
use super::read::{Seek, Touch};
use crate::key::{CellKey, KeyRef};
use crate::page::{leaf, slotted};
use crate::read::{Lookup, Misses};

/// How far a sweep came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SweepProgress {
    /// Cells that were dropped.
    pub dropped: usize,
    /// Where to go on; nothing when the end was reached.
    pub next: Option<SweepPoint>,
}

/// Where a sweep goes on. It stays true whatever is written meanwhile: what hides a version goes only after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SweepPoint {
    from: CellKey,
    behind: Behind,
}

/// What is known of the key that the sweep goes on in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Behind {
    /// Nothing.
    Unknown,
    /// A newer version of it, at or below the horizon, lies behind: those to come are seen by nobody.
    Newer,
}

impl SweepPoint {
    /// Before everything.
    pub(crate) fn first() -> Self {
        Self { from: KeyRef::FIRST.to_owned(), behind: Behind::Unknown }
    }
}

impl Tree {
    /// Clears the leaf at the end of the way, which is dirty, if the horizon rose since that was last done. Returns how many cells
    /// were dropped.
    pub(super) fn collect_leaf(&mut self) -> usize {
        let leaf_no = self.leaf_step().page;
        if self.frames.collected(leaf_no) >= self.horizon {
            return 0;
        }
        let garbage = garbage_of(self.page(leaf_no), self.path_upper().as_ref(), self.horizon, None);
        self.drop_garbage(&garbage);
        garbage.len()
    }

    /// Drops cells of the leaf at the end of the way, which is dirty: all that is garbage there, in ascending order.
    fn drop_garbage(&mut self, garbage: &[usize]) {
        for index in garbage.iter().rev() {
            self.take_cell(*index);
        }
        let leaf_no = self.leaf_step().page;
        self.frames.set_collected(leaf_no, self.horizon);
    }

    /// Clears leaves from `from` on, looking at no more than `leaves_max`.
    pub(crate) fn sweep(&mut self, from: &SweepPoint, leaves_max: usize) -> Lookup<SweepProgress> {
        let mut progress = SweepProgress { dropped: 0, next: Some(from.clone()) };
        for _ in 0..leaves_max {
            let Some(point) = progress.next.clone() else { break };
            let view = self.view();
            let found = match view.descend(&Seek::At(point.from.as_ref()), Touch::Scan) {
                Ok(found) => found,
                // What was done stays done: a miss is an answer only where nothing was.
                Err(_) if point != *from => break,
                Err(miss) => {
                    return Lookup::Miss(Misses { stamp: self.allocator.reuses(), wants: vec![miss.want] });
                }
            };
            let upper = found.upper();
            let upper = upper.as_ref();
            let garbage = garbage_of(found.page, upper, self.horizon, Some(&point));
            progress.next = upper.map(|upper| SweepPoint {
                from: upper.to_owned(),
                behind: behind(found.page, upper, self.horizon, &point),
            });
            progress.dropped += garbage.len();
            self.sweep_leaf(&point.from, &garbage);
        }
        Lookup::Ready(progress)
    }

    fn sweep_leaf(&mut self, key: &CellKey, garbage: &[usize]) {
        self.walk(&key.as_ref());
        if garbage.is_empty() {
            let leaf_no = self.leaf_step().page;
            self.frames.set_collected(leaf_no, self.horizon);
            return;
        }
        if garbage.len() == slotted::count(self.page(self.leaf_step().page)) {
            return self.drop_leaf();
        }
        self.own_path();
        self.drop_garbage(garbage);
        self.balance();
    }

    /// Takes the leaf at the end of the way out of the tree with all that is in it, without a copy of it being made first.
    fn drop_leaf(&mut self) {
        if self.path.len() == 1 {
            self.own_path();
        }
        let leaf_no = self.leaf_step().page;
        let cells = slotted::count(self.page(leaf_no));
        (0..cells).for_each(|index| self.release_value(leaf_no, index));
        self.cells -= cells as u64;
        self.shape.leaf_bytes -= slotted::used_bytes(self.page(leaf_no)) as u64;
        if self.path.len() == 1 {
            slotted::fill(self.edit(leaf_no), std::iter::empty());
        } else {
            self.path.pop();
            self.own_path();
            self.drop_child(self.path.len() - 1);
            self.balance();
        }
    }
}

/// The cells of a leaf that no read at or above the horizon can see, in ascending order. A sweep knows more of it than the
/// leaf shows.
fn garbage_of(
    page: &[u8],
    upper: Option<&KeyRef<'_>>,
    horizon: Revision,
    swept: Option<&SweepPoint>,
) -> Vec<usize> {
    let cells = slotted::count(page);
    let hidden_from = swept.filter(|point| point.behind == Behind::Newer).map(|point| point.from.as_ref());
    let mut garbage = Vec::new();
    let mut index = 0;
    leaf::prefetch_versions(page);
    let has_tombstones = slotted::tombstones(page) > 0;
    while index < cells {
        // A single version is garbage only if it is a tombstone, or if the sweep passed a newer one in the leaf before.
        if !has_tombstones && (index > 0 || hidden_from.is_none()) {
            let Some(next) = leaf::next_versions(page, index) else { break };
            index = next;
        }
        let end = leaf::end_of_key(page, index);
        let key = leaf::key(page, index);
        if key.namespace != Namespace::SYSTEM {
            let goes_on = end == cells && upper.is_some_and(|upper| upper.same_key(&key));
            let reach = if goes_on { Reach::Further } else { Reach::Here };
            let hidden = hidden_from.filter(|from| from.same_key(&key));
            garbage_of_key(page, index..end, reach, horizon, hidden, &mut garbage);
        }
        index = end;
    }
    garbage
}

/// What lies behind a sweep that goes on after a leaf.
fn behind(page: &[u8], upper: &KeyRef<'_>, horizon: Revision, swept: &SweepPoint) -> Behind {
    let last = (0..slotted::count(page)).rev().map(|index| leaf::key(page, index));
    let has_newer = last.take_while(|key| key.same_key(upper)).any(|key| key.revision <= horizon);
    let goes_on = swept.behind == Behind::Newer && swept.from.as_ref().same_key(upper);
    if has_newer || goes_on { Behind::Newer } else { Behind::Unknown }
}

/// Where a key's versions end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// In this leaf.
    Here,
    /// Perhaps in a later one.
    Further,
}

fn garbage_of_key(
    page: &[u8],
    versions: std::ops::Range<usize>,
    reach: Reach,
    horizon: Revision,
    hidden_from: Option<KeyRef<'_>>,
    garbage: &mut Vec<usize>,
) {
    let newest_of_all = versions.start;
    if versions.len() > 1
        && leaf::cell(page, newest_of_all).is_tombstone()
        && leaf::key(page, newest_of_all).revision > horizon
        && flaw::is_planted(Flaw::DropTombstoneAlone)
    {
        garbage.push(newest_of_all);
    }
    let hidden =
        versions.clone().find(|index| hidden_from.is_some_and(|from| leaf::key(page, *index) >= from));
    let hidden = hidden.unwrap_or(versions.end)..versions.end;
    let newest = versions.clone().find(|index| leaf::key(page, *index).revision <= horizon);
    let Some(newest) = newest.filter(|newest| *newest < hidden.start) else {
        garbage.extend(hidden);
        return;
    };
    if reach == Reach::Here && leaf::cell(page, newest).is_tombstone() {
        garbage.push(newest);
    }
    garbage.extend(newest + 1..versions.end);
}
