//! Why a message cannot be sent, or what was received is none.

use mesh_base::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::{Error, Kind};

/// Why a message cannot be sent, or what was received is none. Decoding and encoding keep the same rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// The payload is no FlatBuffer of its kind's table.
    #[error("the payload of {kind} is not valid: {what}")]
    Invalid {
        /// The frame's kind.
        kind: Kind,
        /// What is wrong.
        what: &'static str,
    },
    /// The frame is valid and out of place: not a request, an answer or a peer's message, as was expected.
    #[error("{kind} is out of place here")]
    UnexpectedKind {
        /// The frame's kind.
        kind: Kind,
    },
    /// A key has no bytes.
    #[error("a key is empty")]
    EmptyKey,
    /// Something is longer, or there are more of it, than there may be.
    #[error("{what}: {actual} is more than {limit}")]
    TooLarge {
        /// What is measured.
        what: &'static str,
        /// The most that may be.
        limit: usize,
        /// What is.
        actual: usize,
    },
    /// A field has a value that it cannot have.
    #[error("{what} is not valid")]
    Malformed {
        /// The field.
        what: &'static str,
    },
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Invalid { kind, what } => Self::Malformed { what: format!("{kind}: {what}").into() },
            WireError::UnexpectedKind { kind } => {
                Self::Malformed { what: format!("{kind} is out of place here").into() }
            }
            WireError::EmptyKey => Self::EmptyKey,
            WireError::TooLarge { what, limit, actual } => {
                Self::TooLarge { what: what.into(), limit: limit as u64, actual: actual as u64 }
            }
            WireError::Malformed { what } => Self::Malformed { what: what.into() },
        }
    }
}

/// A client's key: not empty, not too long.
pub(crate) const fn key(key: &[u8]) -> Result<(), WireError> {
    if key.is_empty() {
        return Err(WireError::EmptyKey);
    }
    at_most("key bytes", key.len(), KEY_BYTES_MAX)
}

/// A client's value: not too long.
pub(crate) const fn value(value: &[u8]) -> Result<(), WireError> {
    at_most("value bytes", value.len(), VALUE_BYTES_MAX)
}

/// A length or a count that has a limit.
pub(crate) const fn at_most(what: &'static str, actual: usize, limit: usize) -> Result<(), WireError> {
    if actual > limit { Err(WireError::TooLarge { what, limit, actual }) } else { Ok(()) }
}

/// Anything else that must hold of a field, or else the enclosing function returns [`WireError::Malformed`].
macro_rules! ensure {
    ($condition:expr, $what:literal) => {
        if !$condition {
            return Err($crate::WireError::Malformed { what: $what });
        }
    };
}

pub(crate) use ensure;
