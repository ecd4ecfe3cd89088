//! Finding a key in a page: each slot holds the *head* of its key, so a search reads the slots and then one cell.
//!
//! Keys are compared as the bytes of the namespace, high byte first, and those of the key behind them. The *prefix* of a page is
//! a number of such bytes that all its keys share, and a head is the four bytes behind the prefix, zeros where there are none.
//! Where all keys of a page share their namespace, its bytes are part of the prefix; where they do not, the prefix is empty and
//! the heads are the namespaces. The idea is that of the poor man's normalized keys of Graefe and Larson ("B-tree indexes
//! and CPU caches", ICDE 2001), with the prefix left out.
//!
//! Invariants:
//! - Heads are in the order of the slots: of two keys with different heads the one with the lesser head comes first.
//! - The first cell of an interior page has no key of its own; its head is zero, and nobody looks at it.

use super::{SLOT_BYTES, fields, interior, offset, slotted};
use crate::cell;
use crate::key::KeyRef;

/// Bytes of the namespace in a prefix.
const NAMESPACE_BYTES: usize = 4;

/// The head of a key in a page whose keys share this prefix.
pub(super) fn head(key: &KeyRef<'_>, prefix: usize) -> u32 {
    let Some(shared) = prefix.checked_sub(NAMESPACE_BYTES) else { return key.namespace.get() };
    let rest = key.key.get(shared..).unwrap_or_default();
    if let Some(head) = rest.first_chunk() {
        return u32::from_be_bytes(*head);
    }
    let padded = rest.iter().chain(&[0; 4]).take(4);
    padded.fold(0, |head, byte| head << 8 | u32::from(*byte))
}

/// The bytes that two keys share.
pub(super) fn shared_prefix(one: &KeyRef<'_>, other: &KeyRef<'_>) -> usize {
    if one.namespace != other.namespace {
        return 0;
    }
    NAMESPACE_BYTES + one.key.iter().zip(other.key).take_while(|(a, b)| a == b).count()
}

/// The index of the first cell that has a key.
pub(super) fn first_keyed(page: &[u8]) -> usize {
    usize::from(fields::level(page) > 0)
}

/// The key of any cell of a page of this level.
pub(super) fn key_of(level: u8, cell: &[u8]) -> KeyRef<'_> {
    if level == 0 { cell::key_of(cell) } else { interior::separator_of(cell) }
}

/// The prefix of a page's keys.
pub(super) fn prefix(page: &[u8]) -> usize {
    usize::from(fields::u16_at(page, offset::PREFIX))
}

/// The first half of a search: what the slots tell, without a look at any cell.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Begun {
    /// The first cell with a key whose head is not below that of the key.
    low: usize,
    /// A cell that the other half reads, and who comes for the cell reads too: the one that is searched for, or the child that
    /// the key is under.
    pub(crate) probable: usize,
}

/// Begins a search in a page that has a cell with a key; nothing in any other.
#[allow(clippy::indexing_slicing, reason = "there are more slots than those without a key")]
pub(crate) fn begin(page: &[u8], target: &KeyRef<'_>) -> Option<Begun> {
    let (slots, first) = (slotted::slots(page), first_keyed(page));
    if slots.len() <= first {
        return None;
    }
    let head = head(target, prefix(page));
    let low = first + slots[first..].partition_point(|slot| head_of(*slot) < head);
    let probable = if first == 0 { low.min(slots.len() - 1) } else { low.max(first + 1) - 1 };
    Some(Begun { low, probable })
}

/// Where a key is among those of a page, or where it would be.
///
/// # Errors
/// The index of the first cell with a key above it, where no cell has the key.
pub(crate) fn search(page: &[u8], target: &KeyRef<'_>) -> Result<usize, usize> {
    match begin(page, target) {
        Some(begun) => finish(page, target, begun),
        None => Err(slotted::count(page)),
    }
}

/// Ends a search that was begun in this page as it is now: see [`search()`].
#[allow(
    clippy::indexing_slicing,
    reason = "offsets were checked when the page came in, and are ours from then on"
)]
pub(crate) fn finish(page: &[u8], target: &KeyRef<'_>, begun: Begun) -> Result<usize, usize> {
    let Begun { low, probable } = begun;
    let slots = slotted::slots(page);
    let (level, first) = (fields::level(page), first_keyed(page));
    let prefix = prefix(page);
    let head = head(target, prefix);
    if let Some(shared) = prefix.checked_sub(NAMESPACE_BYTES) {
        // Any key tells the prefix. That of the probable cell spares a wait for memory.
        let some = key_of(level, slotted::cell_of(page, slots[probable]));
        let begin = target.key.get(..shared).unwrap_or(target.key);
        match target.namespace.cmp(&some.namespace).then_with(|| begin.cmp(&some.key[..shared])) {
            std::cmp::Ordering::Less => return Err(first),
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => return Err(slots.len()),
        }
    }
    let Some(one) = slots.get(low).filter(|one| head_of(**one) == head) else { return Err(low) };
    // Who looks for the newest version of a key, or adds one, comes to an end here, whatever other versions there are.
    match key_of(level, slotted::cell_of(page, *one)).cmp(target) {
        std::cmp::Ordering::Less => {}
        std::cmp::Ordering::Equal => return Ok(low),
        std::cmp::Ordering::Greater => return Err(low),
    }
    let rest = low + 1;
    let alike = slots[rest..].partition_point(|slot| head_of(*slot) == head);
    let found = slots[rest..rest + alike]
        .binary_search_by(|slot| key_of(level, slotted::cell_of(page, *slot)).cmp(target));
    found.map(|at| rest + at).map_err(|at| rest + at)
}

