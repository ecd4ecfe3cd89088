//! Whether counters count: every increment that was done counts once, and no other does.
//!
//! All increments add one. Each that is answered tells its revision and the number since; so, in the order of revisions, numbers
//! grow by one, and by one more for each increment in between whose end nobody knows. One that was refused never counts.
//!
//! Checked, for each counter:
//! - numbers grow with revisions, and no two increments have one of either;
//! - a number that was skipped is accounted for by an increment of unknown end that was begun before the next was answered, each
//!   accounting for one;
//! - an increment that began after a number was known has a greater one.
//!
//! Not checked: that the number which a plain get finds is one of these.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use mesh_base::Revision;

use crate::history::Position;

/// An increment of a history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CountId(usize);

/// How an increment ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Counted {
    /// It counts.
    Done {
        /// Its revision.
        revision: Revision,
        /// The number since.
        number: i64,
    },
    /// Nobody knows.
    Unknown,
    /// It certainly does not count and never will.
    Not,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Increment {
    key: Bytes,
    invoked: Position,
    /// When it was over, and how.
    ended: Option<(Position, Counted)>,
}

/// All increments of a run.
#[derive(Clone, Default, Debug)]
pub struct Counters {
    increments: Vec<Increment>,
}

/// A counter that does not count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Miscount {
    key: Bytes,
    what: String,
}

impl fmt::Display for Miscount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "counter \"{}\": {}", self.key.escape_ascii(), self.what)
    }
}

impl Counters {
    /// A client asks for an increment.
    pub(crate) fn begin(&mut self, key: Bytes, invoked: Position) -> CountId {
        self.increments.push(Increment { key, invoked, ended: None });
        CountId(self.increments.len() - 1)
    }

    /// It is over.
    pub(crate) fn end(&mut self, id: CountId, at: Position, how: Counted) {
        if let Some(increment) = self.increments.get_mut(id.0) {
            assert!(increment.ended.is_none(), "answered twice: {increment:?}");
            increment.ended = Some((at, how));
        }
    }

    /// Checks every counter.
    ///
    /// # Errors
    /// The first that does not count.
    pub fn check(&self) -> Result<(), Miscount> {
        let mut counters: BTreeMap<&Bytes, Vec<&Increment>> = BTreeMap::new();
        for increment in &self.increments {
            counters.entry(&increment.key).or_default().push(increment);
        }
        counters.into_iter().try_for_each(|(key, increments)| {
            check_one(&increments).map_err(|what| Miscount { key: key.clone(), what })
        })
    }
}

fn check_one(increments: &[&Increment]) -> Result<(), String> {
    let mut done = Vec::new();
    let mut unknown = Vec::new();
    for increment in increments {
        match increment.ended {
            Some((over, Counted::Done { revision, number })) => {
                done.push((revision, number, increment.invoked, over));
            }
            Some((_, Counted::Unknown)) | None => unknown.push(increment.invoked),
            Some((_, Counted::Not)) => {}
        }
    }
    done.sort_unstable_by_key(|(revision, ..)| *revision);
    unknown.sort_unstable();
    let mut unknown = unknown.into_iter().peekable();
    let (mut last, mut at) = (0, Revision::ZERO);
    for &(revision, number, _, over) in &done {
        if revision == at {
            return Err(format!("two increments have the revision {revision}"));
        }
        // The earliest that were begun account for what was skipped: those left can still do whatever they could.
        for skipped in last + 1..number {
            if unknown.next_if(|begun| *begun < over).is_none() {
                return Err(format!(
                    "nothing accounts for {skipped}, between {at} and {number} of {revision}"
                ));
            }
        }
        if number <= last {
            return Err(format!("{number} of {revision} comes after {last} of {at}"));
        }
        (last, at) = (number, revision);
    }
    check_real_time(&done)
}

/// What began when a number was known has a greater one.
fn check_real_time(done: &[(Revision, i64, Position, Position)]) -> Result<(), String> {
    let invoked = done.iter().map(|(_, number, invoked, _)| (*invoked, None, *number));
    let over = done.iter().map(|(_, number, _, over)| (*over, Some(()), *number));
    let mut moments: Vec<_> = invoked.chain(over).collect();
    moments.sort_unstable_by_key(|(position, ..)| *position);
    let mut known = 0;
    for (_, is_over, number) in moments {
        match is_over {
            Some(()) => known = known.max(number),
            None if number <= known => {
                return Err(format!("{number} was answered to who began when {known} was known"));
            }
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Increments: invoked, over, how.
    fn counters(increments: &[(u64, u64, Counted)]) -> Counters {
        let mut counters = Counters::default();
        for &(invoked, over, how) in increments {
            let id = counters.begin(Bytes::from_static(b"c"), Position(invoked));
            counters.end(id, Position(over), how);
        }
        counters
    }

    const fn done(revision: u64, number: i64) -> Counted {
        Counted::Done { revision: Revision(revision), number }
    }

    #[test]
    fn numbers_that_grow_by_one_are_accepted_whoever_is_answered_first() {
        let counted = counters(&[(1, 9, done(10, 1)), (2, 3, done(20, 2)), (4, 5, done(30, 3))]);
        assert_eq!(counted.check(), Ok(()));
    }

    #[test]
    fn what_was_skipped_is_accounted_for_once() {
        let unknown = (1, 2, Counted::Unknown);
        assert_eq!(counters(&[unknown, (3, 4, done(10, 2))]).check(), Ok(()));
        assert!(counters(&[unknown, (3, 4, done(10, 3))]).check().is_err());
        assert!(counters(&[(3, 4, done(10, 2)), (5, 6, Counted::Unknown)]).check().is_err(), "too late");
        assert!(counters(&[(1, 2, Counted::Not), (3, 4, done(10, 2))]).check().is_err());
    }

    #[test]
    fn a_number_that_comes_twice_or_goes_back_is_found() {
        assert!(counters(&[(1, 2, done(10, 1)), (1, 3, done(20, 1))]).check().is_err());
        assert!(counters(&[(1, 2, done(10, 1)), (1, 3, done(10, 2))]).check().is_err());
        let unknown = (1, 20, Counted::Unknown);
        let late = counters(&[unknown, (2, 9, done(20, 2)), (10, 11, done(10, 1))]);
        assert!(late.check().unwrap_err().to_string().contains("when 2 was known"));
    }
}
