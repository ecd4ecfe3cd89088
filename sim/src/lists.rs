//! Whether lists only grow: everyone who reads one sees what everyone saw before, and perhaps more behind it.
//!
//! A list is a value to which elements are appended, each under a name of its own and at a place: how many elements were
//! before it. It says how long it is and shows the newest of its elements. A counter is a list that shows none of them.
//!
//! Checked, for each list:
//! - what is shown at a place was appended there, before the answer came, and by an append that was not answered "not
//!   applied"; no two answers show different elements at one place. So any two answers show the same as far as they
//!   overlap, no element twice, and all in their order;
//! - an answer to a get that began after a length was known, from an append or another get that was over, is not shorter:
//!   nothing that was acknowledged is lost, and nothing is ever taken back;
//! - no answer is longer than everything that may have been appended by the time it came.
//!
//! This asks nothing of stamps or revisions: it is judged by what values say. It asks nothing of who appends either. As
//! long as appending is reading and putting, only one client may append to a list, and must know how its last append ended
//! before it begins the next; with conditional puts all may.
//!
//! Not checked: elements that no answer shows, beyond their number; lists that are deleted, which none may be.

use std::collections::BTreeMap;
use std::fmt;

use crate::history::{Action, ClientNo, History, OpId, Operation, Outcome};
use crate::violation::{Anomaly, Violation};

/// An element of a list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Element {
    /// Who appended it.
    pub client: ClientNo,
    /// Which of this client's elements it is. Whatever becomes of its append, it is not appended again.
    pub number: u64,
}

/// What a put appends to a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Append {
    /// The element.
    pub element: Element,
    /// How many elements are before it.
    pub place: u64,
}

/// What a list shows of itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Contents {
    /// How many elements it has.
    pub length: u64,
    /// The last of them, in their order; all, if it is short.
    pub newest: Vec<Element>,
}

impl Contents {
    /// What is shown, each with its place.
    pub fn places(&self) -> impl Iterator<Item = (u64, Element)> {
        let first = self.length.saturating_sub(self.newest.len() as u64);
        (first..).zip(self.newest.iter().copied())
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of client {}", self.number, self.client.0)
    }
}

/// Checks every list.
///
/// # Errors
/// The first violation found, in the order of keys.
pub fn check(history: &History) -> Result<(), Box<Violation>> {
    history.lists().try_for_each(|(_, ids)| {
        check_places(history, ids)?;
        check_lengths(history, ids)
    })
}

/// What a get found in a list, if it is known.
fn seen<'a>(history: &'a History, id: OpId, none: &'a Contents) -> Option<&'a Contents> {
    match history.get(id).outcome() {
        Outcome::Found(..) => history.contents_of(id),
        Outcome::Absent => Some(none),
        _ => None,
    }
}

fn check_places(history: &History, ids: &[OpId]) -> Result<(), Box<Violation>> {
    let appended = |id: &OpId| history.append_of(*id).map(|append| (append.element, (append.place, *id)));
    let appends: BTreeMap<Element, (u64, OpId)> = ids.iter().filter_map(appended).collect();
    let mut places: BTreeMap<u64, (Element, &Operation)> = BTreeMap::new();
    let none = Contents::default();
    for &id in ids {
        let get = history.get(id);
        for (place, element) in seen(history, id, &none).into_iter().flat_map(Contents::places) {
            let Some(&(appended, put)) = appends.get(&element) else {
                return Err(Violation::new(Anomaly::ElementNeverAppended(element), [get]));
            };
            let put = history.get(put);
            if put.outcome() == Outcome::NotApplied || get.over() < put.invoked {
                return Err(Violation::new(Anomaly::ElementNeverAppended(element), [put, get]));
            }
            if appended != place {
                let anomaly = Anomaly::ElementMisplaced { element, shown: place, appended };
                return Err(Violation::new(anomaly, [put, get]));
            }
            let (one, witness) = *places.entry(place).or_insert((element, get));
            if one != element {
                let anomaly = Anomaly::PlaceTakenTwice { place, one, other: element };
                return Err(Violation::new(anomaly, [witness, get]));
            }
        }
    }
    Ok(())
}

/// A sweep through the order of the history: how long the list may be, and at least is, at each moment.
fn check_lengths(history: &History, ids: &[OpId]) -> Result<(), Box<Violation>> {
    let mut moments = Vec::with_capacity(2 * ids.len());
    for &id in ids {
        let operation = history.get(id);
        moments.extend([(operation.invoked, id), (operation.over(), id)]);
    }
    moments.sort_unstable();
    let none = Contents::default();
    let (mut most, mut least) = (0, 0);
    let mut witness: Option<&Operation> = None;
    for (position, id) in moments {
        let operation = history.get(id);
        let begins = position == operation.invoked;
        let length = match operation.action {
            Action::Get => seen(history, id, &none).map(|contents| contents.length),
            _ => history.append_of(id).map(|append| append.place + 1),
        };
        let Some(length) = length.filter(|_| operation.outcome() != Outcome::NotApplied) else { continue };
        match (operation.action, begins) {
            (Action::Get, true) if length < least => {
                let anomaly = Anomaly::ListTooShort { found: length, known: least };
                return Err(Violation::new(anomaly, witness.into_iter().chain([operation])));
            }
            (Action::Get, false) if length > most => {
                let anomaly = Anomaly::ListTooLong { found: length, most };
                return Err(Violation::new(anomaly, [operation]));
            }
            (Action::Get, true) => {}
            (_, true) => most = most.max(length),
            (_, false) if length > least && operation.outcome() != Outcome::Unknown => {
                (least, witness) = (length, Some(operation));
            }
            (_, false) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
