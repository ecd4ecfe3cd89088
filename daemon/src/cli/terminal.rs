//! What is different when a person looks on.

use std::fmt;
use std::io::IsTerminal;

/// How a word is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    Heading,
    Good,
    Bad,
    Dim,
}

/// Whether to use colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Colours {
    On,
    Off,
}

impl Colours {
    /// On if this is a terminal and `NO_COLOR` is not set.
    pub(super) fn of(stream: &impl IsTerminal) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stream.is_terminal() && !refused { Self::On } else { Self::Off }
    }

    /// A text in a style.
    pub(super) fn paint<'t>(self, style: Style, text: &'t str) -> impl fmt::Display + 't {
        let code = match style {
            Style::Heading => "1",
            Style::Good => "32",
            Style::Bad => "31",
            Style::Dim => "2",
        };
        fmt::from_fn(move |f| match self {
            Self::On => write!(f, "\x1b[{code}m{text}\x1b[0m"),
            Self::Off => f.write_str(text),
        })
    }
}
