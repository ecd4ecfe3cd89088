//! Histories as drawings, for tests: one line for each operation, its interval between bars, time from left to right.
//!
//! ```text
//! put 1     |----|
//! get 1        |-----|
//! put 2 ?       |------->      unknown: never over
//! put 3 x          |--|        not applied
//! delete 0          |---|      nothing removed
//! get -               |---|    found nothing
//! ```
//!
//! Revisions are those of the stamp, unless `@` gives another: `get 1 @7`. A key other than `k` comes first: `a: put 1`.

use bytes::Bytes;
use mesh_base::{Instant, Revision};

use crate::history::{Action, ClientNo, History, OpId, Outcome, Stamp};

struct Line {
    key: Bytes,
    action: Action,
    outcome: Outcome,
    from: usize,
    to: usize,
}

/// The history of a drawing.
pub(crate) fn history(drawing: &str) -> History {
    let lines: Vec<Line> = drawing.lines().filter(|line| line.contains('|')).map(parse).collect();
    let mut moments: Vec<(usize, usize)> =
        lines.iter().enumerate().flat_map(|(index, line)| [(line.from, index), (line.to, index)]).collect();
    moments.sort_unstable();
    let mut history = History::new();
    let mut ids: Vec<Option<OpId>> = vec![None; lines.len()];
    for (column, index) in moments {
        let line = &lines[index];
        let at = Instant(column as u64 * 1_000_000);
        match ids[index] {
            None => {
                let client = ClientNo(index as u64);
                ids[index] = Some(history.invoke(at, client, line.key.clone(), line.action));
            }
            Some(id) => history.respond(at, id, line.outcome),
        }
    }
    history
}

fn parse(line: &str) -> Line {
    let from = line.find('|').unwrap();
    let to = line.rfind(['|', '>']).unwrap();
    assert!(from < to, "no interval: {line}");
    let (key, text) = line[..from].split_once(':').unwrap_or(("k", &line[..from]));
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let revision = words.iter().position(|word| word.starts_with('@')).map(|at| words.remove(at));
    let number = |word: &str| word.parse::<u64>().unwrap();
    let revision = |usual: u64| Revision(revision.map_or(usual, |word| number(&word[1..])));
    let (action, outcome) = match words.as_slice() {
        ["put", stamp, rest @ ..] => {
            let outcome = match rest {
                [] => Outcome::Written(revision(number(stamp))),
                ["?"] => Outcome::Unknown,
                ["x"] => Outcome::NotApplied,
                _ => panic!("{line}"),
            };
            (Action::Put(Stamp(number(stamp))), outcome)
        }
        ["delete"] => (Action::Delete, Outcome::Written(revision(0))),
        ["delete", "?"] => (Action::Delete, Outcome::Unknown),
        ["delete", "0"] => (Action::Delete, Outcome::NothingRemoved),
        ["get", "-"] => (Action::Get, Outcome::Absent),
        ["get", "?"] => (Action::Get, Outcome::Unknown),
        ["get", stamp] => (Action::Get, Outcome::Found(Stamp(number(stamp)), revision(number(stamp)))),
        _ => panic!("{line}"),
    };
    Line { key: Bytes::copy_from_slice(key.trim().as_bytes()), action, outcome, from, to }
}
