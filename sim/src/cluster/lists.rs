//! What a client has for itself: a list and a counter, to which nobody else appends.
//!
//! Appending is putting the whole anew, with one element more. So a client may append only to what it knows for certain:
//! it goes on trying until it knows how an append ended, and gives up a list whose end it will never know.
//!
//! Deliberately absent: appending on a condition, by which several clients could share a list.

use bytes::Bytes;
use mesh_base::prng::Prng;

use super::keys::Owned;
use super::values;
use crate::history::{ClientNo, Outcome, Stamp};
use crate::lists::{Append, Contents, Element};

/// Elements that a list shows at most, so that it does not outgrow its value. A counter shows none.
const SHOWN_MAX: usize = 64;

/// What a client has for itself.
#[derive(Debug)]
pub(super) struct Lists {
    list: List,
    counter: List,
    /// Elements so far.
    count: u64,
}

#[derive(Debug)]
struct List {
    key: Bytes,
    shown_max: usize,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    /// It is this.
    Known(Contents),
    /// It is the first, and the second once a put has taken effect.
    Appending(Contents, Contents),
    /// It is not known what it is.
    Lost,
}

/// What a put of a list is.
#[derive(Debug)]
pub(super) struct Appending {
    pub(super) key: Bytes,
    pub(super) append: Append,
    contents: Contents,
}

impl Appending {
    /// The value to put.
    pub(super) fn value(&self, stamp: Stamp) -> Bytes {
        values::list(stamp, &self.contents)
    }
}

impl Lists {
    pub(super) fn new(owned: &Owned) -> Self {
        let list = |key: &Bytes, shown_max| List {
            key: key.clone(),
            shown_max,
            standing: Standing::Known(Contents::default()),
        };
        Self { list: list(&owned.list, SHOWN_MAX), counter: list(&owned.counter, 0), count: 0 }
    }

    /// Begins to append to one, or to both at once; to nothing, if it is not known any more what they are.
    pub(super) fn append(&mut self, client: ClientNo, prng: &mut Prng) -> Vec<Appending> {
        let which = prng.index(3);
        let (list, counter) = (which != 0, which != 1);
        self.count += 1;
        let element = Element { client, number: self.count };
        let mut begun = Vec::new();
        for (it, is_chosen) in [(&mut self.list, list), (&mut self.counter, counter)] {
            begun.extend(is_chosen.then(|| it.append(element)).flatten());
        }
        begun
    }

    /// An append ended, of whatever was begun.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        [&mut self.list, &mut self.counter].into_iter().for_each(|list| list.ended(outcome));
    }
}

impl List {
    fn append(&mut self, element: Element) -> Option<Appending> {
        let Standing::Known(before) = &self.standing else { return None };
        let place = before.length;
        let mut after = before.clone();
        after.length += 1;
        after.newest.push(element);
        let hidden = after.newest.len().saturating_sub(self.shown_max);
        after.newest.drain(..hidden);
        self.standing = Standing::Appending(before.clone(), after.clone());
        Some(Appending { key: self.key.clone(), append: Append { element, place }, contents: after })
    }

    fn ended(&mut self, outcome: Outcome) {
        self.standing = match std::mem::replace(&mut self.standing, Standing::Lost) {
            Standing::Appending(_, after) if matches!(outcome, Outcome::Written(_)) => Standing::Known(after),
            Standing::Appending(before, _) if outcome == Outcome::NotApplied => Standing::Known(before),
            Standing::Appending(..) => Standing::Lost,
            other => other,
        };
    }
}

#[cfg(test)]
mod tests {
    use mesh_base::Revision;

    use super::*;

    const CLIENT: ClientNo = ClientNo(3);
    const WRITTEN: Outcome = Outcome::Written(Revision(1));

    fn lists() -> (Lists, Prng) {
        let owned = Owned { list: Bytes::from_static(b"l"), counter: Bytes::from_static(b"c") };
        (Lists::new(&owned), Prng::new(1))
    }

    #[test]
    fn what_was_not_applied_is_left_out_and_its_element_is_not_used_again() {
        let (mut lists, mut prng) = lists();
        let mut elements = Vec::new();
        for outcome in [WRITTEN, Outcome::NotApplied].into_iter().cycle().take(40) {
            for begun in lists.append(CLIENT, &mut prng) {
                if begun.key == "l" {
                    assert_eq!(begun.append.place, elements.len() as u64);
                    assert_eq!(begun.contents.newest, [&elements[..], &[begun.append.element]].concat());
                    elements.extend((outcome == WRITTEN).then_some(begun.append.element));
                }
            }
            lists.ended(outcome);
        }
        assert!(elements.len() > 5 && elements.windows(2).all(|pair| pair[0].number < pair[1].number));
    }

    #[test]
    fn a_list_shows_its_newest_elements_and_a_counter_none() {
        let (mut lists, mut prng) = lists();
        for _ in 0..300 {
            for begun in lists.append(CLIENT, &mut prng) {
                let Contents { length, newest } = &begun.contents;
                assert_eq!(*length, begun.append.place + 1);
                let shown = if begun.key == "l" { (*length).min(SHOWN_MAX as u64) } else { 0 };
                assert_eq!(newest.len() as u64, shown);
            }
            lists.ended(WRITTEN);
        }
    }

    #[test]
    fn nothing_is_appended_to_what_is_not_known() {
        let (mut lists, mut prng) = lists();
        for _ in 0..10 {
            lists.append(CLIENT, &mut prng);
            lists.ended(Outcome::Unknown);
        }
        assert!((0..10).all(|_| lists.append(CLIENT, &mut prng).is_empty()));
    }
}
