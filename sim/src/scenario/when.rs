//! What a story waits for.

use std::fmt;

use super::Stage;

/// Something that is so, or is not yet.
pub struct When {
    what: String,
    holds: Box<dyn Fn(&Stage<'_>) -> bool>,
}

/// What holds exactly when the closure says so; `what` is shown when it is waited for in vain.
pub fn when(what: impl Into<String>, holds: impl Fn(&Stage<'_>) -> bool + 'static) -> When {
    When { what: what.into(), holds: Box::new(holds) }
}

impl When {
    /// This and the other.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let what = format!("{self} and {other}");
        when(what, move |stage| self.holds(stage) && other.holds(stage))
    }

    /// This or the other.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let what = format!("{self} or {other}");
        when(what, move |stage| self.holds(stage) || other.holds(stage))
    }

    pub(super) fn holds(&self, stage: &Stage<'_>) -> bool {
        (self.holds)(stage)
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl fmt::Debug for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("When").field(&self.what).finish()
    }
}
