//! What clients are sent to do, and what comes of it.

use super::when::{When, when};
use crate::history::{OpId, Outcome};

/// One operation of one client, under way or over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation(pub(super) OpId);

impl Operation {
    /// It took effect, and its client knows.
    #[must_use]
    pub fn acknowledged(self) -> When {
        self.ended("acknowledged", |outcome| !matches!(outcome, Outcome::Unknown | Outcome::NotApplied))
    }

    /// It took no effect and never will, and its client knows.
    #[must_use]
    pub fn not_applied(self) -> When {
        self.ended("not applied", |outcome| outcome == Outcome::NotApplied)
    }

    /// Its client has an answer, or has given up.
    #[must_use]
    pub fn over(self) -> When {
        self.ended("over", |_| true)
    }

    fn ended(self, how: &str, as_wanted: fn(Outcome) -> bool) -> When {
        when(format!("{how}: {:?}", self.0), move |it| {
            it.script.history().get(self.0).response.is_some_and(|response| as_wanted(response.outcome))
        })
    }
}
