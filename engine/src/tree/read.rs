//! Finding the way: from a root to a leaf, and to the version of a key.

use std::hint::black_box;

use mesh_base::{Namespace, PageNo, Revision};

use crate::cell::Cell;
use crate::frames::Frames;
use crate::key::KeyRef;
use crate::page::{Expected, interior, leaf, slotted};
use crate::read::{KeyAt, Lookup, Misses, PageWant, Want};
use crate::sealed::Sealed;
use crate::superblock::Root;

/// Keys that are looked ahead for together: a few times the cache misses that a processor has under way.
const WARM_KEYS: usize = 32;

/// Where to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Seek<'k> {
    /// The leaf that a key belongs into.
    At(KeyRef<'k>),
    /// The leaf that the last key before this one belongs into.
    Before(KeyRef<'k>),
    /// The last leaf.
    Last,
}

/// How a visit counts for the replacement policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// As a use of its own.
    Point,
    /// As a part of a scan.
    Scan,
}

/// A tree to read: the present one, or a checkpoint's.
#[derive(Clone, Copy)]
pub(crate) struct TreeView<'a> {
    pub(crate) frames: &'a Frames,
    pub(crate) sealed: &'a Sealed,
    pub(crate) stamp: u64,
    pub(crate) root: Root,
}

/// A separator in a page above: it is read only by who asks for it.
#[derive(Clone, Copy)]
struct SeparatorAt<'a> {
    page: &'a [u8],
    index: usize,
}

/// A leaf, and the bounds that the pages above set for its keys.
#[derive(Clone, Copy)]
pub(crate) struct LeafAt<'a> {
    pub(crate) page: &'a [u8],
    lower: Option<SeparatorAt<'a>>,
    upper: Option<SeparatorAt<'a>>,
}

impl<'a> LeafAt<'a> {
    /// The least key that the leaf may hold.
    pub(crate) fn lower(&self) -> KeyRef<'a> {
        self.lower.map_or(KeyRef::FIRST, |at| interior::separator(at.page, at.index))
    }

    /// The key that the leaf's must stay below; nothing for the last leaf.
    pub(crate) fn upper(&self) -> Option<KeyRef<'a>> {
        self.upper.map(|at| interior::separator(at.page, at.index))
    }
}

/// A page on the way that is not resident.
#[derive(Clone, Copy)]
pub(crate) struct MissAt<'a> {
    pub(crate) want: PageWant,
    /// The page above it, and which child of that it is.
    pub(crate) parent: Option<(&'a [u8], usize)>,
}

impl<'a> TreeView<'a> {
    /// Goes from the root to a leaf.
    pub(crate) fn descend(&self, seek: &Seek<'_>, touch: Touch) -> Result<LeafAt<'a>, MissAt<'a>> {
        let (mut pointer, mut level) = (self.root.pointer, self.root.level);
        let (mut lower, mut upper) = (None, None);
        let mut parent = None;
        loop {
            let Some(page) = self.visit(pointer.page, level, touch) else {
                let want =
                    PageWant { pointer: self.sealed.resolve(pointer), expected: Expected::Node { level } };
                return Err(MissAt { want, parent });
            };
            if level == 0 {
                return Ok(LeafAt { page, lower, upper });
            }
            let index = match seek {
                Seek::At(key) => interior::child_of(page, key),
                Seek::Before(key) => interior::child_before(page, key),
                Seek::Last => slotted::count(page) - 1,
            };
            if index > 0 {
                lower = Some(SeparatorAt { page, index });
            }
            if index + 1 < slotted::count(page) {
                upper = Some(SeparatorAt { page, index: index + 1 });
            }
            parent = Some((page, index));
            pointer = interior::pointer(page, index);
            level -= 1;
        }
    }

    /// Looks at what lookups of these keys will look at, many keys at a time, so that the processor's cache misses for one key
    /// go on beside those for the others. It changes nothing, and passes over pages that are not resident.
    ///
    /// The idea is that of group prefetching (Chen, Ailamaki, Gibbons, Mowry: "Improving hash join performance through
    /// prefetching", ICDE 2004), with loads that nothing waits for in place of prefetch instructions.
    pub(crate) fn warm<'k>(&self, keys: impl Iterator<Item = KeyRef<'k>>) {
        let leaves: Vec<(KeyRef<'k>, &[u8])> =
            keys.filter_map(|key| Some((key, self.resident_leaf(&key)?))).collect();
        for group in leaves.chunks(WARM_KEYS) {
            let slots = group.iter().map(|(_, page)| slotted::touch_slots(page));
            black_box(slots.fold(0, |sum, byte| sum ^ byte));
            let cells = group.iter().map(|(key, page)| {
                let (index, _) = leaf::lower_bound(page, key);
                if index < slotted::count(page) { slotted::touch_cell(page, index) } else { 0 }
            });
            black_box(cells.fold(0, |sum, byte| sum ^ byte));
        }
    }

    /// The leaf that a key belongs into, if the whole way to it is resident. Nothing of the leaf itself is read.
    fn resident_leaf(&self, key: &KeyRef<'_>) -> Option<&'a [u8]> {
        let mut page = self.frames.peek(self.root.pointer.page)?;
        for _ in 0..self.root.level {
            page = self.frames.peek(interior::pointer(page, interior::child_of(page, key)).page)?;
        }
        Some(page)
    }

    fn visit(&self, page: PageNo, level: u8, touch: Touch) -> Option<&'a [u8]> {
        // Pages above the leaves are worth keeping however they were reached.
        if level > 0 || touch == Touch::Point { self.frames.get(page) } else { self.frames.get_once(page) }
    }

    /// The newest version of a key at or below a revision.
    pub(crate) fn find(
        &self,
        namespace: Namespace,
        key: &[u8],
        at: Revision,
        touch: Touch,
    ) -> Result<Option<Cell<'a>>, MissAt<'a>> {
        let target = KeyRef { namespace, key, revision: at };
        let mut leaf = self.descend(&Seek::At(target), touch)?;
        let (mut index, _) = leaf::lower_bound(leaf.page, &target);
        // The version may be the first of the next leaf, if versions of this key go on there.
        while index == slotted::count(leaf.page) {
            let Some(upper) = leaf.upper().filter(|upper| upper.same_key(&target)) else { return Ok(None) };
            leaf = self.descend(&Seek::At(upper), touch)?;
            index = leaf::lower_bound(leaf.page, &target).0;
        }
        let found = leaf::cell(leaf.page, index);
        Ok(found.key.same_key(&target).then_some(found))
    }

    /// What a key is at a revision.
    pub(crate) fn get(
        &self,
        namespace: Namespace,
        key: &[u8],
        at: Revision,
        want: Want,
    ) -> Lookup<KeyAt<'a>> {
        let cell = match self.find(namespace, key, at, Touch::Point) {
            Ok(Some(cell)) => cell,
            Ok(None) => return Lookup::Ready(KeyAt::Absent),
            Err(miss) => return Lookup::Miss(Misses { stamp: self.stamp, wants: vec![miss.want] }),
        };
        match KeyAt::of_cell(&cell, want, self.frames) {
            Ok(read) => Lookup::Ready(read),
            Err(wants) => Lookup::Miss(Misses { stamp: self.stamp, wants }),
        }
    }
}
