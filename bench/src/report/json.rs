//! The report for programs.

use std::io;

use super::Report;

/// One document, in one line.
///
/// # Errors
/// None that the report's form permits.
pub(crate) fn render(report: &Report) -> io::Result<String> {
    let mut document = serde_json::to_string(report)?;
    document.push('\n');
    Ok(document)
}
