//! Transactions, and their answers: conditions on keys, a read set, and what is then done with keys, all at one revision.
//!
//! Everything that a transaction finds is what was there before it: operations of one transaction do not see each other, and
//! none of its branches writes a key twice. So what it answered can be read again, at its revision, as long as that is kept.

use std::fmt;

use flatbuffers::WIPOffset;
use mesh_base::Revision;
use mesh_base::limits::{
    BATCH_BYTES_MAX, BATCH_OPS_MAX, KEY_BYTES_MAX, TRANSACTION_RANGES_MAX, VALUE_BYTES_MAX,
};

use super::read::{build_items, build_keys, check_bound, check_items, items_hint};
use super::{ELEMENT_OVERHEAD_BYTES, Item, MESSAGE_OVERHEAD_BYTES, Message, WriteContext, bytes_of, closed};
use crate::builder::{Builder, OfTables, Root};
use crate::generated::mesh::wire as fb;
use crate::wire_error::{at_most, ensure, key, value};
use crate::{List, WireError};

/// What is asked of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect<'a> {
    /// It exists.
    Exists,
    /// It does not.
    Absent,
    /// It exists, and this is the revision of its last change.
    Revision(Revision),
    /// It exists, and was written so many times since it came to be.
    Version(u64),
    /// It exists, and this is its value.
    Value(&'a [u8]),
    /// Something that this version of the protocol does not know. Never sent, and refused.
    Other(u8),
}

/// A condition on one key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Condition<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What is asked of it.
    pub expect: Expect<'a>,
}

impl fmt::Debug for Condition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition").field("key", &bytes_of(self.key)).field("expect", &self.expect).finish()
    }
}

impl<'a> Condition<'a> {
    pub(crate) fn view(wire: fb::Condition<'a>) -> Self {
        let expect = match wire.kind() {
            fb::ConditionKind::Exists => Expect::Exists,
            fb::ConditionKind::Absent => Expect::Absent,
            fb::ConditionKind::Revision => Expect::Revision(Revision(wire.number())),
            fb::ConditionKind::Version => Expect::Version(wire.number()),
            fb::ConditionKind::Value => {
                Expect::Value(wire.value().map(|value| value.bytes()).unwrap_or_default())
            }
            other => Expect::Other(other.0),
        };
        Self { key: wire.key().bytes(), expect }
    }

    fn check(&self) -> Result<(), WireError> {
        key(self.key)?;
        match self.expect {
            Expect::Exists | Expect::Absent => Ok(()),
            Expect::Revision(revision) => {
                ensure!(revision != Revision::ZERO, "a condition's revision");
                Ok(())
            }
            Expect::Version(version) => {
                ensure!(version != 0, "a condition's version");
                Ok(())
            }
            Expect::Value(expected) => value(expected),
            Expect::Other(_) => Err(WireError::Malformed { what: "a condition's kind" }),
        }
    }

    const fn byte_len(&self) -> usize {
        match self.expect {
            Expect::Value(value) => self.key.len() + value.len(),
            _ => self.key.len(),
        }
    }

    fn build(self, to: &mut Builder) -> WIPOffset<fb::Condition<'static>> {
        let (kind, number, value) = match self.expect {
            Expect::Exists => (fb::ConditionKind::Exists, 0, None),
            Expect::Absent => (fb::ConditionKind::Absent, 0, None),
            Expect::Revision(revision) => (fb::ConditionKind::Revision, revision.0, None),
            Expect::Version(version) => (fb::ConditionKind::Version, version, None),
            Expect::Value(value) => (fb::ConditionKind::Value, 0, Some(value)),
            Expect::Other(kind) => (fb::ConditionKind(kind), 0, None),
        };
        let key = Some(to.bytes(self.key));
        let value = value.and_then(|value| to.bytes_if_any(value));
        fb::Condition::create(&mut to.flat, &fb::ConditionArgs { key, kind, number, value })
    }
}

/// A range of keys.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyRange<'a> {
    /// The least key, included; empty for the first there is.
    pub from: &'a [u8],
    /// The key to stop before; empty for none.
    pub to: &'a [u8],
}

impl fmt::Debug for KeyRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}..{:?}", bytes_of(self.from), bytes_of(self.to))
    }
}

impl<'a> KeyRange<'a> {
    pub(crate) fn view(wire: fb::KeyRange<'a>) -> Self {
        Self { from: wire.from().bytes(), to: wire.to().bytes() }
    }

    fn build(self, to: &mut Builder) -> WIPOffset<fb::KeyRange<'static>> {
        let args = fb::KeyRangeArgs { from: Some(to.bytes(self.from)), to: Some(to.bytes(self.to)) };
        fb::KeyRange::create(&mut to.flat, &args)
    }
}

