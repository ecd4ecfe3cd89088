//! Moving: pages and extents that lie too far back in the file are copied to lower places, as a part of the walk that packs.
//!
//! Invariants:
//! - A step looks for all that it needs first, and changes nothing if a page is missing.
//! - A page moves only if a lower one is available, for itself and for each page above it that has to be copied for that.
//! - A step reads and moves no more than a portion of a leaf's extents: those that make up [`EXTENT_BYTES_MAX`] bytes, or one. The
//!   walk stays at the leaf until all of them were looked at.
//! - Extents that have no lower place are passed over, neither read nor their leaf copied: single pages behind them may move, and
//!   make room.

use mesh_base::PageNo;
use mesh_base::limits::EXTENT_BYTES_MAX;

use super::pack::{PackPlan, PackPoint, Parent, WINDOW, is_high};
use super::{Step, Tree};
use crate::cell::{self, Payload};
use crate::page::{self, Expected, PageStamp, interior, leaf, slotted};
use crate::pointer::{Checksum, ExtentPointer, PagePointer};
use crate::read::PageWant;
use crate::superblock::Root;

/// What came of moving a page and its extents.
#[derive(Debug)]
pub(super) enum Moved {
    /// Nothing is left to be moved that has a place.
    All,
    /// Something is, from this point on.
    Part { next: PackPoint },
    /// It has to move, and there is no place.
    Stuck,
}

/// An extent that lies too far back.
struct HighExtent {
    /// The cell that it belongs to.
    cell: usize,
    /// Where its pointer begins in the cell, from the cell's end.
    from_end: usize,
    extent: ExtentPointer,
}

/// Extents that are moved together.
struct Portion {
    extents: Vec<HighExtent>,
    /// Behind them, where the leaf has more.
    next: Option<PackPoint>,
}

impl Tree {
    /// Moves a child, or some of the extents of one that is in its place.
    pub(super) fn move_child(
        &mut self,
        point: &PackPoint,
        parent: &Parent,
        plan: &PackPlan,
    ) -> Result<Moved, Vec<PageWant>> {
        let pointer = interior::pointer(self.look(parent.page), parent.index);
        let is_high = is_high(pointer.page, plan);
        if plan.before.is_none() || !is_high && !self.looks_into_all(point.level, plan) {
            return Ok(Moved::All);
        }
        self.child(&pointer, point.level).map_err(|want| vec![want])?;
        self.path.clone_from(&parent.path);
        if !is_high {
            self.path.push(Step { page: pointer.page, index: 0 });
            return self.move_extents(point, plan);
        }
        if !self.has_place(plan, self.pages_to_own() + 1) {
            return Ok(Moved::Stuck);
        }
        self.own_path();
        let parent_no = self.leaf_step().page;
        let moved = self.copy_page(pointer.page);
        interior::set_pointer(self.edit(parent_no), parent.index, &moved);
        Ok(self.moved_page(moved.page, point, plan))
    }

    /// The last step: the root has no page above it.
    pub(super) fn move_root(&mut self, point: &PackPoint, plan: &PackPlan) -> Result<Moved, Vec<PageWant>> {
        let Root { pointer, level } = self.root;
        self.child(&pointer, level).map_err(|want| vec![want])?;
        if !is_high(pointer.page, plan) {
            self.path.clear();
            self.path.push(Step { page: pointer.page, index: 0 });
            return self.move_extents(point, plan);
        }
        if !self.has_place(plan, 1) {
            return Ok(Moved::Stuck);
        }
        self.root.pointer = self.copy_page(pointer.page);
        Ok(self.moved_page(self.root.pointer.page, point, plan))
    }

    /// A page has moved. Its extents are for the next step.
    fn moved_page(&self, page: PageNo, point: &PackPoint, plan: &PackPlan) -> Moved {
        if self.portion(page, point, plan).extents.is_empty() {
            Moved::All
        } else {
            Moved::Part { next: point.clone() }
        }
    }

    /// Whether so many pages can be copied to lower places.
    fn has_place(&self, plan: &PackPlan, copies: usize) -> bool {
        plan.before.is_some_and(|before| self.allocator.has_before(before, copies as u64))
    }

    /// Pages of the way that have to be copied before its last can be changed.
    fn pages_to_own(&self) -> usize {
        self.path.iter().filter(|step| !self.is_owned(step.page)).count()
    }

    /// Moves extents of the page at the end of the way, which is resident, from the point on: those for which there is a lower
    /// place, of one portion.
    fn move_extents(&mut self, point: &PackPoint, plan: &PackPlan) -> Result<Moved, Vec<PageWant>> {
        let Portion { mut extents, next } = self.portion(self.leaf_step().page, point, plan);
        if extents.is_empty() {
            return Ok(Moved::All);
        }
        self.keep_movable(&mut extents);
        self.look_for_extents(&extents)?;
        let places = self.take_places(extents);
        // Where not even a page is free, there is no point in going on.
        let copies = if places.is_empty() { 1 } else { self.pages_to_own() };
        if !self.has_place(plan, copies) {
            places.iter().for_each(|(high, place)| self.give_back(high, *place));
            return Ok(Moved::Stuck);
        }
        if !places.is_empty() {
            self.own_path();
            places.iter().for_each(|(high, place)| self.move_extent(high, *place));
        }
        Ok(next.map_or(Moved::All, |next| Moved::Part { next }))
    }

