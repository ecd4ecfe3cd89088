//! A transaction on keys of one shard, as its client asks for it.

use bytes::Bytes;
use mesh_base::Revision;

/// Conditions, a read set, and what is then done, at one revision. See the protocol's page for what it means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transaction {
    /// What is asked of keys.
    pub conditions: Vec<Condition>,
    /// The revision of the read set.
    pub reads_at: Revision,
    /// Keys that must not have changed since.
    pub reads: Vec<Bytes>,
    /// Ranges in which nothing may have.
    pub ranges: Vec<KeySpan>,
    /// What is done if all conditions hold. No key twice.
    pub operations: Vec<Operation>,
    /// What is done if one does not; if there is nothing, the transaction is refused.
    pub otherwise: Option<Vec<Operation>>,
}

/// A condition on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// The key.
    pub key: Bytes,
    /// What is asked of it.
    pub expect: Expect,
}

/// What is asked of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// It exists.
    Exists,
    /// It does not.
    Absent,
    /// Its last change has this revision.
    Revision(Revision),
    /// It was written so often since it came to be.
    Version(u64),
    /// It holds this.
    Value(Bytes),
}

/// A range of keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySpan {
    /// The first key; empty for the start of the keyspace.
    pub from: Bytes,
    /// The key before which it ends; empty for the end of the keyspace.
    pub to: Bytes,
}

impl KeySpan {
    /// Whether a key is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        *key >= *self.from && self.end().is_none_or(|end| key < end)
    }

    /// The key before which it ends, if any does.
    #[must_use]
    pub fn end(&self) -> Option<&[u8]> {
        (!self.to.is_empty()).then_some(&self.to)
    }
}

/// What is done with one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operation {
    /// The key.
    pub key: Bytes,
    /// What.
    pub action: Action,
}

/// What is done with a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// It gets a value.
    Put {
        /// The value.
        value: Bytes,
        /// A tag of the application's choice.
        type_tag: u8,
        /// Whether its client wants to know what was there.
        previous: Previous,
    },
    /// It is deleted.
    Delete {
        /// Whether its client wants to know what was there.
        previous: Previous,
    },
    /// Its number grows.
    Increment {
        /// By so much.
        delta: i64,
    },
    /// Its client wants to know what was there.
    Get,
}

/// Whether a client wants to know what a write replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Previous {
    /// It does.
    Wanted,
    /// It does not.
    Unwanted,
}

/// Which of a transaction's branches was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Branch {
    /// That for when all conditions hold.
    Operations,
    /// The other.
    Otherwise,
}

/// What an operation answers, beside that it was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// What its key held before.
    Before,
    /// What its key holds after.
    After,
}

impl Operation {
    /// What it answers.
    #[must_use]
    pub const fn found(&self) -> Found {
        match self.action {
            Action::Put { previous: Previous::Wanted, .. }
            | Action::Delete { previous: Previous::Wanted }
            | Action::Get => Found::Before,
            Action::Increment { .. } => Found::After,
            Action::Put { .. } | Action::Delete { .. } => Found::Nothing,
        }
    }

    /// Bytes of its key and of what it may write.
    fn bytes(&self) -> usize {
        self.key.len()
            + match &self.action {
                Action::Put { value, .. } => value.len(),
                Action::Increment { .. } => NUMBER_BYTES_MAX,
                Action::Delete { .. } | Action::Get => 0,
            }
    }
}

/// Digits of the longest number, and its sign.
pub const NUMBER_BYTES_MAX: usize = 20;

impl Transaction {
    /// The operations of a branch.
    #[must_use]
    pub fn branch(&self, branch: Branch) -> &[Operation] {
        match branch {
            Branch::Operations => &self.operations,
            Branch::Otherwise => self.otherwise.as_deref().unwrap_or_default(),
        }
    }

    /// All operations: those of the first branch, then those of the other.
    pub fn all_operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().chain(self.otherwise.iter().flatten())
    }

    /// Bytes of keys and values that it may write, and how many keys.
    pub(super) fn size(&self) -> (usize, usize) {
        let of = |branch| {
            let operations = self.branch(branch);
            (operations.iter().map(Operation::bytes).sum::<usize>(), operations.len())
        };
        of(Branch::Operations).max(of(Branch::Otherwise))
    }

    /// Whether a branch answers more than that it was done.
    pub(super) fn finds(&self, branch: Branch) -> bool {
        self.branch(branch).iter().any(|operation| operation.found() != Found::Nothing)
    }

    /// A key that comes twice in one of the branches.
    #[must_use]
    pub fn repeated_key(&self) -> Option<&Bytes> {
        [Branch::Operations, Branch::Otherwise].into_iter().find_map(|branch| {
            let mut keys: Vec<_> = self.branch(branch).iter().map(|operation| &operation.key).collect();
            keys.sort_unstable();
            keys.array_windows().find_map(|[one, other]| (one == other).then_some(*one))
        })
    }

    /// Every key that it names.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let conditions = self.conditions.iter().map(|condition| &condition.key);
        conditions.chain(&self.reads).chain(self.all_operations().map(|operation| &operation.key))
    }
}
