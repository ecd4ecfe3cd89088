//! One rate after the other: what latency is at which load.

use std::fmt::{self, Write};
use std::str::FromStr;

use super::{Bench, write};
use crate::error::{BenchError, Exit};
use crate::plot;
use crate::progress::note;
use crate::rate::Rate;
use crate::report::Report;
use crate::report::text::{about, micros_f64, rate};

/// Rates of a sweep, at most.
const SWEEP_MAX: usize = 100;
/// Percent between the rates of a sweep that names the first and the last one.
const SWEEP_STEP: f64 = 10.0;

/// Some rates.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Sweep(pub(crate) Vec<Rate>);

impl Sweep {
    /// Whether the most that there is has to be measured.
    pub(crate) fn needs_most(&self) -> bool {
        self.0.iter().copied().any(Rate::needs_most)
    }
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` names no rates: write 10%..90%, or a list, as 1000,5000,20000 or 50%,80%,95%")
        };
        let rates: Vec<_> = match text.split_once("..") {
            Some((first, last)) => {
                let (Rate::Percent(first), Rate::Percent(last)) = (first.parse()?, last.parse()?) else {
                    return Err(wrong());
                };
                let steps = std::iter::successors(Some(first), |percent| Some(percent + SWEEP_STEP));
                steps
                    .take_while(|&percent| percent <= last + 1e-6)
                    .take(SWEEP_MAX + 1)
                    .map(Rate::Percent)
                    .collect()
            }
            None => text.split(',').map(str::parse).collect::<Result<_, _>>()?,
        };
        if rates.is_empty() || rates.len() > SWEEP_MAX { Err(wrong()) } else { Ok(Self(rates)) }
    }
}

/// Runs at every rate, and reports to stdout.
///
/// # Errors
/// [`BenchError`] if there is no report.
pub(super) fn run(bench: &Bench<'_>, sweep: &Sweep) -> Result<Exit, BenchError> {
    let mut reports = Vec::new();
    for &at in &sweep.0 {
        let report = bench.measure(at.pace(bench.flags.rate.arrivals(), bench.most()))?;
        note(&line(&report));
        reports.push(report);
    }
    let flags = bench.flags;
    if let Some(directory) = &flags.plots {
        plot::of_sweep(directory, &reports)?;
    }
    if flags.json {
        write(&(serde_json::to_string(&reports).map_err(std::io::Error::from)? + "\n"))?;
    } else {
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = if flags.markdown { markdown(&mut page, &reports) } else { text(&mut page, &reports) };
        write(&page)?;
    }
    let is_worthless = reports.iter().any(|report| !report.worthless.is_empty());
    Ok(if is_worthless { Exit::Worthless } else { Exit::Done })
}

/// The columns of a rate, in words: what was offered and reached, percentiles, and whether the system kept up.
fn cells(report: &Report) -> [String; 8] {
    let all = &report.all_us;
    let [p50, p99, p99_9, max] = [all.p50, all.p99, all.p99_9, all.max].map(micros_f64);
    let verdict = if !report.worthless.is_empty() {
        "worthless"
    } else if report.saturation.is_some() {
        "saturated"
    } else {
        ""
    };
    let offered = report.load.offered_per_second.unwrap_or_default();
    let server: f64 = report.servers.iter().map(crate::report::ServerCost::us_per_operation).sum();
    let reached = rate(report.reached_per_second);
    [rate(offered), reached, p50, p99, p99_9, max, format!("{server:.2}"), verdict.to_owned()]
}

const HEAD: [&str; 8] =
    ["offered/s", "reached/s", "p50 us", "p99 us", "p99.9 us", "max us", "server us/op", ""];

fn line(report: &Report) -> String {
    columns(&cells(report).each_ref().map(String::as_str))
}

fn columns(cells: &[&str; 8]) -> String {
    let cells: Vec<_> = cells.iter().map(|cell| format!("{cell:>12}")).collect();
    cells.join(" ").trim_end().to_owned()
}

fn text(page: &mut String, reports: &[Report]) -> fmt::Result {
    let Some(first) = reports.first() else { return Ok(()) };
    writeln!(page, "{}\n\n{}", about(first), columns(&HEAD))?;
    reports.iter().try_for_each(|report| writeln!(page, "{}", line(report)))?;
    remarks(page, reports)
}

fn markdown(page: &mut String, reports: &[Report]) -> fmt::Result {
    let Some(first) = reports.first() else { return Ok(()) };
    writeln!(page, "{}\n\n| {} |\n|{}", about(first), HEAD.join(" | "), "---:|".repeat(HEAD.len()))?;
    reports.iter().try_for_each(|report| writeln!(page, "| {} |", cells(report).join(" | ")))?;
    remarks(page, reports)?;
    let machine = &first.machine;
    writeln!(
        page,
        "\n{}, {} processors, Linux {}. Version {}. `{}`",
        machine.cpu,
        machine.processors,
        machine.kernel,
        first.version,
        first.command.join(" ")
    )
}

/// What is worth a word, each once.
fn remarks(page: &mut String, reports: &[Report]) -> fmt::Result {
    for report in reports {
        let offered = rate(report.load.offered_per_second.unwrap_or_default());
        for remark in report.worthless.iter().chain(&report.warnings) {
            writeln!(page, "\n- at {offered}/s: {remark}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_is_a_list_or_steps() {
        let percents = |each: &[f64]| Sweep(each.iter().map(|&percent| Rate::Percent(percent)).collect());
        assert_eq!("10%..40%".parse(), Ok(percents(&[10.0, 20.0, 30.0, 40.0])));
        assert_eq!("50%,95%".parse(), Ok(percents(&[50.0, 95.0])));
        assert_eq!("1000,50%".parse(), Ok(Sweep(vec![Rate::PerSecond(1000.0), Rate::Percent(50.0)])));
        for wrong in ["90%..10%", "10..20", "", "1%..2000%"] {
            assert!(wrong.parse::<Sweep>().is_err(), "{wrong}");
        }
    }
}
