//! What was measured, row by row, and whether the bars hold; for all commands that have bars.

mod render;

use serde::Serialize;

use crate::machine::Machine;

/// How the name of Mesh begins, whatever is behind it.
const OWN: &str = "Mesh";

/// In what a row's figures are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    OperationsPerSecond,
    BytesPerSecond,
    Bytes,
    Microseconds,
    Milliseconds,
    PercentOfProcessor,
    Instructions,
}

/// What one system did in one row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) system: String,
    pub(crate) median: f64,
    pub(crate) rounds: Vec<f64>,
}

/// How far a figure may go: its ratio to another's, unless it says otherwise.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
    /// How much greater it is than another's.
    MoreByAtMost(f64),
    /// The figure itself.
    Within(f64),
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(least) => measured >= least,
            Self::AtMost(most) | Self::MoreByAtMost(most) | Self::Within(most) => measured <= most,
        }
    }

    /// What is held against the bound.
    fn measure(self, own: f64, other: f64) -> f64 {
        match self {
            Self::AtLeast(_) | Self::AtMost(_) => own / other,
            Self::MoreByAtMost(_) => own - other,
            Self::Within(_) => own,
        }
    }

    fn judge(self, measured: Option<f64>) -> Verdict {
        match measured {
            None => Verdict::NotMeasured,
            Some(measured) if self.holds(measured) => Verdict::Holds,
            Some(_) => Verdict::Fails,
        }
    }
}

/// A bar: what a row's first figure is to another.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Bar {
    /// The other, if it was measured.
    pub(crate) against: String,
    pub(crate) bound: Bound,
    /// What is held against the bound.
    pub(crate) measured: Option<f64>,
    pub(crate) verdict: Verdict,
}

/// What became of a bar.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    Holds,
    Fails,
    /// There is nothing to compare with in this run.
    NotMeasured,
}

/// One row. The first figure is Mesh's.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) unit: Unit,
    pub(crate) figures: Vec<Figure>,
    pub(crate) bars: Vec<Bar>,
    pub(crate) notes: Vec<String>,
}

/// All of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) version: &'static str,
    pub(crate) command: Vec<String>,
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) seconds_of_a_slice: f64,
    pub(crate) rows: Vec<Row>,
    pub(crate) notes: Vec<String>,
}

/// How a table is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// For people.
    Text,
    /// For pages.
    Markdown,
    /// For programs: one document in one line, with every round.
    Json,
}

impl Table {
    /// In a form.
    ///
    /// # Errors
    /// None that the table permits.
    pub(crate) fn render(&self, form: Form) -> std::io::Result<String> {
        Ok(match form {
            Form::Text => render::text(self),
            Form::Markdown => render::markdown(self),
            Form::Json => serde_json::to_string(self)? + "\n",
        })
    }

    /// Whether a bar that was measured does not hold.
    pub(crate) fn fails(&self) -> bool {
        self.rows.iter().flat_map(|row| &row.bars).any(|bar| bar.verdict == Verdict::Fails)
    }
}

/// A row in the making: figures are added round by round.
#[derive(Debug)]
pub(crate) struct Rounds {
    work: String,
    unit: Unit,
    figures: Vec<(String, Vec<f64>)>,
    notes: Vec<String>,
}

impl Rounds {
    pub(crate) fn new(work: impl Into<String>, unit: Unit) -> Self {
        Self { work: work.into(), unit, figures: Vec::new(), notes: Vec::new() }
    }

    /// Adds the figure of a system in one round.
    pub(crate) fn add(&mut self, system: &str, figure: f64) {
        match self.figures.iter_mut().find(|(known, _)| known == system) {
            Some((_, rounds)) => rounds.push(figure),
            None => self.figures.push((system.to_owned(), vec![figure])),
        }
    }

    /// What was added last for a system.
    pub(crate) fn last(&self, system: &str) -> Option<f64> {
        self.figures.iter().find(|(known, _)| known == system)?.1.last().copied()
    }

    pub(crate) fn work(&self) -> &str {
        &self.work
    }

    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// The row, with Mesh's figure first.
    pub(crate) fn row(self) -> Row {
        let figures = self.figures.into_iter();
        let mut figures: Vec<_> =
            figures.map(|(system, rounds)| Figure { system, median: median(&rounds), rounds }).collect();
        figures.sort_by_key(|figure| !figure.system.starts_with(OWN));
        Row { work: self.work, unit: self.unit, figures, bars: Vec::new(), notes: self.notes }
    }
}

impl Row {
    /// Compares Mesh's figure with the best of some systems. Where more is better the greatest is the best.
    pub(crate) fn bar(mut self, against: &[&str], bound: Bound) -> Self {
        let others = self.figures.iter().filter(|figure| against.contains(&figure.system.as_str()));
        let best = match bound {
            Bound::AtLeast(_) => others.max_by(|a, b| a.median.total_cmp(&b.median)),
            _ => others.min_by(|a, b| a.median.total_cmp(&b.median)),
        };
        let own = self.own().map(|figure| figure.median);
        let measured = own.zip(best).map(|(own, best)| bound.measure(own, best.median));
        let against = best.map_or_else(|| against.join(", "), |best| best.system.clone());
        self.bars.push(Bar { against, bound, measured, verdict: bound.judge(measured) });
        self
    }

    /// With the bars against some systems only; `None` if it has none.
    pub(crate) fn only_against(mut self, wanted: impl Fn(&str) -> bool) -> Option<Self> {
        self.bars.retain(|bar| wanted(&bar.against));
        if self.bars.is_empty() { None } else { Some(self) }
    }

    /// Holds the median of Mesh's rounds against a figure.
    pub(crate) fn within(mut self, most: f64) -> Self {
        let measured = self.own().map(|figure| figure.median);
        self.limit("the median", most, measured);
        self
    }

    /// Holds the greatest of Mesh's rounds against a figure.
    pub(crate) fn worst_within(mut self, most: f64) -> Self {
        let measured = self.own().and_then(|figure| figure.rounds.iter().copied().reduce(f64::max));
        self.limit("the worst", most, measured);
        self
    }

    fn limit(&mut self, what: &str, most: f64, measured: Option<f64>) {
        let bound = Bound::Within(most);
        self.bars.push(Bar { against: what.to_owned(), bound, measured, verdict: bound.judge(measured) });
    }

    /// Mesh's figure, if it was measured.
    fn own(&self) -> Option<&Figure> {
        self.figures.first().filter(|figure| figure.system.starts_with(OWN))
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(figures: &[f64]) -> f64 {
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

    #[test]
    fn a_bar_may_be_a_difference_or_the_figure_itself_and_needs_one_of_mesh() {
        let row = row().bar(&["redb"], Bound::MoreByAtMost(5.0)).bar(&["redb"], Bound::MoreByAtMost(4.0));
        let row = row.within(9.5).worst_within(9.5);
        let verdicts: Vec<_> = row.bars.iter().map(|bar| (bar.measured.unwrap(), bar.verdict)).collect();
        let expected =
            [(5.0, Verdict::Holds), (5.0, Verdict::Fails), (9.0, Verdict::Holds), (100.0, Verdict::Fails)];
        assert_eq!(verdicts, expected);
        let mut others = Rounds::new("get", Unit::OperationsPerSecond);
        others.add("LMDB", 1.0);
        let row = others.row().bar(&["LMDB"], Bound::AtMost(2.0)).within(2.0);
        assert!(row.bars.iter().all(|bar| bar.verdict == Verdict::NotMeasured));
    }
}
