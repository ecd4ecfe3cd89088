//! Packing: runs of neighbouring pages under one parent are put into fewer, and pages at the end of the file move to its
//! front.
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
//! - A page moves only if a lower one is available, for itself and for each page above it that has to be copied for that.

use std::ops::Range;

use mesh_base::PageNo;

use super::{Step, Tree, resolve_children};
use crate::cell::Payload;
use crate::key::{CellKey, KeyRef};
use crate::page::{self, Expected, PageStamp, SLOT_BYTES, interior, leaf, slotted};
use crate::pointer::{Checksum, ExtentPointer, PagePointer};
use crate::read::{Lookup, Misses, PageWant};
use crate::superblock::Root;

/// Neighbours that are looked at together.
const WINDOW: usize = 16;
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
    /// Bytes of pages to make dirty; the last step may go beyond.
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
    level: u8,
    from: CellKey,
}

impl PackPoint {
    /// Before everything.
    pub(crate) fn first() -> Self {
        Self { level: 0, from: KeyRef::FIRST.to_owned() }
    }

    fn level_above(&self) -> Self {
        Self { level: self.level + 1, ..Self::first() }
    }
}

/// A page above those that a step is about, and the way to it.
struct Parent {
    path: Vec<Step>,
    page: PageNo,
    /// The child that the step begins with.
    index: usize,
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
                Err(_) if point != *from => break,
                Err(wants) => return Lookup::Miss(Misses { stamp: self.allocator.reuses(), wants }),
            }
        }
        Lookup::Ready(progress)
    }

    fn pack_step(&mut self, point: &PackPoint, plan: &PackPlan) -> Result<Done, Vec<PageWant>> {
        if point.level >= self.root.level {
            return self.pack_root(plan);
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
        let is_stuck = self.move_child(&parent, point.level, plan)?;
        Ok(Done { looked: 1, is_stuck, next: Some(if is_stuck { point.clone() } else { next }), gained: 0 })
    }

    /// The point behind the children before `end`.
    fn behind(&self, point: &PackPoint, parent: &Parent, end: usize) -> PackPoint {
        let page = self.look(parent.page);
        if end < slotted::count(page) {
            PackPoint { level: point.level, from: interior::separator(page, end).to_owned() }
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
    fn child(&self, pointer: &PagePointer, level: u8) -> Result<&[u8], PageWant> {
        let want = || PageWant { pointer: self.sealed.resolve(*pointer), expected: Expected::Node { level } };
        self.frames.get_once(pointer.page).ok_or_else(want)
    }

    /// A page that the step has looked for: to look at it again is no further use of it.
    #[allow(clippy::panic, reason = "a step looks for all that it needs, and nothing leaves before its end")]
    fn look(&self, page: PageNo) -> &[u8] {
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
    fn looks_into_all(&self, level: u8, plan: &PackPlan) -> bool {
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

    /// Moves a child, and what large values it has, if they lie too far back. True if there is no place for them.
    fn move_child(&mut self, parent: &Parent, level: u8, plan: &PackPlan) -> Result<bool, Vec<PageWant>> {
        let pointer = interior::pointer(self.look(parent.page), parent.index);
        let is_high = is_high(pointer.page, plan);
        if plan.before.is_none() || !is_high && !self.looks_into_all(level, plan) {
            return Ok(false);
        }
        let page = self.child(&pointer, level).map_err(|want| vec![want])?;
        let extents = if level == 0 { high_extents(page, plan) } else { Vec::new() };
        self.look_for_extents(&extents)?;
        if !is_high && extents.is_empty() {
            return Ok(false);
        }
        self.path.clone_from(&parent.path);
        let above = self.path.iter().filter(|step| !self.is_owned(step.page)).count();
        let copies = above + usize::from(is_high || !self.is_owned(pointer.page));
        if !self.has_place(plan, copies) {
            return Ok(true);
        }
        self.own_path();
        let parent_no = self.leaf_step().page;
        let child = if is_high {
            let moved = self.copy_page(pointer.page);
            interior::set_pointer(self.edit(parent_no), parent.index, &moved);
            moved
        } else {
            self.own_child(parent_no, parent.index)
        };
        self.move_extents(child.page, &extents);
        Ok(false)
    }

    /// The last step: the root has no page above it.
    fn pack_root(&mut self, plan: &PackPlan) -> Result<Done, Vec<PageWant>> {
        let Root { pointer, level } = self.root;
        let page = self.child(&pointer, level).map_err(|want| vec![want])?;
        let extents = if level == 0 { high_extents(page, plan) } else { Vec::new() };
        self.look_for_extents(&extents)?;
        let is_high = is_high(pointer.page, plan) && self.has_place(plan, 1);
        if is_high || !extents.is_empty() && !self.is_owned(pointer.page) {
            self.root.pointer = self.copy_page(pointer.page);
        }
        self.move_extents(self.root.pointer.page, &extents);
        Ok(Done::default())
    }

    /// Whether so many pages can be copied to lower places.
    fn has_place(&self, plan: &PackPlan, copies: usize) -> bool {
        plan.before.is_some_and(|before| self.allocator.has_before(before, copies as u64))
    }

    fn look_for_extents(&self, extents: &[(usize, usize, ExtentPointer)]) -> Result<(), Vec<PageWant>> {
        let missing = extents.iter().filter(|(.., extent)| !self.frames.contains(extent.pointer.page));
        let wants: Vec<PageWant> = missing
            .map(|(.., extent)| PageWant {
                pointer: extent.pointer,
                expected: Expected::Extent { value_bytes: extent.value_bytes },
            })
            .collect();
        if wants.is_empty() { Ok(()) } else { Err(wants) }
    }

    /// Moves extents of a leaf that is dirty for this epoch, those for which there is a lower place.
    fn move_extents(&mut self, leaf_no: PageNo, extents: &[(usize, usize, ExtentPointer)]) {
        for (index, behind, extent) in extents {
            let pages = extent.pages(self.options.page_bytes);
            let Some(bytes) = self.frames.share(extent.pointer.page) else { continue };
            let Some(page) = self.allocator.allocate_run_before(extent.pointer.page, pages) else { continue };
            let moved = self.place_extent(page, bytes.to_vec(), extent.value_bytes);
            let cell = slotted::cell_mut(self.edit(leaf_no), *index);
            let at = cell.len() - behind * ExtentPointer::BYTES;
            let mut encoded = Vec::with_capacity(ExtentPointer::BYTES);
            moved.encode(&mut encoded);
            if let Some(place) = cell.get_mut(at..at + encoded.len()) {
                place.copy_from_slice(&encoded);
            }
            self.release_run(extent.pointer.page, pages, extent.pointer.checkpoint);
        }
    }

    fn place_extent(&mut self, page: PageNo, mut bytes: Vec<u8>, value_bytes: u32) -> ExtentPointer {
        page::set_stamp(&mut bytes, PageStamp { page, checkpoint: self.epoch });
        let checksum = Checksum::of(&bytes);
        self.insert_extent(page, bytes, value_bytes);
        ExtentPointer { pointer: PagePointer { page, checksum, checkpoint: self.epoch }, value_bytes }
    }
}

fn is_high(page: PageNo, plan: &PackPlan) -> bool {
    plan.before.is_some_and(|before| page >= before)
}

/// The extents of a leaf that lie too far back: the cell of each, how many of the cell's extents begin with it, and itself.
fn high_extents(page: &[u8], plan: &PackPlan) -> Vec<(usize, usize, ExtentPointer)> {
    let mut high = Vec::new();
    for index in 0..slotted::count(page) {
        if crate::cell::flags_of(slotted::cell(page, index)) & crate::cell::flag::LARGE == 0 {
            continue;
        }
        let Payload::Large(list) = leaf::cell(page, index).payload else { continue };
        let count = list.iter().count();
        let parts = list.iter().enumerate().filter(|(_, part)| is_high(part.pointer.page, plan));
        high.extend(parts.map(|(at, part)| (index, count - at, part)));
    }
    high
}

/// The point behind the pages below an upper bound.
fn after(point: &PackPoint, upper: Option<&CellKey>) -> PackPoint {
    upper.map_or_else(|| point.level_above(), |upper| PackPoint { level: point.level, from: upper.clone() })
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
