//! The table for people, and for pages.

use std::fmt::{self, Write};

use super::{Bar, Bound, Row, Table, Unit, Verdict};

/// Lines for people.
pub(super) fn text(table: &Table) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_text(&mut page, table);
    page
}

/// A page of Markdown.
pub(super) fn markdown(table: &Table) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_markdown(&mut page, table);
    page
}

fn write_text(page: &mut String, table: &Table) -> fmt::Result {
    for row in &table.rows {
        writeln!(page, "{}", row.work)?;
        for figure in &row.figures {
            let rounds: Vec<_> = figure.rounds.iter().map(|round| number(row.unit, *round)).collect();
            let median = with_unit(row.unit, figure.median);
            writeln!(page, "  {:<22} {median:>18}   of {}", figure.system, rounds.join(" "))?;
        }
        for bar in &row.bars {
            writeln!(page, "  {}", bar_in_words(bar))?;
        }
        for note in &row.notes {
            writeln!(page, "  ({note})")?;
        }
        writeln!(page)?;
    }
    writeln!(page, "{}", about(table))?;
    table.notes.iter().try_for_each(|note| writeln!(page, "{note}"))
}

fn write_markdown(page: &mut String, table: &Table) -> fmt::Result {
    writeln!(page, "| work | figures (medians) | bars |")?;
    writeln!(page, "|---|---|---|")?;
    for row in &table.rows {
        let figures: Vec<_> = row
            .figures
            .iter()
            .map(|figure| format!("{} {}", figure.system, with_unit(row.unit, figure.median)))
            .collect();
        let bars: Vec<_> = row.bars.iter().map(bar_in_words).collect();
        writeln!(page, "| {} | {} | {} |", row.work, figures.join("<br>"), bars.join("<br>"))?;
    }
    writeln!(page)?;
    let notes =
        |row: &Row| row.notes.iter().map(|note| format!("- {}: {note}", row.work)).collect::<Vec<_>>();
    table.rows.iter().flat_map(notes).try_for_each(|note| writeln!(page, "{note}"))?;
    table.notes.iter().try_for_each(|note| writeln!(page, "- {note}"))?;
    writeln!(page, "\n{} `{}`", about(table), table.command.join(" "))
}

fn about(table: &Table) -> String {
    let machine = &table.machine;
    format!(
        "{} rounds of {} s. {}, {} processors, Linux {}, load average {:.1} before. Version {}.",
        table.rounds,
        table.seconds_of_a_slice,
        machine.cpu,
        machine.processors,
        machine.kernel,
        machine.load_average,
        table.version
    )
}

fn bar_in_words(bar: &Bar) -> String {
    let bound = match bar.bound {
        Bound::AtLeast(least) => format!("at least {least:.2}"),
        Bound::AtMost(most) => format!("at most {most:.2}"),
        Bound::MoreByAtMost(most) => format!("at most {most:.0} more"),
        Bound::Within(most) => format!("at most {most:.0}"),
    };
    let verdict = match bar.verdict {
        Verdict::Holds => "holds",
        Verdict::Fails => "FAILS",
        Verdict::NotMeasured => "not measured",
    };
    match (bar.measured, bar.bound) {
        (Some(more), Bound::MoreByAtMost(_)) => {
            format!("{verdict}: {more:.1} more than {} ({bound})", bar.against)
        }
        (Some(figure), Bound::Within(_)) => format!("{verdict}: {} is {figure:.1} ({bound})", bar.against),
        (Some(ratio), _) => format!("{verdict}: {ratio:.2} of {} ({bound})", bar.against),
        (None, _) => format!("{verdict}: {} ({bound})", bar.against),
    }
}

fn with_unit(unit: Unit, figure: f64) -> String {
    let unit_in_words = match unit {
        Unit::OperationsPerSecond => "/s",
        Unit::BytesPerSecond => "MiB/s",
        Unit::Bytes => "MiB",
        Unit::Microseconds => "us",
        Unit::Milliseconds => "ms",
        Unit::PercentOfProcessor => "% of a processor",
        Unit::Instructions => "instructions",
    };
    let apart = if unit == Unit::OperationsPerSecond { "" } else { " " };
    format!("{}{apart}{unit_in_words}", number(unit, figure))
}

fn number(unit: Unit, figure: f64) -> String {
    const MIB: f64 = 1024.0 * 1024.0;
    let figure = match unit {
        Unit::BytesPerSecond | Unit::Bytes => figure / MIB,
        _ => figure,
    };
    crate::report::text::micros_f64(figure)
}

#[cfg(test)]
mod tests {
    use super::super::Rounds;
    use super::*;
    use crate::machine::Machine;

    fn table() -> Table {
        let mut rounds = Rounds::new("random get", Unit::OperationsPerSecond);
        rounds.add("LMDB", 1_000_000.0);
        rounds.add("Mesh", 1_234_567.0);
        rounds.note("nothing else ran");
        let row = rounds.row().bar(&["LMDB"], Bound::AtLeast(1.0)).bar(&["redb"], Bound::AtLeast(2.0));
        Table {
            version: "1",
            command: vec!["mesh-bench".into(), "engine".into()],
            machine: Machine::look(),
            rounds: 5,
            seconds_of_a_slice: 2.0,
            rows: vec![row],
            notes: vec!["fjall is not built in".into()],
        }
    }

    #[test]
    fn people_see_figures_rounds_and_verdicts() {
        let text = text(&table());
        for words in [
            "random get",
            "1,234,567/s",
            "holds: 1.23 of LMDB (at least 1.00)",
            "not measured: redb (at least 2.00)",
            "(nothing else ran)",
            "fjall is not built in",
        ] {
            assert!(text.contains(words), "`{words}` is not in:\n{text}");
        }
    }

    #[test]
    fn a_page_is_a_table_whose_rows_have_as_many_cells_as_its_head() {
        let page = markdown(&table());
        let rows: Vec<_> = page.lines().filter(|line| line.starts_with('|')).collect();
        assert_eq!(rows.len(), 3, "{page}");
        assert!(rows.iter().all(|row| row.matches('|').count() == 4), "{page}");
    }
}
