//! A failure, and what is found out about it: a smaller run that fails in the same way, and how it comes to its end.

use std::time::Duration;

use super::progress::Progress;
use crate::driver::{Case, Ended, Outcome, Run, end_of};
use crate::shrink::{Bounds, Shrunk, shrink};

/// How long is looked for a smaller run.
const BOUNDS: Bounds = Bounds { runs: 400, time: Duration::from_secs(60) };

/// Whether to look for a smaller run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shrinking {
    No,
    Bounded,
}

/// A failure.
pub(super) struct Failure {
    pub(super) case: Case,
    pub(super) ended: Ended,
    pub(super) shrunk: Option<Shrunk>,
    /// The last steps, of the smallest run that is known.
    pub(super) end: Vec<String>,
}

impl Failure {
    /// Finds out what there is to find out.
    pub(super) fn look_into(run: &dyn Run, case: Case, ended: Ended, shrinking: Shrinking) -> Self {
        let is_replayable = !matches!(ended.outcome, Outcome::Diverged(_));
        let shrunk = match shrinking {
            Shrinking::Bounded if is_replayable => {
                let mut progress = Progress::of_shrinking();
                let shrunk = shrink(run, &case, &ended.outcome, BOUNDS, |runs| progress.show_attempt(runs));
                progress.clear();
                shrunk
            }
            Shrinking::Bounded | Shrinking::No => None,
        };
        let smallest = shrunk.as_ref().map_or((&case, &ended), |shrunk| (&shrunk.case, &shrunk.ended));
        let end = if is_replayable { end_of(run, smallest.0, smallest.1.report.events) } else { Vec::new() };
        Self { case, ended, shrunk, end }
    }

    /// Finds out nothing.
    pub(super) const fn as_it_is(case: Case, ended: Ended) -> Self {
        Self { case, ended, shrunk: None, end: Vec::new() }
    }
}

/// The command that runs a case again and shows how it ends.
pub(super) fn replay(case: &Case, outcome: &Outcome) -> String {
    let how = match outcome {
        Outcome::Diverged(_) => " --check-determinism",
        _ => "",
    };
    format!("mesh-sim {case}{how}")
}
