//! How Mesh scales, for people, for pages and for programs.

use std::fmt::{self, Write};

use serde::Serialize;

use super::dimensions::{Dimension, Load};
use super::{Processors, ScaleFlags, Sharing};
use crate::columns;
use crate::compare::{BUSY_MAX, Medians, OTHERS_MAX, Slice};
use crate::error::BenchError;
use crate::machine::Machine;
use crate::report::text::{micros_f64, rate};
use crate::table::{Form, median};

const HEAD: [&str; 9] = [
    "load",
    "op/s",
    "of the first",
    "p50 us",
    "p99 us",
    "p99.9 us",
    "server CPU us/op",
    "generator CPU us/op",
    "generator busy",
];

/// One load, at one value of what is changed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    dimension: Dimension,
    /// Of the dimension: a number of cores, of bytes, ...
    value: usize,
    workload: &'static str,
    in_flight: u16,
    connections: u16,
    value_bytes: usize,
    keys: u32,
    /// Whether the node's processors were its own.
    sharing: Sharing,
    /// The changed value, in words.
    #[serde(skip)]
    changed: String,
    /// The rest of the load, in words.
    #[serde(skip)]
    rest: String,
    /// The rounds.
    pub(super) rounds: Vec<Slice>,
}

impl Row {
    /// Of a load that was not measured yet.
    pub(super) fn of(load: &Load, sharing: Sharing) -> Self {
        Self {
            dimension: load.dimension,
            value: load.value,
            workload: load.work.workload.name(),
            in_flight: load.work.in_flight,
            connections: load.work.connections,
            value_bytes: load.work.value_bytes,
            keys: load.work.keys,
            sharing,
            changed: load.value_in_words(),
            rest: load.rest_in_words(),
            rounds: Vec::new(),
        }
    }

    /// Whether it is of a load.
    pub(super) fn is_of(&self, load: &Load) -> bool {
        self.place() == (load.dimension, load.rest_in_words().as_str(), load.value)
    }

    /// Where it stands. Rows that differ in the value only are compared with each other.
    fn place(&self) -> (Dimension, &str, usize) {
        (self.dimension, &self.rest, self.value)
    }

    /// For a note.
    fn words(&self) -> String {
        format!("{} {}, {}", self.dimension.words(), self.changed, self.rest)
    }

    /// For people who look on.
    pub(super) fn line(&self) -> String {
        let Some(slice) = self.rounds.last() else { return String::new() };
        format!(
            "  {:<34} {:>11} op/s  p50 {} us  p99 {} us",
            self.words(),
            rate(slice.rate),
            micros_f64(slice.p50),
            micros_f64(slice.p99)
        )
    }
}

/// A row with what follows from all rounds and all rows.
#[derive(Clone, Debug, Serialize)]
struct Told {
    #[serde(flatten)]
    row: Row,
    medians: Medians,
    /// The rate, as a multiple of that of the dimension's first value.
    of_the_first: f64,
    /// Whether the generator was the bottleneck.
    generator_limits: bool,
}

