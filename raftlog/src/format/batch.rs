//! A batch: what one append writes, taken whole or not at all.
//!
//! Invariants:
//! - A batch starts on a sector. Its header has a checksum of its own, so that a header whose payload was torn can
//!   still testify what was durable when it was written.
//! - The magic, the two checksums and the versions keep their places in every version of the format.

use bytes::Bytes;
use mesh_base::BatchSeq;
use mesh_base::bytesio::{Reader, Writer};
use mesh_base::checksum::{ChecksumAlgorithm, crc32};
use mesh_base::limits::SECTOR_BYTES;

use super::{CODEC_NONE, Encoding, FORMAT_VERSION, KEY_NONE, READER_VERSION_MIN, TAG_BYTES};

/// Bytes of a batch header.
pub(crate) const BATCH_HEADER_BYTES: usize = 80;

const MAGIC: u32 = u32::from_le_bytes(*b"MLB\xb1");
/// Where the checksums are: after magic, two versions, checksum algorithm and codec.
const CRCS_AT: usize = 8;
const RESERVED_BYTES: usize = 8;

const _: () = {
    let before_crcs = 4 + 4;
    let numbers = 4 + 4 + 8 + 8 + 8 + 4 + 4 + 4 + 4;
    assert!(before_crcs == CRCS_AT);
    assert!(before_crcs + numbers + TAG_BYTES + RESERVED_BYTES == BATCH_HEADER_BYTES);
    assert!(BATCH_HEADER_BYTES < 512, "a header lies in one physical sector");
};

/// The header of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BatchHeader {
    pub(crate) encoding: Encoding,
    /// CRC-32 of header and payload.
    pub(crate) crc: u32,
    /// The salt of the segment it was written to.
    pub(crate) salt: u64,
    pub(crate) seq: BatchSeq,
    /// Every batch up to here was durable when this one was written.
    pub(crate) durable_through: BatchSeq,
    /// CRC-32 of the batch before it.
    pub(crate) prev_crc: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) records: u32,
}

/// What a batch is sealed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seal {
    pub(crate) salt: u64,
    pub(crate) seq: BatchSeq,
    pub(crate) durable_through: BatchSeq,
    pub(crate) prev_crc: u32,
    pub(crate) records: u32,
}

/// Whole sectors that a payload of so many bytes takes with its header, in bytes.
pub(crate) const fn batch_bytes(payload_bytes: usize) -> usize {
    (BATCH_HEADER_BYTES + payload_bytes).next_multiple_of(SECTOR_BYTES)
}

/// Completes a buffer of [`BATCH_HEADER_BYTES`] bytes of room and the payload into the bytes to write, and answers its
/// CRC too.
pub(crate) fn seal(mut buffer: Vec<u8>, seal: Seal) -> (Bytes, u32) {
    assert!(seal.durable_through < seal.seq, "a batch cannot testify for itself");
    let length = buffer.len();
    let (room, payload) = buffer.split_at_mut(BATCH_HEADER_BYTES);
    let (before, after) = header_parts(&seal, u32::try_from(payload.len()).unwrap_or(u32::MAX));
    let header_crc = crc32(&[&before, &[0; 8], &after]).to_le_bytes();
    let crc = crc32(&[&before, &header_crc, &[0; 4], &after, payload]);
    room.copy_from_slice(&[&before, &header_crc[..], &crc.to_le_bytes(), &after].concat());
    buffer.resize(length.next_multiple_of(SECTOR_BYTES), 0);
    (buffer.into(), crc)
}

/// The header's bytes before and after its two checksums.
fn header_parts(seal: &Seal, payload_bytes: u32) -> (Vec<u8>, Vec<u8>) {
    assert!(payload_bytes < u32::MAX, "a batch fits a segment");
    let mut before = Vec::with_capacity(CRCS_AT);
    before.put_u32(MAGIC);
    before.put_u8(narrow(FORMAT_VERSION));
    before.put_u8(narrow(READER_VERSION_MIN));
    before.put_u8(ChecksumAlgorithm::Crc32 as u8);
    before.put_u8(CODEC_NONE);
    let mut after = Vec::with_capacity(BATCH_HEADER_BYTES - CRCS_AT - 8);
    after.put_u64(seal.salt);
    after.put_u64(seal.seq.get());
    after.put_u64(seal.durable_through.get());
    after.put_u32(seal.prev_crc);
    after.put_u32(payload_bytes);
    after.put_u32(seal.records);
    after.put_u32(KEY_NONE);
    after.put_bytes(&[0; TAG_BYTES]);
    after.put_bytes(&[0; RESERVED_BYTES]);
    (before, after)
}