/// What is done with a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action<'a> {
    /// It gets a value.
    Put {
        /// The value.
        value: &'a [u8],
        /// The lease that the key is to live by; 0 for none.
        lease: u64,
        /// What the value is; 0 for plain bytes.
        type_tag: u8,
        /// Whether what it held before is to be answered.
        previous: bool,
    },
    /// It is deleted. That it does not exist is no error.
    Delete {
        /// Whether what it held before is to be answered.
        previous: bool,
    },
    /// Its value, a decimal number, becomes greater. A key that does not exist counts as 0. What it holds then is answered.
    Increment {
        /// By so much, which may be negative.
        delta: i64,
    },
    /// What it held before is answered.
    Get,
    /// Something that this version of the protocol does not know. Never sent, and refused.
    Other(u8),
}

/// What is done with one key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Operation<'a> {
    /// The key.
    pub key: &'a [u8],
    /// What is done.
    pub action: Action<'a>,
}

impl fmt::Debug for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation").field("key", &bytes_of(self.key)).field("action", &self.action).finish()
    }
}

impl<'a> Operation<'a> {
    pub(crate) fn view(wire: fb::Operation<'a>) -> Self {
        let action = match wire.kind() {
            fb::OperationKind::Put => Action::Put {
                value: wire.value().map(|value| value.bytes()).unwrap_or_default(),
                lease: wire.lease(),
                type_tag: wire.type_tag(),
                previous: wire.previous(),
            },
            fb::OperationKind::Delete => Action::Delete { previous: wire.previous() },
            fb::OperationKind::Increment => Action::Increment { delta: wire.delta() },
            fb::OperationKind::Get => Action::Get,
            other => Action::Other(other.0),
        };
        Self { key: wire.key().bytes(), action }
    }

    fn check(&self) -> Result<(), WireError> {
        key(self.key)?;
        match self.action {
            Action::Put { value: put, .. } => value(put),
            Action::Delete { .. } | Action::Increment { .. } | Action::Get => Ok(()),
            Action::Other(_) => Err(WireError::Malformed { what: "an operation's kind" }),
        }
    }

    const fn byte_len(&self) -> usize {
        match self.action {
            Action::Put { value, .. } => self.key.len() + value.len(),
            _ => self.key.len(),
        }
    }

    fn build(self, to: &mut Builder) -> WIPOffset<fb::Operation<'static>> {
        let key = Some(to.bytes(self.key));
        let none = fb::OperationArgs { key, ..fb::OperationArgs::default() };
        let args = match self.action {
            Action::Put { value, lease, type_tag, previous } => {
                let value = to.bytes_if_any(value);
                fb::OperationArgs { kind: fb::OperationKind::Put, value, lease, type_tag, previous, ..none }
            }
            Action::Delete { previous } => {
                fb::OperationArgs { kind: fb::OperationKind::Delete, previous, ..none }
            }
            Action::Increment { delta } => {
                fb::OperationArgs { kind: fb::OperationKind::Increment, delta, ..none }
            }
            Action::Get => fb::OperationArgs { kind: fb::OperationKind::Get, ..none },
            Action::Other(kind) => fb::OperationArgs { kind: fb::OperationKind(kind), ..none },
        };
        fb::Operation::create(&mut to.flat, &args)
    }
}

/// Does something with keys of a shard, at one revision, if all conditions hold and nothing that was read has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transact<'a> {
    /// What the write carries.
    pub ctx: WriteContext<'a>,
    /// What is asked of keys. If one does not hold `otherwise` is done, or nothing.
    pub conditions: List<'a, Condition<'a>>,
    /// The revision that the read set was read at. 0 is before all: nothing of it may ever have been written.
    pub reads_at: Revision,
    /// Keys that were read: if one of them has changed since, the transaction is not done.
    pub reads: List<'a, &'a [u8]>,
    /// Ranges that were read, likewise.
    pub ranges: List<'a, KeyRange<'a>>,
    /// What is done if all conditions hold. No key twice.
    pub operations: List<'a, Operation<'a>>,
    /// What is done if one does not. Absent: the transaction is not done then, and answered [`crate::Error::Conflict`].
    pub otherwise: Option<List<'a, Operation<'a>>>,
}

impl Default for Transact<'_> {
    fn default() -> Self {
        Self {
            ctx: WriteContext::default(),
            conditions: List::EMPTY,
            reads_at: Revision::ZERO,
            reads: List::EMPTY,
            ranges: List::EMPTY,
            operations: List::EMPTY,
            otherwise: None,
        }
    }
}

impl<'a> Transact<'a> {
    fn all_operations(&self) -> impl Iterator<Item = Operation<'a>> {
        self.operations.iter().chain(self.otherwise.iter().flatten())
    }
}

