//! Where the pages of the file are in memory: a table by page number, of which only the parts in use are there.
//!
//! Page numbers are dense, so this is smaller than a hash table of the same pages as soon as a few percent of the file are in
//! memory, and a look into it is two loads.

use mesh_base::PageNo;

/// Entries of a part: pages that lie together in the file.
const PART_PAGES: usize = 2048;
/// The entry of a page that is not in memory.
const NOWHERE: u32 = u32::MAX;

struct Part {
    slots: Box<[u32]>,
    used: usize,
}

/// The slot of every page that is in memory.
#[derive(Default)]
pub(super) struct PageTable {
    parts: Vec<Option<Part>>,
    used: usize,
}

impl PageTable {
    /// How many pages have a slot.
    pub(super) const fn len(&self) -> usize {
        self.used
    }

    /// The slot of a page.
    pub(super) fn get(&self, page: PageNo) -> Option<u32> {
        let (part, at) = place(page);
        let slot = *self.parts.get(part)?.as_ref()?.slots.get(at)?;
        (slot != NOWHERE).then_some(slot)
    }

    /// Gives a page, which has none, a slot.
    pub(super) fn insert(&mut self, page: PageNo, slot: u32) {
        let (part, at) = place(page);
        self.parts.resize_with(self.parts.len().max(part + 1), || None);
        let Some(part) = self.parts.get_mut(part) else { return };
        let part = part.get_or_insert_with(|| Part { slots: vec![NOWHERE; PART_PAGES].into(), used: 0 });
        let Some(entry) = part.slots.get_mut(at) else { return };
        assert!(*entry == NOWHERE && slot != NOWHERE, "{page} is in memory already");
        *entry = slot;
        part.used += 1;
        self.used += 1;
    }

    /// Takes a page's slot away.
    pub(super) fn remove(&mut self, page: PageNo) -> Option<u32> {
        let (part_no, at) = place(page);
        let place = self.parts.get_mut(part_no)?;
        let part = place.as_mut()?;
        let slot = std::mem::replace(part.slots.get_mut(at)?, NOWHERE);
        if slot == NOWHERE {
            return None;
        }
        part.used -= 1;
        self.used -= 1;
        if part.used == 0 {
            *place = None;
        }
        Some(slot)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "pages of a file that is there")]
const fn place(page: PageNo) -> (usize, usize) {
    let page = page.get() as usize;
    (page / PART_PAGES, page % PART_PAGES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn it_is_a_map(steps: Vec<(u16, u32)>) -> bool {
            let (mut table, mut model) = (PageTable::default(), BTreeMap::new());
            steps.into_iter().all(|(page, slot)| {
                let page = PageNo(u64::from(page % 5000));
                if let Some(known) = model.remove(&page) {
                    assert_eq!(table.remove(page), Some(known));
                } else {
                    assert_eq!(table.remove(page), None);
                    table.insert(page, slot / 2);
                    model.insert(page, slot / 2);
                }
                table.len() == model.len() && table.get(page) == model.get(&page).copied()
            })
        }
    }

    #[test]
    fn parts_that_are_not_in_use_take_no_memory() {
        let mut table = PageTable::default();
        (0..100).for_each(|part| table.insert(PageNo(part * PART_PAGES as u64), 1));
        (0..99).for_each(|part| {
            table.remove(PageNo(part * PART_PAGES as u64));
        });
        assert_eq!(table.parts.iter().flatten().count(), 1);
    }
}
