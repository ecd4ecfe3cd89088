//! Why there is no figure, and how the process ends.

use std::fmt;
use std::process::ExitCode;

use crate::target::OpenError;

/// How the process ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// There is a figure.
    Done,
    /// The command line is wrong.
    Usage,
    /// The run had errors that make its figures worthless, or could not be made.
    Worthless,
    /// The system was not reached.
    Unreachable,
    /// A bar does not hold, and whoever asked wanted to know by the exit code.
    BarFails,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::BarFails => 1,
            Exit::Usage => 2,
            Exit::Worthless => 3,
            Exit::Unreachable => 4,
        })
    }
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The command line asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The system was not reached.
    #[error(
        "not reached: {why}; start it (as `mesh-server --node a`), or name it with --endpoints HOST:PORT,..."
    )]
    Unreachable {
        /// What was tried.
        why: String,
    },
    /// The system does not take this client.
    #[error("refused: {why}")]
    Refused {
        /// In whose words.
        why: String,
    },
    /// A thread of the generator could not begin, or failed.
    #[error("no load from processor {cpu}: {reason}; choose others with --cores")]
    Core {
        /// Its processor.
        cpu: usize,
        /// What happened.
        reason: String,
    },
    /// The keys could not all be read or written once.
    #[error("the keys could not be gone through: {why}; see the system's log")]
    Load {
        /// What happened.
        why: String,
    },
    /// A store that is measured without a server failed.
    #[error("{system}: {why}")]
    System {
        /// Which.
        system: &'static str,
        /// In whose words.
        why: String,
    },
    /// What was acknowledged could not be read after the run, or is not there.
    #[error("read back: {why}")]
    Audit {
        /// What happened.
        why: String,
    },
    /// A server that was started here did not do what it should.
    #[error("{program}: {why}")]
    Peer {
        /// Its program.
        program: &'static str,
        /// What happened.
        why: String,
    },
    /// The report cannot be written.
    #[error("stdout: {0}")]
    Output(#[from] std::io::Error),
}

impl BenchError {
    pub(crate) fn core(cpu: usize, reason: &dyn fmt::Display) -> Self {
        Self::Core { cpu, reason: reason.to_string() }
    }

    /// What the host says of something that was asked of it.
    pub(crate) fn host<E: fmt::Display>(what: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::System { system: what, why: error.to_string() }
    }

    /// How the process ends.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Refused { .. }
            | Self::Core { .. }
            | Self::Load { .. }
            | Self::System { .. }
            | Self::Audit { .. }
            | Self::Peer { .. }
            | Self::Output(_) => Exit::Worthless,
        }
    }
}

impl From<OpenError> for BenchError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Later(why) => Self::Unreachable { why },
            OpenError::Refused(why) => Self::Refused { why },
        }
    }
}
