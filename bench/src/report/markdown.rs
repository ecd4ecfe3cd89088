//! The report as a table, for pages.

use std::fmt::Write;

use super::text::{about, micros_f64, rate};
use super::{Latency, Report};

/// A table with a row for each kind of operation, and what it was measured on.
pub(crate) fn render(report: &Report) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, report);
    page
}

fn write(page: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(page, "{}\n", about(report))?;
    writeln!(
        page,
        "| | op/s | p50 us | p90 us | p99 us | p99.9 us | p99.99 us | max us | server CPU us/op | generator CPU us/op |"
    )?;
    writeln!(page, "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")?;
    let seconds = f64::from(report.load.seconds);
    for (name, latency) in &report.latency_us {
        let Latency { requests, p50, p90, p99, p99_9, p99_99, max, .. } = latency;
        let keys = super::as_f64(*requests * report.load.batch as u64) / seconds;
        write!(page, "| {name} | {} |", rate(keys))?;
        for time in [p50, p90, p99, p99_9, p99_99, max] {
            write!(page, " {} |", micros_f64(*time))?;
        }
        let server: f64 = report.servers.iter().map(super::ServerCost::us_per_operation).sum();
        let server = if report.servers.is_empty() { "".to_owned() } else { format!("{server:.2}") };
        writeln!(page, " {server} | {:.2} |", report.generator.us_per_operation)?;
    }
    let machine = &report.machine;
    writeln!(
        page,
        "\n{}, {} processors, Linux {}. Version {}. `{}`",
        machine.cpu,
        machine.processors,
        machine.kernel,
        report.version,
        report.command.join(" ")
    )?;
    for line in report.worthless.iter().chain(&report.warnings) {
        writeln!(page, "\n- {line}")?;
    }
    Ok(())
}
