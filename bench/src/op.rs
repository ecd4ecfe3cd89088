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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum OpKind {
    /// Reads its keys.
    Read,
    /// Writes its keys.
    Write,
    /// Reads keys in order, from its only one on.
    Scan,
}

/// What follows when an operation is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sequel {
    /// Nothing.
    None,
    /// What was read is written, and only both are the whole.
    Write,
}

/// Which part of a range is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Page {
    /// The first.
    First,
    /// What comes after the last that was answered.
    Next,
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
    /// How many keys it wants, if it reads them in order.
    pub(crate) items: usize,
    /// Which of these.
    pub(crate) page: Page,
    /// What comes next.
    pub(crate) sequel: Sequel,
}

impl Op {
    /// Room for an operation.
    pub(crate) const fn empty() -> Self {
        Self {
            kind: OpKind::Read,
            keys: Vec::new(),
            values: Vec::new(),
            items: 0,
            page: Page::First,
            sequel: Sequel::None,
        }
    }

    /// The keys, each with the value that is written to it.
    pub(crate) fn writes(&self) -> impl Iterator<Item = (KeyNo, ValueAt)> {
        self.keys.iter().copied().zip(self.values.iter().copied())
    }
}
