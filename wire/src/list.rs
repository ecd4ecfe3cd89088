//! Lists in messages: a slice of the sender's, or a vector inside a received payload, read in place.

use std::fmt;
use std::ops::Range;

use flatbuffers::{ForwardsUOffset, Vector};
use mesh_base::ReplicaId;

use crate::generated::mesh::wire as fb;
use crate::message::{
    BirthMember, Condition, Item, KeyRange, KeyValue, Member, NodeEntry, Operation, RaftEntry, RaftMessage,
    RangeItem, ReplicaStatus, ShardPlace, SlotRange,
};

/// A list of a message. Made from a slice to be sent; read in place, without allocation, when received.
#[derive(Clone, Copy)]
pub struct List<'a, T> {
    items: Items<'a, T>,
}

#[derive(Clone, Copy)]
enum Items<'a, T> {
    Slice(&'a [T]),
    Received(Received<'a>),
}

macro_rules! received {
    ($($vector:ident: $wire:ty => $element:ty, $view:expr;)*) => {
        /// A vector inside a payload that was verified. A closed list instead of a type parameter, so that a
        /// [`List`] can be used where a shorter-lived one is asked for.
        #[derive(Clone, Copy)]
        pub enum Received<'a> {
            $(#[allow(missing_docs, reason = "not reachable from outside")] $vector(Vector<'a, $wire>),)*
        }

        impl Received<'_> {
            const fn name(self) -> &'static str {
                match self {
                    $(Self::$vector(_) => stringify!($vector),)*
                }
            }

            fn len(self) -> usize {
                match self {
                    $(Self::$vector(vector) => vector.len(),)*
                }
            }
        }

        $(
            impl<'a> From<Vector<'a, $wire>> for List<'a, $element> {
                fn from(vector: Vector<'a, $wire>) -> Self {
                    Self { items: Items::Received(Received::$vector(vector)) }
                }
            }

            impl<'a> Element<'a> for $element {
                fn read(from: Received<'a>, index: usize) -> Self {
                    let Received::$vector(vector) = from else { mistaken(from) };
                    let view: fn(_) -> $element = $view;
                    view(vector.get(index))
                }
            }
        )*
    };
}

#[allow(
    clippy::panic,
    reason = "only the conversions above make received lists, each of its own element's vector"
)]
fn mistaken(from: Received<'_>) -> ! {
    panic!("a list of other elements was made of {}", from.name())
}

/// What a [`List`] may hold.
pub trait Element<'a>: Copy + 'a {
    /// The element at an index within bounds.
    fn read(from: Received<'a>, index: usize) -> Self;
}

received! {
    Keys: ForwardsUOffset<fb::Key<'a>> => &'a [u8], |wire: fb::Key<'a>| wire.key().bytes();
    Names: ForwardsUOffset<&'a str> => &'a str, |wire| wire;
    KeyValues: ForwardsUOffset<fb::KeyValue<'a>> => KeyValue<'a>, KeyValue::view;
    Items: ForwardsUOffset<fb::Item<'a>> => Option<Item<'a>>, Item::view;
    RangeItems: ForwardsUOffset<fb::Item<'a>> => RangeItem<'a>, RangeItem::view;
    Conditions: ForwardsUOffset<fb::Condition<'a>> => Condition<'a>, Condition::view;
    KeyRanges: ForwardsUOffset<fb::KeyRange<'a>> => KeyRange<'a>, KeyRange::view;
    Operations: ForwardsUOffset<fb::Operation<'a>> => Operation<'a>, Operation::view;
    SlotRanges: fb::SlotRange => SlotRange, SlotRange::view;
    ShardPlaces: ForwardsUOffset<fb::ShardPlace<'a>> => ShardPlace, ShardPlace::view;
    Nodes: ForwardsUOffset<fb::Node<'a>> => NodeEntry<'a>, NodeEntry::view;
    Members: fb::Member => Member, Member::view;
    Replicas: ForwardsUOffset<fb::ReplicaStatus<'a>> => ReplicaStatus<'a>, ReplicaStatus::view;
    ReplicaIds: u64 => ReplicaId, ReplicaId;
    Entries: ForwardsUOffset<fb::RaftEntry<'a>> => RaftEntry<'a>, RaftEntry::view;
    Messages: ForwardsUOffset<fb::RaftMessage<'a>> => RaftMessage<'a>, RaftMessage::view;
    BirthMembers: ForwardsUOffset<fb::BirthMember<'a>> => BirthMember<'a>, BirthMember::view;
}
impl<'a, T> List<'a, T> {
    /// The list of nothing.
    pub const EMPTY: Self = Self { items: Items::Slice(&[]) };

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.items {
            Items::Slice(items) => items.len(),
            Items::Received(vector) => vector.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The list of an optional vector of a received table: empty if it is absent.
    pub(crate) fn optional<V>(vector: Option<V>) -> Self
    where
        Self: From<V>,
    {
        vector.map_or(Self::EMPTY, Self::from)
    }
}

impl<'a, T: Element<'a>> List<'a, T> {
    /// The element at an index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<T> {
        match self.items {
            Items::Slice(items) => items.get(index).copied(),
            Items::Received(vector) => (index < vector.len()).then(|| T::read(vector, index)),
        }
    }

