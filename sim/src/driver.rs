//! Runs a seed, and says how it ended.
//!
//! Invariants:
//! - What a run does depends on its [`Case`] alone: nothing is shared between runs.
//! - A panic ends its run, not the driver.
//!
//! Deliberately absent: a bound on the time of a run. A harness bounds its steps. Many seeds at a time:
//! [`swarm`](crate::swarm).

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};

use mesh_base::prng::{Prng, audit};

use crate::determinism::Divergence;
use crate::options::{self, Options};
use crate::overrides::Overrides;
use crate::report::Report;
use crate::trace::Trace;
use crate::violation::Violation;

/// What is simulated.
pub trait Run: Sync {
    /// Simulates one seed: everything that is drawn is drawn from `options` and `root`. What comes of it is added to the
    /// report, whether the run fails or not; the driver itself counts runs and events.
    ///
    /// # Errors
    /// What the run proved wrong.
    fn run(
        &self,
        options: &Options,
        root: Prng,
        trace: &mut Trace<'_>,
        report: &mut Report,
    ) -> Result<(), Failure>;
}

/// What decides a run: a seed, and how the run differs from what the seed draws.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// The differences.
    pub with: Overrides,
}

impl Case {
    /// A seed as it is.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        Self { seed, with: Overrides::none() }
    }

    /// The options of the run.
    #[must_use]
    pub fn options(&self) -> Options {
        self.draw().0
    }

    fn draw(&self) -> (Options, Prng) {
        let (mut options, root) = options::draw(self.seed);
        self.with.apply(&mut options);
        (options, root)
    }
}

impl fmt::Display for Case {
    /// As the command line takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {}", self.seed)?;
        if self.with.is_empty() { Ok(()) } else { write!(f, " --with {}", self.with) }
    }
}

/// What a run proved wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// A promise was broken.
    #[error("not safe: {0}")]
    Safety(String),
    /// Nothing was broken, and yet it did not come to life again.
    #[error("not live: {0}")]
    Liveness(String),
}

impl From<Box<Violation>> for Failure {
    fn from(violation: Box<Violation>) -> Self {
        Self::Safety(violation.to_string())
    }
}

/// How the run of a seed ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Well.
    Passed,
    /// With a failure.
    Failed(Failure),
    /// With a panic: its message, and where it was.
    Panicked(String),
    /// A second run of the seed did something else.
    Diverged(Box<Divergence>),
}

impl Outcome {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        *self == Self::Passed
    }

    /// The exit code that says so: 0 passed, 1 not safe, 3 not live, 4 a panic, 5 not a function of its seed.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed(Failure::Safety(_)) => 1,
            Self::Failed(Failure::Liveness(_)) => 3,
            Self::Panicked(_) => 4,
            Self::Diverged(_) => 5,
        }
    }

    /// In a few words.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed(Failure::Safety(_)) => "not safe",
            Self::Failed(Failure::Liveness(_)) => "not live",
            Self::Panicked(_) => "panicked",
            Self::Diverged(_) => "not deterministic",
        }
    }

    /// What is the same for two failures of one kind: how the run ended, and what was wrong in words, without the
    /// numbers and names of this run. Of a panic, its place too.
    #[must_use]
    pub fn kind(&self) -> String {
        let text = self.to_string();
        let place_and_rest = match self {
            Self::Panicked(_) => text.split_once('\n'),
            _ => None,
        };
        let (place, rest) = place_and_rest.unwrap_or(("", &text));
        format!("{place} {}", generalised(rest.lines().next().unwrap_or("")))
    }
}

/// A text without its numbers and what is between quotation marks.
pub(crate) fn generalised(text: &str) -> String {
    let unquoted: Vec<&str> = text.split('"').step_by(2).collect();
    let digits = |it: char| it.is_ascii_digit();
    unquoted.join("\"\"").split(digits).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("#")
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(failure) => failure.fmt(f),
            Self::Panicked(what) => write!(f, "panicked: {what}"),
            Self::Diverged(divergence) => write!(f, "not deterministic: {divergence}"),
        }
    }
}

