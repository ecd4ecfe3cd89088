//! What the program says of its workings, on stderr: the events of all its parts.

use std::io;
use std::str::FromStr;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::LogFlags;
use super::terminal::Colours;

/// Which events are told: of everything, and of parts by name.
#[derive(Clone, Debug)]
pub(super) struct LogFilter(Targets);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |word: &str| {
            format!(
                "`{word}` is not a level: write off, error, warn, info, debug or trace, or parts with theirs, as \
                 warn,mesh_server::host=debug"
            )
        };
        let mut targets = Targets::new();
        for directive in text.split(',').map(str::trim) {
            let (part, word) = directive.split_once('=').map_or((None, directive), |(p, w)| (Some(p), w));
            // Numbers would be levels too, and no one remembers in which order.
            let level = Some(word).filter(|word| word.starts_with(char::is_alphabetic));
            let level: LevelFilter =
                level.and_then(|word| word.parse().ok()).ok_or_else(|| wrong(directive))?;
            targets = match part {
                Some("") => return Err(wrong(directive)),
                Some(part) => targets.with_target(part, level),
                None => targets.with_default(level),
            };
        }
        Ok(Self(targets))
    }
}

impl From<Level> for LogFilter {
    fn from(level: Level) -> Self {
        Self(Targets::new().with_default(level))
    }
}

/// Tells events on stderr from now on: those asked for, or those of a level.
pub(super) fn log_to_stderr(flags: &LogFlags, unless_asked: Level) {
    let LogFilter(filter) = flags.log.clone().unwrap_or_else(|| unless_asked.into());
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = if flags.log_json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.with_ansi(Colours::of(&io::stderr()) == Colours::On).boxed()
    };
    // In a test somebody else may have begun to.
    let _ = tracing_subscriber::registry().with(lines.with_filter(filter)).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_and_levels_of_parts() {
        let LogFilter(filter) = "warn,mesh_server::host=debug".parse().unwrap();
        assert!(filter.would_enable("mesh_server::host::net", &Level::DEBUG));
        assert!(filter.would_enable("mesh_client", &Level::WARN));
        assert!(!filter.would_enable("mesh_client", &Level::INFO));
        let LogFilter(nothing) = "off".parse().unwrap();
        assert!(!nothing.would_enable("mesh_server", &Level::ERROR));
    }

    #[test]
    fn what_is_no_level_is_refused_by_name() {
        for text in ["", "verbose", "info,", "a=b", "=info", "3", "mesh_server"] {
            assert!(text.parse::<LogFilter>().unwrap_err().contains("is not a level"), "{text}");
        }
    }
}
