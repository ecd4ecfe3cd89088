//! Shrinking the tree: empty pages go, thin ones are joined with a neighbour that is in memory.
//!
//! Invariant: nothing here needs a page that is not resident. A thin page whose neighbours are not stays thin; the
//! next change of it tries again.

use mesh_base::PageNo;

use super::Tree;
use crate::key::KeyRef;
use crate::page::{interior, slotted};
use crate::pointer::PagePointer;
use crate::superblock::Root;

impl Tree {
    /// Restores the tree's shape after cells of the leaf at the end of the way went.
    pub(super) fn balance(&mut self) {
        let mut depth = self.path.len() - 1;
        while let Some(above) = depth.checked_sub(1) {
            let step = self.step(depth);
            let page = self.page(step.page);
            let is_done = if slotted::count(page) == 0 {
                self.drop_child(above);
                false
            } else {
                slotted::used_bytes(page) >= self.capacity() / 4 || !self.join(depth)
            };
            if is_done {
                return;
            }
            depth = above;
        }
        self.shrink_root();
    }

    /// Takes the page below `depth` of the way, which is empty, out of the tree.
    pub(super) fn drop_child(&mut self, depth: usize) {
        let parent = self.step(depth);
        let pointer = interior::pointer(self.page(parent.page), parent.index);
        let level = crate::page::level(self.page(parent.page)) - 1;
        self.drop_page(&pointer, level);
        self.remove_child(parent.page, parent.index);
    }

    fn remove_child(&mut self, parent: PageNo, index: usize) {
        let page = self.edit(parent);
        slotted::remove(page, index);
        if index == 0 && slotted::count(page) > 0 {
            let mut first = Vec::new();
            interior::encode(&mut first, &KeyRef::FIRST, &interior::pointer(page, 0));
            slotted::replace_first(page, &first);
        }
    }

    /// Joins the page at `depth` of the way with a neighbour, if one is in memory and there is room to spare.
    fn join(&mut self, depth: usize) -> bool {
        let parent = self.step(depth - 1);
        let last = slotted::count(self.page(parent.page)) - 1;
        let right = (parent.index < last).then_some(parent.index);
        let left = parent.index.checked_sub(1);
        let Some(index) =
            [right, left].into_iter().flatten().find(|index| self.can_join(parent.page, *index))
        else {
            return false;
        };
        let left = self.own_child(parent.page, index);
        let right = self.own_child(parent.page, index + 1);
        let separator = interior::separator(self.page(parent.page), index + 1).to_owned();
        self.move_cells(left.page, right.page, &separator.as_ref());
        let level = crate::page::level(self.page(left.page));
        self.drop_page(&right, level);
        self.remove_child(parent.page, index + 1);
        true
    }

    /// Whether two neighbours, the left one at `index`, are in memory and fit into three quarters of a page.
    fn can_join(&self, parent: PageNo, index: usize) -> bool {
        let page = self.page(parent);
        let child = |index| self.frames.get_once(interior::pointer(page, index).page);
        let (Some(left), Some(right)) = (child(index), child(index + 1)) else { return false };
        let separator = interior::separator(page, index + 1);
        let bytes =
            slotted::used_bytes(left) + slotted::used_bytes(right) + separator.key.len() + size_of::<u64>();
        bytes <= self.capacity() / 4 * 3
    }

    /// Makes a child dirty for this epoch, under a parent that is.
    pub(super) fn own_child(&mut self, parent: PageNo, index: usize) -> PagePointer {
        let pointer = interior::pointer(self.page(parent), index);
        if self.is_owned(pointer.page) {
            return pointer;
        }
        let pointer = self.copy_page(pointer.page);
        interior::set_pointer(self.edit(parent), index, &pointer);
        pointer
    }

    fn move_cells(&mut self, left: PageNo, right: PageNo, separator: &KeyRef<'_>) {
        let from = self.page(right).to_vec();
        let is_interior = crate::page::level(&from) > 0;
        let collected = self.frames.collected(left).min(self.frames.collected(right));
        self.frames.set_collected(left, collected);
        let to = self.edit(left);
        for index in 0..slotted::count(&from) {
            let end = slotted::count(to);
            if is_interior && index == 0 {
                let mut first = Vec::new();
                interior::encode(&mut first, separator, &interior::pointer(&from, 0));
                slotted::insert(to, end, &first);
            } else {
                slotted::insert(to, end, slotted::cell(&from, index));
            }
        }
    }

    /// A root with one child gives way to it; one with none becomes an empty leaf.
    fn shrink_root(&mut self) {
        while self.root.level > 0 {
            let Some(page) = self.frames.get(self.root.pointer.page) else { return };
            let children = slotted::count(page);
            if children > 1 {
                return;
            }
            let root = if children == 1 {
                Root { pointer: interior::pointer(page, 0), level: self.root.level - 1 }
            } else {
                Root { pointer: self.new_page(0), level: 0 }
            };
            let old = std::mem::replace(&mut self.root, root);
            self.drop_page(&old.pointer, old.level);
        }
    }
}
