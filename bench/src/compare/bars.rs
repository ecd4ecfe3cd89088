//! bars
use super::flags::CompareFlags;
use crate::error::{BenchError, Exit};

pub(super) fn run(_flags: &CompareFlags) -> Result<Exit, BenchError> {
    Err(BenchError::Usage("later".into()))
}
