//! Scans over the keys of a range at a revision, both ways.
//!
//! Invariant: wherever a scan stops, what is left of its range is known, and it is smaller by everything that was
//! visited *or passed over*. So a scan over garbage gets on even when nothing it reads stays in memory.

use mesh_base::{Namespace, Revision};

use super::read::{ChildAt, LeafAt, MissAt, Seek, Touch, TreeView};
use crate::cell::{Cell, Payload};
use crate::key::KeyRef;
use crate::page::{Expected, interior, leaf, slotted};
use crate::read::{
    KeyAt, Misses, PageWant, ScanDirection, ScanEnd, ScanOutcome, ScanRequest, ScanRest, Version, Want,
    missing_extents,
};

/// Leaves read ahead of a scan, at most.
const READ_AHEAD_MAX: usize = 16;
/// Bytes of values that are read ahead of a scan beside the one that it misses, at most.
const READ_AHEAD_BYTES: usize = 1024 * 1024;
/// Cells that one call looks at, at most.
const CELLS_MAX: usize = 64 * 1024;

/// One call of a scan.
struct Scan<'a, 'v> {
    view: TreeView<'a>,
    request: ScanRequest<'a>,
    visit: &'v mut dyn FnMut(&[u8], &Version<'_>),
    items: usize,
    bytes: usize,
    cells: usize,
}

