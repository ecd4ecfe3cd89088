//! Finding the way: from a root to a leaf, and to the version of a key.

use mesh_base::{Namespace, PageNo, Revision};

use crate::cell::Cell;
use crate::frames::Frames;
use crate::key::KeyRef;
use crate::page::search::{self, Begun};
use crate::page::{self, Expected, interior, leaf, slotted};
use crate::pointer::PagePointer;
use crate::read::{KeyAt, Lookup, Misses, PageWant, Want};
use crate::sealed::Sealed;
use crate::superblock::Root;

/// Keys that are looked ahead for together: a few times the cache misses that a processor has under way.
pub const GROUP_KEYS: usize = 32;

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
    /// Not at all: what only looks on changes nothing.
    Look,
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

impl<'a> SeparatorAt<'a> {
    fn read(&self) -> KeyRef<'a> {
        interior::separator(self.page, self.index)
    }
}

/// The place of a page among the children of the one above.
#[derive(Clone, Copy)]
pub(crate) struct ChildAt<'a> {
    pub(crate) parent: &'a [u8],
    pub(crate) index: usize,
    /// The bounds of the parent's keys; nothing where the tree begins or ends with it.
    parent_lower: Option<SeparatorAt<'a>>,
    parent_upper: Option<SeparatorAt<'a>>,
}

impl<'a> ChildAt<'a> {
    fn of(parent: &'a [u8], index: usize, place: Option<&Self>) -> Self {
        let (parent_lower, parent_upper) = place.map_or((None, None), |place| (place.lower(), place.upper()));
        Self { parent, index, parent_lower, parent_upper }
    }

    fn pointer(&self) -> PagePointer {
        interior::pointer(self.parent, self.index)
    }

    fn lower(&self) -> Option<SeparatorAt<'a>> {
        if self.index == 0 {
            return self.parent_lower;
        }
        Some(SeparatorAt { page: self.parent, index: self.index })
    }

    fn upper(&self) -> Option<SeparatorAt<'a>> {
        let next = self.next();
        next.map_or(self.parent_upper, |next| Some(SeparatorAt { page: self.parent, index: next.index }))
    }

    /// The next child of the same parent.
    fn next(&self) -> Option<Self> {
        let index = self.index + 1;
        (index < slotted::count(self.parent)).then_some(Self { index, ..*self })
    }
}

/// A leaf, and its place in the tree; none if it is all of the tree.
#[derive(Clone, Copy)]
pub(crate) struct LeafAt<'a> {
    pub(crate) page: &'a [u8],
    place: Option<ChildAt<'a>>,
}

impl<'a> LeafAt<'a> {
    /// The least key that the leaf may hold.
    pub(crate) fn lower(&self) -> KeyRef<'a> {
        self.place.and_then(|place| place.lower()).map_or(KeyRef::FIRST, |at| at.read())
    }

    /// The key that the leaf's must stay below; nothing for the last leaf.
    pub(crate) fn upper(&self) -> Option<KeyRef<'a>> {
        self.place.and_then(|place| place.upper()).map(|at| at.read())
    }

    /// The place of the leaf after it, if that has the same parent.
    pub(crate) fn next(&self) -> Option<ChildAt<'a>> {
        self.place.and_then(|place| place.next())
    }
}

/// A place in a leaf: of a key's first cell that is not before it, or behind all cells.
#[derive(Clone, Copy)]
pub(crate) struct Spot<'a> {
    pub(crate) page: &'a [u8],
    pub(crate) index: usize,
}

/// Begins to search each key in its page, and asks for the cell that the rest of the search will probably read.
fn begin_searches(pages: &[Result<&[u8], PageWant>], keys: &[KeyRef<'_>], searches: &mut Vec<Option<Begun>>) {
    searches.clear();
    for (page, key) in pages.iter().zip(keys) {
        let begun = page.ok().and_then(|page| {
            let begun = search::begin(page, key)?;
            slotted::prefetch_key(page, begun.probable);
            Some(begun)
        });
        searches.push(begun);
    }
}

/// A page on the way that is not resident.
#[derive(Clone, Copy)]
pub(crate) struct MissAt<'a> {
    pub(crate) want: PageWant,
    /// Its place; none if it is the root.
    pub(crate) place: Option<ChildAt<'a>>,
}

