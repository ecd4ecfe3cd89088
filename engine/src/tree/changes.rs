//! Looking for a change in a range: whether a key of it was written or deleted after a revision.
//!
//! Invariant: a page that a checkpoint wrote holds nothing newer than that checkpoint. So what is older than the revision that
//! is asked about is passed over with everything under it, unread, and what is left is mostly what was changed since
//! the last checkpoint, which is in memory.
//!
//! Deliberately absent: what is below the horizon, of which deletions may be gone. Its owner refuses to ask for that.

use mesh_base::{CheckpointNo, Namespace, Revision};

use super::read::{Touch, TreeView};
use crate::key::KeyRef;
use crate::page::{interior, leaf, slotted};
use crate::pointer::PagePointer;
use crate::read::{Lookup, Misses, PageWant};

/// Cells that one search looks at, at most.
const CELLS_MAX: usize = 256 * 1024;

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChangeQuery<'a> {
    pub(crate) namespace: Namespace,
    /// The first key.
    pub(crate) start: &'a [u8],
    /// The key before which the range ends; nothing for the end of the namespace.
    pub(crate) end: Option<&'a [u8]>,
    /// A change is one after this.
    pub(crate) since: Revision,
    /// Pages up to this checkpoint hold none.
    pub(crate) unchanged: CheckpointNo,
}

/// What was found in a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RangeChange<'a> {
    /// Nothing was changed.
    Nothing,
    /// This key was, first among those that were, and this is when it was last.
    Key(&'a [u8], Revision),
    /// There was too much to look at: nobody knows.
    TooMuch,
}

/// A search under way.
struct Search<'a, 'q> {
    view: TreeView<'a>,
    query: ChangeQuery<'q>,
    cells: usize,
}

impl<'a> TreeView<'a> {
    /// Looks for a change.
    pub(crate) fn change(&self, query: &ChangeQuery<'_>) -> Lookup<RangeChange<'a>> {
        let root = self.root;
        let mut search = Search { view: *self, query: *query, cells: 0 };
        match search.node(root.pointer, root.level) {
            Ok(found) => Lookup::Ready(found),
            Err(want) => Lookup::Miss(Misses { stamp: self.stamp, wants: vec![want] }),
        }
    }
}

impl<'a> Search<'a, '_> {
    fn node(&mut self, pointer: PagePointer, level: u8) -> Result<RangeChange<'a>, PageWant> {
        if pointer.checkpoint <= self.query.unchanged {
            return Ok(RangeChange::Nothing);
        }
        let page = self.view.visit(pointer, level, Touch::Scan)?;
        let first = KeyRef::newest(self.query.namespace, self.query.start);
        if level == 0 {
            return Ok(self.leaf(page, &first));
        }
        for index in interior::child_of(page, &first)..slotted::count(page) {
            if index > 0 && !self.is_before_end(&interior::separator(page, index)) {
                break;
            }
            let found = self.node(interior::pointer(page, index), level - 1)?;
            if found != RangeChange::Nothing {
                return Ok(found);
            }
        }
        Ok(RangeChange::Nothing)
    }

    fn leaf(&mut self, page: &'a [u8], first: &KeyRef<'_>) -> RangeChange<'a> {
        for index in leaf::lower_bound(page, first).0..slotted::count(page) {
            let key = leaf::key(page, index);
            if !self.is_before_end(&key) {
                break;
            }
            if key.revision > self.query.since {
                return RangeChange::Key(key.key, key.revision);
            }
            self.cells += 1;
        }
        if self.cells > CELLS_MAX { RangeChange::TooMuch } else { RangeChange::Nothing }
    }

    fn is_before_end(&self, key: &KeyRef<'_>) -> bool {
        key.is_before_end(self.query.namespace, self.query.end)
    }
}