/// Whether a cell has the head of a key. If not, it has another key.
pub(super) fn has_head(page: &[u8], index: usize, key: &KeyRef<'_>) -> bool {
    slotted::slots(page).get(index).is_some_and(|slot| head_of(*slot) == head(key, prefix(page)))
}

/// Whether two cells have the same head. If not, they have different keys.
pub(super) fn same_head(page: &[u8], one: usize, other: usize) -> bool {
    let slots = slotted::slots(page);
    let head = |index| slots.get(index).copied().map(head_of);
    head(one) == head(other)
}

/// The first cell from `index` on whose neighbour behind it has the same head.
pub(super) fn next_alike(page: &[u8], index: usize) -> Option<usize> {
    let rest = slotted::slots(page).get(index..)?;
    let at = rest.array_windows().position(|[one, other]| head_of(*one) == head_of(*other))?;
    Some(index + at)
}

/// Whether the prefix and the heads are those of the keys. The cells must have been checked.
#[allow(
    clippy::indexing_slicing,
    reason = "the keys are at least as long as the prefix, which is looked at first"
)]
pub(super) fn is_sound(page: &[u8]) -> bool {
    let (level, prefix) = (fields::level(page), prefix(page));
    if (1..NAMESPACE_BYTES).contains(&prefix) {
        return false;
    }
    let mut keyed = slotted::slots(page).iter().skip(first_keyed(page));
    let Some(first) = keyed.clone().next() else { return true };
    let first = key_of(level, slotted::cell_of(page, *first));
    let shared = prefix.saturating_sub(NAMESPACE_BYTES);
    if first.key.len() < shared {
        return false;
    }
    keyed.all(|slot| {
        let key = key_of(level, slotted::cell_of(page, *slot));
        let shares =
            prefix == 0 || key.namespace == first.namespace && key.key.starts_with(&first.key[..shared]);
        shares && head_of(*slot) == head(&key, prefix)
    })
}

const fn head_of(slot: [u8; SLOT_BYTES]) -> u32 {
    let [a, b, c, d, ..] = slot;
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use mesh_base::{CheckpointNo, Namespace, PageNo, Revision};
    use quickcheck::quickcheck;

    use super::*;
    use crate::cell::NewPayload;
    use crate::key::CellKey;
    use crate::page::{Expected, PageStamp, write_header};
    use crate::pointer::{Checksum, PagePointer};
    use crate::write::Attributes;

    /// Keys that often share bytes, often are prefixes of each other, and often have several versions.
    fn key((namespace, bytes, revision): (u8, Vec<u8>, u8)) -> CellKey {
        let mut key = vec![b'k'; usize::from(namespace / 16)];
        key.extend(bytes.iter().map(|byte| byte % 3));
        CellKey {
            namespace: Namespace(u32::from(namespace % 2)),
            key,
            revision: Revision(u64::from(revision % 4)),
        }
    }

    fn page(level: u8) -> Vec<u8> {
        let mut page = vec![0; 16 * 1024];
        let stamp = PageStamp { page: PageNo(1), checkpoint: CheckpointNo(1) };
        write_header(&mut page, Expected::Node { level }, stamp);
        page
    }

    fn encode(level: u8, key: &KeyRef<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        if level == 0 {
            cell::encode(&mut bytes, key, &Attributes::created(key.revision), NewPayload::Inline(b"value"));
        } else {
            let pointer = PagePointer {
                page: PageNo(9),
                checksum: Checksum::of(b"child"),
                checkpoint: CheckpointNo(1),
            };
            interior::encode(&mut bytes, key, &pointer);
        }
        bytes
    }

    /// Plays inserts and removes, and compares every search with a look at every key.
    fn searches_like_a_sorted_list(level: u8, keys: Vec<(u8, Vec<u8>, u8)>, removed: &[usize]) -> bool {
        let (mut page, mut model) = (page(level), Vec::<CellKey>::new());
        if level > 0 {
            slotted::insert(&mut page, 0, &encode(level, &KeyRef::FIRST));
        }
        let first = first_keyed(&page);
        let keys: Vec<CellKey> = keys.into_iter().take(100).map(key).collect();
        let agrees = |page: &[u8], model: &[CellKey]| {
            is_sound(page)
                && keys.iter().all(|key| {
                    let expected = model.binary_search(key).map(|at| at + first).map_err(|at| at + first);
                    search(page, &key.as_ref()) == expected
                })
        };
        for (step, key) in keys.iter().enumerate() {
            if let Err(at) = model.binary_search(key) {
                model.insert(at, key.clone());
                slotted::insert(&mut page, at + first, &encode(level, &key.as_ref()));
            }
            if let Some(at) = removed.get(step).filter(|_| !model.is_empty()).map(|at| at % model.len()) {
                model.remove(at);
                slotted::remove(&mut page, at + first);
            }
            if !agrees(&page, &model) {
                return false;
            }
        }
        let old = page.clone();
        slotted::fill(&mut page, (0..slotted::count(&old)).map(|index| slotted::cell(&old, index)));
        agrees(&page, &model)
    }

    quickcheck! {
        fn a_leaf_is_searched_like_a_sorted_list(keys: Vec<(u8, Vec<u8>, u8)>, removed: Vec<usize>) -> bool {
            searches_like_a_sorted_list(0, keys, &removed)
        }

        fn an_interior_page_is_searched_like_a_sorted_list(
            keys: Vec<(u8, Vec<u8>, u8)>, removed: Vec<usize>
        ) -> bool {
            searches_like_a_sorted_list(1, keys, &removed)
        }
    }
}
