//! What can be told of a segment from its bytes alone, for tools and for tests that damage it.
//!
//! Deliberately absent: anything that a recovery relies on; it reads as little as it can, in its own way.

use mesh_base::BatchSeq;
use mesh_base::limits::SECTOR_BYTES;

use crate::format::batch::{BatchHeader, batch_bytes};
use crate::format::segment::SegmentHeader;

/// Up to where, in bytes, every batch of a segment is said to be durable by a later one in it: damage before there cannot
/// be taken for the traces of a crash. Nothing where the segment's header is not intact.
#[must_use]
pub fn proven_bytes(segment: &[u8]) -> Option<u64> {
    let header = SegmentHeader::decode(segment.get(..SECTOR_BYTES)?)?;
    let (mut at, mut durable_through) = (SECTOR_BYTES, header.cut.seq);
    let mut ends: Vec<(BatchSeq, usize)> = vec![(header.cut.seq, at)];
    while let Some(batch) = segment.get(at..).and_then(BatchHeader::decode) {
        if batch.salt != header.salt {
            break;
        }
        durable_through = durable_through.max(batch.durable_through);
        at += batch_bytes(usize::try_from(batch.payload_bytes).ok()?);
        ends.push((batch.seq, at));
    }
    let proven = ends.into_iter().take_while(|(seq, _)| *seq <= durable_through).last();
    proven.map(|(_, end)| end as u64)
}
