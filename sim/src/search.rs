//! Linearizability of any sequential object, by search: the algorithm of Wing and Gong (1993) with the memory of Lowe
//! ("Testing for linearizability", 2017), in the form of Porcupine (Athalye, 2017).
//!
//! For operations whose effect depends on what they find: conditional puts, increments. It is exponential in the worst
//! case and therefore bounded; for plain puts, deletes and gets [`linearizability`](crate::linearizability) is exact and
//! fast, and is tested against this.
//!
//! An operation whose outcome is unknown has no response: it may take effect at any later point, or never.
//!
//! Not checked: more than one object at a time. Partition the history by key first.

use std::collections::HashSet;
use std::hash::Hash;

use crate::history::Position;

/// A sequential object.
pub trait Specification {
    /// What it remembers.
    type State: Clone + Eq + Hash;
    /// One operation together with the answer that was observed, if one was.
    type Call;

    /// The object before everything.
    fn initial(&self) -> Self::State;

    /// The object after the call; `None` when the call's answer is impossible in this state.
    fn apply(&self, state: &Self::State, call: &Self::Call) -> Option<Self::State>;
}

/// A call over an interval of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interval<C> {
    /// What was called and answered.
    pub call: C,
    /// The position of its invocation.
    pub invoked: Position,
    /// The position of its response; [`Position::NEVER`] if its outcome is unknown.
    pub over: Position,
}

/// Why there is no answer "linearizable". Operations are named by their index in the slice that was searched.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SearchFailure {
    /// There is no order. `explained` is the longest one found, and `stuck` is an operation that was over by then and
    /// fits nowhere.
    #[error("not linearizable: {} operations explained, operation {stuck} is not", explained.len())]
    NotLinearizable {
        /// The longest order found, as far as it goes.
        explained: Vec<usize>,
        /// The operation whose response was reached.
        stuck: usize,
    },
    /// The bound was reached first.
    #[error("undecided after {states} states")]
    Undecided {
        /// How many were looked at.
        states: usize,
    },
}

/// Looks for an order of effects, trying at most `states_max` states.
///
/// # Errors
/// See [`SearchFailure`].
///
/// # Panics
/// When an interval ends before it begins: a bug of the caller.
pub fn search<S: Specification>(
    specification: &S,
    intervals: &[Interval<S::Call>],
    states_max: usize,
) -> Result<(), SearchFailure> {
    assert!(intervals.iter().all(|it| it.invoked < it.over), "an interval ends before it begins");
    let mut search = Search::new(specification, intervals);
    let mut seen = HashSet::new();
    let mut longest = (Vec::new(), None);
    loop {
        match search.next_step() {
            Step::Done => return Ok(()),
            Step::Try(index) => {
                if !search.try_next(index) {
                    continue;
                }
                if !seen.insert((search.done.clone(), search.state.clone())) {
                    search.undo();
                } else if seen.len() >= states_max {
                    return Err(SearchFailure::Undecided { states: seen.len() });
                }
            }
            Step::Stuck(index) => {
                if longest.1.is_none() || search.chosen.len() > longest.0.len() {
                    longest = (search.chosen.iter().map(|choice| choice.index).collect(), Some(index));
                }
                if !search.undo() {
                    let (explained, stuck) = longest;
                    return Err(SearchFailure::NotLinearizable { explained, stuck: stuck.unwrap_or(index) });
                }
            }
        }
    }
}

enum Step {
    /// Every operation that is over has its place.
    Done,
    /// An operation that may come next.
    Try(usize),
    /// An operation that is over and has no place; nothing else may come before it.
    Stuck(usize),
}

struct Choice<S> {
    index: usize,
    before: S,
}

struct Search<'a, S: Specification> {
    specification: &'a S,
    intervals: &'a [Interval<S::Call>],
    /// Indexes by invocation.
    order: Vec<usize>,
    state: S::State,
    /// Bit by bit, by index.
    done: Vec<u64>,
    chosen: Vec<Choice<S::State>>,
    /// Where in `order` to look for the next operation.
    cursor: usize,
}

