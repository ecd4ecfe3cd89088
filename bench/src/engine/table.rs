//! What was measured, row by row, and whether the bars hold.

use serde::Serialize;

use crate::machine::Machine;

/// In what a row's figures are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    OperationsPerSecond,
    BytesPerSecond,
    Bytes,
    Microseconds,
    Instructions,
}

/// What one system did in one row.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Figure {
    pub(super) system: String,
    pub(super) median: f64,
    pub(super) rounds: Vec<f64>,
}

/// How far a ratio may go.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(least) => ratio >= least,
            Self::AtMost(most) => ratio <= most,
        }
    }
}

/// A bar: what a row's first figure is to another.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bar {
    /// The other, if it was measured.
    pub(super) against: String,
    pub(super) bound: Bound,
    pub(super) ratio: Option<f64>,
    pub(super) verdict: Verdict,
}

/// What became of a bar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Holds,
    Fails,
    /// There is nothing to compare with in this run.
    NotMeasured,
}

/// One row. The first figure is Mesh's.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) work: String,
    pub(super) unit: Unit,
    pub(super) figures: Vec<Figure>,
    pub(super) bars: Vec<Bar>,
    pub(super) notes: Vec<String>,
}

/// All of a run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Table {
    pub(super) version: &'static str,
    pub(super) command: Vec<String>,
    pub(super) machine: Machine,
    pub(super) rounds: usize,
    pub(super) seconds_of_a_slice: f64,
    pub(super) rows: Vec<Row>,
    pub(super) notes: Vec<String>,
}

impl Table {
    /// Whether a bar that was measured does not hold.
    pub(super) fn fails(&self) -> bool {
        self.rows.iter().flat_map(|row| &row.bars).any(|bar| bar.verdict == Verdict::Fails)
    }
}

/// A row in the making: figures are added round by round.
#[derive(Debug)]
pub(super) struct Rounds {
    work: String,
    unit: Unit,
    figures: Vec<(String, Vec<f64>)>,
    notes: Vec<String>,
}

impl Rounds {
    pub(super) fn new(work: impl Into<String>, unit: Unit) -> Self {
        Self { work: work.into(), unit, figures: Vec::new(), notes: Vec::new() }
    }

    /// Adds the figure of a system in one round.
    pub(super) fn add(&mut self, system: &str, figure: f64) {
        match self.figures.iter_mut().find(|(known, _)| known == system) {
            Some((_, rounds)) => rounds.push(figure),
            None => self.figures.push((system.to_owned(), vec![figure])),
        }
    }

    pub(super) fn work(&self) -> &str {
        &self.work
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The row, with Mesh's figure first.
    pub(super) fn row(self) -> Row {
        let figures = self.figures.into_iter();
        let mut figures: Vec<_> =
            figures.map(|(system, rounds)| Figure { system, median: median(&rounds), rounds }).collect();
        figures.sort_by_key(|figure| !figure.system.starts_with("Mesh"));
        Row { work: self.work, unit: self.unit, figures, bars: Vec::new(), notes: self.notes }
    }
}

impl Row {
    /// Compares Mesh's figure with the best of some systems. Where more is better the greatest is the best.
    pub(super) fn bar(mut self, against: &[&str], bound: Bound) -> Self {
        let others = self.figures.iter().filter(|figure| against.contains(&figure.system.as_str()));
        let best = match bound {
            Bound::AtLeast(_) => others.max_by(|a, b| a.median.total_cmp(&b.median)),
            Bound::AtMost(_) => others.min_by(|a, b| a.median.total_cmp(&b.median)),
        };
        let own = self.figures.first().map(|figure| figure.median);
        let ratio = own.zip(best).map(|(own, best)| own / best.median);
        let verdict = match ratio {
            None => Verdict::NotMeasured,
            Some(ratio) if bound.holds(ratio) => Verdict::Holds,
            Some(_) => Verdict::Fails,
        };
        let against = best.map_or_else(|| against.join(", "), |best| best.system.clone());
        self.bars.push(Bar { against, bound, ratio, verdict });
        self
    }
}

/// The middle one, or the mean of the two in the middle.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2));
    low.zip(high).map_or(f64::NAN, |(low, high)| f64::midpoint(*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let mut rounds = Rounds::new("get", Unit::OperationsPerSecond);
        for (system, figure) in [("LMDB", 10.0), ("redb", 4.0), ("Mesh", 8.0), ("Mesh", 100.0), ("Mesh", 9.0)]
        {
            rounds.add(system, figure);
        }
        rounds.row()
    }

    #[test]
    fn a_figure_is_the_median_of_its_rounds_and_mesh_comes_first() {
        let row = row();
        assert_eq!(row.figures[0].system, "Mesh");
        assert!((row.figures[0].median - 9.0).abs() < 1e-9);
        assert!((median(&[1.0, 2.0, 4.0, 8.0]) - 3.0).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_bar_is_against_the_best_of_those_that_were_measured() {
        let row = row().bar(&["LMDB", "redb"], Bound::AtLeast(1.0)).bar(&["redb"], Bound::AtLeast(2.0));
        let row = row.bar(&["LMDB", "redb"], Bound::AtMost(2.0)).bar(&["fjall"], Bound::AtLeast(1.0));
        let verdicts: Vec<_> = row.bars.iter().map(|bar| (bar.against.as_str(), bar.verdict)).collect();
        assert_eq!(
            verdicts,
            [
                ("LMDB", Verdict::Fails),
                ("redb", Verdict::Holds),
                ("redb", Verdict::Fails),
                ("fjall", Verdict::NotMeasured)
            ]
        );
    }
}
