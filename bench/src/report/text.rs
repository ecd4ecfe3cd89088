//! The report for people, and how numbers are written.

use std::fmt::{self, Write};

use super::{Latency, Report};

/// Some lines.
pub(crate) fn render(report: &Report) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut page, report);
    page
}

fn write(page: &mut String, report: &Report) -> fmt::Result {
    let throughput = &report.throughput;
    writeln!(page, "{}\n", about(report))?;
    write!(page, "  throughput     {} op/s", rate(throughput.operations_per_second))?;
    if report.load.batch > 1 {
        write!(page, " in {} requests/s", rate(throughput.requests_per_second))?;
    }
    if throughput.range_items > 0 {
        write!(page, " that brought {} keys/s", rate(throughput.range_items_per_second))?;
    }
    writeln!(page)?;
    write_rate(page, report)?;
    write_latency(page, report)?;
    for server in &report.servers {
        writeln!(
            page,
            "  server         {:.2} us/op ({:.2} user + {:.2} system), {:.2} processors: {}, process {}",
            server.us_per_operation(),
            server.user_us_per_operation,
            server.system_us_per_operation,
            server.cores,
            server.command,
            server.pid
        )?;
    }
    if report.servers.len() > 1 {
        let each: f64 = report.servers.iter().map(super::ServerCost::us_per_operation).sum();
        writeln!(page, "  servers        {each:.2} us/op together")?;
    }
    let generator = &report.generator;
    writeln!(
        page,
        "  generator      {:.2} us/op, {:.0}% of processor {}",
        generator.us_per_operation,
        100.0 * generator.busy,
        list(&generator.cores)
    )?;
    write_machine(page, report)?;
    for (name, errors) in &report.errors {
        writeln!(page, "  {name:<14} {} retried, {} failed", count(errors.retried), count(errors.failed))?;
    }
    for line in &report.warnings {
        writeln!(page, "\nwarning: {line}")?;
    }
    for line in &report.worthless {
        writeln!(page, "\nworthless: {line}")?;
    }
    Ok(())
}

/// What was due, in an open loop.
fn write_rate(page: &mut String, report: &Report) -> fmt::Result {
    let load = &report.load;
    let (Some(offered), Some(arrivals)) = (load.offered_per_second, load.arrivals) else { return Ok(()) };
    write!(page, "  due            {} requests/s ({arrivals})", rate(offered))?;
    if let Some(most) = load.closed_loop_per_second {
        write!(page, ", {:.0}% of {} in a closed loop", 100.0 * offered / most, rate(most))?;
    }
    writeln!(page, "; reached {}", rate(report.reached_per_second))
}

fn write_latency(page: &mut String, report: &Report) -> fmt::Result {
    write!(page, "  latency us  ")?;
    for name in ["mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        write!(page, " {name:>9}")?;
    }
    writeln!(page)?;
    let responses = report.latency_us.iter().map(|(name, latency)| ((*name).to_owned(), latency));
    let services = report.service_us.iter().map(|(name, latency)| (format!("{name} sent"), latency));
    for (name, latency) in responses.chain(services) {
        let Latency { mean, p50, p90, p99, p99_9, p99_99, max, .. } = latency;
        write!(page, "    {name:<10}")?;
        for time in [mean, p50, p90, p99, p99_9, p99_99, max] {
            write!(page, " {:>9}", micros_f64(*time))?;
        }
        writeln!(page)?;
    }
    Ok(())
}

fn write_machine(page: &mut String, report: &Report) -> fmt::Result {
    let machine = &report.machine;
    if let Some(others) = report.others_cores {
        writeln!(page, "  others         {others:.2} processors")?;
    }
    writeln!(
        page,
        "  machine        {}, {} processors, {:.1} GiB, Linux {}, load average {:.1}",
        machine.cpu,
        machine.processors,
        super::as_f64(machine.memory_bytes) / f64::from(1 << 30),
        machine.kernel,
        machine.load_average
    )
}

/// What was done, in a line.
pub(crate) fn about(report: &Report) -> String {
    let load = &report.load;
    format!(
        "{}: {}, {} keys, {} B values, {}; {} connections x {} in flight; {} s after {} s of warm-up",
        report.target,
        load.words,
        count(load.keys.into()),
        count(load.value_bytes as u64),
        load.distribution,
        load.connections,
        load.in_flight,
        load.seconds,
        load.warm_up
    )
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut apart = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    apart
}

/// A rate, to the whole.
pub(crate) fn rate(rate: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rates are not negative, and far below 2^63"
    )]
    let whole = rate.round() as u64;
    count(whole)
}

/// Nanoseconds as microseconds.
pub(crate) fn micros(nanoseconds: u64) -> String {
    micros_f64(super::micros(nanoseconds))
}

/// Microseconds with as many digits as they are worth.
pub(crate) fn micros_f64(micros: f64) -> String {
    if micros < 100.0 { format!("{micros:.1}") } else { rate(micros) }
}
