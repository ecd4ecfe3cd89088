//! Changing the tree: a batch of writes, cell by cell.

use mesh_base::{Namespace, PageNo, Revision};

use super::read::{GROUP_KEYS, Touch};
use super::{Step, Tree};
use crate::cell::{self, NewPayload};
use crate::error::StoreError;
use crate::key::KeyRef;
use crate::page::{self, SLOT_BYTES, interior, leaf, slotted};
use crate::pointer::PagePointer;
use crate::read::{Lookup, Misses};
use crate::write::{Attributes, CellWrite, Change};

impl Tree {
    /// Looks for everything that the writes need.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`].
    pub(crate) fn look_for(&self, writes: &[CellWrite<'_>]) -> Result<Misses, StoreError> {
        self.find_leaves(writes, |_| {})
    }

    /// Looks for everything that the writes need, and names the leaf of each, up to the first that is missing.
    fn find_leaves(
        &self,
        writes: &[CellWrite<'_>],
        mut name: impl FnMut(PageNo),
    ) -> Result<Misses, StoreError> {
        let view = self.view();
        let mut misses = Misses::none(self.allocator.reuses());
        writes.iter().try_for_each(|write| self.check_size(write))?;
        let keys: Vec<_> = writes.iter().map(CellWrite::cell_key).collect();
        for group in keys.chunks(GROUP_KEYS) {
            for found in view.leaves_of(group, Touch::Point) {
                match found {
                    Ok(spot) => name(page::stamp(spot.page).page),
                    Err(want) => misses.add(want),
                }
            }
        }
        Ok(misses)
    }

    /// Does all of the writes, or none if a page is missing.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], and then nothing was changed.
    pub(crate) fn write(&mut self, writes: &[CellWrite<'_>]) -> Result<Lookup<()>, StoreError> {
        let mut leaves = Vec::with_capacity(writes.len());
        let misses = self.find_leaves(writes, |leaf| leaves.push(leaf))?;
        if !misses.is_empty() {
            return Ok(Lookup::Miss(misses));
        }
        let found_at = self.reshapes;
        for (write, leaf) in writes.iter().zip(leaves) {
            if self.reshapes != found_at || !self.put_in_place(write, leaf) {
                self.write_one(write);
            }
        }
        Ok(Lookup::Ready(()))
    }

    pub(super) fn check_size(&self, write: &CellWrite<'_>) -> Result<(), StoreError> {
        let too_large = |what, bytes, limit| Err(StoreError::TooLarge { what, bytes, limit });
        if write.key.len() > self.options.key_bytes_max {
            return too_large("key", write.key.len(), self.options.key_bytes_max);
        }
        match write.change {
            Change::Put { value, .. } if value.len() > self.options.value_bytes_max => {
                too_large("value", value.len(), self.options.value_bytes_max)
            }
            _ => Ok(()),
        }
    }

    /// Puts a new version into the leaf that its key was found to belong into, if that needs nothing else: the leaf is dirty
    /// already and has room, and the cells beside the new one tell what else there is of its key. Otherwise nothing is done.
    fn put_in_place(&mut self, write: &CellWrite<'_>, leaf: PageNo) -> bool {
        let (key, Change::Put { attributes, value }) = (write.cell_key(), write.change) else { return false };
        let Some(page) = self.frames.peek(leaf).filter(|page| page::stamp(page).checkpoint == self.epoch)
        else {
            return false;
        };
        let cell_bytes = cell::inline_cell_bytes(&key, &attributes, value.len());
        let (index, is_there) = leaf::lower_bound(page, &key);
        let is_between = index > 0 && index < slotted::count(page);
        if is_there || !is_between || !self.is_inline(value, cell_bytes) || !slotted::fits(page, cell_bytes) {
            return false;
        }
        debug_assert!(self.view().is_leaf_of(&key, leaf), "the leaf of {key:?} is another by now");
        self.count_keys(leaf, &key, index, &attributes, Some(value));
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        cell::encode(&mut bytes, &key, &attributes, NewPayload::Inline(value));
        self.add_cell(leaf, index, &bytes);
        self.scratch = bytes;
        self.revision = self.revision.max(key.revision);
        true
    }

    /// Adds a cell to a leaf that is dirty and has room.
    fn add_cell(&mut self, leaf: PageNo, index: usize, bytes: &[u8]) {
        slotted::insert(self.edit(leaf), index, bytes);
        self.cells += 1;
        self.shape.leaf_bytes += (bytes.len() + SLOT_BYTES) as u64;
    }

    fn write_one(&mut self, write: &CellWrite<'_>) {
        let key = write.cell_key();
        self.walk(&key);
        match write.change {
            Change::Remove => self.remove(&key),
            Change::Delete => {
                let attributes = Attributes::created(key.revision);
                self.insert(&key, &attributes, None);
            }
            Change::Put { attributes, value } => self.insert(&key, &attributes, Some(value)),
        }
        self.revision = self.revision.max(key.revision);
    }

    /// Notes the way to the leaf of a key. All of it is resident.
    pub(super) fn walk(&mut self, key: &KeyRef<'_>) {
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        let mut page_no = self.root.pointer.page;
        for _ in 0..self.root.level {
            let page = self.page(page_no);
            let index = interior::child_of(page, key);
            let child = interior::pointer(page, index).page;
            path.push(Step { page: page_no, index });
            page_no = child;
        }
        path.push(Step { page: page_no, index: 0 });
        self.path = path;
    }

    /// The leaf at the end of the way.
    pub(super) fn leaf_step(&self) -> Step {
        self.step(self.path.len() - 1)
    }

    /// A step of the way.
    #[allow(clippy::indexing_slicing, reason = "depths are those of the way just noted")]
    pub(super) fn step(&self, depth: usize) -> Step {
        self.path[depth]
    }

    #[allow(clippy::indexing_slicing, reason = "depths are those of the way just noted")]
    fn set_step_page(&mut self, depth: usize, pointer: &PagePointer) {
        self.path[depth].page = pointer.page;
    }

    /// Makes every page of the way dirty for this epoch, by copying those that are not.
    pub(super) fn own_path(&mut self) {
        if self.is_owned(self.leaf_step().page) {
            return;
        }
        for depth in 0..self.path.len() {
            let old = self.step(depth).page;
            if self.is_owned(old) {
                continue;
            }
            let pointer = self.copy_page(old);
            self.set_step_page(depth, &pointer);
            if depth == 0 {
                self.root.pointer = pointer;
            } else {
                let parent = self.step(depth - 1);
                interior::set_pointer(self.edit(parent.page), parent.index, &pointer);
            }
        }
    }

    /// The least key that the leaf at the end of the way may hold.
    fn path_lower(&self) -> KeyRef<'_> {
        let above = self.path.iter().rev().skip(1);
        let step = above.into_iter().find(|step| step.index > 0);
        step.map_or(KeyRef::FIRST, |step| interior::separator(self.page(step.page), step.index))
    }

    /// The key that the leaf at the end of the way must stay below.
    pub(super) fn path_upper(&self) -> Option<KeyRef<'_>> {
        self.path.iter().rev().skip(1).find_map(|step| {
            let page = self.page(step.page);
            (step.index + 1 < slotted::count(page)).then(|| interior::separator(page, step.index + 1))
        })
    }

    fn insert(&mut self, key: &KeyRef<'_>, attributes: &Attributes, value: Option<&[u8]>) {
        self.own_path();
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        self.encode_cell(&mut bytes, key, attributes, value);
        let leaf_no = self.leaf_step().page;
        let (mut index, is_there) = leaf::lower_bound(self.page(leaf_no), key);
        if is_there {
            self.take_cell(index);
        } else {
            self.count_keys(leaf_no, key, index, attributes, value);
        }
        // Garbage is no burden where there is room for it, and looking for it is work.
        if !slotted::fits(self.page(leaf_no), bytes.len()) && self.collect_leaf() > 0 {
            index = leaf::lower_bound(self.page(leaf_no), key).0;
        }
        if slotted::fits(self.page(leaf_no), bytes.len()) {
            self.add_cell(leaf_no, index, &bytes);
            self.balance();
        } else {
            self.cells += 1;
            self.shape.leaf_bytes += (bytes.len() + SLOT_BYTES) as u64;
            self.split_leaf(index, &bytes);
        }
        self.scratch = bytes;
    }

    pub(super) fn encode_cell(
        &mut self,
        out: &mut Vec<u8>,
        key: &KeyRef<'_>,
        attributes: &Attributes,
        value: Option<&[u8]>,
    ) {
        let Some(value) = value else {
            return cell::encode(out, key, attributes, NewPayload::Tombstone);
        };
        if self.is_inline(value, cell::inline_cell_bytes(key, attributes, value.len())) {
            return cell::encode(out, key, attributes, NewPayload::Inline(value));
        }
        let extents = self.store_value(value);
        let value_bytes = u32::try_from(value.len()).unwrap_or(u32::MAX);
        cell::encode(out, key, attributes, NewPayload::Large { value_bytes, extents: &extents });
    }

    /// Whether a value is kept in its cell, which would have so many bytes.
    const fn is_inline(&self, value: &[u8], cell_bytes: usize) -> bool {
        value.len() <= self.options.inline_bytes_max() && cell_bytes <= self.options.cell_bytes_max()
    }

    fn remove(&mut self, key: &KeyRef<'_>) {
        let (index, is_there) = leaf::lower_bound(self.page(self.leaf_step().page), key);
        if is_there {
            self.own_path();
            self.take_cell(index);
            self.balance();
        }
    }

    /// Takes a cell out of the leaf at the end of the way, and gives back its extents.
    pub(super) fn take_cell(&mut self, index: usize) {
        let leaf_no = self.leaf_step().page;
        self.release_value(leaf_no, index);
        let bytes = slotted::cell(self.page(leaf_no), index).len() + SLOT_BYTES;
        slotted::remove(self.edit(leaf_no), index);
        self.cells -= 1;
        self.shape.leaf_bytes -= bytes as u64;
    }

    /// Keeps the number of live keys, by what lies beside the new cell. Where a key's versions go on in another leaf,
    /// the version's own count tells whether there was one before; only there the way to the leaf is looked at.
    fn count_keys(
        &mut self,
        leaf_no: PageNo,
        key: &KeyRef<'_>,
        index: usize,
        attributes: &Attributes,
        value: Option<&[u8]>,
    ) {
        if key.namespace == Namespace::SYSTEM {
            return;
        }
        let page = self.page(leaf_no);
        let newer = match index.checked_sub(1) {
            Some(before) => leaf::is_version_of(page, before, key),
            None => self.path_lower().same_key(key) && self.path_lower().revision != Revision::MAX,
        };
        if newer {
            return;
        }
        let is_live = value.is_some();
        let was_live = if index < slotted::count(page) {
            leaf::is_version_of(page, index, key) && !leaf::is_tombstone(page, index)
        } else {
            let goes_on = self.path_upper().is_some_and(|upper| upper.same_key(key));
            goes_on && (!is_live || attributes.version > 1)
        };
        self.keys = match (was_live, is_live) {
            (false, true) => self.keys + 1,
            (true, false) => self.keys.saturating_sub(1),
            _ => self.keys,
        };
    }
}
