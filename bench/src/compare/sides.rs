//! The figures of systems, side by side.

use serde::Serialize;

use super::session::Slice;
use crate::fleet::programs::Programs;
use crate::fleet::systems::SystemName;
use crate::ledger::Findings;
use crate::report::text::{micros_f64, rate};
use crate::table::median;

/// What one system showed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Side {
    /// As on the command line.
    pub(crate) system: String,
    /// What its program says of itself.
    pub(crate) version: String,
    #[serde(skip)]
    pub(crate) is_mesh: bool,
    /// Medians of the rounds.
    pub(crate) medians: Option<Medians>,
    /// The rounds.
    pub(crate) rounds: Vec<Slice>,
    /// Whether what was acknowledged was there, all rounds together.
    pub(crate) findings: Findings,
}

/// Medians of rounds, of a slice's figures.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Medians {
    /// Keys in a second.
    pub(crate) rate: f64,
    /// In microseconds.
    pub(crate) p50: f64,
    /// 0.99
    pub(crate) p99: f64,
    /// 0.999
    pub(crate) p99_9: f64,
    /// Processor time of the system for each key, in microseconds.
    pub(crate) server_us: f64,
    /// Processor time of the generator for each key, in microseconds.
    pub(crate) generator_us: f64,
    /// What part of its processors the generator used.
    pub(crate) generator_busy: f64,
}

impl Medians {
    /// Of some rounds.
    pub(crate) fn of(rounds: &[Slice]) -> Self {
        let each = |figure: fn(&Slice) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
        Self {
            rate: each(|slice| slice.rate),
            p50: each(|slice| slice.p50),
            p99: each(|slice| slice.p99),
            p99_9: each(|slice| slice.p99_9),
            server_us: each(|slice| slice.server_us),
            generator_us: each(|slice| slice.generator_us),
            generator_busy: each(|slice| slice.generator_busy),
        }
    }

    /// The figures that have a column.
    pub(crate) const fn columns(&self) -> [f64; 6] {
        [self.rate, self.p50, self.p99, self.p99_9, self.server_us, self.generator_us]
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Sides {
    sides: Vec<(SystemName, Side)>,
}

impl Sides {
    /// Of systems that were not measured yet.
    pub(crate) fn of(systems: &[SystemName], programs: &Programs) -> Self {
        let side = |&name: &SystemName| {
            let version = programs.find(name.program()).map(|program| program.version()).unwrap_or_default();
            let side = Side {
                system: name.name(),
                version,
                is_mesh: name.is_mesh(),
                medians: None,
                rounds: Vec::new(),
                findings: Findings::default(),
            };
            (name, side)
        };
        Self { sides: systems.iter().map(side).collect() }
    }

    /// Adds what a round showed; a line about it.
    pub(crate) fn add(&mut self, name: SystemName, slice: Slice, findings: Option<&Findings>) -> String {
        let line = format!(
            "{:<11} {:>9} op/s  p50 {} us  p99 {} us",
            name.name(),
            rate(slice.rate),
            micros_f64(slice.p50),
            micros_f64(slice.p99)
        );
        if let Some((_, side)) = self.sides.iter_mut().find(|(known, _)| *known == name) {
            side.rounds.push(slice);
            if let Some(findings) = findings {
                side.findings.merge(findings);
            }
        }
        line
    }

    /// With medians.
    pub(crate) fn finish(self) -> Vec<Side> {
        let finish =
            |(_, side): (SystemName, Side)| Side { medians: Some(Medians::of(&side.rounds)), ..side };
        self.sides.into_iter().map(finish).collect()
    }
}