impl<'a> TreeView<'a> {
    /// Goes from the root to a leaf.
    pub(crate) fn descend(&self, seek: &Seek<'_>, touch: Touch) -> Result<LeafAt<'a>, MissAt<'a>> {
        let mut place: Option<ChildAt<'a>> = None;
        for level in (0..=self.root.level).rev() {
            let pointer = place.map_or(self.root.pointer, |place| place.pointer());
            let page = self.visit(pointer, level, touch).map_err(|want| MissAt { want, place })?;
            if level == 0 {
                return Ok(LeafAt { page, place });
            }
            let index = match seek {
                Seek::At(key) => interior::child_of(page, key),
                Seek::Before(key) => interior::child_before(page, key),
                Seek::Last => slotted::count(page) - 1,
            };
            place = Some(ChildAt::of(page, index, place.as_ref()));
        }
        unreachable!("the last level is that of the leaves")
    }

    /// Whether a key belongs into this leaf.
    pub(crate) fn is_leaf_of(&self, key: &KeyRef<'_>, leaf: PageNo) -> bool {
        self.descend(&Seek::At(*key), Touch::Look).is_ok_and(|at| page::stamp(at.page).page == leaf)
    }

    /// The leaf at a place, as [`LeafAt::next`] gives it.
    pub(crate) fn leaf_at(&self, place: ChildAt<'a>, touch: Touch) -> Result<LeafAt<'a>, MissAt<'a>> {
        let page = self.visit(place.pointer(), 0, touch);
        let place = Some(place);
        page.map(|page| LeafAt { page, place }).map_err(|want| MissAt { want, place })
    }

    /// Looks at the cells of a leaf that a scan will look at, and at the slots of the leaf after it, all together: see
    /// [`TreeView::warm`].
    pub(crate) fn warm_ahead(&self, leaf: &LeafAt<'a>, from: usize, cells: usize) {
        let here = slotted::count(leaf.page).saturating_sub(from);
        let next = leaf.next().filter(|_| here < cells);
        if let Some(next) = next.and_then(|place| self.frames.peek(place.pointer().page)) {
            slotted::prefetch_slots(next);
        }
        slotted::prefetch_cells(leaf.page, from, here.min(cells));
    }