/// A run that is over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Its figures.
    pub report: Report,
}

/// Runs a case.
pub fn run_case(run: &dyn Run, case: &Case, trace: &mut Trace<'_>) -> Ended {
    audit::reset();
    let (options, root) = case.draw();
    let mut report = Report::default();
    let caught = panic::catch_unwind(AssertUnwindSafe(|| run.run(&options, root, trace, &mut report)));
    report.runs = 1;
    report.events = trace.steps();
    let outcome = match caught {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(payload) => Outcome::Panicked(panic_message(payload.as_ref())),
    };
    Ended { outcome, report }
}

/// Runs one seed as it is.
pub fn run_seed(run: &dyn Run, seed: u64, trace: &mut Trace<'_>) -> Outcome {
    run_case(run, &Case::of(seed), trace).outcome
}

/// The last steps of a case that was run and took so many.
pub fn end_of(run: &dyn Run, case: &Case, steps: u64) -> Vec<String> {
    let mut trace = Trace::of_the_end(steps);
    run_case(run, case, &mut trace);
    trace.into_lines()
}

thread_local! {
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Lets panics be kept for [`Outcome::Panicked`], with their place and, if `RUST_BACKTRACE` asks for one, a backtrace,
/// rather than printed among the output of other threads. For the whole process.
pub fn keep_panics_silent() {
    panic::set_hook(Box::new(|info| {
        let backtrace = std::backtrace::Backtrace::capture();
        let text = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{info}\n{backtrace}"),
            _ => info.to_string(),
        };
        LAST_PANIC.with(|last| last.replace(Some(text)));
    }));
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let kept = LAST_PANIC.with(RefCell::take);
    let text = || payload.downcast_ref::<&str>().map(|&text| text.to_owned());
    let string = || payload.downcast_ref::<String>().cloned();
    kept.or_else(text).or_else(string).unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails in all the ways there are, by seed.
    struct Seeded;

    impl Run for Seeded {
        fn run(
            &self,
            options: &Options,
            _root: Prng,
            _trace: &mut Trace<'_>,
            _report: &mut Report,
        ) -> Result<(), Failure> {
            match options.seed {
                10 => Err(Failure::Safety("lost".into())),
                20 => Err(Failure::Liveness("stuck".into())),
                30 => panic!("seed {}", options.seed),
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn every_way_to_end_has_its_exit_code() {
        let code = |seed| run_seed(&Seeded, seed, &mut Trace::off()).exit_code();
        assert_eq!([1, 10, 20, 30].map(code), [0, 1, 3, 4]);
        let panicked = run_seed(&Seeded, 30, &mut Trace::off());
        assert!(panicked.to_string().contains("seed 30"), "{panicked}");
    }

    #[test]
    fn failures_of_one_kind_are_told_from_others_by_words_and_not_by_numbers() {
        let lost = |text: &str| Outcome::Failed(Failure::Safety(text.to_owned())).kind();
        assert_eq!(
            lost("key \"k-1\": found #12 before its put began\n  client 1"),
            lost("key \"k\": found #7 before its put began")
        );
        assert_ne!(lost("key \"k\": found #1, which nobody put"), lost("key \"k\": found #1 before its put"));
        assert_ne!(lost("stuck"), Outcome::Failed(Failure::Liveness("stuck".to_owned())).kind());
        let panicked = |text: &str| Outcome::Panicked(text.to_owned()).kind();
        assert_eq!(panicked("panicked at a.rs:7:5:\nvote 3"), panicked("panicked at a.rs:7:5:\nvote 12"));
        assert_ne!(panicked("panicked at a.rs:7:5:\nvote"), panicked("panicked at a.rs:9:5:\nvote"));
    }

    #[test]
    fn a_case_is_what_the_command_line_takes() {
        assert_eq!(Case::of(12).to_string(), "--seed 12");
        let case = Case { seed: 12, with: "nodes=1,hostile=2s".parse().unwrap() };
        assert_eq!(case.to_string(), "--seed 12 --with hostile=2s,nodes=1");
        assert_eq!(case.options().size.nodes, 1);
    }
}