/// A format version in the byte a batch has for it.
fn narrow(version: u16) -> u8 {
    u8::try_from(version).unwrap_or(u8::MAX)
}

impl BatchHeader {
    /// The header at the front of the bytes, if there is one whose own checksum is right.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<BATCH_HEADER_BYTES>()?;
        let mut fields = Reader::new(header);
        if fields.u32()? != MAGIC {
            return None;
        }
        let _version = fields.u8()?;
        let (reader_version_min, checksum, codec) = (u16::from(fields.u8()?), fields.u8()?, fields.u8()?);
        let (header_crc, crc) = (fields.u32()?, fields.u32()?);
        if header_crc != crc32(&[header.get(..CRCS_AT)?, &[0; 8], fields.rest()]) {
            return None;
        }
        let (salt, seq, durable_through) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let (prev_crc, payload_bytes, records) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let encoding = Encoding { reader_version_min, checksum, codec, key: fields.u32()? };
        Some(Self {
            encoding,
            crc,
            salt,
            seq: BatchSeq(seq),
            durable_through: BatchSeq(durable_through),
            prev_crc,
            payload_bytes,
            records,
        })
    }

    /// Bytes of the batch on disk: header, payload, padding.
    pub(crate) const fn batch_bytes(&self) -> usize {
        batch_bytes(self.payload_bytes as usize)
    }

    /// The payload of this header's batch, if the bytes hold all of it and its checksum is right.
    pub(crate) fn payload<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let (header, rest) = bytes.split_first_chunk::<BATCH_HEADER_BYTES>()?;
        let payload = rest.get(..self.payload_bytes as usize)?;
        let crc = crc32(&[header.get(..CRCS_AT + 4)?, &[0; 4], header.get(CRCS_AT + 8..)?, payload]);
        (crc == self.crc).then_some(payload)
    }
}

/// Whether the bytes start like a batch of the segment with this salt, whole or not: what was begun there.
pub(crate) fn resembles_batch(bytes: &[u8], salt: u64) -> bool {
    let mut fields = Reader::new(bytes);
    fields.u32() == Some(MAGIC) && fields.bytes(12).is_some() && fields.u64() == Some(salt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(payload: &[u8]) -> (Bytes, u32) {
        let mut buffer = vec![0; BATCH_HEADER_BYTES];
        buffer.put_bytes(payload);
        let fields = Seal {
            salt: 7,
            seq: BatchSeq(9),
            durable_through: BatchSeq(8),
            prev_crc: 0xdead_beef,
            records: 2,
        };
        seal(buffer, fields)
    }

    #[test]
    fn a_batch_is_read_as_it_was_sealed() {
        let (bytes, crc) = sealed(b"payload");
        assert_eq!(bytes.len(), SECTOR_BYTES);
        let header = BatchHeader::decode(&bytes).unwrap();
        assert_eq!((header.crc, header.salt, header.records), (crc, 7, 2));
        assert_eq!((header.seq, header.durable_through), (BatchSeq(9), BatchSeq(8)));
        assert_eq!((header.prev_crc, header.batch_bytes()), (0xdead_beef, SECTOR_BYTES));
        assert_eq!(header.encoding.foreign(), None);
        assert_eq!(header.payload(&bytes), Some(&b"payload"[..]));
        assert!(resembles_batch(&bytes, 7) && !resembles_batch(&bytes, 8));
    }

    #[test]
    fn every_flipped_bit_of_header_or_payload_is_noticed() {
        let (bytes, _) = sealed(b"some payload");
        for at in 0..BATCH_HEADER_BYTES + 12 {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 1 << (at % 8);
            let intact =
                BatchHeader::decode(&damaged).is_some_and(|header| header.payload(&damaged).is_some());
            assert!(!intact, "byte {at}");
        }
    }

    #[test]
    fn a_header_testifies_though_its_payload_was_torn() {
        let (bytes, _) = sealed(&[5; 6000]);
        let mut torn = bytes.to_vec();
        torn[4096..].fill(0);
        let header = BatchHeader::decode(&torn).unwrap();
        assert_eq!((header.durable_through, header.payload(&torn)), (BatchSeq(8), None));
    }
}
