//! One rate after the other: what latency is at which load.

use std::fmt::{self, Write};

use super::rate::Sweep;
use super::{Bench, write};
use crate::error::{BenchError, Exit};
use crate::plot;
use crate::progress::note;
use crate::report::Report;
use crate::report::text::{about, micros_f64, rate};

/// Runs at every rate, and reports to stdout.
///
/// # Errors
/// [`BenchError`] if there is no report.
pub(super) fn run(bench: &Bench<'_>, sweep: &Sweep) -> Result<Exit, BenchError> {
    let mut reports = Vec::new();
    for &at in &sweep.0 {
        let report = bench.measure(bench.pace(at))?;
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
