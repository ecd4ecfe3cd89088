//! Checksums: CRC-32 for frames and log batches, XXH3-64 for pages and extents.

/// The algorithms that files may name. Zero is no algorithm, so that zeroed space names none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ChecksumAlgorithm {
    /// CRC-32 (IEEE 802.3).
    Crc32 = 1,
    /// XXH3, 64 bits, seed 0.
    Xxh3 = 2,
}

impl ChecksumAlgorithm {
    /// The algorithm of a stored byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Crc32),
            2 => Some(Self::Xxh3),
            _ => None,
        }
    }
}

/// CRC-32 (IEEE) of the parts as if they were one.
#[must_use]
pub fn crc32(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// XXH3-64 of the bytes.
#[must_use]
pub fn xxh3(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_have_their_published_values() {
        assert_eq!(crc32(&[b"1234", b"56789"]), 0xcbf4_3926);
        assert_eq!(xxh3(b""), 0x2d06_8005_38d3_94c2);
    }
}