impl<'a> Message<'a> for Transact<'a> {
    type Table = fb::Transact<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            ctx: WriteContext::view(table.ctx()),
            conditions: List::optional(table.conditions()),
            reads_at: Revision(table.reads_at()),
            reads: List::optional(table.reads()),
            ranges: List::optional(table.ranges()),
            operations: table.operations().into(),
            otherwise: table.otherwise().map(List::from),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        self.ctx.check()?;
        let operations = self.operations.len() + self.otherwise.map_or(0, |list| list.len());
        let count = self.conditions.len() + self.reads.len() + operations;
        at_most("keys of a transaction", count, BATCH_OPS_MAX)?;
        at_most("ranges of a transaction", self.ranges.len(), TRANSACTION_RANGES_MAX)?;
        ensure!(count + self.ranges.len() > 0, "an empty transaction");
        self.reads.iter().try_for_each(key)?;
        for range in self.ranges {
            check_bound(range.from)?;
            check_bound(range.to)?;
        }
        let mut bytes = 0;
        for condition in self.conditions {
            condition.check()?;
            bytes += condition.byte_len();
        }
        for operation in self.all_operations() {
            operation.check()?;
            bytes += operation.byte_len();
        }
        // A single operation may write the largest value.
        let most = match operations {
            0 | 1 if !self.conditions.iter().any(|it| matches!(it.expect, Expect::Value(_))) => {
                VALUE_BYTES_MAX + (1 + self.conditions.len()) * KEY_BYTES_MAX
            }
            _ => BATCH_BYTES_MAX,
        };
        at_most("bytes of a transaction", bytes, most)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let ctx = self.ctx.build(to);
        let conditions =
            (!self.conditions.is_empty()).then(|| to.list(self.conditions.iter(), |to, it| it.build(to)));
        let reads = (!self.reads.is_empty()).then(|| build_keys(self.reads, to));
        let ranges = (!self.ranges.is_empty()).then(|| to.list(self.ranges.iter(), |to, it| it.build(to)));
        let operations = build_operations(self.operations, to);
        let otherwise = self.otherwise.map(|list| build_operations(list, to));
        let args = fb::TransactArgs {
            ctx: Some(ctx),
            conditions,
            reads_at: self.reads_at.0,
            reads,
            ranges,
            operations: Some(operations),
            otherwise,
        };
        fb::Transact::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        let element = |bytes: usize| bytes + ELEMENT_OVERHEAD_BYTES;
        MESSAGE_OVERHEAD_BYTES
            + self.ctx.size_hint()
            + self.conditions.iter().map(|it| element(it.byte_len())).sum::<usize>()
            + self.reads.iter().map(|key| element(key.len())).sum::<usize>()
            + self.ranges.iter().map(|it| element(it.from.len() + it.to.len())).sum::<usize>()
            + self.all_operations().map(|it| element(it.byte_len())).sum::<usize>()
    }
}

fn build_operations(
    operations: List<'_, Operation<'_>>,
    to: &mut Builder,
) -> OfTables<fb::Operation<'static>> {
    to.list(operations.iter(), |to, it| it.build(to))
}

closed! {
    /// What a transaction did.
    Branch {
        /// All conditions held.
        Operations,
        /// One of them did not.
        Otherwise,
    }
}

/// Answers [`Transact`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transacted<'a> {
    /// The revision of what was done.
    pub revision: Revision,
    /// Which operations were.
    pub branch: Branch,
    /// For the first operations of the branch, in their order: what is to be answered, nothing where that does not exist or
    /// nothing is. All of them, unless a frame does not hold so much: the rest can be read then, of increments at the
    /// answer's revision, of others right before it.
    pub results: List<'a, Option<Item<'a>>>,
    /// Whether nothing of that is kept any longer: the transaction was sent again, long after it was done.
    pub forgotten: bool,
}

impl<'a> Message<'a> for Transacted<'a> {
    type Table = fb::Transacted<'a>;

    fn view(table: Self::Table) -> Result<Self, WireError> {
        Ok(Self {
            revision: Revision(table.revision()),
            branch: Branch::from_wire(table.branch())
                .ok_or(WireError::Malformed { what: "a transaction's branch" })?,
            results: table.results().into(),
            forgotten: table.forgotten(),
        })
    }

    fn check(&self) -> Result<(), WireError> {
        check_items("results of a transaction", self.results)
    }

    fn build(&self, to: &mut Builder) -> Root {
        let results = build_items(self.results, to);
        let args = fb::TransactedArgs {
            revision: self.revision.0,
            branch: self.branch.to_wire(),
            results: Some(results),
            forgotten: self.forgotten,
        };
        fb::Transacted::create(&mut to.flat, &args).into()
    }

    fn size_hint(&self) -> usize {
        items_hint(self.results)
    }
}
