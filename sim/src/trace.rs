//! What a run did, step by step: printed, or compared with another run of the same seed.
//!
//! Invariant: tracing changes nothing. A run is the same whether it is traced or not.
//!
//! A run that depends on anything but its seed is found at the first step that differs, not at its end: see
//! [`Trace::recording`] and [`Trace::comparing`].

use std::fmt::{self, Write as _};
use std::io;

use mesh_base::Instant;
use mesh_base::checksum::xxh3;

/// Where a run tells what it does.
pub struct Trace<'a> {
    sink: Sink<'a>,
    steps: u64,
    line: String,
}

enum Sink<'a> {
    Off,
    Print(&'a mut dyn io::Write),
    Record(Vec<u64>),
    Compare { expected: Vec<u64>, divergence: Option<Divergence> },
}

/// The first step at which a run differs from an earlier one of its seed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the second run of the seed differs at step {step}: {what}")]
pub struct Divergence {
    /// Its number, from 0.
    pub step: u64,
    /// What the later run did there.
    pub what: String,
}

impl<'a> Trace<'a> {
    /// Tells nobody.
    #[must_use]
    pub const fn off() -> Self {
        Self::to(Sink::Off)
    }

    /// Prints each step on a line.
    pub fn printing(writer: &'a mut dyn io::Write) -> Self {
        Self::to(Sink::Print(writer))
    }

    /// Remembers each step for [`Trace::comparing`].
    #[must_use]
    pub const fn recording() -> Self {
        Self::to(Sink::Record(Vec::new()))
    }

    /// Compares each step with what `recorded` was told.
    #[must_use]
    pub fn comparing(recorded: Trace<'_>) -> Self {
        let expected = match recorded.sink {
            Sink::Record(steps) => steps,
            _ => Vec::new(),
        };
        Self::to(Sink::Compare { expected, divergence: None })
    }

    /// Tells a step: what happens at true time `now`, with every detail that must be the same in each run of the seed.
    /// Costs next to nothing when nobody listens.
    pub fn step(&mut self, now: Instant, what: fmt::Arguments<'_>) {
        let step = self.steps;
        self.steps += 1;
        if matches!(self.sink, Sink::Off) {
            return;
        }
        self.line.clear();
        // Writing into a string does not fail.
        let _infallible = write!(self.line, "{now:?} {what}");
        match &mut self.sink {
            Sink::Off => {}
            // A reader that went away ends the printing, not the run.
            Sink::Print(writer) => _ = writeln!(writer, "{}", self.line),
            Sink::Record(steps) => steps.push(xxh3(self.line.as_bytes())),
            Sink::Compare { expected, divergence } => {
                let index = usize::try_from(step).unwrap_or(usize::MAX);
                let is_same = expected.get(index) == Some(&xxh3(self.line.as_bytes()));
                if !is_same && divergence.is_none() {
                    *divergence = Some(Divergence { step, what: self.line.clone() });
                }
            }
        }
    }

    /// Steps told so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// Of a comparing trace whose run is over: where it differed.
    #[must_use]
    pub fn divergence(&self) -> Option<Divergence> {
        let Sink::Compare { expected, divergence } = &self.sink else { return None };
        let is_short = self.steps < expected.len() as u64;
        let early_end = || Divergence { step: self.steps, what: "it is over already".to_owned() };
        divergence.clone().or_else(|| is_short.then(early_end))
    }

    const fn to(sink: Sink<'a>) -> Self {
        Self { sink, steps: 0, line: String::new() }
    }
}

impl fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("steps", &self.steps).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(trace: &mut Trace<'_>, steps: &[u32]) {
        steps.iter().for_each(|step| trace.step(Instant(u64::from(*step)), format_args!("step {step}")));
    }

    #[test]
    fn two_runs_are_compared_step_by_step() {
        let compare = |second: &[u32]| {
            let mut first = Trace::recording();
            tell(&mut first, &[1, 2, 3]);
            let mut trace = Trace::comparing(first);
            tell(&mut trace, second);
            trace.divergence().map(|divergence| divergence.step)
        };
        assert_eq!(compare(&[1, 2, 3]), None);
        assert_eq!(compare(&[1, 7, 3]), Some(1));
        assert_eq!(compare(&[1, 2, 3, 4]), Some(3));
        assert_eq!(compare(&[1, 2]), Some(2));
    }

    #[test]
    fn a_printed_trace_is_one_line_for_each_step() {
        let mut text = Vec::new();
        tell(&mut Trace::printing(&mut text), &[1_500_000]);
        assert_eq!(String::from_utf8(text).unwrap(), "0.001500s step 1500000\n");
    }
}
