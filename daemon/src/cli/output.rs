//! What goes to stdout and stderr.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};

use serde::Serialize;

use super::error::{CliError, Exit};
use super::terminal::{Colours, Style};

/// For whom the output is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// People.
    Text,
    /// Programs.
    Json,
}

/// Stdout and stderr.
pub(super) struct Output {
    format: Format,
    stdout: BufWriter<Stdout>,
}

/// What is told of an error to programs.
#[derive(Serialize)]
struct Failure<'a> {
    error: &'a str,
    message: String,
}

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format, stdout: BufWriter::new(io::stdout()) }
    }

    /// For whom the output is.
    pub(super) const fn format(&self) -> Format {
        self.format
    }

    /// Whether to use colours on stdout.
    pub(super) fn colours(&self) -> Colours {
        Colours::of(self.stdout.get_ref())
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.stdout.write_all(bytes).map_err(CliError::io("stdout"))
    }

    /// Writes a line for people.
    pub(super) fn line(&mut self, line: impl fmt::Display) -> Result<(), CliError> {
        writeln!(self.stdout, "{line}").map_err(CliError::io("stdout"))
    }

    /// Writes a document for programs, in a line of its own.
    pub(super) fn document(&mut self, document: &impl Serialize) -> Result<(), CliError> {
        let written = serde_json::to_writer(&mut self.stdout, document);
        written.map_err(|error| CliError::io("stdout")(error.into()))?;
        self.line("")
    }

    /// Lets go of what was written.
    pub(super) fn flush(&mut self) -> Result<(), CliError> {
        self.stdout.flush().map_err(CliError::io("stdout"))
    }

    /// A note for people, on stderr; nothing if the output is for programs.
    pub(super) fn note(&mut self, note: impl fmt::Display) {
        if self.format == Format::Text {
            // Who closes stderr does not want notes.
            let _ = self.stdout.flush();
            let _ = writeln!(io::stderr(), "{note}");
        }
    }

    /// A note that helps only who types.
    pub(super) fn hint(&mut self, hint: impl fmt::Display) {
        if io::stderr().is_terminal() {
            self.note(hint);
        }
    }

    /// How far something is, on a terminal, in a line that the next one takes; nothing takes it away.
    pub(super) fn progress(&mut self, progress: impl fmt::Display) {
        if self.format == Format::Text && io::stderr().is_terminal() {
            // To the start of the line, and clear it.
            let _ = write!(io::stderr(), "\r\x1b[K{progress}");
        }
    }

    /// Tells an error.
    pub(super) fn fail(&mut self, error: &CliError) -> Exit {
        if let CliError::Io { what: "stdout", source } = error
            && source.kind() == io::ErrorKind::BrokenPipe
        {
            // Whoever reads has enough.
            return Exit::Done;
        }
        let _ = self.stdout.flush();
        let mut stderr = io::stderr();
        let told = match self.format {
            Format::Text => {
                let word = Colours::of(&stderr);
                let word = word.paint(Style::Bad, "error:");
                writeln!(stderr, "{word} {error}")
            }
            Format::Json => {
                let failure = Failure { error: error.name(), message: error.to_string() };
                serde_json::to_writer(&mut stderr, &failure)
                    .map_err(Into::into)
                    .and_then(|()| writeln!(stderr))
            }
        };
        // If stderr is closed as well, the exit code is all that is left to say.
        drop(told);
        error.exit()
    }
}