    /// Looks at what lookups of these keys will look at, many keys at a time, so that the processor's cache misses for one key
    /// go on beside those for the others. It changes nothing, and passes over pages that are not resident.
    ///
    /// The idea is that of group prefetching (Chen, Ailamaki, Gibbons, Mowry: "Improving hash join performance through
    /// prefetching", ICDE 2004).
    pub(crate) fn warm<'k>(&self, keys: impl Iterator<Item = KeyRef<'k>>) {
        let keys: Vec<_> = keys.collect();
        keys.chunks(GROUP_KEYS).for_each(|group| drop(self.leaves_of(group, Touch::Look)));
    }

    /// Where in their leaves keys belong, at most [`GROUP_KEYS`] of them, or what is missing on the way to each. All go down
    /// together, level by level, and what the next step will look at is looked at for all of them first: see
    /// [`TreeView::warm`].
    pub(crate) fn leaves_of(&self, keys: &[KeyRef<'_>], touch: Touch) -> Vec<Result<Spot<'a>, PageWant>> {
        assert!(keys.len() <= GROUP_KEYS, "a group of {} keys", keys.len());
        let root = self.visit(self.root.pointer, self.root.level, touch);
        let mut pages = vec![root; keys.len()];
        let mut searches = Vec::with_capacity(keys.len());
        let mut children = Vec::with_capacity(keys.len());
        for level in (0..self.root.level).rev() {
            begin_searches(&pages, keys, &mut searches);
            children.clear();
            for ((page, key), search) in pages.iter().zip(keys).zip(&searches) {
                children.push(
                    page.map(|page| interior::pointer(page, interior::child_begun(page, key, *search))),
                );
            }
            for (page, child) in pages.iter_mut().zip(&children) {
                *page = child.and_then(|child| self.visit(child, level, touch));
            }
            pages.iter().flatten().for_each(|page| slotted::prefetch_slots(page));
        }
        begin_searches(&pages, keys, &mut searches);
        let searched = pages.into_iter().zip(keys).zip(searches);
        let spots = searched.map(|((page, key), search)| {
            page.map(|page| Spot { page, index: leaf::bound_begun(page, key, search) })
        });
        spots.collect()
    }

    #[inline]
    pub(super) fn visit(&self, pointer: PagePointer, level: u8, touch: Touch) -> Result<&'a [u8], PageWant> {
        let found = match touch {
            Touch::Look => self.frames.peek(pointer.page),
            Touch::Scan if level == 0 => self.frames.get_once(pointer.page),
            // Pages above the leaves are worth keeping however they were reached.
            Touch::Scan | Touch::Point => self.frames.get(pointer.page),
        };
        found.ok_or_else(|| PageWant {
            pointer: self.sealed.resolve(pointer),
            expected: Expected::Node { level },
        })
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

    /// What a lookup of a key misses at first. No use of the pages that it finds is noted: the lookup is still to come.
    pub(crate) fn missing_of(&self, namespace: Namespace, key: &[u8], at: Revision) -> Vec<PageWant> {
        match self.find(namespace, key, at, Touch::Scan) {
            Ok(Some(cell)) => KeyAt::of_cell(&cell, Want::Value, self.frames).err().unwrap_or_default(),
            Ok(None) => Vec::new(),
            Err(miss) => vec![miss.want],
        }
    }

    /// What a key is at a revision.
    pub(crate) fn get(
        &self,
        namespace: Namespace,
        key: &[u8],
        at: Revision,
        want: Want,
    ) -> Lookup<KeyAt<'a>> {
        let found = self.find(namespace, key, at, Touch::Point);
        self.answer(found.map_err(|miss| miss.want), want)
    }

    /// What each of a number of keys, at most [`GROUP_KEYS`], is at its revision: looked up together, see
    /// [`TreeView::leaves_of`].
    pub(crate) fn get_group(&self, targets: &[KeyRef<'_>], want: Want) -> Vec<Lookup<KeyAt<'a>>> {
        let leaves = self.leaves_of(targets, Touch::Point);
        if want == Want::Value {
            let spots = leaves.iter().flatten().filter(|spot| spot.index < slotted::count(spot.page));
            spots.for_each(|spot| slotted::prefetch_cells(spot.page, spot.index, 1));
        }
        let find = |(leaf, target): (Result<Spot<'a>, PageWant>, &KeyRef<'_>)| {
            let Spot { page, index } = leaf?;
            // The version may be in the next leaf.
            if index == slotted::count(page) {
                let found = self.find(target.namespace, target.key, target.revision, Touch::Look);
                return found.map_err(|miss| miss.want);
            }
            let found = leaf::cell(page, index);
            Ok(found.key.same_key(target).then_some(found))
        };
        leaves.into_iter().zip(targets).map(|looked| self.answer(find(looked), want)).collect()
    }

    fn answer(&self, found: Result<Option<Cell<'a>>, PageWant>, want: Want) -> Lookup<KeyAt<'a>> {
        let read = match found {
            Ok(Some(cell)) => KeyAt::of_cell(&cell, want, self.frames),
            Ok(None) => Ok(KeyAt::Absent),
            Err(missing) => Err(vec![missing]),
        };
        match read {
            Ok(read) => Lookup::Ready(read),
            Err(wants) => Lookup::Miss(Misses { stamp: self.stamp, wants }),
        }
    }
}
