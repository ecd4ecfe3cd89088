//! Results for people.

use std::io::{self, Write};
use std::time::Duration;

use super::Summary;
use super::failure::{Failure, Shrinking, replay};
use crate::driver::{Case, Ended, Outcome, Run};
use crate::report::{Counts, Kind, Report};
use crate::swarm::Swarm;

/// Seeds are about to be run. Flushed: whatever happens then, the first seed is known.
pub(super) fn begun(output: &mut dyn Write, swarm: &Swarm) -> io::Result<()> {
    writeln!(output, "seeds from {} on, {} at a time", swarm.seeds.start, swarm.jobs)?;
    output.flush()
}

/// A seed that passed.
pub(super) fn passed(output: &mut dyn Write, case: &Case, ended: &Ended) -> io::Result<()> {
    writeln!(output, "seed {} passed: {}", case.seed, in_short(&ended.report))
}

/// A failure, at once, and then what can be found out about it.
pub(super) fn tell_failure(
    output: &mut dyn Write,
    run: &dyn Run,
    case: Case,
    ended: Ended,
    shrinking: Shrinking,
) -> io::Result<()> {
    head(output, &case, &ended.outcome)?;
    output.flush()?;
    findings(output, &Failure::look_into(run, case, ended, shrinking))
}

/// A failure that is not looked into.
pub(super) fn failure(output: &mut dyn Write, failure: &Failure) -> io::Result<()> {
    head(output, &failure.case, &failure.ended.outcome)?;
    findings(output, failure)
}

fn head(output: &mut dyn Write, case: &Case, outcome: &Outcome) -> io::Result<()> {
    writeln!(output, "seed {} {}", case.seed, outcome.to_string().trim_end())
}

fn findings(output: &mut dyn Write, failure: &Failure) -> io::Result<()> {
    let Failure { case, ended, shrunk, end } = failure;
    if shrunk.is_none() {
        last_steps(output, end)?;
    }
    writeln!(output, "replay with: {}", replay(case, &ended.outcome))?;
    if let Some(shrunk) = shrunk {
        writeln!(output, "\nit fails in a smaller run too, found in {} runs", shrunk.runs)?;
        write!(output, "{}", shrunk.case.options())?;
        head(output, &shrunk.case, &shrunk.ended.outcome)?;
        last_steps(output, end)?;
        writeln!(output, "replay with: {}", replay(&shrunk.case, &shrunk.ended.outcome))?;
    }
    Ok(())
}

fn last_steps(output: &mut dyn Write, end: &[String]) -> io::Result<()> {
    if end.is_empty() {
        return Ok(());
    }
    writeln!(output, "its last steps (--trace prints all)")?;
    end.iter().try_for_each(|line| writeln!(output, "  {line}"))
}

/// Seeds that were run until one failed.
pub(super) fn summary(output: &mut dyn Write, summary: &Summary<'_>) -> io::Result<()> {
    let Summary { swarm, tally, .. } = summary;
    write!(
        output,
        "{} passed, {} failed, from seed {}",
        tally.passed,
        tally.failed.len(),
        swarm.seeds.start
    )?;
    if !swarm.with.is_empty() {
        write!(output, " with {}", swarm.with)?;
    }
    writeln!(output, ": {}, {}", in_short(&tally.report), speed(summary))
}

fn speed(summary: &Summary<'_>) -> String {
    format!("{:.0} simulated seconds in each second of a core", summary.speed())
}

/// All figures of a soak.
pub(super) fn report(output: &mut dyn Write, summary: &Summary<'_>) -> io::Result<()> {
    let Summary { swarm, tally, used } = summary;
    let report = &tally.report;
    writeln!(output, "soaked for   {}", clock(used.time))?;
    let failed = tally.failed.len();
    writeln!(output, "seeds        {} from {}, {failed} failed", grouped(report.runs), swarm.seeds.start)?;
    writeln!(output, "simulated    {}, {}", clock(report.simulated), speed(summary))?;
    writeln!(output, "events       {}", grouped(report.events))?;
    writeln!(output, "operations   {} checked", grouped(report.operations.total()))?;
    counts(output, &report.operations)?;
    writeln!(output, "faults       {}", grouped(report.faults.total()))?;
    counts(output, &report.faults)?;
    writeln!(output, "failures     {failed}")?;
    for (&seed, ended) in &tally.failed {
        let case = Case { seed, with: swarm.with.clone() };
        let what = ended.outcome.to_string();
        writeln!(output, "  seed {seed} {}", what.lines().next().unwrap_or_default())?;
        writeln!(output, "    replay with: {}", replay(&case, &ended.outcome))?;
    }
    Ok(())
}

fn counts<K: Kind>(output: &mut dyn Write, counts: &Counts<K>) -> io::Result<()> {
    let line = |(kind, count): (K, u64)| {
        let name = kind.name().replace('-', " ");
        writeln!(output, "  {name:<34} {:>15}", grouped(count))
    };
    counts.iter().try_for_each(line)
}

fn in_short(report: &Report) -> String {
    format!(
        "{} simulated, {} events, {} operations, {} faults",
        clock(report.simulated),
        grouped(report.events),
        grouped(report.operations.total()),
        grouped(report.faults.total())
    )
}

/// A duration as people say it, in whole seconds above a minute.
pub(super) fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1}s", duration.as_secs_f64()),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!([7, 1234, 1_000_000].map(grouped), ["7", "1,234", "1,000,000"]);
        let clock = |seconds| clock(Duration::from_secs_f64(seconds));
        assert_eq!([1.25, 61.9, 7325.0].map(clock), ["1.2s", "1m01s", "2h02m"]);
    }
}
