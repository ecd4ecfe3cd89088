//! How clients behave, each in its own way: how long they wait, what they ask of nodes, what they do when refused.

use std::time::Duration;

use mesh_base::prng::Prng;

use crate::options::LoadOptions;

/// How long a client waits for one attempt, in milliseconds: some turn away from a node that was cut off before it knows,
/// some hear what it says when it does.
const ATTEMPTS_MS: [u64; 4] = [50, 150, 700, 1500];
/// How long a client waits at least where values are large: a link may need as long for one.
const ATTEMPT_OF_LARGE_MS: u64 = 700;
/// How long a node may wait for the end of a write, in milliseconds: shorter than an attempt, so that its answer to a late
/// one is heard, or longer.
const WRITE_DEADLINES_MS: [u32; 4] = [30, 300, 3000, 3000];
/// Of a thousand clients, those that do not try again what is certainly not applied.
const BELIEVERS_PER_MILLE: u64 = 300;

/// A client's ways.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// How long it waits for one attempt.
    pub patience: Duration,
    /// What it does with a write that is certainly not applied.
    pub denied: WhenDenied,
    /// How long a node may wait for the end of a write, in milliseconds: one of these for each attempt.
    pub write_deadlines_ms: &'static [u32],
}

/// What a client does with a write that is certainly not applied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum WhenDenied {
    TriesAgain,
    GivesUp,
}

impl Habits {
    /// Those of a client that tries again until it is served.
    pub(super) const STEADY: Self = Self {
        patience: Duration::from_millis(150),
        denied: WhenDenied::TriesAgain,
        write_deadlines_ms: &[1000],
    };

    pub(super) fn draw(load: &LoadOptions, prng: &mut Prng) -> Self {
        let gives_up = prng.chance_per_mille(BELIEVERS_PER_MILLE);
        let least = if load.large_per_mille > 0 { ATTEMPT_OF_LARGE_MS } else { 0 };
        let attempt_ms = prng.choose(&ATTEMPTS_MS).copied().unwrap_or(150).max(least);
        Self {
            patience: Duration::from_millis(attempt_ms),
            denied: if gives_up { WhenDenied::GivesUp } else { WhenDenied::TriesAgain },
            write_deadlines_ms: &WRITE_DEADLINES_MS,
        }
    }
}
