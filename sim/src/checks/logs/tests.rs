//! Logs that break each promise, and logs that break none.

use super::*;

const SHARD: ShardId = ShardId(0);

/// A log as a list of (term, what it says), from index 1.
#[derive(Clone)]
struct Fake {
    replica: u64,
    term: u64,
    leads: bool,
    start: u64,
    entries: Vec<(u64, u64)>,
    commit: u64,
    applied: u64,
}

fn log(replica: u64, entries: &[(u64, u64)], commit: u64) -> Fake {
    let term = entries.last().map_or(0, |entry| entry.0);
    let entries = entries.to_vec();
    Fake { replica, term, leads: false, start: 0, entries, commit, applied: commit }
}

fn leader(replica: u64, term: u64, entries: &[(u64, u64)], commit: u64) -> Fake {
    Fake { term, leads: true, ..log(replica, entries, commit) }
}

impl LogView for Fake {
    fn replica(&self) -> ReplicaId {
        ReplicaId(self.replica)
    }

    fn term(&self) -> Term {
        Term(self.term)
    }

    fn leads(&self) -> bool {
        self.leads
    }

    fn start(&self) -> LogIndex {
        LogIndex(self.start)
    }

    fn end(&self) -> LogIndex {
        LogIndex(self.entries.len() as u64)
    }

    fn commit(&self) -> LogIndex {
        LogIndex(self.commit)
    }

    fn applied(&self) -> (LogIndex, Term) {
        (LogIndex(self.applied), self.term_of(LogIndex(self.applied)).unwrap_or_default())
    }

    fn term_of(&self, index: LogIndex) -> Option<Term> {
        match usize::try_from(index.0).unwrap().checked_sub(1) {
            None => Some(Term(0)),
            Some(at) if index.0 >= self.start => self.entries.get(at).map(|entry| Term(entry.0)),
            Some(_) => None,
        }
    }

    fn digest_of(&self, index: LogIndex) -> Option<u64> {
        (index.0 > self.start)
            .then(|| self.entries.get(usize::try_from(index.0).unwrap() - 1).map(|it| it.1))?
    }
}

/// What looking at each of them, in order, finds first.
fn observe(logs: &[Fake]) -> Result<(), String> {
    let mut checker = Logs::default();
    logs.iter().try_for_each(|log| checker.observe(SHARD, log))
}

#[track_caller]
fn assert_found(logs: &[Fake], what: &str) {
    let found = observe(logs).unwrap_err();
    assert!(found.contains(what), "{found}");
}

#[test]
fn a_tail_that_is_replaced_before_it_was_committed_breaks_nothing() {
    let logs = [
        leader(1, 1, &[(1, 10), (1, 11), (1, 12)], 1),
        log(2, &[(1, 10)], 1),
        leader(2, 2, &[(1, 10), (2, 20)], 1),
        log(1, &[(1, 10), (2, 20)], 2),
        leader(2, 2, &[(1, 10), (2, 20), (2, 21)], 3),
    ];
    assert_eq!(observe(&logs), Ok(()));
}

#[test]
fn entries_of_one_index_and_term_that_differ_are_found() {
    assert_found(
        &[log(1, &[(1, 10), (1, 11)], 0), log(2, &[(1, 10), (1, 99)], 0)],
        "entry 2 of term 1 is not what it is elsewhere",
    );
}

#[test]
fn an_entry_behind_another_history_is_found() {
    assert_found(
        &[log(1, &[(1, 10), (1, 11), (3, 30)], 0), log(2, &[(1, 10), (2, 20), (3, 30)], 0)],
        "entry 3 of term 3 follows one of term 2 here and of term 1 elsewhere",
    );
}

#[test]
fn a_committed_entry_that_is_replaced_is_found() {
    assert_found(
        &[log(1, &[(1, 10), (1, 11)], 2), log(2, &[(1, 10), (2, 20)], 2)],
        "entry 2 was committed in its form of term 1, and is one of term 2 here",
    );
}

#[test]
fn an_entry_applied_before_it_is_committed_is_found() {
    assert_found(&[Fake { applied: 2, ..log(1, &[(1, 10), (1, 11)], 1) }], "entry 2 applied");
}

#[test]
fn two_leaders_of_one_term_are_found() {
    assert_found(&[leader(1, 3, &[(3, 30)], 0), leader(2, 3, &[(3, 30)], 0)], "in which replica");
}

#[test]
fn a_leader_without_what_was_committed_is_found() {
    assert_found(
        &[leader(1, 1, &[(1, 10), (1, 11)], 2), leader(2, 2, &[(1, 10)], 0)],
        "leads in term 2 without entry 2",
    );
}

#[test]
fn a_leader_elected_late_need_not_have_what_was_committed_in_a_later_term() {
    let logs = [leader(1, 5, &[(1, 10), (5, 50)], 2), leader(2, 4, &[(1, 10)], 1)];
    assert_eq!(observe(&logs), Ok(()));
}

#[test]
fn what_a_replica_recovers_is_looked_at_again() {
    let mut checker = Logs::default();
    let before = log(1, &[(1, 10), (1, 11), (2, 20)], 2);
    checker.observe(SHARD, &before).unwrap();
    let revived = Fake { entries: vec![(1, 10), (1, 99), (2, 20)], ..before };
    assert_eq!(checker.observe(SHARD, &revived), Ok(()), "nothing new since the last look");
    checker.forget(SHARD, ReplicaId(1));
    assert!(checker.observe(SHARD, &revived).unwrap_err().contains("entry 2 of term 1"));
}

#[test]
fn a_log_that_begins_at_a_snapshot_agrees_with_what_was_committed_there() {
    let others = log(1, &[(1, 10), (1, 11), (2, 20)], 3);
    let taken_in = Fake { start: 2, ..log(2, &[(1, 0), (1, 0), (2, 20)], 3) };
    assert_eq!(observe(&[others.clone(), taken_in]), Ok(()));
    let stale = Fake { start: 2, ..log(2, &[(1, 0), (3, 0), (3, 30)], 2) };
    assert_found(&[others, stale], "entry 2 was committed");
}
