//! A comparison for people, for pages and for programs.

use std::fmt::{self, Write};

use serde::Serialize;

use super::flags::CompareFlags;
use super::session::Slice;
use super::sides::{Medians, Side, Sides};
use crate::columns;
use crate::error::BenchError;
use crate::load::LoadFlags;
use crate::machine::Machine;
use crate::rate::RateFlags;
use crate::report::text::{count, micros_f64, rate};
use crate::table::Form;

const HEAD: [&str; 7] =
    ["system", "op/s", "p50 us", "p99 us", "p99.9 us", "server CPU us/op", "generator CPU us/op"];

/// What was compared, and how it went.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Comparison {
    version: &'static str,
    command: Vec<String>,
    machine: Machine,
    load: String,
    server_cores: Vec<usize>,
    generator_cores: Vec<usize>,
    systems: Vec<Side>,
    skipped: Vec<String>,
    warnings: Vec<String>,
    /// Why the figures are worthless, if they are.
    pub(crate) worthless: Vec<String>,
}

impl Comparison {
    pub(crate) fn of(flags: &CompareFlags, machine: Machine, sides: Sides, skipped: Vec<String>) -> Self {
        let systems = sides.finish();
        let warnings = systems.iter().flat_map(warnings).collect();
        let worthless = systems.iter().flat_map(|side| wrong(side, flags.work.keys)).collect();
        let load = format!(
            "{}; {} rounds of {} s after {} s of warm-up",
            about(&flags.work, flags.rate),
            flags.pace.rounds,
            flags.pace.seconds,
            flags.pace.warm_up
        );
        Self {
            version: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect(),
            machine,
            load,
            server_cores: flags.fleet.server_cores.list().to_vec(),
            generator_cores: flags.fleet.generator_cores.list().to_vec(),
            systems,
            skipped,
            warnings,
            worthless,
        }
    }

    /// As the flags want it.
    ///
    /// # Errors
    /// None that its form permits.
    pub(crate) fn render(&self, form: Form) -> Result<String, BenchError> {
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = match form {
            Form::Json => return Ok(serde_json::to_string(self).map_err(std::io::Error::from)? + "\n"),
            Form::Markdown => self.write_markdown(&mut page),
            Form::Text => self.write_text(&mut page),
        };
        Ok(page)
    }

    /// Rows of cells: figures, and their ratios to Mesh's.
    fn rows(&self) -> Vec<Vec<String>> {
        let base = self.systems.iter().find(|side| side.is_mesh).and_then(|side| side.medians);
        let row = |side: &Side| {
            let figures = side.medians.map(|medians| cells(medians, base)).unwrap_or_default();
            [vec![side.system.clone()], figures].concat()
        };
        self.systems.iter().map(row).collect()
    }

    fn write_text(&self, page: &mut String) -> fmt::Result {
        writeln!(page, "{}\n", self.load)?;
        columns::write_text(page, &HEAD, &self.rows())?;
        writeln!(page, "\nIn parentheses: the figure as a multiple of Mesh's.")?;
        self.notes().iter().try_for_each(|line| writeln!(page, "{line}"))
    }

    fn write_markdown(&self, page: &mut String) -> fmt::Result {
        writeln!(page, "{}\n", self.load)?;
        columns::write_markdown(page, &HEAD, &self.rows())?;
        writeln!(page)?;
        self.notes().iter().try_for_each(|line| writeln!(page, "- {line}"))?;
        writeln!(page, "- `{}`", self.command.join(" "))
    }

    fn notes(&self) -> Vec<String> {
        let machine = &self.machine;
        let mut notes: Vec<_> = self.systems.iter().map(audited).collect();
        notes.push(format!(
            "Servers on processors {:?}, generator on {:?}. {}, {} processors, Linux {}, load average {:.1} before.",
            self.server_cores,
            self.generator_cores,
            machine.cpu,
            machine.processors,
            machine.kernel,
            machine.load_average
        ));
        notes.extend(self.skipped.iter().cloned());
        notes.extend(self.warnings.iter().map(|line| format!("warning: {line}")));
        notes.extend(self.worthless.iter().map(|line| format!("worthless: {line}")));
        notes
    }
}

/// What is done, in words.
fn about(work: &LoadFlags, rate: RateFlags) -> String {
    let open = rate.words().map(|words| format!(", {words}")).unwrap_or_default();
    format!(
        "{}, {} keys, {} B values, {}, {} connections x {} in flight{open}",
        work.words(),
        count(work.keys.into()),
        count(work.value_bytes as u64),
        work.distribution().name(),
        work.connections,
        work.in_flight
    )
}

fn cells(medians: Medians, base: Option<Medians>) -> Vec<String> {
    let base = base.map(|base| base.columns());
    let written = medians.columns().into_iter().enumerate().map(|(column, figure)| {
        let figure_in_words = match column {
            0 => rate(figure),
            4 | 5 => format!("{figure:.2}"),
            _ => micros_f64(figure),
        };
        match base.and_then(|base| base.get(column).copied()) {
            Some(base) => format!("{figure_in_words} ({:.2}x)", figure / base),
            None => figure_in_words,
        }
    });
    written.collect()
}

/// Those of the round that has the most.
fn warnings(side: &Side) -> Vec<String> {
    let of_rounds = side.rounds.iter().map(Slice::warnings);
    let most = of_rounds.max_by_key(Vec::len).unwrap_or_default();
    most.iter().map(|line| format!("{}: {line}", side.system)).collect()
}

fn wrong(side: &Side, keys: u32) -> Vec<String> {
    let mut lines: Vec<_> = side.rounds.iter().flat_map(|slice| &slice.wrong).cloned().collect();
    let findings = &side.findings;
    if findings.lost + findings.foreign > 0 {
        lines.push(format!(
            "{} keys without their last acknowledged write, {} with a value that nobody wrote: {}",
            findings.lost,
            findings.foreign,
            findings.named.join(", ")
        ));
    }
    let read_back = findings.keys();
    if read_back > 0 && read_back != u64::from(keys) * side.rounds.len() as u64 {
        lines.push(format!("only {read_back} keys were read back"));
    }
    lines.iter().map(|line| format!("{}: {line}", side.system)).collect()
}

fn audited(side: &Side) -> String {
    let findings = &side.findings;
    if findings.keys() == 0 {
        return format!("{} ({}): keeps nothing, so nothing was read back.", side.system, side.version);
    }
    let mut line = format!(
        "{} ({}): of {} keys read back {} had their last acknowledged write or a later one",
        side.system,
        side.version,
        count(findings.keys()),
        count(findings.held)
    );
    if findings.not_judged > 0 {
        line += &format!("; {} were written too much at once to tell", count(findings.not_judged));
    }
    line + "."
}
