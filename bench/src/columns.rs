//! Cells below heads, aligned for people or as a table of a page. The first column is of names, the others are of figures.

use std::fmt::{self, Write};

/// Lines for people.
///
/// # Errors
/// The page's.
pub(crate) fn write_text(page: &mut String, heads: &[&str], rows: &[Vec<String>]) -> fmt::Result {
    let heads: Vec<_> = heads.iter().map(|&head| head.to_owned()).collect();
    let width = |column: usize| {
        let lines = rows.iter().chain([&heads]);
        lines.filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..heads.len()).map(width).collect();
    for row in [&heads].into_iter().chain(rows) {
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if index == 0 {
                write!(page, "  {cell:<width$}")?;
            } else {
                write!(page, "  {cell:>width$}")?;
            }
        }
        writeln!(page)?;
    }
    Ok(())
}

/// A table in Markdown.
///
/// # Errors
/// The page's.
pub(crate) fn write_markdown(page: &mut String, heads: &[&str], rows: &[Vec<String>]) -> fmt::Result {
    writeln!(page, "| {} |", heads.join(" | "))?;
    writeln!(page, "|---{}|", "|---:".repeat(heads.len().saturating_sub(1)))?;
    rows.iter().try_for_each(|row| writeln!(page, "| {} |", row.join(" | ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_to_the_left_and_figures_to_the_right() {
        let rows = [vec!["long name".to_owned(), "1".to_owned()], vec!["b".to_owned(), "1,000".to_owned()]];
        let (mut text, mut markdown) = (String::new(), String::new());
        write_text(&mut text, &["name", "op/s"], &rows).unwrap();
        write_markdown(&mut markdown, &["name", "op/s"], &rows).unwrap();
        assert_eq!(text, "  name        op/s\n  long name      1\n  b          1,000\n");
        assert_eq!(markdown, "| name | op/s |\n|---|---:|\n| long name | 1 |\n| b | 1,000 |\n");
    }
}