#[allow(
    clippy::indexing_slicing,
    reason = "indexes of the intervals and of the vectors made of the same length"
)]
impl<'a, S: Specification> Search<'a, S> {
    fn new(specification: &'a S, intervals: &'a [Interval<S::Call>]) -> Self {
        let mut order: Vec<usize> = (0..intervals.len()).collect();
        order.sort_by_key(|&index| intervals[index].invoked);
        Self {
            specification,
            intervals,
            order,
            state: specification.initial(),
            done: vec![0; intervals.len().div_ceil(64)],
            chosen: Vec::new(),
            cursor: 0,
        }
    }

    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] >> (index % 64) & 1 == 1
    }

    /// The next operation, from the cursor on, that began before the first response among those left.
    fn next_step(&mut self) -> Step {
        let left = || self.order.iter().copied().filter(|&index| !self.is_done(index));
        let first_over = left().min_by_key(|&index| self.intervals[index].over);
        let Some(first_over) = first_over.filter(|&index| self.intervals[index].over != Position::NEVER)
        else {
            return Step::Done;
        };
        let limit = self.intervals[first_over].over;
        let next = (self.cursor..self.order.len())
            .map(|position| (position, self.order[position]))
            .take_while(|&(_, index)| self.intervals[index].invoked < limit)
            .find(|&(_, index)| !self.is_done(index));
        match next {
            Some((position, index)) => {
                self.cursor = position + 1;
                Step::Try(index)
            }
            None => Step::Stuck(first_over),
        }
    }

    fn try_next(&mut self, index: usize) -> bool {
        let Some(after) = self.specification.apply(&self.state, &self.intervals[index].call) else {
            return false;
        };
        let before = std::mem::replace(&mut self.state, after);
        self.done[index / 64] |= 1 << (index % 64);
        self.chosen.push(Choice { index, before });
        self.cursor = 0;
        true
    }

    /// Takes the last choice back and looks beyond it.
    fn undo(&mut self) -> bool {
        let Some(Choice { index, before }) = self.chosen.pop() else { return false };
        self.state = before;
        self.done[index / 64] &= !(1 << (index % 64));
        let position =
            self.order.partition_point(|&it| self.intervals[it].invoked < self.intervals[index].invoked);
        self.cursor = position + 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A number that is set if it has a certain value.
    struct CompareAndSet;

    #[derive(Clone, Copy)]
    enum Call {
        Set { from: u32, to: u32 },
        Refused { from: u32 },
        Read(u32),
    }

    impl Specification for CompareAndSet {
        type State = u32;
        type Call = Call;

        fn initial(&self) -> u32 {
            0
        }

        fn apply(&self, &state: &u32, call: &Call) -> Option<u32> {
            match *call {
                Call::Set { from, to } => (state == from).then_some(to),
                Call::Refused { from } => (state != from).then_some(state),
                Call::Read(value) => (state == value).then_some(state),
            }
        }
    }

    fn over(call: Call, invoked: u64, over: u64) -> Interval<Call> {
        Interval { call, invoked: Position(invoked), over: Position(over) }
    }

    #[test]
    fn of_two_concurrent_conditional_writes_one_may_win() {
        let (win, lose) = (Call::Set { from: 0, to: 1 }, Call::Refused { from: 0 });
        let history = [over(win, 0, 3), over(lose, 1, 2), over(Call::Read(1), 4, 5)];
        assert_eq!(search(&CompareAndSet, &history, 1000), Ok(()));
    }

    #[test]
    fn two_conditional_writes_cannot_both_win() {
        let history = [over(Call::Set { from: 0, to: 1 }, 0, 2), over(Call::Set { from: 0, to: 2 }, 1, 3)];
        let failure = search(&CompareAndSet, &history, 1000).unwrap_err();
        assert!(
            matches!(failure, SearchFailure::NotLinearizable { ref explained, .. } if explained.len() == 1)
        );
    }

    #[test]
    fn an_unknown_write_takes_effect_late_or_never() {
        let unknown = Interval { over: Position::NEVER, ..over(Call::Set { from: 0, to: 1 }, 0, 1) };
        for seen in [0, 1] {
            let history = [unknown.clone(), over(Call::Read(0), 2, 3), over(Call::Read(seen), 4, 5)];
            assert_eq!(search(&CompareAndSet, &history, 1000), Ok(()));
        }
    }

    #[test]
    fn a_search_that_is_too_long_is_given_up() {
        let mut history: Vec<_> = (0..20).map(|n| over(Call::Set { from: 0, to: 0 }, n, 100 + n)).collect();
        history.push(over(Call::Read(1), 50, 99));
        let failure = search(&CompareAndSet, &history, 1000).unwrap_err();
        assert_eq!(failure, SearchFailure::Undecided { states: 1000 });
    }
}
