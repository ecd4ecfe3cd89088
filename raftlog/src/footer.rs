//! The footer of a segment: what its batches hold, in a few words, for those who look for a change by its revision and
//! for those who keep segments elsewhere.
//!
//! A segment's footer stands in the header of its successor: so it costs no write of its own, and there is one exactly
//! when the segment is complete. A recovery compares it with what it walked.

use mesh_base::Revision;
use mesh_base::checksum::xxh3;

/// The revisions of the changes in a segment: each lies between these, both included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RevisionRange {
    /// The newest revision of the entry with the least one.
    pub least: Revision,
    /// The newest revision of all.
    pub greatest: Revision,
}

impl RevisionRange {
    /// Takes in the newest revision of one more entry; zero is none.
    pub(crate) fn widen(range: &mut Option<Self>, revision: Revision) {
        if revision > Revision::ZERO {
            let before = range.unwrap_or(Self { least: revision, greatest: revision });
            *range =
                Some(Self { least: before.least.min(revision), greatest: before.greatest.max(revision) });
        }
    }
}

/// What the batches of a segment hold, dead entries included.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Footer {
    /// None if no entry has a revision.
    pub(crate) revisions: Option<RevisionRange>,
    /// XXH3 over each batch, chained: of the digest so far and the XXH3 of the batch's bytes, padding excluded.
    pub(crate) digest: u64,
}

impl Footer {
    /// Takes in the next batch.
    pub(crate) fn add(&mut self, batch: &[u8], revisions: Option<RevisionRange>) {
        if let Some(range) = revisions {
            RevisionRange::widen(&mut self.revisions, range.least);
            RevisionRange::widen(&mut self.revisions, range.greatest);
        }
        let mut chain = [0; 16];
        chain[..8].copy_from_slice(&self.digest.to_le_bytes());
        chain[8..].copy_from_slice(&xxh3(batch).to_le_bytes());
        self.digest = xxh3(&chain);
    }
}
