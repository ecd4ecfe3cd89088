//! Splitting full pages.
//!
//! Invariants:
//! - A cell is at most half a page, so what a page and one more cell hold always fits into two.
//! - At the right edge of the tree a full page stays full and the new cell begins the next page, so that an ascending
//!   load leaves compact pages behind.
//! - So does a page of versions that a newer one comes before: nothing is inserted among them any more.

use super::Tree;
use crate::cell;
use crate::key::KeyRef;
use crate::page::{SLOT_BYTES, interior, slotted};
use crate::pointer::PagePointer;

/// The cells of a page with one more among them, which the page has no room for.
struct Overfull<'a> {
    page: &'a [u8],
    index: usize,
    bytes: &'a [u8],
}

impl<'a> Overfull<'a> {
    fn count(&self) -> usize {
        slotted::count(self.page) + 1
    }

    fn cell(&self, index: usize) -> &'a [u8] {
        match index.cmp(&self.index) {
            std::cmp::Ordering::Less => slotted::cell(self.page, index),
            std::cmp::Ordering::Equal => self.bytes,
            std::cmp::Ordering::Greater => slotted::cell(self.page, index - 1),
        }
    }

    /// For each number of cells from 1 to all but one: the bytes they take, from the left.
    fn left_bytes(&self) -> impl Iterator<Item = (usize, usize)> {
        let sums = (0..self.count() - 1).scan(0, |sum, index| {
            *sum += self.cell(index).len() + SLOT_BYTES;
            Some(*sum)
        });
        sums.enumerate().map(|(index, sum)| (index + 1, sum))
    }

    fn total_bytes(&self) -> usize {
        (0..self.count()).map(|index| self.cell(index).len() + SLOT_BYTES).sum()
    }

    /// Whether the new cell is a version whose older ones are all that lies behind it, and most of what there is.
    fn is_before_its_older_versions(&self) -> bool {
        let key = cell::key_of(self.bytes);
        let mut older = (self.index + 1..self.count()).map(|index| self.cell(index));
        let bytes: usize = older.clone().map(|cell| cell.len() + SLOT_BYTES).sum();
        bytes * 2 >= self.total_bytes()
            && older.next_back().is_some_and(|last| cell::key_of(last).same_key(&key))
    }

    /// How many cells go left. Among the splits that are nearly even, the one with the lowest cost.
    fn split_point(&self, capacity: usize, cost: impl Fn(usize) -> usize) -> usize {
        let total = self.total_bytes();
        let unevenness = |left: usize| left.abs_diff(total - left);
        let fitting = || self.left_bytes().filter(|(_, left)| *left <= capacity && total - left <= capacity);
        let most_even = fitting().map(|(_, left)| unevenness(left)).min().unwrap_or(0);
        let slack = most_even + total / 8;
        let best = fitting()
            .filter(|(_, left)| unevenness(*left) <= slack)
            .min_by_key(|(at, left)| (cost(*at), unevenness(*left)));
        let at = best.map_or(0, |(at, _)| at);
        assert!(at > 0 && at < self.count(), "cells of at most half a page always split");
        at
    }
}

impl Tree {
    /// Splits the leaf at the end of the way around a new cell.
    pub(super) fn split_leaf(&mut self, index: usize, bytes: &[u8]) {
        let depth = self.path.len() - 1;
        let left_no = self.step(depth).page;
        let old = self.page(left_no).to_vec();
        let cells = Overfull { page: &old, index, bytes };
        let separator =
            |at: usize| cell::key_of(cells.cell(at)).separator_from(&cell::key_of(cells.cell(at - 1)));
        // A key's versions are better kept together: a separator between two of them costs its revision as well.
        let cost = |at: usize| {
            let separator = separator(at);
            separator.key.len() + if separator.revision == mesh_base::Revision::MAX { 0 } else { 64 }
        };
        let is_append = index + 1 == cells.count() && self.is_right_edge(depth);
        let at = if is_append {
            index
        } else if cells.is_before_its_older_versions() {
            index + 1
        } else {
            cells.split_point(self.capacity(), cost)
        };
        let right = self.new_page(0);
        let collected = self.frames.collected(left_no);
        self.frames.set_collected(right.page, collected);
        slotted::fill(self.edit(left_no), (0..at).map(|index| cells.cell(index)));
        slotted::fill(self.edit(right.page), (at..cells.count()).map(|index| cells.cell(index)));
        self.insert_child(depth, &separator(at), &right);
    }

    /// Points at a new page, to the right of the one at `depth` of the way, from the page above.
    fn insert_child(&mut self, depth: usize, separator: &KeyRef<'_>, right: &PagePointer) {
        let mut bytes = Vec::with_capacity(cell::interior_cell_bytes_max(separator.key.len()));
        interior::encode(&mut bytes, separator, right);
        let Some(above) = depth.checked_sub(1) else { return self.grow_root(&bytes) };
        let parent = self.step(above);
        if slotted::fits(self.page(parent.page), bytes.len()) {
            slotted::insert(self.edit(parent.page), parent.index + 1, &bytes);
        } else {
            self.split_interior(above, parent.index + 1, &bytes);
        }
    }

    fn split_interior(&mut self, depth: usize, index: usize, bytes: &[u8]) {
        let left_no = self.step(depth).page;
        let old = self.page(left_no).to_vec();
        let cells = Overfull { page: &old, index, bytes };
        let is_append = index + 1 == cells.count() && self.is_right_edge(depth);
        let at = if is_append { index } else { cells.split_point(self.capacity(), |_| 0) };
        let right = self.new_page(crate::page::level(&old));
        slotted::fill(self.edit(left_no), (0..at).map(|index| cells.cell(index)));
        // The separator of the right page's first child moves up; there everything is above it anyway.
        let mut first = Vec::new();
        let pointer = interior::pointer_of(cells.cell(at));
        interior::encode(&mut first, &KeyRef::FIRST, &pointer);
        let rest = (at + 1..cells.count()).map(|index| cells.cell(index));
        slotted::fill(self.edit(right.page), std::iter::once(first.as_slice()).chain(rest));
        self.insert_child(depth, &interior::separator_of(cells.cell(at)), &right);
    }

    pub(super) fn grow_root(&mut self, right: &[u8]) {
        let mut left = Vec::new();
        interior::encode(&mut left, &KeyRef::FIRST, &self.root.pointer);
        let level = self.root.level + 1;
        let root = self.new_page(level);
        slotted::fill(self.edit(root.page), [left.as_slice(), right].into_iter());
        self.root = crate::superblock::Root { pointer: root, level };
    }

    /// Whether the way goes along the right edge of the tree down to `depth`.
    fn is_right_edge(&self, depth: usize) -> bool {
        self.path.iter().take(depth).all(|step| step.index + 1 == slotted::count(self.page(step.page)))
    }
}
