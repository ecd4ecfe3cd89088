//! Garbage: versions that no read at or above the horizon can see.
//!
//! Of a key's versions at or below the horizon only the newest can be seen; the older are dropped. If that newest is a
//! tombstone, it says the same as nothing at all, and is dropped too, but only when no older version is left behind
//! that would then come to light. Versions older than those in a leaf can be in a later leaf only if they are of the
//! leaf's last key and the separator after the leaf is a version of that key.

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
    pub next: Option<CellKey>,
}

impl Tree {
    /// Clears the leaf at the end of the way, which is dirty, if the horizon rose since that was last done.
    pub(super) fn collect_leaf(&mut self) -> usize {
        let leaf_no = self.leaf_step().page;
        if self.frames.collected(leaf_no) >= self.horizon { 0 } else { self.collect_leaf_again() }
    }

    fn collect_leaf_again(&mut self) -> usize {
        let leaf_no = self.leaf_step().page;
        let garbage = garbage_of(self.page(leaf_no), self.path_upper().as_ref(), self.horizon);
        for index in garbage.iter().rev() {
            self.take_cell(*index);
        }
        self.frames.set_collected(leaf_no, self.horizon);
        garbage.len()
    }

    /// Clears leaves from `from` on, looking at no more than `leaves_max`.
    pub(crate) fn sweep(&mut self, from: &KeyRef<'_>, leaves_max: usize) -> Lookup<SweepProgress> {
        let mut progress = SweepProgress { dropped: 0, next: Some(from.to_owned()) };
        for _ in 0..leaves_max {
            let Some(next) = progress.next.clone() else { break };
            let view = self.view();
            let found = match view.descend(&Seek::At(next.as_ref()), Touch::Scan) {
                Ok(found) => found,
                // What was done stays done: a miss is an answer only where nothing was.
                Err(_) if progress.next.as_ref().map(CellKey::as_ref) != Some(*from) => break,
                Err(miss) => {
                    return Lookup::Miss(Misses { stamp: self.allocator.reuses(), wants: vec![miss.want] });
                }
            };
            progress.next = found.upper.map(|upper| upper.to_owned());
            let garbage = garbage_of(found.page, found.upper.as_ref(), self.horizon);
            progress.dropped += self.sweep_leaf(&next, &garbage);
        }
        Lookup::Ready(progress)
    }

    fn sweep_leaf(&mut self, key: &CellKey, garbage: &[usize]) -> usize {
        self.walk(&key.as_ref());
        if garbage.is_empty() {
            let leaf_no = self.leaf_step().page;
            self.frames.set_collected(leaf_no, self.horizon);
            return 0;
        }
        self.own_path();
        let dropped = self.collect_leaf_again();
        self.balance();
        dropped
    }
}

/// The cells of a leaf that no read at or above the horizon can see, in ascending order.
fn garbage_of(page: &[u8], upper: Option<&KeyRef<'_>>, horizon: Revision) -> Vec<usize> {
    let cells = slotted::count(page);
    let mut garbage = Vec::new();
    let mut index = 0;
    while index < cells {
        let key = leaf::key(page, index);
        let end = (index + 1..cells).find(|next| !leaf::key(page, *next).same_key(&key)).unwrap_or(cells);
        if key.namespace != Namespace::SYSTEM {
            let goes_on = end == cells && upper.is_some_and(|upper| upper.same_key(&key));
            let reach = if goes_on { Reach::Further } else { Reach::Here };
            garbage_of_key(page, index..end, reach, horizon, &mut garbage);
        }
        index = end;
    }
    garbage
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
    garbage: &mut Vec<usize>,
) {
    let Some(newest) = versions.clone().find(|index| leaf::key(page, *index).revision <= horizon) else {
        return;
    };
    if reach == Reach::Here && leaf::cell(page, newest).is_tombstone() {
        garbage.push(newest);
    }
    garbage.extend(newest + 1..versions.end);
}
