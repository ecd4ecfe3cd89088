//! `mesh-bench compare`: other systems beside Mesh, started here, under the same load from the same generator.
//!
//! `flags` says what is wanted, a `session` is one system from its start to its end, `sides` are the systems' figures side by
//! side, `report` tells them. `bars` has the fixed loads by which Mesh is judged, `endurance` a long one, `roofline` what they take at least.
//! `remarks` is what is to be known of all that.
//!
//! Invariants:
//! - A figure is compared only with figures of the same run, and rounds of the systems are interleaved.
//! - What was acknowledged is read back from every system; one that lost anything makes the comparison worthless.
//! - The generator says so when it was the bottleneck.

pub(crate) mod bars;
mod endurance;
mod flags;
mod remarks;
mod report;
pub(crate) mod roofline;
mod session;
mod sides;

use std::io::Write;

pub(crate) use self::flags::{CompareFlags, FleetFlags, FormFlags, PaceFlags, RooflineFlags, TellFlags};
use self::report::Comparison;
pub(crate) use self::session::{BUSY_MAX, Lengths, OTHERS_MAX, Session, Slice};
pub(crate) use self::sides::Medians;
use self::sides::Sides;
use crate::error::{BenchError, Exit};
use crate::fleet::programs::Programs;
use crate::fleet::room::Room;
use crate::fleet::systems::{MeshLayout, Site, SystemName};
use crate::machine::Machine;
use crate::pace::Pace;
use crate::progress::{note, show};

/// Compares, and reports to stdout.
///
/// # Errors
/// [`BenchError`] if there is no report.
pub(crate) fn run(flags: &CompareFlags) -> Result<Exit, BenchError> {
    flags.check()?;
    if flags.bars {
        return bars::run(flags);
    }
    let machine = Machine::look();
    let (room, programs) = (Room::new(&flags.fleet.dir)?, flags.fleet.programs());
    let (systems, skipped) = installed(&flags.systems, &programs);
    if systems.is_empty() {
        return Err(BenchError::Usage(format!("no system is left to measure: {}", skipped.join("; "))));
    }
    let site = Site {
        room: &room,
        programs: &programs,
        cores: flags.fleet.server_cores.list().to_vec(),
        value_bytes: flags.work.value_bytes,
        mesh: MeshLayout::SINGLE,
    };
    let mut sides = Sides::of(&systems, &programs);
    for round in 0..flags.pace.rounds() {
        for name in in_turn(&systems, round) {
            let mut session = Session::begin(name, &site, &flags.work, flags.fleet.generator_cores.list())?;
            let pace = flags.rate.pace(most(&mut session, flags)?);
            let slice = session.load(&flags.work, pace, flags.pace.lengths())?;
            let findings = session.end()?;
            note(&sides.add(name, slice, findings.as_ref()));
        }
    }
    show("");
    let comparison = Comparison::of(flags, machine, sides, skipped);
    std::io::stdout().write_all(comparison.render(flags.tell.form())?.as_bytes())?;
    Ok(if comparison.worthless.is_empty() { Exit::Done } else { Exit::Worthless })
}

/// Requests in a second that a system answers in a closed loop, where the rate is a part of that.
fn most(session: &mut Session, flags: &CompareFlags) -> Result<f64, BenchError> {
    if !flags.rate.needs_most() {
        return Ok(0.0);
    }
    session.load(&flags.work, Pace::Closed, Lengths::MOST).map(|slice| slice.requests_per_second)
}

/// The systems that can be started, and why the others cannot, which is also said.
pub(crate) fn installed(systems: &[SystemName], programs: &Programs) -> (Vec<SystemName>, Vec<String>) {
    let (mut there, mut skipped) = (Vec::new(), Vec::new());
    for &name in systems {
        match programs.find(name.program()) {
            Ok(_) => there.push(name),
            Err(why) => skipped.push(format!("{} is left out: {why}", name.name())),
        }
    }
    skipped.iter().for_each(|line| note(line));
    (there, skipped)
}

/// All of them, in another order each round: each comes first in its turn, and goes forwards and backwards.
pub(crate) fn in_turn<T: Copy>(all: &[T], round: usize) -> Vec<T> {
    let mut order = all.to_vec();
    order.rotate_left(round / 2 % all.len().max(1));
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_another_order_and_everyone() {
        let orders: Vec<_> = (0..4).map(|round| in_turn(&[1, 2, 3], round)).collect();
        assert_eq!(orders, [[1, 2, 3], [3, 2, 1], [2, 3, 1], [1, 3, 2]]);
    }
}
