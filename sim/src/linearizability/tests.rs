use mesh_base::prng::Prng;
use mesh_base::{Instant, Revision};
use quickcheck::quickcheck;

use super::*;
use crate::drawing::history;
use crate::history::ClientNo;
use crate::search::{Interval, SearchFailure, Specification, search};

fn good(drawing: &str) {
    if let Err(violation) = check(&history(drawing)) {
        panic!("{violation}");
    }
}

fn bad(drawing: &str) -> Anomaly {
    check(&history(drawing)).unwrap_err().anomaly
}

#[test]
fn a_get_may_see_a_concurrent_put_or_what_was_before_it() {
    good(
        "
        put 1   |--|
        put 2        |----------|
        get 1          |--|
        get 2                |--|
    ",
    );
}

#[test]
fn gets_may_not_see_a_put_and_then_what_was_before_it() {
    let anomaly = bad("
        put 1   |--|
        put 2        |------------|
        get 2          |--|
        get 1               |--|
    ");
    assert_eq!(anomaly, Anomaly::OverwriteLost { kept: Stamp(1), lost: Stamp(2) });
}

#[test]
fn a_stale_read_is_found() {
    let anomaly = bad("
        put 1   |--|
        put 2        |--|
        get 1              |--|
    ");
    assert_eq!(anomaly, Anomaly::OverwriteLost { kept: Stamp(1), lost: Stamp(2) });
}

#[test]
fn a_lost_update_is_found() {
    let anomaly = bad("
        put 1   |--|
        get 1        |--|
        put 2               |--|
        get 1                    |--|
    ");
    assert_eq!(anomaly, Anomaly::OverwriteLost { kept: Stamp(1), lost: Stamp(2) });
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    assert_eq!(bad("get 7  |--|"), Anomaly::NeverWritten(Stamp(7)));
}

#[test]
fn a_value_seen_before_its_put_began_is_found() {
    let anomaly = bad("
        get 1   |--|
        put 1        |--|
    ");
    assert_eq!(anomaly, Anomaly::FoundBeforeWritten(Stamp(1)));
}

#[test]
fn a_put_that_a_retry_applied_again_around_another_is_found() {
    let anomaly = bad("
        put 1   |----------|
        put 2     |--|
        get 1  |--|
        get 2         |--|
        get 1               |--|
    ");
    assert!(matches!(anomaly, Anomaly::TwoInEffect(..) | Anomaly::OverwriteLost { .. }), "{anomaly}");
}

#[test]
fn two_values_seen_in_turns_are_found() {
    let anomaly = bad("
        put 1   |------------------------|
        put 2   |------------------------|
        get 1     |--|
        get 2          |--|
        get 1               |--|
        get 2                    |--|
    ");
    assert_eq!(anomaly, Anomaly::TwoInEffect(Stamp(1), Stamp(2)));
}

#[test]
fn an_unknown_put_may_take_effect_late_or_never_but_only_once() {
    good(
        "
        put 1   |--|
        put 2 ?   |------------------>
        get 1         |--|
        get 2               |--|
    ",
    );
    good(
        "
        put 1   |--|
        put 2 ? |--------------------->
        get 1         |--|
    ",
    );
    let anomaly = bad("
        put 1   |--|
        put 2 ?   |------------------------>
        get 2         |--|
        get 1               |--|
        get 2                     |--|
    ");
    assert!(matches!(anomaly, Anomaly::TwoInEffect(..) | Anomaly::OverwriteLost { .. }), "{anomaly}");
}

#[test]
fn a_put_that_was_answered_not_applied_must_not_be_seen() {
    let anomaly = bad("
        put 1 x |--|
        get 1        |--|
    ");
    assert_eq!(anomaly, Anomaly::NotAppliedAndYetFound(Stamp(1)));
    good(
        "
        put 1   |--|
        put 2 x      |--|
        get 1             |--|
    ",
    );
}

#[test]
fn a_key_has_no_value_before_its_first_put_and_after_a_delete() {
    good(
        "
        get -   |--|
        put 1        |--|
        get 1             |--|
        delete                 |--|
        get -                       |--|
        delete 0                         |--|
    ",
    );
}

#[test]
fn a_value_that_vanished_without_a_delete_is_found() {
    let anomaly = bad("
        put 1   |--|
        get -        |--|
    ");
    assert_eq!(anomaly, Anomaly::AbsentWithoutDelete(Stamp(1)));
    let anomaly = bad("
        put 1   |--|
        delete 0     |--|
    ");
    assert_eq!(anomaly, Anomaly::AbsentWithoutDelete(Stamp(1)));
    let anomaly = bad("
        put 1   |--|
        get 1        |----|
        get -          |--|
        get 1               |--|
    ");
    assert_eq!(anomaly, Anomaly::AbsentWhileInEffect(Stamp(1)));
}

#[test]
fn a_value_that_a_delete_did_not_remove_is_found() {
    let anomaly = bad("
        put 1   |--|
        delete       |--|
        get 1             |--|
    ");
    assert_eq!(anomaly, Anomaly::DeleteLost(Stamp(1)));
}

#[test]
fn one_unknown_delete_accounts_for_one_absence_between_two_values() {
    good(
        "
        put 1       |--|
        delete ?      |------------------------------->
        get -              |--|
        put 2                    |--|
        get 2                          |--|
    ",
    );
    let anomaly = bad("
        put 1       |--|
        delete ?      |------------------------------->
        get -              |--|
        put 2                    |--|
        get -                          |--|
    ");
    assert_eq!(anomaly, Anomaly::AbsentWithoutDelete(Stamp(2)));
}

#[test]
fn a_delete_waits_for_the_get_that_needs_it() {
    // The delete must take effect after put 2, which must be after put 1, and so before the last get.
    good(
        "
        put 1   |--|
        delete     |----------------------|
        put 2          |----|
        get -                   |--|
    ",
    );
    // A value that nobody sees may come and go before the delete.
    good(
        "
        put 1   |--|
        put 2      |--------|
        delete        |---|
        get -                |--|
    ",
    );
    let anomaly = bad("
        put 1   |--|
        delete     |---|
        put 2             |--|
        get -                   |--|
    ");
    assert_eq!(anomaly, Anomaly::AbsentWithoutDelete(Stamp(2)));
}

#[test]
fn a_violation_is_told_by_the_operations_that_show_it() {
    let mut drawing = String::from("put 1   |--|\nput 2      |--|\n");
    let mut last = "        |".len();
    for stamp in 3..200 {
        let at = " ".repeat(last + 12 - format!("put {stamp}").len());
        drawing.push_str(&format!("put {stamp}{at}|--|\n"));
        last += 5;
    }
    let at = " ".repeat(last + 20);
    drawing.push_str(&format!("get 7 {at}|--|\n"));
    let violation = check(&history(&drawing)).unwrap_err();
    assert!(violation.operations.len() <= 4, "{violation}");
    let text = violation.to_string();
    assert!(text.starts_with("key \"k\": #7 was in effect before and after the whole of #8\n"), "{text}");
    assert!(text.contains("put #8") && text.contains("get") && text.contains("found #7 of 7"), "{text}");
}

struct Register;

impl Specification for Register {
    type State = Option<Stamp>;
    type Call = (Action, Outcome);

    fn initial(&self) -> Option<Stamp> {
        None
    }

    fn apply(&self, &state: &Option<Stamp>, &(action, outcome): &(Action, Outcome)) -> Option<Option<Stamp>> {
        match (action, outcome) {
            (Action::Put(stamp), _) => Some(Some(stamp)),
            (Action::Delete, Outcome::NothingRemoved) | (Action::Get, Outcome::Absent) => {
                state.is_none().then_some(None)
            }
            (Action::Delete, _) => Some(None),
            (Action::Get, Outcome::Found(stamp, _)) => (state == Some(stamp)).then_some(state),
            (Action::Get, _) => Some(state),
        }
    }
}

/// The answer of the search, which knows nothing of clusters, zones or deadlines.
fn is_linearizable_by_search(history: &History) -> bool {
    let intervals: Vec<_> = history
        .operations()
        .iter()
        .filter(|operation| operation.outcome() != Outcome::NotApplied)
        .map(|it| Interval { call: (it.action, it.outcome()), invoked: it.invoked, over: it.over() })
        .collect();
    match search(&Register, &intervals, 1_000_000) {
        Ok(()) => true,
        Err(SearchFailure::NotLinearizable { .. }) => false,
        Err(SearchFailure::Undecided { .. }) => panic!("too much for the search"),
    }
}

/// Clients of a register that is right, but for `lies` of a thousand answers, which are drawn.
struct Clients {
    prng: Prng,
    lies: u64,
    clients: usize,
    /// Out of 16: puts, deletes; the rest are gets.
    puts: u64,
    deletes: u64,
    unknown_per_mille: u64,
}

impl Clients {
    fn draw(seed: u64, lies: u64) -> Self {
        let mut prng = Prng::new(seed);
        let clients = 1 + prng.index(6);
        let puts = prng.range(1..8);
        Self { lies, clients, puts, deletes: prng.range(0..6), unknown_per_mille: prng.range(0..300), prng }
    }

    fn run(&mut self, count: u64) -> History {
        let mut history = History::new();
        let mut value = None;
        // Each client's operation: the id, the action, and the answer once it took effect.
        let mut busy: Vec<Option<(OpIdAction, Option<Outcome>)>> = vec![None; self.clients];
        // Writes whose clients gave up, and which take effect all the same.
        let mut late = Vec::new();
        let (mut invoked, mut step) = (0, 0);
        while invoked < count || busy.iter().any(Option::is_some) {
            step += 1;
            let at = Instant(step);
            if self.prng.chance_per_mille(100)
                && let Some(action) = late.pop()
            {
                self.take_effect(action, &mut value, invoked);
            }
            let client = self.prng.index(self.clients);
            match busy[client].take() {
                None if invoked == count => {}
                None => {
                    invoked += 1;
                    let action = match self.prng.range(0..16) {
                        it if it < self.puts => Action::Put(Stamp(invoked)),
                        it if it < self.puts + self.deletes => Action::Delete,
                        _ => Action::Get,
                    };
                    let id = history.invoke(at, ClientNo(client as u64), Bytes::from_static(b"k"), action);
                    busy[client] = Some(((id, action), None));
                }
                Some(((id, action), None)) => {
                    if self.prng.chance_per_mille(self.unknown_per_mille) {
                        match self.prng.range(0..3) {
                            0 => _ = self.take_effect(action, &mut value, invoked),
                            1 => late.push(action),
                            _ => {}
                        }
                        history.respond(at, id, Outcome::Unknown);
                    } else {
                        let outcome = self.take_effect(action, &mut value, invoked);
                        busy[client] = Some(((id, action), Some(outcome)));
                    }
                }
                Some(((id, _), Some(outcome))) => history.respond(at, id, outcome),
            }
        }
        history
    }

    fn take_effect(&mut self, action: Action, value: &mut Option<Stamp>, invoked: u64) -> Outcome {
        let is_lie = self.prng.chance_per_mille(self.lies);
        match action {
            Action::Put(stamp) if !is_lie => *value = Some(stamp),
            Action::Delete if !is_lie => {
                let removed = value.take();
                return removed.map_or(Outcome::NothingRemoved, |_| Outcome::Written(Revision(invoked)));
            }
            Action::Get => {
                let lie = Some(Stamp(self.prng.range(0..invoked + 1))).filter(|stamp| stamp.0 > 0);
                return match if is_lie { lie } else { *value } {
                    Some(stamp) => Outcome::Found(stamp, Revision(stamp.0)),
                    None => Outcome::Absent,
                };
            }
            _ => {}
        }
        Outcome::Written(Revision(invoked))
    }
}

type OpIdAction = (crate::history::OpId, Action);

quickcheck! {
    fn what_a_register_did_is_accepted(seed: u64) -> bool {
        check(&Clients::draw(seed, 0).run(200)).is_ok()
    }
}

#[test]
fn the_verdict_is_that_of_the_search() {
    let mut verdicts = [0; 2];
    for seed in 0..20_000 {
        let lies = [0, 30, 100, 300][usize::try_from(seed % 4).unwrap()];
        let history = Clients::draw(seed, lies).run(4 + seed % 14);
        let expected = is_linearizable_by_search(&history);
        let verdict = check(&history);
        assert_eq!(verdict.is_ok(), expected, "seed {seed}: {verdict:?}\n{:#?}", history.operations());
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|&count| count > 2000), "both verdicts are common: {verdicts:?}");
}

#[test]
fn a_violation_is_one_by_itself() {
    for seed in 0..3000 {
        let history = Clients::draw(seed, 100).run(30);
        let Err(violation) = check(&history) else { continue };
        let shows_absence = matches!(violation.anomaly, Anomaly::AbsentWithoutDelete(_));
        let intervals: Vec<_> = violation
            .operations
            .iter()
            .map(|it| Interval { call: (it.action, it.outcome()), invoked: it.invoked, over: it.over() })
            .collect();
        let verdict = search(&Register, &intervals, 1_000_000);
        assert!(shows_absence || verdict.is_err(), "seed {seed}: {violation}");
        assert!(violation.operations.len() <= 6, "{violation}");
    }
}

#[test]
fn a_long_history_with_many_clients_is_judged_at_once() {
    let mut clients =
        Clients { prng: Prng::new(1), lies: 0, clients: 20, puts: 5, deletes: 2, unknown_per_mille: 20 };
    let history = clients.run(20_000);
    assert_eq!(check(&history), Ok(()));
}