    /// The elements in order.
    #[must_use]
    pub fn iter(&self) -> ListIter<'a, T> {
        ListIter { list: *self, left: 0..self.len() }
    }
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<'a, T> From<&'a [T]> for List<'a, T> {
    fn from(items: &'a [T]) -> Self {
        Self { items: Items::Slice(items) }
    }
}

impl<'a, T, const N: usize> From<&'a [T; N]> for List<'a, T> {
    fn from(items: &'a [T; N]) -> Self {
        Self { items: Items::Slice(items) }
    }
}

impl<'a, T> From<&'a Vec<T>> for List<'a, T> {
    fn from(items: &'a Vec<T>) -> Self {
        Self { items: Items::Slice(items) }
    }
}

impl<'a, T: Element<'a> + PartialEq> PartialEq for List<'a, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a, T: Element<'a> + Eq> Eq for List<'a, T> {}

impl<'a, T: Element<'a> + fmt::Debug> fmt::Debug for List<'a, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Element<'a>> IntoIterator for List<'a, T> {
    type Item = T;
    type IntoIter = ListIter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<'a, T: Element<'a>> IntoIterator for &List<'a, T> {
    type Item = T;
    type IntoIter = ListIter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The elements of a [`List`].
#[derive(Clone)]
pub struct ListIter<'a, T> {
    list: List<'a, T>,
    left: Range<usize>,
}

impl<'a, T: Element<'a>> Iterator for ListIter<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left.next().and_then(|index| self.list.get(index))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.left.size_hint()
    }
}

impl<'a, T: Element<'a>> DoubleEndedIterator for ListIter<'a, T> {
    fn next_back(&mut self) -> Option<T> {
        self.left.next_back().and_then(|index| self.list.get(index))
    }
}

impl<'a, T: Element<'a>> ExactSizeIterator for ListIter<'a, T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_a_slice_is_the_slice() {
        let keys: [&[u8]; 3] = [b"a", b"b", b"c"];
        let list = List::from(&keys);
        assert_eq!(list.len(), 3);
        assert_eq!(list.get(2), Some(&b"c"[..]));
        assert_eq!(list.get(3), None);
        assert_eq!(list.iter().rev().collect::<Vec<_>>(), [b"c", b"b", b"a"]);
        assert_ne!(list, List::from(&keys[..2]));
        assert!(List::<ReplicaId>::default().is_empty());
    }

    #[test]
    fn a_list_can_be_used_where_a_shorter_lived_one_is_asked_for() {
        fn shortest<'s>(_: &'s (), list: List<'s, RaftMessage<'s>>) -> usize {
            list.len()
        }
        fn check(long: List<'static, RaftMessage<'static>>) -> usize {
            shortest(&(), long)
        }
        assert_eq!(check(List::EMPTY), 0);
    }
}
