//! What a run did, step by step: printed, kept for the end of it, or handed to whoever compares it with another run.
//!
//! Invariant: tracing changes nothing. A run is the same whether it is traced or not, and however.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io;

use mesh_base::Instant;
use mesh_base::prng::audit::{self, Draws};

/// Steps at the end of a run that show how it came to it.
pub const END_STEPS: usize = 40;

/// Where a run tells what it does.
pub struct Trace<'a> {
    sink: Sink<'a>,
    steps: u64,
    line: String,
}

enum Sink<'a> {
    Off,
    Print(&'a mut dyn io::Write),
    Keep { from: u64, lines: VecDeque<String> },
    Hand(&'a mut dyn FnMut(Step)),
}

/// One step of a run, and what was drawn before it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its number, from 0.
    pub number: u64,
    /// All draws of the run before the step.
    pub draws: Draws,
    /// When it was, and what.
    pub text: String,
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

    /// Keeps the last [`END_STEPS`] of a run that is known to take so many: [`Trace::into_lines`].
    #[must_use]
    pub const fn of_the_end(steps: u64) -> Self {
        let from = steps.saturating_sub(END_STEPS as u64);
        Self::to(Sink::Keep { from, lines: VecDeque::new() })
    }

    /// Hands each step over.
    pub fn handing(receiver: &'a mut dyn FnMut(Step)) -> Self {
        Self::to(Sink::Hand(receiver))
    }

    /// Tells a step: what happens at true time `now`, with every detail that must be the same in each run of the seed.
    /// Costs next to nothing when nobody listens.
    pub fn step(&mut self, now: Instant, what: fmt::Arguments<'_>) {
        let number = self.steps;
        self.steps += 1;
        match &self.sink {
            Sink::Off => return,
            Sink::Keep { from, .. } if number < *from => return,
            Sink::Keep { .. } | Sink::Print(_) | Sink::Hand(_) => {}
        }
        self.line.clear();
        // Writing into a string does not fail.
        let _infallible = write!(self.line, "{now:?} {what}");
        match &mut self.sink {
            Sink::Off => {}
            // A reader that went away ends the printing, not the run.
            Sink::Print(writer) => _ = writeln!(writer, "{}", self.line),
            Sink::Keep { lines, .. } => {
                if lines.len() == END_STEPS {
                    lines.pop_front();
                }
                lines.push_back(std::mem::take(&mut self.line));
            }
            Sink::Hand(receiver) => {
                let text = std::mem::take(&mut self.line);
                receiver(Step { number, draws: audit::draws(), text });
            }
        }
    }

    /// Steps told so far.
    #[must_use]
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The steps that were kept, in order.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        match self.sink {
            Sink::Keep { lines, .. } => lines.into(),
            Sink::Off | Sink::Print(_) | Sink::Hand(_) => Vec::new(),
        }
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
    use mesh_base::prng::Prng;

    use super::*;

    fn tell(trace: &mut Trace<'_>, steps: u64) {
        (0..steps).for_each(|step| trace.step(Instant(step), format_args!("step {step}")));
    }

    #[test]
    fn a_printed_trace_is_one_line_for_each_step() {
        let mut text = Vec::new();
        Trace::printing(&mut text).step(Instant(1_500_000), format_args!("a crash"));
        assert_eq!(String::from_utf8(text).unwrap(), "0.001500s a crash\n");
    }

    #[test]
    fn the_end_of_a_run_is_its_last_steps_even_if_it_is_longer_than_it_was() {
        for (expected, told) in [(100, 100), (100, 120), (7, 7)] {
            let mut trace = Trace::of_the_end(expected);
            tell(&mut trace, told);
            let lines = trace.into_lines();
            assert_eq!(lines.len() as u64, told.min(END_STEPS as u64));
            assert!(lines.last().unwrap().ends_with(&format!("step {}", told - 1)), "{lines:?}");
        }
    }

    #[test]
    fn a_step_says_what_was_drawn_before_it() {
        let mut steps = Vec::new();
        let mut keep = |step| steps.push(step);
        let mut trace = Trace::handing(&mut keep);
        let mut prng = Prng::new(1);
        audit::reset();
        trace.step(Instant(1), format_args!("first"));
        prng.next_u64();
        trace.step(Instant(2), format_args!("second"));
        assert_eq!(
            steps.iter().map(|step| (step.number, step.draws.count)).collect::<Vec<_>>(),
            [(0, 0), (1, 1)]
        );
    }
}
