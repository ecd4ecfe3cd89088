//! The sizes and bounds of a log.

use mesh_base::limits::SECTOR_BYTES;
use mesh_base::{Revision, limits};
use raft::eraftpb::Entry;

use crate::format::batch::BATCH_HEADER_BYTES;

/// The sizes and bounds of a log. The default is the product's; tests make everything small.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Bytes of a segment file.
    pub segment_bytes: u64,
    /// Bytes zeroed ahead of the append position.
    pub zero_ahead_bytes: u64,
    /// Batch writes in flight at a time.
    pub writes_in_flight_max: usize,
    /// Payload bytes of a batch, a lone record aside.
    pub batch_bytes_soft_max: usize,
    /// Bytes of segments kept behind the checkpoint.
    pub retained_bytes: u64,
    /// Segments kept for reuse.
    pub spare_segments_max: usize,
    /// Bytes of one read of a recovery.
    pub read_bytes: usize,
    /// Bytes of one read of old entries, its first batch aside.
    pub fetch_bytes_max: usize,
    /// Bytes of old entries that were read and not used yet, the newest read aside.
    pub fetched_bytes_max: usize,
    /// The newest revision that an entry assigns, or zero: for the footers of segments. What entries mean is the owner's.
    pub revision_of: fn(&Entry) -> Revision,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: limits::SEGMENT_BYTES as u64,
            zero_ahead_bytes: limits::SEGMENT_ZERO_AHEAD_BYTES as u64,
            writes_in_flight_max: limits::LOG_WRITES_IN_FLIGHT_MAX,
            batch_bytes_soft_max: limits::LOG_BATCH_BYTES_SOFT_MAX,
            retained_bytes: limits::LOG_RETAINED_BYTES,
            spare_segments_max: limits::LOG_SPARE_SEGMENTS_MAX,
            read_bytes: limits::LOG_READ_BYTES,
            fetch_bytes_max: limits::LOG_FETCH_BYTES_MAX,
            fetched_bytes_max: limits::LOG_FETCHED_BYTES_MAX,
            revision_of: |_| Revision::ZERO,
        }
    }
}

impl LogOptions {
    /// Bytes at the end of a segment that only batches without entries may use.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        let eighth = self.segment_bytes / 8 / SECTOR_BYTES as u64 * SECTOR_BYTES as u64;
        eighth.clamp(SECTOR_BYTES as u64, limits::LOG_RESERVE_BYTES as u64)
    }

    /// Bytes of a segment that batches with entries may use: all but the header and the reserve.
    #[must_use]
    pub fn entry_area_bytes(&self) -> u64 {
        self.segment_bytes - SECTOR_BYTES as u64 - self.reserve_bytes()
    }

    /// Bytes of the small segment that a recovery makes do with when the disk has no room for a whole one: a header
    /// and the reserve.
    #[must_use]
    pub(crate) fn small_segment_bytes(&self) -> u64 {
        SECTOR_BYTES as u64 + self.reserve_bytes()
    }

    /// Most bytes that one entry's record may have.
    #[must_use]
    pub fn entry_record_bytes_max(&self) -> usize {
        usize::try_from(self.entry_area_bytes()).unwrap_or(usize::MAX).saturating_sub(BATCH_HEADER_BYTES)
    }

    /// Asserts the relations that must hold between the sizes.
    pub(crate) fn assert_consistent(&self) {
        let sector = SECTOR_BYTES as u64;
        assert!(self.segment_bytes.is_multiple_of(sector) && self.segment_bytes >= 8 * sector);
        assert!(u32::try_from(self.segment_bytes).is_ok(), "payload lengths are 32 bits");
        assert!(self.zero_ahead_bytes.is_multiple_of(sector));
        assert!(self.writes_in_flight_max > 0 && self.spare_segments_max > 0);
        assert!(self.read_bytes.is_multiple_of(SECTOR_BYTES) && self.read_bytes > 0);
        assert!(self.batch_bytes_soft_max <= self.entry_record_bytes_max());
    }
}
