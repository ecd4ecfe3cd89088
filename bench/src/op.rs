//! An operation: what one request asks.
//!
//! It names keys and values by number; a keyspace has their bytes.

/// A key by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct KeyNo(pub(crate) u32);

/// Where a value begins among the keyspace's random bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ValueAt(pub(crate) usize);

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OpKind {
    /// Reads its keys.
    Read,
    /// Writes its keys.
    Write,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Op {
    /// What it does.
    pub(crate) kind: OpKind,
    /// To which keys; all of one partition.
    pub(crate) keys: Vec<KeyNo>,
    /// Which value it writes to each, if it writes.
    pub(crate) values: Vec<ValueAt>,
}

impl Op {
    /// Room for an operation.
    pub(crate) const fn empty() -> Self {
        Self { kind: OpKind::Read, keys: Vec::new(), values: Vec::new() }
    }

    /// The keys, each with the value that is written to it.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (KeyNo, ValueAt)> {
        self.keys.iter().copied().zip(self.values.iter().copied())
    }
}
