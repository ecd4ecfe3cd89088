//! Whether a run is a function of its case: it is run twice at the same time, and every step and every draw compared.
//!
//! The two runs are on threads of their own, so whatever a thread brings along (the keys of a hash map, an address) is
//! different for them.
//!
//! Deliberately absent: what the runs did between two steps. A step is told with the count of draws before it, so the
//! first draw that differs is one of a few.

use std::fmt;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, Scope, ScopedJoinHandle};

use mesh_base::prng::audit;

use crate::driver::{Case, Ended, Outcome, Run, run_case};
use crate::trace::{Step, Trace};

/// Steps that are handed over at a time.
const BATCH_STEPS: usize = 512;
/// Batches by which one run may be ahead of the other.
const BATCHES_AHEAD: usize = 8;

/// Where two runs of a case part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Divergence {
    /// The last step that both took alike.
    pub agreed: Option<Step>,
    /// What the first run did next. The end of a run is its last step.
    pub first: Step,
    /// What the second run did next.
    pub second: Step,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { agreed, first, second } = self;
        write!(f, "two runs differ from step {} on", first.number)?;
        match (agreed, first.draws == second.draws) {
            (Some(agreed), false) => write!(f, ", and in what they drew after draw {}", agreed.draws.count)?,
            (None, false) => f.write_str(", and in what they drew from the beginning")?,
            (_, true) => write!(f, ", after the same {} draws", first.draws.count)?,
        }
        let rows = [("both", agreed.as_ref()), ("first", Some(first)), ("second", Some(second))];
        for (who, step) in rows {
            if let Some(Step { number, draws, text }) = step {
                write!(f, "\n  {who:<8} step {number}, after {} draws: {text}", draws.count)?;
            }
        }
        Ok(())
    }
}

/// Runs a case twice. A difference comes before whatever else is wrong: what cannot be replayed cannot be understood.
pub fn run_twice(run: &dyn Run, case: &Case) -> Ended {
    thread::scope(|scope| {
        let (mut first, mut second) = (Twin::start(scope, run, case), Twin::start(scope, run, case));
        let divergence = first_difference(&mut first.steps, &mut second.steps);
        // A run that is no longer listened to ends all the same.
        drop((first.steps, second.steps));
        let ended = first.thread.join();
        let _second = second.thread.join();
        let Ok(ended) = ended else { unreachable!("the driver catches the panics of a run") };
        match divergence {
            Some(divergence) => Ended { outcome: Outcome::Diverged(Box::new(divergence)), ..ended },
            None => ended,
        }
    })
}

/// One of the two runs.
struct Twin<'scope> {
    steps: Steps,
    thread: ScopedJoinHandle<'scope, Ended>,
}

impl<'scope> Twin<'scope> {
    fn start(scope: &'scope Scope<'scope, '_>, run: &'scope dyn Run, case: &'scope Case) -> Self {
        let (sender, receiver) = mpsc::sync_channel(BATCHES_AHEAD);
        let thread = scope.spawn(move || play(run, case, &sender));
        Self { steps: Steps { receiver, batch: Vec::new().into_iter() }, thread }
    }
}

fn play(run: &dyn Run, case: &Case, sender: &SyncSender<Vec<Step>>) -> Ended {
    let mut batch = Vec::with_capacity(BATCH_STEPS);
    let mut hand_over = |step| {
        batch.push(step);
        if batch.len() == BATCH_STEPS {
            // Nobody listens once a difference was found.
            let _ignored = sender.send(std::mem::take(&mut batch));
        }
    };
    let mut trace = Trace::handing(&mut hand_over);
    let ended = run_case(run, case, &mut trace);
    let over =
        Step { number: trace.steps(), draws: audit::draws(), text: format!("over: {}", ended.outcome) };
    hand_over(over);
    let _ignored = sender.send(batch);
    ended
}

