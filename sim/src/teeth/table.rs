//! What hunts found, for a terminal, for a page and for a program.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{End, Measured};

/// Between these two lines of a page is its table.
const BEGIN: &str = "<!-- teeth: written by `mesh-sim teeth --write` -->";
const END: &str = "<!-- teeth: end -->";

/// One line for each flaw, and more for what was not caught.
pub(super) fn text_of(measured: &Measured) -> String {
    let (median, most) = measured.seeds();
    let (name, took) = (measured.flaw.name(), measured.took.as_secs_f64());
    let verdict = if measured.is_caught() { "caught" } else { "MISSED" };
    let mut text = format!("{name:<26} {verdict}  {median:>4} {most:>4} seeds {took:>7.1} s");
    for by in measured.caught_by() {
        _ = write!(text, "\n    {by}");
    }
    for (seeds, end) in &measured.hunts {
        match end {
            End::Caught { .. } => {}
            End::Missed { struck } => {
                _ = write!(text, "\n    not caught by {seeds} seeds; it struck in {struck} of them");
            }
            End::FailsAnyway { seed, by } => {
                _ = write!(text, "\n    seed {seed} fails, and the flaw is not to blame: {by}");
            }
        }
    }
    text
}

/// The same for a program.
pub(super) fn json_of(measured: &Measured) -> Value {
    let hunts: Vec<Value> = measured
        .hunts
        .iter()
        .map(|(seeds, end)| match end {
            End::Caught { seed, by } => json!({ "seeds": seeds, "caught_at": seed, "by": by }),
            End::Missed { struck } => json!({ "seeds": seeds, "struck": struck }),
            End::FailsAnyway { seed, by } => {
                json!({ "seeds": seeds, "fails_without_it_at": seed, "by": by })
            }
        })
        .collect();
    let (median, most) = measured.seeds();
    json!({
        "flaw": measured.flaw.name(),
        "what": measured.flaw.what(),
        "caught": measured.is_caught(),
        "seeds_median": median,
        "seeds_most": most,
        "seconds": measured.took.as_secs_f64(),
        "hunts": hunts,
    })
}

/// The table of a page.
fn markdown_of(all: &[Measured]) -> String {
    let mut text =
        String::from("| flaw | what goes wrong | caught by | seeds: median, most |\n|---|---|---|---|\n");
    for measured in all {
        let by: Vec<String> = measured.caught_by().iter().map(|by| by.replace('|', "\\|")).collect();
        let (median, most) = measured.seeds();
        let seeds = if measured.is_caught() { format!("{median}, {most}") } else { "not caught".to_owned() };
        let (name, what) = (measured.flaw.name(), measured.flaw.what());
        _ = writeln!(text, "| `{name}` | {what} | {} | {seeds} |", by.join("; "));
    }
    text
}

/// A page with its table replaced; nothing if it has no place for one.
pub(super) fn page_with(page: &str, all: &[Measured]) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}{END}{after}", markdown_of(all)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_base::flaw::Flaw;

    use super::*;

    fn measured(ends: &[(u64, End)]) -> Measured {
        Measured { flaw: Flaw::ForgetVote, hunts: ends.to_vec(), took: Duration::from_millis(1500) }
    }

    fn caught(seed: u64, by: &str) -> End {
        End::Caught { seed, by: by.to_owned() }
    }

    #[test]
    fn the_table_of_a_page_is_replaced_and_the_rest_is_left() {
        let all = [measured(&[(3, caught(3, "a|b")), (9, caught(1009, "c")), (1, caught(2001, "c"))])];
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let what = Flaw::ForgetVote.what();
        let row = format!("| `forget-vote` | {what} | c; a\\|b | 3, 9 |\n");
        let written = page_with(&page, &all).unwrap();
        assert!(written.starts_with(&format!("above\n{BEGIN}\n| flaw |")), "{written}");
        assert!(written.ends_with(&format!("{row}{END}\nbelow\n")), "{written}");
        assert_eq!(page_with(&written, &all).as_deref(), Some(written.as_str()));
        assert_eq!(page_with("no place", &all), None);
    }

    #[test]
    fn what_was_missed_is_told_first() {
        let one = measured(&[(3, caught(3, "a")), (100, End::Missed { struck: 40 })]);
        let text = text_of(&one);
        assert!(text.starts_with("forget-vote                MISSED   100  100 seeds     1.5 s\n"), "{text}");
        assert!(text.ends_with("not caught by 100 seeds; it struck in 40 of them"), "{text}");
        assert_eq!(json_of(&one)["caught"], false);
    }
}
