//! The term of every entry, as runs of entries of one term: few, however long the log is.

use std::collections::VecDeque;

use mesh_base::{LogIndex, Term};

use crate::base::EntryPosition;

/// The newest runs of a log, for a segment's header: the first index of each and its term, in order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct TermRuns(pub(crate) Vec<(LogIndex, Term)>);

impl TermRuns {
    /// The last entry before the runs, of a log that ends with this one.
    pub(crate) fn before(&self, last: LogIndex) -> LogIndex {
        self.0.first().map_or(last, |(first, _)| first.prev())
    }

    /// Whether they can be of a log between these positions.
    pub(crate) fn fit(&self, truncated: EntryPosition, last: EntryPosition) -> bool {
        let in_order = self.0.is_sorted_by(|a, b| a.0 < b.0 && a.1 != b.1);
        let end = self.0.last().copied();
        let ends = end.map_or(truncated == last, |(first, term)| first <= last.index && term == last.term);
        in_order && ends && self.before(last.index) >= truncated.index
    }
}

/// The terms of the entries after a position, and of that position itself.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// The entry before the first whose term is known.
    before: EntryPosition,
    /// The first index of each run and its term, in order; the first run starts right after `before`.
    runs: VecDeque<(LogIndex, Term)>,
    last: LogIndex,
}

impl Terms {
    /// No entries after `before`.
    pub(crate) const fn new(before: EntryPosition) -> Self {
        Self { before, runs: VecDeque::new(), last: before.index }
    }

    /// The entries of these runs, of a log between two positions. Where there are more than the runs have, the term of
    /// the one before them is unknown, and must be told by a later [`Terms::trim_to`].
    pub(crate) fn listed(runs: &TermRuns, truncated: EntryPosition, last: EntryPosition) -> Self {
        assert!(runs.fit(truncated, last));
        let index = runs.before(last.index);
        let before =
            if index == truncated.index { truncated } else { EntryPosition { index, term: Term(0) } };
        Self { before, runs: runs.0.iter().copied().collect(), last: last.index }
    }

    /// The newest runs, so many at most.
    pub(crate) fn newest(&self, runs_max: usize) -> TermRuns {
        let skip = self.runs.len().saturating_sub(runs_max);
        TermRuns(self.runs.iter().skip(skip).copied().collect())
    }

    /// The runs of the entries from this one on.
    pub(crate) fn runs_from(&self, index: LogIndex) -> Vec<(LogIndex, Term)> {
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        let runs = self.runs.range(after.saturating_sub(1)..);
        runs.filter(|_| index <= self.last).map(|(first, term)| ((*first).max(index), *term)).collect()
    }

    /// The entry before the first whose term is known.
    pub(crate) const fn before(&self) -> EntryPosition {
        self.before
    }

    /// The last entry.
    pub(crate) fn last(&self) -> EntryPosition {
        let term = self.runs.back().map_or(self.before.term, |(_, term)| *term);
        EntryPosition { index: self.last, term }
    }

    /// The term of an entry; `None` before the position and after the last entry.
    pub(crate) fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.before.index {
            return Some(self.before.term);
        }
        if index > self.last {
            return None;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        self.runs.get(after.checked_sub(1)?).map(|(_, term)| *term)
    }

    /// Adds the next entry.
    pub(crate) fn push(&mut self, entry: EntryPosition) {
        assert_eq!(entry.index, self.last.next(), "entries follow each other");
        self.last = entry.index;
        if self.runs.back().is_none_or(|(_, term)| *term != entry.term) {
            self.runs.push_back((entry.index, entry.term));
        }
    }

    /// Adds entries, as runs that begin with the next one, up to `last`.
    pub(crate) fn extend(&mut self, runs: &[(LogIndex, Term)], last: LogIndex) {
        let ends = runs.iter().skip(1).map(|(next, _)| next.prev()).chain(std::iter::once(last));
        for ((first, term), end) in runs.iter().zip(ends) {
            self.push(EntryPosition { index: *first, term: *term });
            assert!(end >= self.last, "runs are in order");
            self.last = end;
        }
    }

    /// Forgets the entry of this index and all behind it. When that reaches `before`, the term there is unknown, and
    /// must be told by a later [`Terms::trim_to`].
    pub(crate) fn cut_from(&mut self, index: LogIndex) {
        if index > self.last {
            return;
        }
        if index <= self.before.index {
            *self = Self::new(EntryPosition { index: index.prev(), term: Term(0) });
            return;
        }
        while self.runs.back().is_some_and(|(first, _)| *first >= index) {
            self.runs.pop_back();
        }
        self.last = index.prev();
    }

    /// Forgets the entries before `to`, which becomes the position before the first.
    pub(crate) fn trim_to(&mut self, to: EntryPosition) {
        if to.index < self.before.index {
            return;
        }
        assert!(to.index <= self.last, "trimmed to an entry there is");
        self.before = to;
        while self.runs.get(1).is_some_and(|(first, _)| *first <= to.index.next()) {
            self.runs.pop_front();
        }
        if to.index == self.last {
            self.runs.clear();
        } else if let Some((first, _)) = self.runs.front_mut() {
            *first = to.index.next();
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<(LogIndex, Term)>()
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    const fn at(index: u64, term: u64) -> EntryPosition {
        EntryPosition { index: LogIndex(index), term: Term(term) }
    }

    quickcheck! {
        fn terms_are_those_of_a_plain_list(operations: Vec<(u8, u8)>) -> bool {
            let mut terms = Terms::new(at(0, 0));
            let mut list = vec![0_u64];
            let mut first = 0;
            for (kind, argument) in operations {
                let last = list.len() - 1;
                let within = first + usize::from(argument) % (last - first + 1);
                match kind % 4 {
                    0 if within > first => {
                        terms.cut_from(LogIndex(within as u64));
                        list.truncate(within);
                    }
                    1 => {
                        terms.trim_to(at(within as u64, list[within]));
                        first = within;
                    }
                    _ => {
                        let term = list[last] + u64::from(argument % 2);
                        terms.push(at(last as u64 + 1, term));
                        list.push(term);
                    }
                }
                let known = (first..list.len())
                    .all(|index| terms.term(LogIndex(index as u64)) == Some(Term(list[index])));
                let end = terms.term(LogIndex(list.len() as u64)).is_none();
                let start = first == 0 || terms.term(LogIndex(first as u64 - 1)).is_none();
                let last = at(list.len() as u64 - 1, list[list.len() - 1]);
                let before = at(first as u64, list[first]);
                let listed = Terms::listed(&terms.newest(usize::MAX), before, last);
                let same = (first..list.len())
                    .all(|index| listed.term(LogIndex(index as u64)) == Some(Term(list[index])));
                if !(known && end && start && same && terms.last() == last) {
                    return false;
                }
            }
            true
        }
    }
}
