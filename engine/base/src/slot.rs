//! From key to slot: CRC-16/XMODEM of the key or of its tag, as Redis Cluster does it.

use crate::SlotNo;

/// Slots of the keyspace.
pub const SLOTS: u16 = 16_384;

/// The slot of a key. Keys with the same tag, the bytes inside the first `{...}` if there are any, share a slot.
#[must_use]
pub fn slot_of(key: &[u8]) -> SlotNo {
    SlotNo(crc16(tag(key)) % SLOTS)
}

/// The part of a key that decides its slot.
#[must_use]
pub fn tag(key: &[u8]) -> &[u8] {
    let inside =
        key.iter().position(|&byte| byte == b'{').and_then(|open| key.get(open + 1..)).unwrap_or_default();
    match inside.iter().position(|&byte| byte == b'}') {
        Some(length) if length > 0 => inside.get(..length).unwrap_or(key),
        _ => key,
    }
}

#[allow(clippy::indexing_slicing, reason = "a byte indexes a table of 256; const evaluation has no get")]
const CRC16: [u16; 256] = {
    let mut table = [0_u16; 256];
    let mut byte = 0_u16;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
};

#[allow(clippy::indexing_slicing, reason = "a byte indexes a table of 256")]
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ CRC16[usize::from((crc >> 8) ^ u16::from(byte))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), SlotNo(12_182));
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(tag(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(tag(b"{"), b"{");
        assert_eq!(tag(b"a{b"), b"a{b");
    }
}
