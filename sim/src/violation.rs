//! A broken promise, with the few operations that prove it.

use std::fmt;

use bytes::Bytes;
use mesh_base::Revision;

use crate::history::{Operation, Position, Stamp};
use crate::lists::Element;

/// Which promise was broken, and how.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Anomaly {
    /// A get found a value that no client put.
    #[error("found {0}, which nobody put into this key")]
    NeverWritten(Stamp),
    /// A get found a value whose put was answered "not applied".
    #[error("found {0}, whose put was answered \"not applied\"")]
    NotAppliedAndYetFound(Stamp),
    /// A get was over before the put that it saw began.
    #[error("found {0} before its put began")]
    FoundBeforeWritten(Stamp),
    /// Two values were both in effect at one time.
    #[error("{0} and {1} were each in effect at times between which the other was")]
    TwoInEffect(Stamp, Stamp),
    /// A value was in effect before and after a put of another that lies wholly in between: the put was lost, or a
    /// stale value was read, or a put took effect twice.
    #[error("{kept} was in effect before and after the whole of {lost}")]
    OverwriteLost {
        /// The value found before and after.
        kept: Stamp,
        /// The value that must have replaced it.
        lost: Stamp,
    },
    /// A value was in effect before and after a whole delete.
    #[error("{0} was in effect before and after a whole delete")]
    DeleteLost(Stamp),
    /// No value was found at a time when one was in effect.
    #[error("found nothing while {0} was in effect")]
    AbsentWhileInEffect(Stamp),
    /// No value was found after a put, and no delete can account for it.
    #[error("found nothing after {0}, and no delete accounts for it")]
    AbsentWithoutDelete(Stamp),
    /// Two writes of one key have one revision.
    #[error("two writes have the revision {0}")]
    RevisionTwice(Revision),
    /// One write has two revisions: it took effect twice, or an answer is wrong about it.
    #[error("{0} has two revisions")]
    TwoRevisions(Stamp),
    /// The revision of a write is not above one that was known before it began.
    #[error("a write at {written} began after {known} was known")]
    RevisionNotAbove {
        /// The write's.
        written: Revision,
        /// One answered before.
        known: Revision,
    },
    /// A get found a revision below one that was known before it began.
    #[error("a get that began after {known} was known found {found}")]
    RevisionWentBack {
        /// The get's.
        found: Revision,
        /// One answered before.
        known: Revision,
    },
    /// A range or a batch of gets saw a write, and not one of another key that was over before that write began.
    #[error("a range saw a write and missed one that was over before it began")]
    TornRange,
    /// Two writes of one batch have different revisions.
    #[error("one batch was written at {0} and at {1}")]
    TornBatch(Revision, Revision),
    /// An answer is of a revision below one that was known before it was asked for.
    #[error("an answer of {of} to a get that began after {known} was known")]
    AnswerWentBack {
        /// The answer's.
        of: Revision,
        /// One answered before.
        known: Revision,
    },
    /// An answer shows a write above its own revision.
    #[error("an answer of {of} shows {stamp} of {written}")]
    AnswerAhead {
        /// The answer's.
        of: Revision,
        /// What it shows.
        stamp: Stamp,
        /// Where that was written.
        written: Revision,
    },
    /// An answer does not show the newest write of its key that is not above its revision.
    #[error("an answer of {of} does not show what was written at {written}")]
    AnswerMissed {
        /// The answer's.
        of: Revision,
        /// The write's.
        written: Revision,
    },
    /// A transaction was done though a key that it had read was written since.
    #[error(
        "a transaction was done at {done} that had read, at {since}, a key that was written at {written}"
    )]
    ReadSetChanged {
        /// When it had read.
        since: Revision,
        /// When the key was written.
        written: Revision,
        /// The transaction's.
        done: Revision,
    },
    /// A list shows an element that was not appended by then, or never will be.
    #[error("a list shows {0}, which was not appended to it by then")]
    ElementNeverAppended(Element),
    /// A list shows an element at another place than that which it was appended at.
    #[error("a list shows {element} at place {shown}, which was appended at place {appended}")]
    ElementMisplaced {
        /// What it shows.
        element: Element,
        /// Where it shows it.
        shown: u64,
        /// Where it was appended.
        appended: u64,
    },
    /// Two elements were each seen at one place of a list.
    #[error("{one} and {other} were both seen at place {place} of a list")]
    PlaceTakenTwice {
        /// The place.
        place: u64,
        /// One element.
        one: Element,
        /// The other.
        other: Element,
    },
    /// A list is shorter than it was known to be.
    #[error("a list of {found} elements was found after it was known to have {known}")]
    ListTooShort {
        /// How many it has.
        found: u64,
        /// How many it was known to have.
        known: u64,
    },
    /// A list is longer than everything that may have been appended to it.
    #[error("a list of {found} elements was found, to which at most {most} were appended by then")]
    ListTooLong {
        /// How many it has.
        found: u64,
        /// How many it can have.
        most: u64,
    },
}

/// A broken promise and its proof.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What is wrong.
    pub anomaly: Anomaly,
    /// The operations that show it, in the order of their invocation: no others are needed to see that it is wrong,
    /// save that for the anomalies about absence the missing deletes cannot be shown.
    pub operations: Vec<Operation>,
}

impl Violation {
    pub(crate) fn new<'a>(
        anomaly: Anomaly,
        operations: impl IntoIterator<Item = &'a Operation>,
    ) -> Box<Self> {
        let mut operations: Vec<Operation> = operations.into_iter().cloned().collect();
        operations.sort_by(|a, b| (a.invoked, &a.key).cmp(&(b.invoked, &b.key)));
        operations.dedup();
        Box::new(Self { anomaly, operations })
    }
}

impl std::error::Error for Violation {}

impl fmt::Display for Violation {
    /// The anomaly, then one line for each operation: who, what, when, and a bar of its interval.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&Bytes> = self.operations.iter().map(|operation| &operation.key).collect();
        let is_one_key = keys.windows(2).all(|pair| pair.first() == pair.last());
        match keys.first() {
            Some(key) if is_one_key => writeln!(f, "key \"{}\": {}", key.escape_ascii(), self.anomaly)?,
            _ => writeln!(f, "{}", self.anomaly)?,
        }
        let mut points: Vec<Position> =
            self.operations.iter().flat_map(|operation| [operation.invoked, operation.over()]).collect();
        points.sort_unstable();
        points.dedup();
        for operation in &self.operations {
            let what = if is_one_key {
                operation.action.to_string()
            } else {
                format!("{} of \"{}\"", operation.action, operation.key.escape_ascii())
            };
            let client = format!("client {}", operation.client.0);
            write!(f, "  {client:<10} {what:<16} {}", bar(operation, &points))?;
            write!(f, "  {:?} .. ", operation.invoked_at)?;
            match operation.response {
                Some(response) => writeln!(f, "{:?}  {}", response.at, response.outcome)?,
                None => writeln!(f, "no answer")?,
            }
        }
        Ok(())
    }
}

/// The operation's interval over the points in time that matter, three columns for each.
fn bar(operation: &Operation, points: &[Position]) -> String {
    let mut bar = String::new();
    for &point in points {
        bar.push_str(if point == operation.invoked {
            "|--"
        } else if point == operation.over() {
            if point == Position::NEVER { ">  " } else { "|  " }
        } else if operation.invoked < point && point < operation.over() {
            "---"
        } else {
            "   "
        });
    }
    bar
}
