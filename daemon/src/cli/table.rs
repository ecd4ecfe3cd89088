//! Tables of words in columns.

use super::terminal::{Colours, Style};

/// A word of a table, and how it looks.
pub(super) struct Word {
    text: String,
    style: Option<Style>,
}

/// A word that looks like any other.
#[allow(clippy::needless_pass_by_value, reason = "words are made where they are needed")]
pub(super) fn plain(text: impl ToString) -> Word {
    Word { text: text.to_string(), style: None }
}

/// A word in a style.
#[allow(clippy::needless_pass_by_value, reason = "words are made where they are needed")]
pub(super) fn styled(style: Style, text: impl ToString) -> Word {
    Word { text: text.to_string(), style: Some(style) }
}

/// Words in columns, the first row being the headings.
pub(super) struct Table {
    rows: Vec<Vec<Word>>,
}

impl Table {
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|heading| styled(Style::Heading, heading)).collect()] }
    }

    pub(super) fn row(&mut self, words: impl IntoIterator<Item = Word>) {
        self.rows.push(words.into_iter().collect());
    }

    /// The lines of the table. Each column is as wide as its widest word, the last as wide as each of its words.
    pub(super) fn lines(&self, colours: Colours) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let words =
                self.rows.iter().filter(|row| row.len() > column + 1).filter_map(|row| row.get(column));
            words.map(|word| word.text.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<_> = (0..columns).map(width).collect();
        self.rows.iter().map(|row| line(row, &widths, colours)).collect()
    }
}

fn line(row: &[Word], widths: &[usize], colours: Colours) -> String {
    let mut line = String::new();
    for (number, (word, width)) in row.iter().zip(widths).enumerate() {
        match word.style {
            Some(style) => line.push_str(&colours.paint(style, &word.text).to_string()),
            None => line.push_str(&word.text),
        }
        if number + 1 < row.len() {
            let gap = width.saturating_sub(word.text.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', gap));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_word() {
        let mut table = Table::new(&["NODE", "STATE"]);
        table.row([plain("a"), plain("fine")]);
        table.row([plain("much-longer"), styled(Style::Bad, "damaged")]);
        assert_eq!(
            table.lines(Colours::Off),
            ["NODE         STATE", "a            fine", "much-longer  damaged"]
        );
        assert!(table.lines(Colours::On).iter().any(|line| line.ends_with("\u{1b}[31mdamaged\u{1b}[0m")));
    }
}
