//! Packing: runs of neighbouring pages under one parent are put into fewer. The same walk moves pages from the end of the file to
//! its front ([`super::relocate`]).
//!
//! A tree that is filled in random order has leaves that are half full to full, 69% on average (Yao, "On random 2-3 trees",
//! 1978), and one that is deleted from has thinner ones: [`super::merge`] joins only what is very thin. So a walk looks at
//! windows of neighbours. A run of them is packed if it gives up one page in eight at least: no more than seven pages are
//! written for each that is gained, and leaves that are fuller than four fifths stay as they are. What is packed keeps a tenth of
//! each page free ([`Density::Dense`]), so that the next inserts do not split it at once; while writes come it keeps a quarter
//! free ([`Density::Loose`]), which is more than random inserts leave by themselves, so that load and packing do not
//! undo each other's work.
//!
//! Levels are walked one after the other, from the leaves up, each from left to right; the last step is the root.
//!
//! Invariants:
//! - A step looks for all pages that it needs first, and changes nothing if one is missing. After each the tree is valid.
//! - Cells stay as they are, in their order. Separators between the new pages are made from the cells beside them, so the
//!   versions of a key go on in the next leaf only if the separator between is one of them.

use std::ops::Range;

use mesh_base::PageNo;

use super::relocate::Moved;
use super::{Step, Tree, resolve_children};
use crate::key::{CellKey, KeyRef};
use crate::page::{self, Expected, SLOT_BYTES, interior, slotted};
use crate::pointer::PagePointer;
use crate::read::{Lookup, Misses, PageWant};

/// Neighbours that are looked at together.
pub(super) const WINDOW: usize = 16;
/// A run is packed if it gives up one page of so many, at least.
const PAGES_PER_GAIN_MAX: usize = 8;

/// How full packed pages are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Density {
    /// Nothing is packed.
    AsIs,
    /// Three quarters.
    Loose,
    /// Nine tenths.
    Dense,
}

impl Density {
    /// Bytes of cells and slots that a page of this capacity is packed with.
    #[must_use]
    pub const fn fill_bytes(self, capacity: usize) -> usize {
        match self {
            Self::AsIs => 0,
            Self::Loose => capacity / 4 * 3,
            Self::Dense => capacity / 10 * 9,
        }
    }
}

/// What a walk is to do, and how much of it at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackPlan {
    pub(crate) density: Density,
    /// Pages at or behind this one move to lower ones.
    pub(crate) before: Option<PageNo>,
    /// Pages to look at.
    pub(crate) pages_max: usize,
    /// Bytes of pages to make dirty; the last step may go beyond, by a window of pages or a portion of extents.
    pub(crate) bytes_max: usize,
}

/// How far a walk came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackProgress {
    /// Pages that the tree has less.
    pub gained: u64,
    /// A page was to move, and no lower one is available.
    pub is_stuck: bool,
    /// Where to go on; nothing when the end was reached.
    pub next: Option<PackPoint>,
}

/// Where a walk goes on. It stays true whatever is written meanwhile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackPoint {
    pub(super) level: u8,
    pub(super) from: CellKey,
    /// Extents of the cell there that were looked at.
    pub(super) extents: usize,
}

impl PackPoint {
    /// Before everything.
    pub(crate) fn first() -> Self {
        Self::at(0, KeyRef::FIRST.to_owned())
    }

    /// Before all that is not below a key.
    const fn at(level: u8, from: CellKey) -> Self {
        Self { level, from, extents: 0 }
    }

    fn level_above(&self) -> Self {
        Self { level: self.level + 1, ..Self::first() }
    }
}

/// A page above those that a step is about, and the way to it.
pub(super) struct Parent {
    pub(super) path: Vec<Step>,
    pub(super) page: PageNo,
    /// The child that the step begins with.
    pub(super) index: usize,
    upper: Option<CellKey>,
}

/// What a step did.
#[derive(Default)]
struct Done {
    gained: u64,
    looked: usize,
    is_stuck: bool,
    next: Option<PackPoint>,
}

impl Done {
    /// Pages were moved from a point on, and `behind` is the point behind them.
    fn moved(moved: Moved, point: &PackPoint, behind: Option<PackPoint>) -> Self {
        match moved {
            Moved::All => Self { next: behind, ..Self::default() },
            Moved::Part { next } => Self { next: Some(next), ..Self::default() },
            Moved::Stuck => Self { is_stuck: true, next: Some(point.clone()), ..Self::default() },
        }
    }
}

/// Children of a page that are to be packed into fewer.
struct Run {
    children: Range<usize>,
    pages: usize,
}

