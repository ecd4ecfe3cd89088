//! What is to be known of what sessions showed, beside their figures.
//!
//! Invariant: whatever makes figures worthless is said in a note.

use super::session::Slice;
use crate::ledger::Findings;

/// See the module.
#[derive(Default, Debug)]
pub(super) struct Remarks {
    /// For the table.
    pub(super) notes: Vec<String>,
    /// Whether something went wrong that makes figures worthless.
    pub(super) lost: bool,
}

impl Remarks {
    /// Of a system under a load.
    pub(super) fn of_slice(&mut self, system: &str, load: &str, slice: &Slice) {
        self.lost |= !slice.wrong.is_empty();
        self.notes.extend(slice.wrong.iter().map(|what| format!("{system}: {what}")));
        let warnings = slice.warnings();
        self.notes.extend(warnings.iter().map(|what| format!("{system}, {load}: {what}")));
    }

    /// Of what was read back at the end, if the system keeps anything.
    pub(super) fn of_findings(&mut self, system: &str, findings: Option<&Findings>) {
        let Some(findings) = findings.filter(|findings| findings.lost + findings.foreign > 0) else { return };
        self.lost = true;
        self.notes.push(format!("{system} lost acknowledged writes: {findings:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_does_not_keep_up_is_named_and_one_with_all_but_a_hundredth_is_not() {
        let mut remarks = Remarks::default();
        let open = Slice { offered_per_second: Some(1000.0), ..Slice::default() };
        remarks.of_slice("Mesh", "puts", &Slice { overdue: 0.009, ..open.clone() });
        assert!(remarks.notes.is_empty());
        remarks.of_slice("etcd-3", "puts", &Slice { overdue: 0.02, requests_per_second: 980.0, ..open });
        let expected = "etcd-3, puts: it did not keep up with 1,000 requests/s: it answered 980, and 2.0% of what was due was \
                        never begun";
        assert_eq!(remarks.notes, [expected]);
        assert!(!remarks.lost);
    }

    #[test]
    fn what_went_wrong_or_was_lost_makes_figures_worthless() {
        let mut remarks = Remarks::default();
        remarks.of_findings("echo", None);
        remarks.of_findings("Mesh", Some(&Findings { held: 5, ..Findings::default() }));
        assert!(!remarks.lost && remarks.notes.is_empty());
        remarks.of_findings("Mesh", Some(&Findings { held: 5, lost: 1, ..Findings::default() }));
        assert!(remarks.lost && remarks.notes.len() == 1, "{remarks:?}");
        let mut remarks = Remarks::default();
        let wrong = vec!["7 requests failed".to_owned()];
        remarks.of_slice("Mesh", "puts", &Slice { wrong, ..Slice::default() });
        assert!(remarks.lost && remarks.notes == ["Mesh: 7 requests failed"], "{remarks:?}");
    }
}
