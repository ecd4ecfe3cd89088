use bytes::Bytes;
use mesh_base::{Instant, Revision};

use super::*;
use crate::history::Stamp;

const AT: Instant = Instant(0);

/// A history of one list, told request by request. Elements are those of client 1, by their numbers.
#[derive(Default)]
struct Story {
    history: History,
    stamps: u64,
}

const fn element(number: u64) -> Element {
    Element { client: ClientNo(1), number }
}

impl Story {
    fn begin_append(&mut self, number: u64, place: u64) -> OpId {
        self.stamps += 1;
        let (key, action) = (Bytes::from_static(b"l"), Action::Put(Stamp(self.stamps)));
        let put = self.history.invoke(AT, ClientNo(1), key, action);
        self.history.note_append(put, Append { element: element(number), place });
        put
    }

    fn append(&mut self, number: u64, place: u64) {
        let put = self.begin_append(number, place);
        self.ended(put, Outcome::Written(Revision(self.stamps)));
    }

    fn ended(&mut self, put: OpId, outcome: Outcome) {
        self.history.respond(AT, put, outcome);
    }

    fn begin_get(&mut self) -> OpId {
        self.history.invoke(AT, ClientNo(2), Bytes::from_static(b"l"), Action::Get)
    }

    fn found(&mut self, get: OpId, length: u64, newest: &[u64]) {
        let newest = newest.iter().map(|number| element(*number)).collect();
        self.history.note_contents(get, Contents { length, newest });
        self.history.respond(AT, get, Outcome::Found(Stamp(length), Revision(length)));
    }

    fn get(&mut self, length: u64, newest: &[u64]) {
        let get = self.begin_get();
        self.found(get, length, newest);
    }

    fn get_nothing(&mut self) {
        let get = self.begin_get();
        self.history.respond(AT, get, Outcome::Absent);
    }

    fn verdict(&self) -> Result<(), Anomaly> {
        check(&self.history).map_err(|violation| violation.anomaly)
    }
}

/// A list of the elements 1, 2 and 3.
fn three() -> Story {
    let mut story = Story::default();
    (1..=3).for_each(|number| story.append(number, number - 1));
    story
}

#[test]
fn a_list_that_grows_is_accepted() {
    let mut story = Story::default();
    story.get_nothing();
    story.append(1, 0);
    story.get(1, &[1]);
    let (slow, append) = (story.begin_get(), story.begin_append(2, 1));
    story.get(1, &[1]);
    story.get(2, &[1, 2]);
    story.ended(append, Outcome::Written(Revision(2)));
    story.found(slow, 1, &[1]);
    story.get(2, &[2]);
    story.get(2, &[]);
    assert_eq!(story.verdict(), Ok(()));
}

#[test]
fn an_element_that_was_acknowledged_and_is_missing_is_found() {
    let mut story = three();
    story.get(2, &[1, 2]);
    assert_eq!(story.verdict(), Err(Anomaly::ListTooShort { found: 2, known: 3 }));
    let mut story = three();
    story.get_nothing();
    assert_eq!(story.verdict(), Err(Anomaly::ListTooShort { found: 0, known: 3 }));
}

#[test]
fn a_list_that_loses_what_was_seen_is_found() {
    let mut story = three();
    let _never_answered = story.begin_append(4, 3);
    story.get(3, &[3]);
    story.get(4, &[3, 4]);
    assert_eq!(story.verdict(), Ok(()));
    story.get(3, &[3]);
    assert_eq!(story.verdict(), Err(Anomaly::ListTooShort { found: 3, known: 4 }));
}

#[test]
fn an_element_that_was_answered_not_applied_must_not_be_seen() {
    let mut story = three();
    let refused = story.begin_append(4, 3);
    story.ended(refused, Outcome::NotApplied);
    story.append(5, 3);
    story.get(4, &[1, 2, 3, 5]);
    assert_eq!(story.verdict(), Ok(()));
    story.get(4, &[1, 2, 3, 4]);
    assert_eq!(story.verdict(), Err(Anomaly::ElementNeverAppended(element(4))));
}

#[test]
fn an_element_that_nobody_appended_by_then_is_found() {
    let mut story = three();
    story.get(4, &[9]);
    assert_eq!(story.verdict(), Err(Anomaly::ElementNeverAppended(element(9))));
    let mut story = three();
    story.get(4, &[3, 4]);
    story.append(4, 3);
    assert_eq!(story.verdict(), Err(Anomaly::ElementNeverAppended(element(4))));
}

#[test]
fn elements_that_are_twice_there_or_in_another_order_are_found() {
    for (newest, element, shown) in [([1, 2, 2], element(2), 2), ([1, 3, 2], element(3), 1)] {
        let mut story = three();
        story.get(3, &newest);
        let appended = element.number - 1;
        assert_eq!(story.verdict(), Err(Anomaly::ElementMisplaced { element, shown, appended }));
    }
}

#[test]
fn two_elements_at_one_place_are_found() {
    let mut story = three();
    // Of two appends at one place, as several clients may make them on a condition, one has an effect.
    let (one, other) = (story.begin_append(4, 3), story.begin_append(5, 3));
    story.get(4, &[4]);
    assert_eq!(story.verdict(), Ok(()));
    story.ended(one, Outcome::Unknown);
    story.ended(other, Outcome::Unknown);
    story.get(4, &[5]);
    let twice = Anomaly::PlaceTakenTwice { place: 3, one: element(4), other: element(5) };
    assert_eq!(story.verdict(), Err(twice));
}

#[test]
fn a_counter_above_all_attempts_by_then_is_found() {
    let mut story = three();
    let unknown = story.begin_append(4, 3);
    story.ended(unknown, Outcome::Unknown);
    story.get(4, &[]);
    assert_eq!(story.verdict(), Ok(()));
    story.get(5, &[]);
    story.append(5, 4);
    assert_eq!(story.verdict(), Err(Anomaly::ListTooLong { found: 5, most: 4 }));
}

#[test]
fn a_counter_that_falls_is_found() {
    let mut story = three();
    story.get(3, &[]);
    story.get(2, &[]);
    assert_eq!(story.verdict(), Err(Anomaly::ListTooShort { found: 2, known: 3 }));
}

#[test]
fn a_register_is_no_list() {
    let mut story = three();
    let get = story.history.invoke(AT, ClientNo(1), Bytes::from_static(b"r"), Action::Get);
    story.history.respond(AT, get, Outcome::Absent);
    assert_eq!(story.verdict(), Ok(()));
    assert_eq!(story.history.lists().count(), 1);
}