impl Tree {
    /// Goes on with a walk.
    pub(crate) fn pack(&mut self, from: &PackPoint, plan: &PackPlan) -> Lookup<PackProgress> {
        let mut progress = PackProgress { gained: 0, is_stuck: false, next: Some(from.clone()) };
        let before = self.frames.dirtied_bytes();
        let mut looked = 0;
        while let Some(point) = progress.next.clone() {
            let dirtied = self.frames.dirtied_bytes() - before;
            if looked >= plan.pages_max || dirtied >= plan.bytes_max as u64 || progress.is_stuck {
                break;
            }
            match self.pack_step(&point, plan) {
                Ok(done) => {
                    looked += done.looked.max(1);
                    progress.gained += done.gained;
                    progress.is_stuck = done.is_stuck;
                    progress.next = done.next;
                }
                // What was done stays done: a miss is an answer only where nothing was.
                Err(_) if looked > 0 => break,
                Err(wants) => return Lookup::Miss(Misses { stamp: self.allocator.reuses(), wants }),
            }
        }
        Lookup::Ready(progress)
    }

    fn pack_step(&mut self, point: &PackPoint, plan: &PackPlan) -> Result<Done, Vec<PageWant>> {
        if point.level >= self.root.level {
            let moved = self.move_root(point, plan)?;
            return Ok(Done { looked: 1, ..Done::moved(moved, point, None) });
        }
        let parent = self.parent_of(point)?;
        let Some(index) = self.next_child(&parent, point.level, plan) else {
            return Ok(Done { next: Some(after(point, parent.upper.as_ref())), ..Done::default() });
        };
        let parent = Parent { index, ..parent };
        if self.looks_into_all(point.level, plan) {
            self.look_for_children(&parent, point.level)?;
        }
        if plan.density > Density::AsIs
            && let Some(run) = self.find_run(&parent, plan)
        {
            let next = self.behind(point, &parent, run.children.end);
            let looked = run.children.len();
            let gained = self.pack_run(&parent, &run, point.level);
            return Ok(Done { gained, looked, next: Some(next), ..Done::default() });
        }
        let next = self.behind(point, &parent, index + 1);
        let moved = self.move_child(point, &parent, plan)?;
        Ok(Done { looked: 1, ..Done::moved(moved, point, Some(next)) })
    }

    /// The point behind the children before `end`.
    fn behind(&self, point: &PackPoint, parent: &Parent, end: usize) -> PackPoint {
        let page = self.look(parent.page);
        if end < slotted::count(page) {
            PackPoint::at(point.level, interior::separator(page, end).to_owned())
        } else {
            after(point, parent.upper.as_ref())
        }
    }

    /// The way to the page above the point.
    fn parent_of(&self, point: &PackPoint) -> Result<Parent, Vec<PageWant>> {
        let (mut pointer, mut upper) = (self.root.pointer, None);
        let mut path = Vec::new();
        let mut level = self.root.level;
        loop {
            let page = self.child(&pointer, level).map_err(|want| vec![want])?;
            let index = interior::child_of(page, &point.from.as_ref());
            path.push(Step { page: pointer.page, index });
            if level == point.level + 1 {
                return Ok(Parent { path, page: pointer.page, index, upper });
            }
            if index + 1 < slotted::count(page) {
                upper = Some(interior::separator(page, index + 1).to_owned());
            }
            pointer = interior::pointer(page, index);
            level -= 1;
        }
    }

    /// A page of the tree, or what to fetch for it.
    pub(super) fn child(&self, pointer: &PagePointer, level: u8) -> Result<&[u8], PageWant> {
        let want = || PageWant { pointer: self.sealed.resolve(*pointer), expected: Expected::Node { level } };
        self.frames.get_once(pointer.page).ok_or_else(want)
    }

    /// A page that the step has looked for: to look at it again is no further use of it.
    #[allow(clippy::panic, reason = "a step looks for all that it needs, and nothing leaves before its end")]
    pub(super) fn look(&self, page: PageNo) -> &[u8] {
        self.frames.peek(page).unwrap_or_else(|| panic!("{page} is not resident"))
    }

    /// The next child that has to be looked at. Where pages are only to be moved, most can be told to stay by their
    /// numbers.
    fn next_child(&self, parent: &Parent, level: u8, plan: &PackPlan) -> Option<usize> {
        let page = self.look(parent.page);
        let mut children = parent.index..slotted::count(page);
        if self.looks_into_all(level, plan) {
            return children.next();
        }
        children.find(|index| is_high(interior::pointer(page, *index).page, plan))
    }