/// The steps of a run, as they come.
struct Steps {
    receiver: Receiver<Vec<Step>>,
    batch: std::vec::IntoIter<Step>,
}

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        loop {
            match self.batch.next() {
                Some(step) => return Some(step),
                None => self.batch = self.receiver.recv().ok()?.into_iter(),
            }
        }
    }
}

/// Both sequences end with the step that says how, so neither is the beginning of the other.
fn first_difference(
    first: &mut impl Iterator<Item = Step>,
    second: &mut impl Iterator<Item = Step>,
) -> Option<Divergence> {
    let mut agreed = None;
    for (first, second) in first.zip(second) {
        if first != second {
            return Some(Divergence { agreed, first, second });
        }
        agreed = Some(first);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use mesh_base::Instant;
    use mesh_base::prng::Prng;

    use super::*;
    use crate::driver::Failure;
    use crate::options::Options;
    use crate::report::Report;

    /// Differs from run to run in one way.
    struct Forgetful {
        runs: AtomicU64,
        differs_in: Difference,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Difference {
        Nothing,
        Step,
        Draw,
        Length,
        Outcome,
    }

    impl Run for Forgetful {
        fn run(
            &self,
            _options: &Options,
            mut root: Prng,
            trace: &mut Trace<'_>,
            _report: &mut Report,
        ) -> Result<(), Failure> {
            let number = self.runs.fetch_add(1, Ordering::Relaxed);
            let differs = |difference| if self.differs_in == difference { number } else { 0 };
            for step in 0..2000 + differs(Difference::Length) {
                root.next_u64();
                if step == 1500 {
                    trace.step(Instant(step), format_args!("step {}", differs(Difference::Step)));
                    (0..differs(Difference::Draw)).for_each(|_| _ = root.next_u64());
                } else {
                    trace.step(Instant(step), format_args!("the same"));
                }
            }
            Err(Failure::Safety(format!("lost {}", differs(Difference::Outcome))))
        }
    }

    fn check(differs_in: Difference) -> Outcome {
        run_twice(&Forgetful { runs: AtomicU64::new(0), differs_in }, &Case::of(1)).outcome
    }

    #[track_caller]
    fn divergence(differs_in: Difference) -> Divergence {
        match check(differs_in) {
            Outcome::Diverged(divergence) => *divergence,
            outcome => panic!("{outcome}"),
        }
    }

    #[test]
    fn a_run_that_is_a_function_of_its_case_ends_as_it_does_alone() {
        assert_eq!(check(Difference::Nothing), Outcome::Failed(Failure::Safety("lost 0".into())));
    }

    #[test]
    fn a_step_that_differs_is_found() {
        let divergence = divergence(Difference::Step);
        assert_eq!((divergence.first.number, divergence.second.number), (1500, 1500));
        assert_eq!(divergence.agreed.as_ref().unwrap().number, 1499);
        assert!(
            divergence.to_string().contains("differ from step 1500 on, after the same 1"),
            "{divergence}"
        );
    }

    #[test]
    fn a_draw_too_many_is_found_at_the_next_step() {
        let divergence = divergence(Difference::Draw);
        assert_eq!(divergence.first.text, divergence.second.text);
        assert_eq!(divergence.first.number, 1501);
        assert_eq!(divergence.first.draws.count.abs_diff(divergence.second.draws.count), 1);
        let drawn = divergence.agreed.as_ref().unwrap().draws.count;
        assert!(divergence.to_string().contains(&format!("after draw {drawn}")), "{divergence}");
    }

    #[test]
    fn a_run_that_goes_on_and_one_that_ends_otherwise_are_found() {
        let longer = divergence(Difference::Length);
        assert_eq!(longer.first.number, 2000);
        assert!([&longer.first, &longer.second].iter().any(|step| step.text.starts_with("over: ")));
        let other = divergence(Difference::Outcome);
        assert!(other.first.text.starts_with("over: ") && other.second.text.starts_with("over: "));
    }
}