/// Why the loop over the leaves ends.
enum Stop<'a> {
    Complete,
    /// With this key still to do, or done.
    Limit(Mark<'a>),
    Miss(Mark<'a>, Vec<PageWant>),
}

/// A place in the key order between what is done and what is not.
#[derive(Clone, Copy)]
enum Mark<'a> {
    /// Nothing was passed yet.
    Begin,
    /// Before a key, which is on the right.
    Before(&'a [u8]),
    /// After a key, which is on the left.
    After(&'a [u8]),
}

impl Mark<'_> {
    fn bound(&self) -> Option<Vec<u8>> {
        match self {
            Self::Begin => None,
            Self::Before(key) => Some(key.to_vec()),
            // The least key above another is that key and a zero byte.
            Self::After(key) => Some(key.iter().copied().chain([0]).collect()),
        }
    }
}

impl<'a> TreeView<'a> {
    /// Visits the live keys of the range.
    pub(crate) fn scan(
        &self,
        request: &ScanRequest<'a>,
        visit: &mut dyn FnMut(&[u8], &Version<'_>),
    ) -> ScanOutcome {
        let mut scan = Scan { view: *self, request: *request, visit, items: 0, bytes: 0, cells: 0 };
        let stop = match request.direction {
            _ if request.end.is_some_and(|end| end <= request.start) => Stop::Complete,
            _ if request.items_max == 0 => Stop::Limit(Mark::Begin),
            ScanDirection::Forward => scan.forward(),
            ScanDirection::Reverse => scan.reverse(),
        };
        scan.finish(stop)
    }
}

impl<'a> Scan<'a, '_> {
    fn finish(self, stop: Stop<'a>) -> ScanOutcome {
        let rest = |mark: Mark<'a>| {
            let (start, end) = (self.request.start.to_vec(), self.request.end.map(<[u8]>::to_vec));
            match self.request.direction {
                ScanDirection::Forward => ScanRest { start: mark.bound().unwrap_or(start), end },
                ScanDirection::Reverse => ScanRest { start, end: mark.bound().or(end) },
            }
        };
        let end = match stop {
            Stop::Complete => ScanEnd::Complete,
            Stop::Limit(mark) => ScanEnd::Limit { rest: rest(mark) },
            Stop::Miss(mark, wants) => {
                let mut misses = Misses::none(self.view.stamp);
                wants.into_iter().for_each(|want| misses.add(want));
                ScanEnd::Miss { rest: rest(mark), misses }
            }
        };
        ScanOutcome { items: self.items, bytes: self.bytes, end }
    }

    fn forward(&mut self) -> Stop<'a> {
        let ScanRequest { namespace, start, at, .. } = self.request;
        let mut target = KeyRef { namespace, key: start, revision: at };
        let mut done = Mark::Begin;
        let mut place = None;
        loop {
            let found = match place {
                Some(place) => self.view.leaf_at(place, Touch::Scan),
                None => self.view.descend(&Seek::At(target), Touch::Scan),
            };
            let found = match found {
                Ok(found) => found,
                Err(miss) => return Stop::Miss(forward_mark(&target, done), self.ahead(&miss)),
            };
            if let Some(stop) = self.forward_leaf(&found, &target, &mut done) {
                return stop;
            }
            let Some(upper) = found.upper().filter(|upper| self.is_before_end(upper)) else {
                return Stop::Complete;
            };
            (target, place) = match done {
                // The versions of a key that is done may fill many leaves: pass over them in one step.
                Mark::After(key) if upper.namespace == namespace && upper.key == key => {
                    (KeyRef { namespace, key, revision: Revision::ZERO }, None)
                }
                // So may those that are too new.
                _ if upper.revision > at && upper.revision < Revision::MAX => {
                    (KeyRef { revision: at, ..upper }, None)
                }
                _ => (KeyRef { revision: upper.revision.min(at), ..upper }, found.next()),
            };
        }
    }

    /// Visits what a leaf has of the range, from `target` on.
    fn forward_leaf(
        &mut self,
        found: &LeafAt<'a>,
        target: &KeyRef<'a>,
        done: &mut Mark<'a>,
    ) -> Option<Stop<'a>> {
        let page = found.page;
        let count = slotted::count(page);
        // Only the range's last leaf can hold keys behind its end; only the first key can be done already.
        let ends_here = found.upper().is_none_or(|upper| !self.is_before_end(&upper));
        let mut may_be_done = true;
        let (mut index, _) = leaf::lower_bound(page, target);
        self.view.warm_ahead(found, index, self.request.items_max - self.items);
        while index < count {
            let cell = leaf::cell(page, index);
            let key = cell.key;
            if ends_here && !self.is_before_end(&key) {
                return Some(Stop::Complete);
            }
            if self.is_tired() {
                return Some(Stop::Limit(forward_mark(&key, *done)));
            }
            let is_done = may_be_done && matches!(*done, Mark::After(last) if last == key.key);
            self.cells += 1;
            if !is_done && key.revision > self.request.at {
                index = leaf::lower_bound(page, &KeyRef { revision: self.request.at, ..key }).0;
                continue;
            }
            if !is_done {
                if let Err(mut wants) = self.offer(&cell) {
                    self.ahead_in_leaf(page, index + 1..count, &mut wants);
                    return Some(Stop::Miss(forward_mark(&key, *done), wants));
                }
                *done = Mark::After(key.key);
                if self.is_full() {
                    return Some(Stop::Limit(*done));
                }
            }
            may_be_done = false;
            index = leaf::end_of_key(page, index);
        }
        None
    }

    fn reverse(&mut self) -> Stop<'a> {
        let ScanRequest { namespace, start, end, .. } = self.request;
        let mut target = match end {
            Some(end) => Some(KeyRef::newest(namespace, end)),
            None => namespace.get().checked_add(1).map(|next| KeyRef::newest(Namespace(next), &[])),
        };
        let first = KeyRef::newest(namespace, start);
        loop {
            let seek = target.map_or(Seek::Last, Seek::Before);
            let mark = target.map_or(Mark::Begin, |target| self.reverse_mark(&target));
            let found = match self.view.descend(&seek, Touch::Scan) {
                Ok(found) => found,
                Err(miss) => return Stop::Miss(mark, self.ahead(&miss)),
            };
            if self.is_tired() {
                return Stop::Limit(mark);
            }
            let cells =
                target.map_or(slotted::count(found.page), |target| leaf::lower_bound(found.page, &target).0);
            if let Some(stop) = self.reverse_leaf(&found, cells, &first) {
                return stop;
            }
            let lower = found.lower();
            if lower <= first {
                return Stop::Complete;
            }
            // All of the leaf's keys are done. One that begins further left was found there, with all its versions.
            let first_key = (cells > 0).then(|| leaf::key(found.page, 0));
            let newest = first_key.map_or(lower, |key| KeyRef::newest(key.namespace, key.key));
            target = Some(newest.min(lower));
        }
    }

    /// Visits what the first `cells` cells of a leaf have of the range, from the last key down.
    fn reverse_leaf(&mut self, found: &LeafAt<'a>, cells: usize, first: &KeyRef<'a>) -> Option<Stop<'a>> {
        let page = found.page;
        let mut rest = cells;
        while rest > 0 {
            let key = leaf::key(page, rest - 1);
            if key < *first {
                return Some(Stop::Complete);
            }
            if self.is_tired() {
                return Some(Stop::Limit(Mark::After(key.key)));
            }
            let begin = leaf::lower_bound(page, &KeyRef::newest(key.namespace, key.key)).0;
            let at = KeyRef { revision: self.request.at, ..key };
            let index = leaf::lower_bound(page, &at).0;
            let cell = if index == begin && begin == 0 && found.lower().same_key(&key) {
                // Newer versions of the leaf's first key may be in the leaf before it.
                match self.view.find(key.namespace, key.key, self.request.at, Touch::Scan) {
                    Ok(cell) => cell,
                    Err(miss) => return Some(Stop::Miss(Mark::After(key.key), vec![miss.want])),
                }
            } else {
                (index < rest).then(|| leaf::cell(page, index))
            };
            if let Some(Err(mut wants)) = cell.map(|cell| self.offer(&cell)) {
                self.ahead_in_leaf(page, (0..begin).rev(), &mut wants);
                return Some(Stop::Miss(Mark::After(key.key), wants));
            }
            self.cells += 1;
            if self.is_full() {
                return Some(Stop::Limit(Mark::Before(key.key)));
            }
            rest = begin;
        }
        None
    }

    /// Shows a version to the visitor, unless it is a deletion.
    fn offer(&mut self, cell: &Cell<'a>) -> Result<(), Vec<PageWant>> {
        if let KeyAt::Live(version) = KeyAt::of_cell(cell, self.request.want, self.view.frames)? {
            (self.visit)(cell.key.key, &version);
            self.items += 1;
            self.bytes += cell.key.key.len();
            if self.request.want == Want::Value {
                self.bytes += version.value.len();
            }
        }
        Ok(())
    }

    fn is_before_end(&self, key: &KeyRef<'_>) -> bool {
        key.is_before_end(self.request.namespace, self.request.end)
    }

    const fn is_full(&self) -> bool {
        self.items >= self.request.items_max || self.items > 0 && self.bytes >= self.request.bytes_max
    }

    const fn is_tired(&self) -> bool {
        self.cells >= CELLS_MAX
    }

    /// Where a reverse scan is when everything from `target` on is done.
    fn reverse_mark(&self, target: &KeyRef<'a>) -> Mark<'a> {
        if target.namespace > self.request.namespace {
            Mark::Begin
        } else if target.revision == Revision::MAX {
            Mark::Before(target.key)
        } else {
            Mark::After(target.key)
        }
    }

    /// Adds the missing extents of the cells that the scan will come to next in a leaf.
    fn ahead_in_leaf(&self, page: &[u8], cells: impl Iterator<Item = usize>, wants: &mut Vec<PageWant>) {
        let mut room = self.request.bytes_max.saturating_sub(self.bytes).min(READ_AHEAD_BYTES);
        let mut items = self.request.items_max.saturating_sub(self.items + 1);
        for index in cells {
            let Payload::Large(list) = leaf::cell(page, index).payload else { continue };
            if !self.is_seen(page, index) {
                continue;
            }
            if items == 0 || room < list.value_bytes {
                break;
            }
            (items, room) = (items - 1, room - list.value_bytes);
            wants.extend(missing_extents(&list, self.view.frames));
        }
    }

    /// Whether a cell is the newest of its key at the scan's revision, as far as its page tells.
    fn is_seen(&self, page: &[u8], index: usize) -> bool {
        let at = self.request.at;
        let is_hidden_by =
            |newer: usize| leaf::is_same_key(page, newer, index) && leaf::key(page, newer).revision <= at;
        leaf::key(page, index).revision <= at && !index.checked_sub(1).is_some_and(is_hidden_by)
    }

    /// The missing page, and the leaves after it that the scan will want next.
    fn ahead(&self, miss: &MissAt<'a>) -> Vec<PageWant> {
        let mut wants = vec![miss.want];
        let (Some(ChildAt { parent, index, .. }), Expected::Node { level: 0 }) =
            (miss.place, miss.want.expected)
        else {
            return wants;
        };
        let room = self.request.bytes_max.saturating_sub(self.bytes) / parent.len();
        let count = room.min(self.request.items_max.saturating_sub(self.items) / 4).min(READ_AHEAD_MAX);
        let first = KeyRef::newest(self.request.namespace, self.request.start);
        let siblings: Vec<usize> = match self.request.direction {
            ScanDirection::Forward => (index + 1..slotted::count(parent))
                .take_while(|index| self.is_before_end(&interior::separator(parent, *index)))
                .take(count)
                .collect(),
            ScanDirection::Reverse => (0..index)
                .rev()
                .take_while(|index| interior::separator(parent, index + 1) > first)
                .take(count)
                .collect(),
        };
        let pointers = siblings.into_iter().map(|index| interior::pointer(parent, index));
        wants.extend(pointers.filter(|pointer| !self.view.frames.contains(pointer.page)).map(|pointer| {
            PageWant { pointer: self.view.sealed.resolve(pointer), expected: Expected::Node { level: 0 } }
        }));
        wants
    }
}

/// Where a forward scan is when it comes to `target`.
fn forward_mark<'a>(target: &KeyRef<'a>, done: Mark<'a>) -> Mark<'a> {
    match done {
        Mark::After(last) if last >= target.key => done,
        _ => Mark::Before(target.key),
    }
}