    /// Whether pages of a level have to be looked into: to be packed, or for the extents that they point at.
    pub(super) fn looks_into_all(&self, level: u8, plan: &PackPlan) -> bool {
        plan.density > Density::AsIs || level == 0 && self.extent_pages() > 0
    }

    /// Pages of large values.
    pub(crate) fn extent_pages(&self) -> u64 {
        let others = self.shape.leaves + self.shape.interiors + self.allocator.own_pages();
        self.allocator.used_pages().saturating_sub(others)
    }

    /// Looks for the neighbours that may be packed together.
    fn look_for_children(&self, parent: &Parent, level: u8) -> Result<(), Vec<PageWant>> {
        let page = self.look(parent.page);
        let window = (parent.index..slotted::count(page)).take(WINDOW);
        let wants: Vec<PageWant> =
            window.filter_map(|index| self.child(&interior::pointer(page, index), level).err()).collect();
        if wants.is_empty() { Ok(()) } else { Err(wants) }
    }

    /// The run, from the first child of the window on, that gains most for what it costs.
    fn find_run(&self, parent: &Parent, plan: &PackPlan) -> Option<Run> {
        let page = self.look(parent.page);
        let fill = plan.density.fill_bytes(self.capacity());
        let window = (parent.index..slotted::count(page)).take(WINDOW);
        let (mut bytes, mut best) = (0, None);
        for (count, index) in (1..).zip(window) {
            let child = self.look(interior::pointer(page, index).page);
            // The separator of an interior page comes back to its first cell where it is joined to another.
            let separator =
                usize::from(page::level(child) > 0) * (interior::separator(page, index).key.len() + 8);
            bytes += slotted::used_bytes(child) + separator;
            if count == 1 && bytes >= fill {
                return None;
            }
            let pages = bytes.div_ceil(fill).max(1);
            let gain = |(count, pages): (usize, usize)| (count - pages, count);
            if pages < count
                && (count - pages) * PAGES_PER_GAIN_MAX >= count
                && best.is_none_or(|best| {
                    let ((gain, of), (best_gain, best_of)) = (gain((count, pages)), gain(best));
                    gain * best_of >= best_gain * of
                })
            {
                best = Some((count, pages));
            }
        }
        best.map(|(count, pages)| Run { children: parent.index..parent.index + count, pages })
    }

    /// Puts the cells of a run of children into fewer pages. Says how many fewer; none where the cells, or the separators
    /// above them, do not fit after all.
    fn pack_run(&mut self, parent: &Parent, run: &Run, level: u8) -> u64 {
        let above = self.look(parent.page);
        let olds: Vec<PagePointer> =
            run.children.clone().map(|index| interior::pointer(above, index)).collect();
        let pages: Vec<Vec<u8>> = olds.iter().map(|old| self.look(old.page).to_vec()).collect();
        let joints: Vec<Vec<u8>> = run
            .children
            .clone()
            .zip(&pages)
            .map(|(index, page)| joint(interior::separator(above, index), page))
            .collect();
        let cells: Vec<&[u8]> =
            pages.iter().zip(&joints).flat_map(|(page, joint)| cells_of(page, joint)).collect();
        let Some(ends) = divide(&cells, run.pages, self.capacity(), level) else { return 0 };
        let starts: Vec<usize> = std::iter::once(0).chain(ends.iter().copied()).take(run.pages).collect();
        let separators: Vec<CellKey> =
            std::iter::once(interior::separator(above, run.children.start).to_owned())
                .chain(starts.iter().skip(1).map(|start| separator_at(&cells, *start, level).to_owned()))
                .collect();
        if !self.has_room_for(parent, run, &separators) {
            return 0;
        }
        let collected = olds.iter().map(|old| self.frames.collected(old.page)).min().unwrap_or_default();
        olds.iter().for_each(|old| self.drop_page(old, level));
        let mut above = Vec::new();
        for ((start, end), separator) in starts.into_iter().zip(ends).zip(&separators) {
            let new = self.new_page(level);
            self.fill_page(new.page, cells.get(start..end).unwrap_or_default());
            self.frames.set_collected(new.page, collected);
            let mut cell = Vec::new();
            interior::encode(&mut cell, &separator.as_ref(), &new);
            above.push(cell);
        }
        self.replace_children(parent, &run.children, &above);
        (run.children.len() - run.pages) as u64
    }

