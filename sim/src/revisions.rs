//! Whether revisions tell the order of the changes of each key.
//!
//! Checked, for each key:
//! - no two writes have the same revision, and no write has two: not in its own answer, not in any get that saw it;
//! - a write that began after a revision of the key was known to someone has a revision above it;
//! - a get that began after a revision of the key was known finds none below it.
//!
//! "Known" is: answered, by a write that was over or a get that was.
//!
//! Not checked: revisions of different keys beside each other (shards assign them independently, and a clock may be
//! behind); the revision of a delete that a get saw, since an answer "absent" bears none; that the order is that of a
//! register ([`linearizability`](crate::linearizability)).

use std::collections::BTreeMap;

use mesh_base::Revision;

use crate::history::{Action, History, Operation, Outcome, Stamp};
use crate::violation::{Anomaly, Violation};

/// Checks every key.
///
/// # Errors
/// The first violation found, in the order of keys.
pub fn check(history: &History) -> Result<(), Box<Violation>> {
    for (_, operations) in history.keys() {
        check_uniqueness(&operations)?;
        check_order(&operations)?;
    }
    Ok(())
}

/// What an operation's answer says about a write: its revision, and its stamp if it is a put.
fn witnessed(operation: &Operation) -> Option<(Revision, Option<Stamp>)> {
    match (operation.action, operation.outcome()) {
        (Action::Put(stamp), Outcome::Written(revision)) | (_, Outcome::Found(stamp, revision)) => {
            Some((revision, Some(stamp)))
        }
        (_, Outcome::Written(revision)) => Some((revision, None)),
        _ => None,
    }
}

fn check_uniqueness(operations: &[&Operation]) -> Result<(), Box<Violation>> {
    let mut by_stamp: BTreeMap<Stamp, (Revision, &Operation)> = BTreeMap::new();
    let mut by_revision: BTreeMap<Revision, (Option<Stamp>, &Operation)> = BTreeMap::new();
    for &operation in operations {
        let Some((revision, stamp)) = witnessed(operation) else { continue };
        if let Some(stamp) = stamp {
            let (known, witness) = *by_stamp.entry(stamp).or_insert((revision, operation));
            if known != revision {
                return Err(Violation::new(Anomaly::TwoRevisions(stamp), [witness, operation]));
            }
        }
        let is_new = !by_revision.contains_key(&revision);
        let (known, witness) = *by_revision.entry(revision).or_insert((stamp, operation));
        // A delete has no stamp, so a second answer with its revision is always another write's.
        if !is_new && (known.is_none() || known != stamp) {
            return Err(Violation::new(Anomaly::RevisionTwice(revision), [witness, operation]));
        }
    }
    Ok(())
}

/// A sweep through the order of the history: what is known at each response, and what it must be at each invocation.
fn check_order(operations: &[&Operation]) -> Result<(), Box<Violation>> {
    let witnesses: Vec<(Revision, &Operation)> = operations
        .iter()
        .filter_map(|operation| witnessed(operation).map(|(revision, _)| (revision, *operation)))
        .collect();
    let mut moments: Vec<_> = witnesses
        .iter()
        .enumerate()
        .flat_map(|(index, (_, operation))| [(operation.invoked, index), (operation.over(), index)])
        .collect();
    moments.sort_unstable();
    let mut newest: Option<(Revision, &Operation)> = None;
    for (position, index) in moments {
        let Some(&(revision, operation)) = witnesses.get(index) else { continue };
        if position != operation.invoked {
            if newest.is_none_or(|(known, _)| known < revision) {
                newest = Some((revision, operation));
            }
            continue;
        }
        let Some((known, witness)) = newest else { continue };
        let anomaly = match operation.action {
            Action::Get if revision < known => Anomaly::RevisionWentBack { found: revision, known },
            Action::Put(_) | Action::Delete if revision <= known => {
                Anomaly::RevisionNotAbove { written: revision, known }
            }
            _ => continue,
        };
        return Err(Violation::new(anomaly, [witness, operation]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drawing::history;

    fn bad(drawing: &str) -> Anomaly {
        check(&history(drawing)).unwrap_err().anomaly
    }

    #[test]
    fn revisions_that_grow_in_real_time_are_accepted() {
        let drawing = "
            put 1 @10    |--|
            put 2 @30         |------|
            put 3 @20           |--|
            get 2 @30                   |--|
            delete @40                       |--|
            get 2 @30                     |-----|
            a: put 4 @5                            |--|
        ";
        assert_eq!(check(&history(drawing)), Ok(()));
    }

    #[test]
    fn a_write_below_one_that_was_answered_before_it_began_is_found() {
        let anomaly = bad("
            put 1 @10    |--|
            put 2 @9          |--|
        ");
        assert_eq!(anomaly, Anomaly::RevisionNotAbove { written: Revision(9), known: Revision(10) });
    }

    #[test]
    fn a_write_below_one_that_only_a_get_has_shown_is_found() {
        let anomaly = bad("
            put 1 ?      |-------------------->
            get 1 @10      |--|
            delete @9           |--|
        ");
        assert_eq!(anomaly, Anomaly::RevisionNotAbove { written: Revision(9), known: Revision(10) });
    }

    #[test]
    fn a_get_that_goes_back_is_found() {
        let anomaly = bad("
            put 1 @10    |--|
            put 2 @20         |-----------|
            get 2 @20           |--|
            get 1 @10                |--|
        ");
        assert_eq!(anomaly, Anomaly::RevisionWentBack { found: Revision(10), known: Revision(20) });
    }

    #[test]
    fn a_put_that_took_effect_twice_is_found_by_its_second_revision() {
        let anomaly = bad("
            put 1 @20    |----------|
            get 1 @10      |--|
        ");
        assert_eq!(anomaly, Anomaly::TwoRevisions(Stamp(1)));
    }

    #[test]
    fn two_writes_with_one_revision_are_found() {
        let anomaly = bad("
            put 1 @20    |----------|
            put 2 @20      |--|
        ");
        assert_eq!(anomaly, Anomaly::RevisionTwice(Revision(20)));
        let anomaly = bad("
            delete @20    |----------|
            delete @20      |--|
        ");
        assert_eq!(anomaly, Anomaly::RevisionTwice(Revision(20)));
    }
}