impl Told {
    fn cells(&self) -> Vec<String> {
        let Medians { rate: per_second, p50, p99, p99_9, server_us, generator_us, generator_busy } =
            self.medians;
        let mut busy = format!("{:.0}%", 100.0 * generator_busy);
        if self.generator_limits {
            busy += ", the bottleneck";
        }
        if self.row.sharing == Sharing::WithGenerator {
            busy += ", shared";
        }
        vec![
            format!("{}: {}", self.row.rest, self.row.changed),
            rate(per_second),
            format!("{:.2}x", self.of_the_first),
            micros_f64(p50),
            micros_f64(p99),
            micros_f64(p99_9),
            format!("{server_us:.2}"),
            format!("{generator_us:.2}"),
            busy,
        ]
    }
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Scaling {
    version: &'static str,
    command: Vec<String>,
    machine: Machine,
    rounds: usize,
    seconds_of_a_slice: u32,
    warm_up_seconds: u32,
    server_cores: Vec<usize>,
    generator_cores: Vec<usize>,
    rows: Vec<Told>,
    warnings: Vec<String>,
    /// Why the figures are worthless, if they are.
    pub(super) worthless: Vec<String>,
}

impl Scaling {
    /// Of rows that were measured, and of what was wrong with what was read back.
    pub(super) fn of(
        flags: &ScaleFlags,
        machine: Machine,
        processors: &Processors,
        mut rows: Vec<Row>,
        wrong: Vec<String>,
    ) -> Self {
        // Stages may have been gone through in any order.
        rows.sort_by(|a, b| a.place().cmp(&b.place()));
        let of_rows = rows.iter().flat_map(|row| {
            let wrong = row.rounds.iter().flat_map(|slice| &slice.wrong);
            wrong.map(|what| format!("{}: {what}", row.words()))
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            command: std::env::args().collect(),
            machine,
            rounds: flags.pace.rounds(),
            seconds_of_a_slice: flags.pace.seconds,
            warm_up_seconds: flags.pace.warm_up,
            server_cores: processors.servers.clone(),
            generator_cores: processors.generator.clone(),
            worthless: wrong.into_iter().chain(of_rows).collect(),
            warnings: warnings(&rows),
            rows: told(rows),
        }
    }

    /// In a form.
    ///
    /// # Errors
    /// None that it permits.
    pub(super) fn render(&self, form: Form) -> Result<String, BenchError> {
        let mut page = String::new();
        // Writing to a string does not fail.
        let _ = match form {
            Form::Json => return Ok(serde_json::to_string(self).map_err(std::io::Error::from)? + "\n"),
            Form::Markdown => self.write(&mut page, columns::write_markdown, "- "),
            Form::Text => self.write(&mut page, columns::write_text, ""),
        };
        Ok(page)
    }

    fn write(&self, page: &mut String, write_rows: WriteRows, bullet: &str) -> fmt::Result {
        for dimension in Dimension::ALL {
            let rows: Vec<_> = self.rows.iter().filter(|told| told.row.dimension == dimension).collect();
            if !rows.is_empty() {
                let cells: Vec<_> = rows.iter().map(|told| told.cells()).collect();
                writeln!(page, "{}\n", self.about(dimension))?;
                write_rows(page, &HEAD, &cells)?;
                writeln!(page)?;
            }
        }
        self.notes().iter().try_for_each(|line| writeln!(page, "{bullet}{line}"))
    }

    /// What is changed and what is not.
    fn about(&self, dimension: Dimension) -> String {
        let of_dimension = self.rows.iter().filter(|told| told.row.dimension == dimension);
        let most = of_dimension.map(|told| told.row.value).max().unwrap_or_default();
        let keys = "100,000 keys";
        let cores = match self.server_cores.len() {
            1 => "1 core".to_owned(),
            cores => format!("{cores} cores"),
        };
        let rest = match dimension {
            Dimension::Cores => format!("{most} shards, 50 connections, {keys}, 256 B values"),
            Dimension::Shards => format!("{cores}, 50 connections, {keys}, 256 B values"),
            Dimension::Connections => format!("{cores}, 1 shard, {keys}, 256 B values"),
            Dimension::Values => {
                format!(
                    "{cores}, 1 shard, at most {keys} and 512 MiB; 50 connections, or so many (on N) that 16 MiB are in flight"
                )
            }
            Dimension::InFlight => {
                format!(
                    "{cores}, 1 shard, 50 connections, {keys}, 256 B values; in flight on each connection"
                )
            }
        };
        format!("By {}: {rest}.", dimension.words())
    }

    fn notes(&self) -> Vec<String> {
        let machine = &self.machine;
        let mut notes = vec![format!(
            "{} rounds of {} s after {} s of warm-up; medians. Server on processors {:?} unless cores are what is changed, generator on {:?}. {}, {} processors, Linux {}, load average {:.1} before. Version {}.",
            self.rounds,
            self.seconds_of_a_slice,
            self.warm_up_seconds,
            self.server_cores,
            self.generator_cores,
            machine.cpu,
            machine.processors,
            machine.kernel,
            machine.load_average,
            self.version
        )];
        if self.rows.iter().any(|told| told.row.sharing == Sharing::WithGenerator) {
            notes.push(
                "shared: the node and the generator ran on the same processors there. The rate is what both make of them together, and no figure of the node alone.".to_owned(),
            );
        }
        notes.extend(self.warnings.iter().map(|line| format!("warning: {line}")));
        notes.extend(self.worthless.iter().map(|line| format!("worthless: {line}")));
        notes
    }
}

type WriteRows = fn(&mut String, &[&str], &[Vec<String>]) -> fmt::Result;

/// Rows with medians, beside the first of their kind.
fn told(rows: Vec<Row>) -> Vec<Told> {
    let mut first = 0.0;
    let mut kind = None;
    let tell = |row: Row| {
        let medians = Medians::of(&row.rounds);
        let this = (row.dimension, row.rest.clone());
        if kind.as_ref() != Some(&this) {
            (first, kind) = (medians.rate, Some(this));
        }
        Told {
            medians,
            of_the_first: medians.rate / first,
            generator_limits: medians.generator_busy > BUSY_MAX,
            row,
        }
    };
    rows.into_iter().map(tell).collect()
}

/// What should be known before figures are used, without what their rows say.
fn warnings(rows: &[Row]) -> Vec<String> {
    let of_row = |row: &Row| {
        let most = row.rounds.iter().max_by_key(|slice| slice.retried.values().sum::<u64>());
        let lines: Vec<_> = most.into_iter().flat_map(Slice::retried_in_words).collect();
        lines.into_iter().map(|line| format!("{}: {line}", row.words())).collect::<Vec<_>>()
    };
    let mut lines: Vec<_> = rows.iter().flat_map(of_row).collect();
    let others: Vec<_> = rows.iter().flat_map(|row| &row.rounds).map(|slice| slice.others_cores).collect();
    let most = others.iter().copied().fold(0.0, f64::max);
    if most > OTHERS_MAX {
        lines.push(format!(
            "others kept {:.1} of the machine's processors busy in the median row, and up to {most:.1}: compare processor time, not rates",
            median(&others)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::dimensions::stages;
    use super::*;
    use crate::cli::{Cli, Command};

    fn flags() -> ScaleFlags {
        let Command::Scale(flags) = Cli::parse_from(["mesh-bench", "scale"]).command else {
            panic!("another command")
        };
        flags
    }

    fn scaling(dimension: Dimension, rate: impl Fn(&Load) -> f64, wrong: Vec<String>) -> Scaling {
        let row = |load: &Load| {
            let slice = Slice {
                rate: rate(load),
                generator_busy: if load.value == 1 { 0.95 } else { 0.5 },
                retried: [("overloaded", load.value as u64)].into(),
                ..Slice::default()
            };
            let sharing = if load.value > 1 { Sharing::WithGenerator } else { Sharing::None };
            Row { rounds: vec![slice], ..Row::of(load, sharing) }
        };
        let rows = stages(&[dimension], 1, 2).iter().flat_map(|stage| &stage.loads).map(row).rev().collect();
        let processors = Processors { servers: vec![0], generator: vec![1], order: vec![0, 1] };
        Scaling::of(&flags(), Machine::look(), &processors, rows, wrong)
    }

    #[test]
    fn rows_stand_beside_the_first_of_their_kind_and_say_what_limits_them() {
        let told = scaling(Dimension::Cores, |load| 1000.0 * load.value as f64, Vec::new());
        assert!(told.worthless.is_empty());
        let page = told.render(Form::Text).unwrap();
        let line = |begin| page.lines().find(|line| line.trim_start().starts_with(begin)).unwrap().to_owned();
        let first = line("get, 1 in flight: 1");
        assert!(first.contains(" 1.00x ") && first.ends_with("95%, the bottleneck"), "{first}");
        let second = line("put, 16 in flight: 2");
        assert!(
            second.contains("2,000  ") && second.contains(" 2.00x ") && second.ends_with("50%, shared"),
            "{second}"
        );
        assert!(page.contains("By cores: 2 shards"), "{page}");
        assert!(page.contains("ran on the same processors"), "{page}");
        assert!(page.contains("warning: cores 2, put, 1 in flight: 2 requests met overloaded"), "{page}");
    }

    #[test]
    fn every_form_has_every_row() {
        let told = scaling(Dimension::Values, |_| 1.0, vec!["value 16 B: lost".to_owned()]);
        let markdown = told.render(Form::Markdown).unwrap();
        assert_eq!(
            markdown.lines().filter(|line| line.starts_with("| get") || line.starts_with("| put")).count(),
            20
        );
        assert!(markdown.contains("| get, 1 in flight: 64 KiB | 1 |"), "{markdown}");
        assert!(markdown.contains("- worthless: value 16 B: lost"));
        let json: serde_json::Value = serde_json::from_str(&told.render(Form::Json).unwrap()).unwrap();
        assert_eq!(json["rows"].as_array().unwrap().len(), 20);
        assert_eq!(json["rows"][0]["dimension"], "values");
        assert_eq!(json["worthless"][0], "value 16 B: lost");
    }
}
