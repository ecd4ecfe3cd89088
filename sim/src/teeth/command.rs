//! The command that measures the checkers.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;
use mesh_base::flaw::Flaw;

use super::table::{json_of, page_with, text_of};
use super::{Plan, measure};
use crate::driver::Run;

/// Plants deliberate bugs, one at a time, and counts the seeds until the checkers find each.
///
/// Exit codes: 0 all were caught, 1 one was not.
#[derive(Clone, PartialEq, Eq, Debug, Args)]
pub struct Arguments {
    /// Seeds within which each flaw must be caught
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub seeds_max: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub start: u64,
    /// Starting points, a thousand seeds apart, of which the median and the worst are told
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub hunts: u64,
    /// How many seeds at a time
    #[arg(long, value_name = "THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub jobs: u16,
    /// This flaw alone; may be given several times
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Flaw::ALL.iter().map(|flaw| flaw.name())))]
    pub flaw: Vec<String>,
    /// From one starting point only: the quick test
    #[arg(long, conflicts_with_all = ["hunts", "write"])]
    pub check: bool,
    /// Print one line of JSON for each flaw
    #[arg(long)]
    pub json: bool,
    /// Put the table of all flaws into this page, between the lines that mark its place
    #[arg(long, value_name = "PAGE", conflicts_with = "flaw")]
    pub write: Option<PathBuf>,
}

/// Measures what the arguments ask for and returns the exit code.
///
/// # Errors
/// What the output reports, and a page that cannot be read or written, or has no place for a table.
pub fn execute(run: &dyn Run, arguments: &Arguments, output: &mut dyn Write) -> io::Result<u8> {
    let plan = Plan {
        start: arguments.start,
        hunts: if arguments.check { 1 } else { arguments.hunts },
        seeds_max: arguments.seeds_max,
        jobs: usize::from(arguments.jobs),
    };
    let is_wanted =
        |flaw: &Flaw| arguments.flaw.is_empty() || arguments.flaw.iter().any(|name| name == flaw.name());
    let mut all = Vec::new();
    for &flaw in Flaw::ALL.iter().filter(|flaw| is_wanted(flaw)) {
        let measured = measure(run, flaw, &plan);
        if arguments.json {
            writeln!(output, "{}", json_of(&measured))?;
        } else {
            writeln!(output, "{}", text_of(&measured))?;
        }
        output.flush()?;
        all.push(measured);
    }
    if let Some(page) = &arguments.write {
        let written = page_with(&fs::read_to_string(page)?, &all);
        let no_place = || io::Error::other(format!("{} has no place for a table", page.display()));
        fs::write(page, written.ok_or_else(no_place)?)?;
    }
    let missed = all.iter().filter(|measured| !measured.is_caught()).count();
    if !arguments.json {
        writeln!(
            output,
            "{} of {} flaws caught, each within {} seeds",
            all.len() - missed,
            all.len(),
            plan.seeds_max
        )?;
    }
    Ok(u8::from(missed > 0))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::tests::Bitten;
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn teeth(line: &[&str]) -> (u8, String) {
        let line = Line::try_parse_from([&["teeth"], line].concat()).unwrap();
        let mut output = Vec::new();
        let code = execute(&Bitten, &line.arguments, &mut output).unwrap();
        (code, String::from_utf8(output).unwrap())
    }

    #[test]
    fn the_exit_code_tells_whether_all_were_caught() {
        let (code, output) = teeth(&["--flaw", "forget-vote", "--seeds-max", "20"]);
        assert_eq!(code, 0, "{output}");
        assert!(output.ends_with("1 of 1 flaws caught, each within 20 seeds\n"), "{output}");
        let (code, output) =
            teeth(&["--flaw", "forget-vote", "--flaw", "read-below-horizon", "--check", "--seeds-max", "20"]);
        assert_eq!(code, 1, "{output}");
        assert!(output.contains("it struck in 0 of them"), "{output}");
    }

    #[test]
    fn a_flaw_that_does_not_exist_is_refused() {
        assert!(Line::try_parse_from(["teeth", "--flaw", "forget-everything"]).is_err());
    }
}
