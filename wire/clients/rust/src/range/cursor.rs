//! Where the reading of a range was left off, as a text that can be kept and come back with.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | order: 0 ascending, 1 descending |
//! | 16 | cluster |
//! | 2 | length of the key |
//! | | the key |
//! | 2 | number of shards whose revision follows |
//! | 10 each | shard (2) and revision (8) that it is read at |
//! | 4 | CRC-32 of all before |
//!
//! Numbers are little-endian; the whole is written in base64 for URLs, without padding. To all but this module it is
//! opaque.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use mesh_base::bytesio::{Reader, Writer};
use mesh_base::checksum::crc32;
use mesh_base::limits::{CLIENT_CURSOR_BYTES_MAX, KEY_BYTES_MAX, SHARDS_MAX};
use mesh_base::{ClusterId, Revision, ShardId};

use super::bounds::Order;
use crate::Error;

const VERSION: u8 = 1;

/// Where the reading of a range was left off. As a text it can be kept, and made into a cursor again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cursor {
    pub(super) cluster: ClusterId,
    pub(super) order: Order,
    /// The last key that was returned.
    pub(super) last: Bytes,
    /// The revision that each shard is read at.
    pub(super) revisions: Vec<(ShardId, Revision)>,
}

/// What is wrong with a cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CursorFlaw {
    /// It is not a cursor, or a damaged one.
    #[error("it is not a cursor, or not all of one")]
    Malformed,
    /// It was made by another version of this library.
    #[error("it was made by another version of the program")]
    Version,
    /// It is of another cluster.
    #[error("it is of another cluster")]
    OtherCluster,
    /// It is of a range that was read the other way round.
    #[error("it is of a range in the other order")]
    OtherOrder,
}

impl Cursor {
    /// Whether it belongs to a reading of `cluster` in `order`.
    pub(super) fn check(&self, cluster: ClusterId, order: Order) -> Result<(), CursorFlaw> {
        if self.cluster != cluster {
            return Err(CursorFlaw::OtherCluster);
        }
        if self.order != order { Err(CursorFlaw::OtherOrder) } else { Ok(()) }
    }

    fn read(text: &str) -> Result<Self, CursorFlaw> {
        // Base64 has four characters for three bytes.
        if text.len() > CLIENT_CURSOR_BYTES_MAX.div_ceil(3) * 4 {
            return Err(CursorFlaw::Malformed);
        }
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| CursorFlaw::Malformed)?;
        let (content, checksum) = bytes.split_last_chunk().ok_or(CursorFlaw::Malformed)?;
        if crc32(&[content]) != u32::from_le_bytes(*checksum) {
            return Err(CursorFlaw::Malformed);
        }
        match content.split_first() {
            Some((&VERSION, fields)) => {
                Self::read_fields(&mut Reader::new(fields)).ok_or(CursorFlaw::Malformed)
            }
            _ => Err(CursorFlaw::Version),
        }
    }

    fn read_fields(from: &mut Reader<'_>) -> Option<Self> {
        let order = match from.u8()? {
            0 => Order::Ascending,
            1 => Order::Descending,
            _ => return None,
        };
        let cluster = ClusterId(from.array()?);
        let length = from.u16()?.into();
        if length > KEY_BYTES_MAX {
            return None;
        }
        let last = Bytes::copy_from_slice(from.bytes(length)?);
        let count = usize::from(from.u16()?);
        if count > SHARDS_MAX {
            return None;
        }
        let revision = |_| Some((ShardId(from.u16()?), Revision(from.u64()?)));
        let revisions = (0..count).map(revision).collect::<Option<_>>()?;
        from.is_empty().then_some(Self { cluster, order, last, revisions })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION, u8::from(self.order == Order::Descending)];
        bytes.put_bytes(&self.cluster.0);
        bytes.put_u16(u16::try_from(self.last.len()).unwrap_or(u16::MAX));
        bytes.put_bytes(&self.last);
        bytes.put_u16(u16::try_from(self.revisions.len()).unwrap_or(u16::MAX));
        for (shard, revision) in &self.revisions {
            bytes.put_u16(shard.0);
            bytes.put_u64(revision.0);
        }
        let checksum = crc32(&[&bytes]);
        bytes.put_u32(checksum);
        f.write_str(&BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    /// # Errors
    /// [`Error::Cursor`]
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::read(text).map_err(|flaw| Error::Cursor { flaw })
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn cursor(key: &[u8], revisions: &[(u16, u64)]) -> Cursor {
        let revisions = revisions.iter().map(|&(shard, revision)| (ShardId(shard), Revision(revision)));
        Cursor {
            cluster: ClusterId([7; 16]),
            order: Order::Descending,
            last: Bytes::copy_from_slice(key),
            revisions: revisions.collect(),
        }
    }

    quickcheck! {
        fn a_cursor_comes_back_from_its_text(key: Vec<u8>, revisions: Vec<(u16, u64)>) -> bool {
            let cursor = cursor(&key, &revisions);
            cursor.to_string().parse() == Ok(cursor)
        }

        fn a_text_with_a_changed_character_is_no_cursor(key: Vec<u8>, at: usize) -> bool {
            let mut text = cursor(&key, &[(0, 5)]).to_string().into_bytes();
            let at = at % text.len();
            text[at] = if text[at] == b'A' { b'B' } else { b'A' };
            let flawed: Result<Cursor, _> = String::from_utf8(text).unwrap().parse();
            flawed == Err(Error::Cursor { flaw: CursorFlaw::Malformed })
        }

        fn no_text_makes_it_fail_otherwise(text: String) -> bool {
            matches!(text.parse::<Cursor>(), Err(Error::Cursor { .. }))
        }
    }

    #[test]
    fn a_cursor_is_good_for_its_cluster_and_order_only() {
        let cursor = cursor(b"k", &[]);
        assert_eq!(cursor.check(cursor.cluster, Order::Descending), Ok(()));
        assert_eq!(cursor.check(cursor.cluster, Order::Ascending), Err(CursorFlaw::OtherOrder));
        assert_eq!(cursor.check(ClusterId([8; 16]), Order::Descending), Err(CursorFlaw::OtherCluster));
    }

    #[test]
    fn the_longest_cursor_is_within_its_limit() {
        let revisions = vec![(1023, u64::MAX); SHARDS_MAX];
        let text = cursor(&[0; KEY_BYTES_MAX], &revisions).to_string();
        assert!(text.parse::<Cursor>().is_ok());
    }
}
