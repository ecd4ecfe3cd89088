//! Loading in key order: cells behind all others, leaf after leaf.
//!
//! Nothing is searched and nothing is moved: a cell goes behind the last one, and where that leaf has no room for it, a
//! new leaf begins. Full pages stay full: what is loaded takes the least space there is, and what is written into it
//! later splits a leaf once, as it would soon with any space that were left.
//!
//! Invariants:
//! - After every cell the tree is whole: a new page is pointed at from above as soon as it is there. So a checkpoint may
//!   be taken between any two calls, and loading goes on from it after a restart.
//! - Only the right edge of the tree has to be resident, and only it is copied for a new checkpoint.

use mesh_base::Namespace;

use super::read::{Seek, Touch};
use super::{Step, Tree};
use crate::cell;
use crate::error::StoreError;
use crate::key::{CellKey, KeyRef};
use crate::page::{self, SLOT_BYTES, interior, leaf, slotted};
use crate::pointer::PagePointer;
use crate::read::{Lookup, Misses};
use crate::write::{Attributes, CellWrite, Change};

impl Tree {
    /// The last key, if there is one.
    pub(crate) fn last_key(&self) -> Lookup<Option<CellKey>> {
        match self.view().descend(&Seek::Last, Touch::Point) {
            Ok(found) => Lookup::Ready(last_key_of(found.page).map(|key| key.to_owned())),
            Err(miss) => Lookup::Miss(Misses { stamp: self.allocator.reuses(), wants: vec![miss.want] }),
        }
    }

    /// Puts cells behind all others, in their order: all of them, or none if a page is missing.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], and then nothing was changed.
    ///
    /// # Panics
    /// When the first cell is not behind all others, or one of them is removed: bugs of the caller, who has checked their
    /// order.
    pub(crate) fn append(&mut self, writes: &[CellWrite<'_>]) -> Result<Lookup<()>, StoreError> {
        for write in writes {
            self.check_size(write)?;
        }
        let Some(first) = writes.first().map(CellWrite::cell_key) else { return Ok(Lookup::Ready(())) };
        let last = match self.last_key() {
            Lookup::Ready(last) => last,
            Lookup::Miss(misses) => return Ok(Lookup::Miss(misses)),
        };
        assert!(last.as_ref().is_none_or(|last| last.as_ref() < first), "{first:?} is not behind {last:?}");
        self.walk(&first);
        self.own_path();
        let mut before = last.as_ref().map(CellKey::as_ref);
        for write in writes {
            self.append_one(write, before.as_ref());
            before = Some(write.cell_key());
        }
        Ok(Lookup::Ready(()))
    }

    fn append_one(&mut self, write: &CellWrite<'_>, before: Option<&KeyRef<'_>>) {
        let key = write.cell_key();
        let (attributes, value) = match write.change {
            Change::Put { attributes, value } => (attributes, Some(value)),
            Change::Delete => (Attributes::created(key.revision), None),
            Change::Remove => unreachable!("a snapshot has cells, not their removal"),
        };
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        self.encode_cell(&mut bytes, &key, &attributes, value);
        if !slotted::fits(self.page(self.leaf_step().page), bytes.len()) {
            self.begin_leaf(&key);
        }
        let page = self.edit(self.leaf_step().page);
        slotted::insert(page, slotted::count(page), &bytes);
        self.shape.leaf_bytes += (bytes.len() + SLOT_BYTES) as u64;
        self.scratch = bytes;
        self.cells += 1;
        // The newest version of a key comes first, and says whether the key is live.
        let is_newest = before.is_none_or(|before| !before.same_key(&key));
        if is_newest && value.is_some() && key.namespace != Namespace::SYSTEM {
            self.keys += 1;
        }
        self.revision = self.revision.max(key.revision);
    }

    /// Begins the leaf behind the last, which is full.
    fn begin_leaf(&mut self, key: &KeyRef<'_>) {
        let full = self.page(self.leaf_step().page);
        let separator = last_key_of(full).map_or(*key, |last| key.separator_from(&last)).to_owned();
        let leaf = self.new_page(0);
        self.push_page(0, &separator.as_ref(), &leaf);
    }

    /// Points at a new last page of a level from above. The way goes through it from then on.
    fn push_page(&mut self, level: usize, separator: &KeyRef<'_>, page: &PagePointer) {
        let mut bytes = Vec::with_capacity(cell::interior_cell_bytes_max(separator.key.len()));
        interior::encode(&mut bytes, separator, page);
        if level + 1 == self.path.len() {
            self.grow_root(&bytes);
            self.path.insert(0, Step { page: self.root.pointer.page, index: 1 });
        } else {
            let parent = self.page(self.step_at(level + 1).page);
            let (end, parent_level) = (slotted::count(parent), page::level(parent));
            if slotted::fits(parent, bytes.len()) {
                let parent = self.edit(self.step_at(level + 1).page);
                slotted::insert(parent, end, &bytes);
                self.set_step_at(level + 1, |step| step.index = end);
            } else {
                let right = self.new_page(parent_level);
                bytes.clear();
                interior::encode(&mut bytes, &KeyRef::FIRST, page);
                slotted::insert(self.edit(right.page), 0, &bytes);
                self.push_page(level + 1, separator, &right);
            }
        }
        self.set_step_at(level, |step| *step = Step { page: page.page, index: 0 });
    }

    /// The step of the way at a level, which the leaf begins with 0.
    fn step_at(&self, level: usize) -> Step {
        self.step(self.path.len() - 1 - level)
    }

    fn set_step_at(&mut self, level: usize, change: impl FnOnce(&mut Step)) {
        let depth = self.path.len() - 1 - level;
        if let Some(step) = self.path.get_mut(depth) {
            change(step);
        }
    }
}

/// The key of a leaf's last cell.
fn last_key_of(leaf: &[u8]) -> Option<KeyRef<'_>> {
    slotted::count(leaf).checked_sub(1).map(|last| leaf::key(leaf, last))
}
