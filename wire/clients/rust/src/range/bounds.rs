//! Which keys are to be read, and how.

use bytes::Bytes;
use mesh_base::SlotNo;
use mesh_base::limits::{CLIENT_RANGE_PAGE_ITEMS, RANGE_ITEMS_MAX};
use mesh_base::slot::{slot_of, tag};

use super::Cursor;

/// Which keys to read in order, and how.
///
/// ```
/// use mesh_client::Range;
///
/// let newest_orders = Range::prefix("orders/").reverse().limit(10);
/// let names = Range::between("users/a", "users/n").keys_only();
/// # let _ = (newest_orders, names);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Range {
    pub(super) from: Bytes,
    /// Empty for no end.
    pub(super) to: Bytes,
    /// The only slot that the keys can be in, if there is only one.
    pub(super) slot: Option<SlotNo>,
    pub(super) limit: Option<u64>,
    pub(super) content: Content,
    pub(super) order: Order,
    pub(super) page_items: u32,
    pub(super) cursor: Option<Cursor>,
}

/// What is returned of each key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    Items,
    Keys,
}

/// From which end the keys are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Ascending,
    Descending,
}

impl Range {
    /// All keys.
    pub fn all() -> Self {
        Self::of(Bytes::new(), Bytes::new(), &[])
    }

    /// The keys from `from` on, that one included.
    pub fn starting_at(from: impl AsRef<[u8]>) -> Self {
        Self::of(Bytes::copy_from_slice(from.as_ref()), Bytes::new(), &[])
    }

    /// The keys from `from` on and below `to`. An empty bound is none.
    pub fn between(from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        let (from, to) = (from.as_ref(), to.as_ref());
        // All keys between two begin with what both begin with.
        let common = from.iter().zip(to).take_while(|(from, to)| from == to).count();
        let common = from.get(..common).unwrap_or_default();
        Self::of(Bytes::copy_from_slice(from), Bytes::copy_from_slice(to), common)
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> Self {
        let prefix = prefix.as_ref();
        Self::of(Bytes::copy_from_slice(prefix), above_all_with(prefix), prefix)
    }

    fn of(from: Bytes, to: Bytes, common: &[u8]) -> Self {
        // A whole tag in what all the keys begin with decides the slot of each.
        let has_tag = tag(common).len() < common.len();
        Self {
            from,
            to,
            slot: has_tag.then(|| slot_of(common)),
            limit: None,
            content: Content::Items,
            order: Order::Ascending,
            page_items: u32::try_from(CLIENT_RANGE_PAGE_ITEMS).unwrap_or(u32::MAX),
            cursor: None,
        }
    }

    /// Ends after so many items.
    pub const fn limit(mut self, items: u64) -> Self {
        self.limit = Some(items);
        self
    }

    /// Without values.
    pub const fn keys_only(mut self) -> Self {
        self.content = Content::Keys;
        self
    }

    /// From the greatest key down.
    pub const fn reverse(mut self) -> Self {
        self.order = Order::Descending;
        self
    }

    /// Items that are fetched from a shard at a time; between 1 and 10000, and 1000 unless set.
    pub fn page_items(mut self, items: u32) -> Self {
        self.page_items = items.clamp(1, u32::try_from(RANGE_ITEMS_MAX).unwrap_or(u32::MAX));
        self
    }

    /// Goes on behind a cursor, which an earlier reading of the same range gave.
    pub fn resume(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// Whether no key can be in it.
    pub(super) fn is_empty(&self) -> bool {
        self.limit == Some(0) || (!self.to.is_empty() && self.from >= self.to)
    }
}

/// The least bytes above all that begin with `prefix`; empty if there are none.
fn above_all_with(prefix: &[u8]) -> Bytes {
    let kept = prefix.iter().rposition(|&byte| byte != u8::MAX).map_or(0, |last| last + 1);
    let mut above = prefix.get(..kept).unwrap_or_default().to_vec();
    if let Some(last) = above.last_mut() {
        *last += 1;
    }
    above.into()
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn a_prefix_has_exactly_the_keys_that_begin_with_it(prefix: Vec<u8>, key: Vec<u8>) -> bool {
            let within = |range: &Range, key: &[u8]| range.from <= key && (range.to.is_empty() || range.to > key);
            let range = Range::prefix(&prefix);
            let longer = [prefix.as_slice(), &key].concat();
            within(&range, &longer) && within(&range, &key) == key.starts_with(&prefix)
        }
    }

    #[test]
    fn a_prefix_of_the_greatest_bytes_has_no_end() {
        assert_eq!(Range::prefix([0xff, 0xff]).to, Bytes::new());
        assert_eq!(Range::prefix([b'a', 0xff]).to, "b");
        assert_eq!(Range::prefix("").to, "");
    }

    #[test]
    fn a_whole_tag_in_what_all_keys_begin_with_leaves_one_slot() {
        assert_eq!(Range::prefix("{user1}/").slot, Some(slot_of(b"{user1}/a")));
        assert_eq!(Range::between("{u}a", "{u}b").slot, Some(slot_of(b"{u}aa")));
        for range in
            [Range::prefix("{user1"), Range::prefix("a{}b"), Range::between("{u}", "{v}"), Range::all()]
        {
            assert_eq!(range.slot, None, "{range:?}");
        }
    }

    #[test]
    fn a_range_that_ends_before_it_begins_is_empty() {
        assert!(Range::between("b", "a").is_empty() && Range::between("a", "a").is_empty());
        assert!(!Range::between("a", "").is_empty() && Range::all().limit(0).is_empty());
    }
}