    /// Whether the page above has room for these separators in place of those it has.
    fn has_room_for(&self, parent: &Parent, run: &Run, separators: &[CellKey]) -> bool {
        let page = self.look(parent.page);
        let size = |index| slotted::cell(page, index).len() + SLOT_BYTES;
        let old: usize = run.children.clone().map(size).sum();
        let new = separators.iter().map(|it| crate::cell::interior_cell_bytes_max(it.key.len()) + SLOT_BYTES);
        slotted::used_bytes(page) - old + new.sum::<usize>() <= self.capacity()
    }

    fn fill_page(&mut self, page_no: PageNo, cells: &[&[u8]]) {
        let page = self.frames.edit(page_no, self.epoch);
        if page::level(page) == 0 {
            return slotted::fill(page, cells.iter().copied());
        }
        // The separator of the first cell is above; here everything is above it anyway.
        let mut first = Vec::new();
        if let Some(cell) = cells.first() {
            interior::encode(&mut first, &KeyRef::FIRST, &interior::pointer_of(cell));
        }
        slotted::fill(page, std::iter::once(first.as_slice()).chain(cells.iter().skip(1).copied()));
        resolve_children(&self.sealed, page);
    }

    fn replace_children(&mut self, parent: &Parent, children: &Range<usize>, cells: &[Vec<u8>]) {
        self.path.clone_from(&parent.path);
        self.own_path();
        let page_no = self.leaf_step().page;
        let old = self.look(page_no).to_vec();
        let before = (0..children.start).map(|index| slotted::cell(&old, index));
        let behind = (children.end..slotted::count(&old)).map(|index| slotted::cell(&old, index));
        let all = before.chain(cells.iter().map(Vec::as_slice)).chain(behind);
        slotted::fill(self.edit(page_no), all);
        self.balance();
    }
}

/// Whether a page lies too far back.
pub(super) fn is_high(page: PageNo, plan: &PackPlan) -> bool {
    plan.before.is_some_and(|before| page >= before)
}

/// The point behind the pages below an upper bound.
fn after(point: &PackPoint, upper: Option<&CellKey>) -> PackPoint {
    upper.map_or_else(|| point.level_above(), |upper| PackPoint::at(point.level, upper.clone()))
}

/// The first cell of an interior page with its separator, which is above while the page is one of its own. Nothing for a leaf.
fn joint(separator: KeyRef<'_>, page: &[u8]) -> Vec<u8> {
    let mut cell = Vec::new();
    if page::level(page) > 0 {
        interior::encode(&mut cell, &separator, &interior::pointer(page, 0));
    }
    cell
}

/// The cells of a page, the first with its separator.
fn cells_of<'a>(page: &'a [u8], joint: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let own = |index| slotted::cell(page, index);
    (0..slotted::count(page))
        .map(move |index| if index == 0 && !joint.is_empty() { joint } else { own(index) })
}

/// The separator between a cell and the one before it.
#[allow(clippy::indexing_slicing, reason = "a page begins behind the first cell of all, and holds one")]
fn separator_at<'a>(cells: &[&'a [u8]], start: usize, level: u8) -> KeyRef<'a> {
    if level > 0 {
        return interior::separator_of(cells[start]);
    }
    crate::cell::key_of(cells[start]).separator_from(&crate::cell::key_of(cells[start - 1]))
}

/// Where each of so many pages ends, all about as full. Nothing where the cells do not fit.
fn divide(cells: &[&[u8]], pages: usize, capacity: usize, level: u8) -> Option<Vec<usize>> {
    let sizes: Vec<usize> = cells.iter().map(|cell| cell.len() + SLOT_BYTES).collect();
    let mut rest: usize = sizes.iter().sum();
    let (mut ends, mut at) = (Vec::with_capacity(pages), 0);
    for page in 0..pages {
        let share = rest.div_ceil(pages - page);
        let (begin, mut taken) = (at, 0);
        while let Some(size) = sizes.get(at) {
            let is_enough = page + 1 < pages && taken + size / 2 > share;
            if is_enough || taken + size > capacity {
                break;
            }
            taken += size;
            at += 1;
        }
        if page + 1 < pages && at > begin + 1 && at < cells.len() {
            let cost = |at: usize| separator_cost(&separator_at(cells, at, level));
            // A step to the left may be cheaper: versions of a key are better kept together.
            if cost(at - 1) < cost(at) {
                at -= 1;
                taken -= sizes.get(at).copied().unwrap_or_default();
            }
        }
        if at == begin {
            return None;
        }
        rest -= taken;
        ends.push(at);
    }
    (at == cells.len()).then_some(ends)
}

/// What a separator costs in the page above.
fn separator_cost(separator: &KeyRef<'_>) -> usize {
    separator.key.len() + if separator.revision == mesh_base::Revision::MAX { 0 } else { 64 }
}
