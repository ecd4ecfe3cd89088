//! The fixed header of a frame.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | magic, [`MAGIC`] |
//! | 1 | 1 | frame version, [`FRAME_VERSION`] |
//! | 2 | 1 | kind |
//! | 3 | 1 | flags, 0 |
//! | 4 | 4 | length of the payload in bytes |
//! | 8 | 4 | CRC-32 of the header with this field 0, then the payload |
//! | 12 | 2 | shard, or [`NO_SHARD`] |
//! | 14 | 2 | reserved, 0 |
//! | 16 | 8 | request id |
//! | 24 | 8 | epoch of the slot map |
//!
//! All numbers are little-endian.

use std::fmt;

use mesh_base::bytesio::Reader;
use mesh_base::checksum::crc32;
use mesh_base::{ShardId, SlotEpoch};

use crate::Kind;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 32;
/// The first byte of every frame: neither TLS (0x16) nor ASCII.
pub const MAGIC: u8 = 0xb7;
/// The version of the frame's layout. What the payloads may be is negotiated by the hello instead.
pub const FRAME_VERSION: u8 = 1;
/// The header's shard where there is none.
pub const NO_SHARD: u16 = u16::MAX;

/// Ties an answer to its request; chosen by whoever opened the connection, unique among what it has in flight there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RequestId(pub u64);

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "request-{}", self.0)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a sender puts on the outside of a message.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Envelope {
    /// The request, or the request that is answered; 0 where nothing is to be answered.
    pub request: RequestId,
    /// The shard that the message is for or from, if it is one's.
    pub shard: Option<ShardId>,
    /// The newest slot map that the sender knows; 0 if it knows none.
    pub epoch: SlotEpoch,
}

/// The header of a valid frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the payload is.
    pub kind: Kind,
    /// Bytes of the payload.
    pub length: u32,
    /// The outside of the message.
    pub envelope: Envelope,
}

/// A header as it came: nothing but its length was looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawHeader {
    pub(crate) magic: u8,
    pub(crate) version: u8,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) length: u32,
    pub(crate) checksum: u32,
    pub(crate) shard: u16,
    pub(crate) reserved: u16,
    pub(crate) request: u64,
    pub(crate) epoch: u64,
}

impl RawHeader {
    /// The header of a frame that is to be sent; its checksum is not set yet.
    pub(crate) const fn new(kind: Kind, envelope: &Envelope, length: u32) -> Self {
        Self {
            magic: MAGIC,
            version: FRAME_VERSION,
            kind: kind.to_byte(),
            flags: 0,
            length,
            checksum: 0,
            shard: match envelope.shard {
                Some(shard) => shard.0,
                None => NO_SHARD,
            },
            reserved: 0,
            request: envelope.request.0,
            epoch: envelope.epoch.0,
        }
    }

    /// Reads a header; `None` if there are too few bytes.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        Some(Self {
            magic: reader.u8()?,
            version: reader.u8()?,
            kind: reader.u8()?,
            flags: reader.u8()?,
            length: reader.u32()?,
            checksum: reader.u32()?,
            shard: reader.u16()?,
            reserved: reader.u16()?,
            request: reader.u64()?,
            epoch: reader.u64()?,
        })
    }

    /// The header's bytes.
    pub(crate) const fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [l0, l1, l2, l3] = self.length.to_le_bytes();
        let [c0, c1, c2, c3] = self.checksum.to_le_bytes();
        let [s0, s1] = self.shard.to_le_bytes();
        let [v0, v1] = self.reserved.to_le_bytes();
        let [r0, r1, r2, r3, r4, r5, r6, r7] = self.request.to_le_bytes();
        let [e0, e1, e2, e3, e4, e5, e6, e7] = self.epoch.to_le_bytes();
        #[rustfmt::skip]
        let bytes = [
            self.magic, self.version, self.kind, self.flags,
            l0, l1, l2, l3,
            c0, c1, c2, c3,
            s0, s1, v0, v1,
            r0, r1, r2, r3, r4, r5, r6, r7,
            e0, e1, e2, e3, e4, e5, e6, e7,
        ];
        bytes
    }

    /// The checksum that this header should have with this payload.
    pub(crate) fn checksum_with(mut self, payload: &[u8]) -> u32 {
        self.checksum = 0;
        crc32(&[&self.to_bytes(), payload])
    }

    /// The outside of the message.
    pub(crate) const fn envelope(&self) -> Envelope {
        Envelope {
            request: RequestId(self.request),
            shard: if self.shard == NO_SHARD { None } else { Some(ShardId(self.shard)) },
            epoch: SlotEpoch(self.epoch),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_bytes_of_its_table() {
        let envelope = Envelope {
            request: RequestId(0x1122_3344_5566_7788),
            shard: Some(ShardId(0x0102)),
            epoch: SlotEpoch(0x99aa_bbcc_ddee_ff00),
        };
        let mut header = RawHeader::new(Kind::Put, &envelope, 0x0a0b_0c0d);
        header.checksum = 0xc1c2_c3c4;
        let bytes = header.to_bytes();
        assert_eq!(bytes[0], 0xb7, "magic");
        assert_eq!(bytes[1], 1, "frame version");
        assert_eq!(bytes[2], 18, "kind");
        assert_eq!(bytes[3], 0, "flags");
        assert_eq!(bytes[4..8], [0x0d, 0x0c, 0x0b, 0x0a], "length");
        assert_eq!(bytes[8..12], [0xc4, 0xc3, 0xc2, 0xc1], "checksum");
        assert_eq!(bytes[12..14], [0x02, 0x01], "shard");
        assert_eq!(bytes[14..16], [0, 0], "reserved");
        assert_eq!(bytes[16..24], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11], "request");
        assert_eq!(bytes[24..32], [0x00, 0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99], "epoch");
        assert_eq!(RawHeader::read(&bytes).unwrap().to_bytes(), bytes);
        assert_eq!(RawHeader::read(&bytes).unwrap().envelope(), envelope);
    }

    #[test]
    fn a_frame_of_no_shard_says_so() {
        let header = RawHeader::new(Kind::Hello, &Envelope::default(), 0);
        assert_eq!(header.shard, NO_SHARD);
        assert_eq!(header.envelope(), Envelope::default());
    }
}