    /// Keeps those of some extents that have a lower place now.
    fn keep_movable(&self, extents: &mut Vec<HighExtent>) {
        let pages = |high: &HighExtent| high.extent.pages(self.options.page_bytes);
        let has_place = |page, pages| self.allocator.run_before(page, pages).is_some();
        let last = extents.iter().map(|high| high.extent.pointer.page).max();
        let fewest = extents.iter().map(pages).min();
        // One search tells that there is no place for any, as mostly when there is none for one.
        if last.zip(fewest).is_none_or(|(last, fewest)| !has_place(last, fewest)) {
            return extents.clear();
        }
        extents.retain(|high| has_place(high.extent.pointer.page, pages(high)));
    }

    /// Takes lower places for extents: for as many as there are places.
    fn take_places(&mut self, extents: Vec<HighExtent>) -> Vec<(HighExtent, PageNo)> {
        let page_bytes = self.options.page_bytes;
        let take = |high: HighExtent| {
            let ExtentPointer { pointer, .. } = high.extent;
            let place = self.allocator.allocate_run_before(pointer.page, high.extent.pages(page_bytes))?;
            Some((high, place))
        };
        extents.into_iter().filter_map(take).collect()
    }

    /// Gives back a place that was taken and not used.
    fn give_back(&mut self, high: &HighExtent, place: PageNo) {
        self.allocator.free(place, high.extent.pages(self.options.page_bytes), self.epoch, self.epoch);
    }

    /// The first extents of a page, from the point on, that lie too far back.
    fn portion(&self, page_no: PageNo, point: &PackPoint, plan: &PackPlan) -> Portion {
        let page = self.look(page_no);
        let mut portion = Portion { extents: Vec::new(), next: None };
        if page::level(page) > 0 {
            return portion;
        }
        let (first, is_there) = leaf::lower_bound(page, &point.from.as_ref());
        let mut bytes = 0;
        for cell in first..slotted::count(page) {
            let looked = if cell == first && is_there { point.extents } else { 0 };
            let extents = extents_of(page, cell);
            for (at, extent) in extents.iter().enumerate().skip(looked) {
                if !is_high(extent.last_page(self.options.page_bytes), plan) {
                    continue;
                }
                bytes += extent.file_bytes(self.options.page_bytes);
                let is_full = bytes > EXTENT_BYTES_MAX || portion.extents.len() >= WINDOW;
                if is_full && !portion.extents.is_empty() {
                    let from = leaf::key(page, cell).to_owned();
                    portion.next = Some(PackPoint { level: point.level, from, extents: at });
                    return portion;
                }
                let from_end = (extents.len() - at) * ExtentPointer::BYTES;
                portion.extents.push(HighExtent { cell, from_end, extent: *extent });
            }
        }
        portion
    }

    fn look_for_extents(&self, extents: &[HighExtent]) -> Result<(), Vec<PageWant>> {
        let missing = extents.iter().filter(|high| !self.frames.contains(high.extent.pointer.page));
        let wants: Vec<PageWant> = missing
            .map(|HighExtent { extent, .. }| PageWant {
                pointer: extent.pointer,
                expected: Expected::Extent { value_bytes: extent.value_bytes },
            })
            .collect();
        if wants.is_empty() { Ok(()) } else { Err(wants) }
    }

    /// Moves an extent, which is resident, of the leaf at the end of the way, which is dirty for this epoch.
    #[allow(clippy::panic, reason = "the step has looked for it, and nothing leaves before its end")]
    fn move_extent(&mut self, HighExtent { cell, from_end, extent }: &HighExtent, place: PageNo) {
        let pages = extent.pages(self.options.page_bytes);
        let old = extent.pointer.page;
        let bytes = self.frames.share(old).unwrap_or_else(|| panic!("{old} is not resident"));
        let moved = self.place_extent(place, bytes.to_vec(), extent.value_bytes);
        let leaf_no = self.leaf_step().page;
        let cell = slotted::cell_mut(self.edit(leaf_no), *cell);
        let at = cell.len() - from_end;
        let mut encoded = Vec::with_capacity(ExtentPointer::BYTES);
        moved.encode(&mut encoded);
        if let Some(place) = cell.get_mut(at..at + encoded.len()) {
            place.copy_from_slice(&encoded);
        }
        self.release_run(old, pages, extent.pointer.checkpoint);
    }

    fn place_extent(&mut self, page: PageNo, mut bytes: Vec<u8>, value_bytes: u32) -> ExtentPointer {
        page::set_stamp(&mut bytes, PageStamp { page, checkpoint: self.epoch });
        let checksum = Checksum::of(&bytes);
        self.insert_extent(page, bytes, value_bytes);
        ExtentPointer { pointer: PagePointer { page, checksum, checkpoint: self.epoch }, value_bytes }
    }
}

/// The extents of a cell's value.
fn extents_of(page: &[u8], index: usize) -> Vec<ExtentPointer> {
    if cell::flags_of(slotted::cell(page, index)) & cell::flag::LARGE == 0 {
        return Vec::new();
    }
    match leaf::cell(page, index).payload {
        Payload::Large(list) => list.iter().collect(),
        Payload::Inline(_) | Payload::Tombstone => Vec::new(),
    }
}
