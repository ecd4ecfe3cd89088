//! One node under half of its most for a long time: whether what the slowest requests take grows, with data, checkpoints and whatever
//! else comes with time.
//!
//! The most is learnt in a closed loop in the same session. Then requests are due at half of it at times of their own, so that a
//! pause makes all wait that were due meanwhile; the whole time is held against its own first minute.
//!
//! Deliberately absent: rounds. One takes as long as all other bars together, and is compared with itself only.

use super::bars::{KEYS, VALUE_BYTES, shown};
use super::installed;
use super::remarks::Remarks;
use super::session::{Lengths, Session, Slice};
use crate::error::BenchError;
use crate::fleet::systems::{Site, SystemName};
use crate::load::{LoadFlags, Workload};
use crate::pace::{ArrivalKind, Pace};
use crate::progress::note;
use crate::rate::Rate;
use crate::report::text::rate;
use crate::table::{Bound, Rounds, Row, Unit};

const SYSTEM: SystemName = SystemName::Mesh;
const CONNECTIONS: u16 = 50;
const IN_FLIGHT: u16 = 16;
const PART_OF_THE_MOST: Rate = Rate::Percent(50.0);
const CLOSED: &str = "half gets, half durable puts, 50 connections, 16 in flight";
const OPEN: &str = "half gets, half durable puts, 50 connections, 16 in flight, at half of the most";
/// With what it is compared, in the table.
const FIRST_MINUTE: &str = "its first minute";
/// How many times that p99.9 of all of it may be.
const GROWTH_MAX: f64 = 1.5;

/// How long both loads are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Durations {
    /// The closed loop that shows the most.
    most: Lengths,
    /// The open loop that is judged.
    all: Lengths,
}

impl Durations {
    /// Ten minutes. What the closed loop has left to do is over before them: it would be an excuse for a slow first minute.
    pub(super) const BAR: Self =
        Self { most: Lengths { warm_up: 1, seconds: 5 }, all: Lengths { warm_up: 5, seconds: 600 } };
}

/// The row, or none if the system is not there.
///
/// # Errors
/// [`BenchError`]
pub(super) fn rows(
    site: &Site<'_>,
    generator: &[usize],
    seed: u64,
    durations: Durations,
    remarks: &mut Remarks,
) -> Result<Vec<Row>, BenchError> {
    let (there, skipped) = installed(&[SYSTEM], site.programs);
    remarks.notes.extend(skipped);
    if there.is_empty() {
        return Ok(Vec::new());
    }
    let load = LoadFlags::new(Workload::Mixed, CONNECTIONS, IN_FLIGHT);
    let work = LoadFlags { keys: KEYS, value_bytes: VALUE_BYTES, seed, ..load };
    let mut session = Session::begin(SYSTEM, site, &work, generator)?;
    let endured = Endured::under(durations, |pace, lengths| session.load(&work, pace, lengths))?;
    remarks.of_findings(&shown(SYSTEM), session.end()?.as_ref());
    remarks.of_slice(&shown(SYSTEM), CLOSED, &endured.most);
    remarks.of_slice(&shown(SYSTEM), OPEN, &endured.all);
    Ok(vec![endured.row(durations)])
}

/// What both loads showed.
struct Endured {
    most: Slice,
    all: Slice,
}

impl Endured {
    /// Of a system that can be put under loads.
    fn under(
        durations: Durations,
        mut load: impl FnMut(Pace, Lengths) -> Result<Slice, BenchError>,
    ) -> Result<Self, BenchError> {
        let most = load(Pace::Closed, durations.most)?;
        note(&format!("{}: {} requests/s in a closed loop", shown(SYSTEM), rate(most.requests_per_second)));
        let pace = PART_OF_THE_MOST.pace(ArrivalKind::Poisson, most.requests_per_second);
        Ok(Self { all: load(pace, durations.all)?, most })
    }

    fn row(&self, durations: Durations) -> Row {
        let mut rounds = Rounds::new(format!("{OPEN}: p99.9"), Unit::Microseconds);
        rounds.add(&shown(SYSTEM), self.all.p99_9);
        rounds.add(FIRST_MINUTE, self.all.p99_9_of_first_minute);
        rounds.note(format!(
            "one round of {} s; {} requests/s were offered (an open loop, poisson) of {} that a closed loop reached, and {} were answered",
            durations.all.seconds,
            rate(self.all.offered_per_second.unwrap_or_default()),
            rate(self.most.requests_per_second),
            rate(self.all.requests_per_second)
        ));
        rounds.row().bar(&[FIRST_MINUTE], Bound::AtMost(GROWTH_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Verdict;

    const SHORT: Durations =
        Durations { most: Lengths { warm_up: 0, seconds: 1 }, all: Lengths { warm_up: 0, seconds: 2 } };

    /// A system that answers 1,000 requests in a second, and whose p99.9 is so many times that of the first minute.
    fn endured(growth: f64) -> (Vec<(Pace, Lengths)>, Endured) {
        let mut asked = Vec::new();
        let load = |pace: Pace, lengths| {
            asked.push((pace, lengths));
            Ok(Slice {
                requests_per_second: pace.rate().unwrap_or(1000.0),
                offered_per_second: pace.rate(),
                p99_9: 200.0 * growth,
                p99_9_of_first_minute: 200.0,
                ..Slice::default()
            })
        };
        let endured = Endured::under(SHORT, load).unwrap();
        (asked, endured)
    }

    #[test]
    fn the_long_load_is_an_open_loop_at_half_of_what_the_closed_one_reached() {
        let (asked, endured) = endured(1.0);
        let half = Pace::Open { rate: 500.0, arrivals: ArrivalKind::Poisson };
        assert_eq!(asked, [(Pace::Closed, SHORT.most), (half, SHORT.all)]);
        let note = &endured.row(SHORT).notes[0];
        assert!(note.contains("2 s; 500 requests/s were offered"), "{note}");
        assert!(note.contains("of 1,000 that") && note.contains("and 500 were answered"), "{note}");
    }

    #[test]
    fn the_bar_is_against_the_first_minute() {
        for (growth, verdict) in [(1.4, Verdict::Holds), (1.6, Verdict::Fails)] {
            let bars = endured(growth).1.row(SHORT).bars;
            assert_eq!(bars.len(), 1);
            assert_eq!((bars[0].against.as_str(), bars[0].verdict), ("its first minute", verdict));
            assert!((bars[0].measured.unwrap() - growth).abs() < 1e-9);
        }
    }
}
