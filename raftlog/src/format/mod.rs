//! What the log looks like on disk: segment headers, batches, records. FORMAT.md has the byte tables.
//!
//! Everything here is a function from bytes to values or back; what valid bytes in a certain place mean is the business
//! of recovery.

pub(crate) mod batch;
pub(crate) mod record;
pub(crate) mod segment;

/// The version of the format that is written.
pub(crate) const FORMAT_VERSION: u16 = 1;
/// The least version of a reader that understands what is written.
pub(crate) const READER_VERSION_MIN: u16 = 1;
/// The codec byte of uncompressed bytes, the only one so far.
pub(crate) const CODEC_NONE: u8 = 0;
/// The key id of what is not encrypted, the only one so far.
pub(crate) const KEY_NONE: u32 = 0;
/// Room for an authentication tag, in bytes.
pub(crate) const TAG_BYTES: usize = 16;

/// Why intact bytes cannot be used by this version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Foreign {
    /// They need a reader of this version.
    Newer {
        /// The least version of a reader.
        needs: u16,
    },
    /// They name an algorithm or key that is not known.
    Unknown {
        /// What is not known.
        what: &'static str,
        /// Its value.
        value: u64,
    },
}

/// How bytes are to be read: the fields that every structure has for what later versions bring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Encoding {
    pub(crate) reader_version_min: u16,
    pub(crate) checksum: u8,
    pub(crate) codec: u8,
    pub(crate) key: u32,
}

impl Encoding {
    /// What this version cannot read of it, if anything.
    pub(crate) fn foreign(self) -> Option<Foreign> {
        if self.reader_version_min > FORMAT_VERSION {
            return Some(Foreign::Newer { needs: self.reader_version_min });
        }
        let expected = mesh_base::checksum::ChecksumAlgorithm::Crc32 as u8;
        [
            ("checksum algorithm", self.checksum == expected, u64::from(self.checksum)),
            ("codec", self.codec == CODEC_NONE, u64::from(self.codec)),
            ("encryption key", self.key == KEY_NONE, u64::from(self.key)),
        ]
        .into_iter()
        .find(|(_, known, _)| !known)
        .map(|(what, _, value)| Foreign::Unknown { what, value })
    }
}
