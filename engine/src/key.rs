//! The key of a cell: namespace, key bytes, revision; ordered by revision *descending* within a key.
//!
//! Invariant: the order is that of the tuple (namespace, key bytes, inverted revision), so a seek to (key, revision R)
//! lands on the newest version at or below R. A separator of the tree is such a tuple too, cut as short as separates.

use std::cmp::Ordering;
use std::fmt;

use mesh_base::bytesio::{Reader, Writer};
use mesh_base::{Namespace, Revision};

/// Bytes of an encoded key beside those of its own.
pub(crate) const KEY_FIXED_BYTES: usize = 14;

/// A cell's key, borrowed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyRef<'a> {
    /// The part of the key order it lies in.
    pub namespace: Namespace,
    /// The key's bytes.
    pub key: &'a [u8],
    /// The version.
    pub revision: Revision,
}

impl<'a> KeyRef<'a> {
    /// Before every key.
    pub const FIRST: KeyRef<'static> = KeyRef { namespace: Namespace(0), key: &[], revision: Revision::MAX };

    /// The newest version that `key` could have: where its versions begin.
    #[must_use]
    pub const fn newest(namespace: Namespace, key: &'a [u8]) -> Self {
        Self { namespace, key, revision: Revision::MAX }
    }

    /// Whether both are versions of one key.
    #[must_use]
    pub fn same_key(&self, other: &KeyRef<'_>) -> bool {
        self.namespace == other.namespace && self.key == other.key
    }

    /// Whether it comes before the end of a range of a namespace: a key, or the end of the namespace.
    pub(crate) fn is_before_end(&self, namespace: Namespace, end: Option<&[u8]>) -> bool {
        self.namespace < namespace || self.namespace == namespace && end.is_none_or(|end| self.key < end)
    }

    /// A copy that owns its bytes.
    #[must_use]
    pub fn to_owned(&self) -> CellKey {
        CellKey { namespace: self.namespace, key: self.key.to_vec(), revision: self.revision }
    }

    /// Appends namespace (4), revision (8), length (2) and bytes.
    #[allow(clippy::cast_possible_truncation, reason = "keys are within their limit, which fits")]
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32(self.namespace.get());
        out.put_u64(self.revision.get());
        out.put_u16(self.key.len() as u16);
        out.put_bytes(self.key);
    }

    /// Reads what [`KeyRef::encode`] wrote.
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Option<Self> {
        let namespace = Namespace(reader.u32()?);
        let revision = Revision(reader.u64()?);
        let key_bytes = usize::from(reader.u16()?);
        Some(KeyRef { namespace, key: reader.bytes(key_bytes)?, revision })
    }

    /// The shortest tuple that is above `left` and not above `self`.
    ///
    /// # Panics
    /// When `left` is not below `self`: a bug of the caller.
    #[must_use]
    pub fn separator_from(&self, left: &KeyRef<'_>) -> Self {
        assert!(left < self, "a separator needs ordered keys");
        if left.namespace != self.namespace {
            return Self::newest(self.namespace, &[]);
        }
        if left.key == self.key {
            return *self;
        }
        let common = left.key.iter().zip(self.key).take_while(|(a, b)| a == b).count();
        Self::newest(self.namespace, self.key.get(..=common).unwrap_or(self.key))
    }
}

impl Ord for KeyRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.namespace
            .cmp(&other.namespace)
            .then_with(|| self.key.cmp(other.key))
            .then_with(|| other.revision.cmp(&self.revision))
    }
}

impl PartialOrd for KeyRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for KeyRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.namespace, self.key.escape_ascii(), self.revision)
    }
}

/// A cell's key that owns its bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct CellKey {
    /// The part of the key order it lies in.
    pub namespace: Namespace,
    /// The key's bytes.
    pub key: Vec<u8>,
    /// The version.
    pub revision: Revision,
}

impl CellKey {
    /// The least key above this one.
    #[must_use]
    pub fn successor(mut self) -> Self {
        if self.revision == Revision::ZERO {
            self.key.push(0);
            self.revision = Revision::MAX;
        } else {
            self.revision = Revision(self.revision.get() - 1);
        }
        self
    }

    /// The key as a snapshot's chunks have it: namespace (4), revision (8), length (2), bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(KEY_FIXED_BYTES + self.key.len());
        self.as_ref().encode(&mut out);
        out
    }

    /// Reads what [`CellKey::encode`] wrote; nothing if it is anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let key = KeyRef::decode(&mut reader)?.to_owned();
        reader.is_empty().then_some(key)
    }

    /// The same, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> KeyRef<'_> {
        KeyRef { namespace: self.namespace, key: &self.key, revision: self.revision }
    }
}

impl Ord for CellKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_ref().cmp(&other.as_ref())
    }
}

impl PartialOrd for CellKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_ref(), f)
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    quickcheck! {
        fn a_separator_separates_and_is_no_longer_than_the_key(
            left: (u8, Vec<u8>, u64), right: (u8, Vec<u8>, u64)
        ) -> bool {
            let key = |(namespace, key, revision): (u8, Vec<u8>, u64)| CellKey {
                namespace: Namespace(u32::from(namespace % 3)),
                key: key.iter().map(|byte| byte % 3).collect(),
                revision: Revision(revision),
            };
            let (a, b) = (key(left), key(right));
            if a == b {
                return true;
            }
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            let separator = high.as_ref().separator_from(&low.as_ref());
            low.as_ref() < separator && separator <= high.as_ref() && separator.key.len() <= high.key.len()
        }
    }

    quickcheck! {
        fn nothing_is_between_a_key_and_its_successor(key: Vec<u8>, revision: u64, other: (Vec<u8>, u64)) -> bool {
            let user = |key: &[u8], revision| {
                CellKey { namespace: Namespace::USER, key: key.to_vec(), revision: Revision(revision) }
            };
            let (key, longer) = (user(&key, revision % 3), user(&[&key[..], &other.0].concat(), other.1 % 3));
            let successor = key.clone().successor();
            key < successor && !(key < longer && longer < successor) && CellKey::decode(&key.encode()) == Some(key)
        }
    }

    #[test]
    fn newer_versions_of_a_key_come_first_and_nothing_comes_before_the_first() {
        let key = |revision| KeyRef { namespace: Namespace::USER, key: b"k", revision: Revision(revision) };
        assert!(key(2) < key(1));
        assert!(KeyRef::FIRST < KeyRef { namespace: Namespace(0), key: b"", revision: Revision(7) });
    }
}
