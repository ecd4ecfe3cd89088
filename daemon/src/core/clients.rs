//! Requests from clients: from frames to commands, and to the core that owns their shard.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mesh_base::limits::{RANGE_ITEMS_MAX, RANGE_PAGE_BYTES};
use mesh_base::{Now, Revision, ShardId};
use mesh_wire::{Error, Frame, List, ReadContext, Request as WireRequest, Transact, WriteContext};

use super::event::{MeshMessage, NodeName, Responder};
use super::peers::is_plausible;
use super::{Core, CoreEffect};
use crate::shard::ShardEvent;
use crate::shard::command::{
    Change, Command, Order, PutItem, Range, Read, Request, Shape, Write, last_of_each_key,
};
use crate::shard::sessions::WriteId;
use crate::shard::transaction::{Action, Condition, Expect, KeySpan, Operation, Previous, Transaction};

/// A request without a deadline, or with a later one, is given up after this.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// What a request says of itself beside its command.
#[derive(Clone, Copy, Default, Debug)]
struct Asked {
    /// The time it has, from now; 0 for no bound of its own.
    deadline_ms: u32,
    /// The newest revision its client knows of: what is written now comes after it.
    revision_seen: Revision,
}

impl From<&ReadContext<'_>> for Asked {
    fn from(ctx: &ReadContext<'_>) -> Self {
        Self { deadline_ms: ctx.deadline_ms, revision_seen: ctx.revision_seen }
    }
}

impl From<&WriteContext<'_>> for Asked {
    fn from(ctx: &WriteContext<'_>) -> Self {
        Self { deadline_ms: ctx.deadline_ms, revision_seen: ctx.revision_seen }
    }
}

impl Core {
    /// A frame from a client of this core, or of another core of this node.
    pub(super) fn on_request(
        &mut self,
        now: Now,
        responder: Responder,
        frame: Frame,
        effects: &mut Vec<CoreEffect>,
    ) {
        let Some(shard) = frame.header.envelope.shard else {
            self.on_node_request(now, responder, &frame, effects);
            return;
        };
        if self.directory.as_ref().is_some_and(|directory| shard.0 >= directory.shard_count()) {
            let what = "the frame names a shard that does not exist".into();
            self.fail(responder, &Error::Malformed { what }, effects);
            return;
        }
        let owner = self.placement.core_of(shard);
        if owner != self.id {
            effects.push(CoreEffect::Mesh { to: owner, message: MeshMessage::Request { responder, frame } });
            return;
        }
        match self.read_command(shard, &frame) {
            Ok((_, asked)) if !is_plausible(now, asked.revision_seen) => {
                let what = "revision_seen is too far ahead of this node's clock".into();
                self.fail(responder, &Error::Malformed { what }, effects);
            }
            Ok((command, asked)) => {
                self.newest = self.newest.max(asked.revision_seen);
                let patience = match asked.deadline_ms {
                    0 => PATIENCE_MAX,
                    ms => Duration::from_millis(u64::from(ms)).min(PATIENCE_MAX),
                };
                let request = Request { responder, deadline: now.monotonic + patience, command };
                self.step_shard(now, shard, ShardEvent::Request(request), effects);
            }
            Err(error) => self.fail(responder, &error, effects),
        }
    }

    /// The command in a frame, and what is asked beside it.
    fn read_command(&self, shard: ShardId, frame: &Frame) -> Result<(Command, Asked), Error> {
        let payload = &frame.payload;
        let own = |bytes: &[u8]| payload.slice_ref(bytes);
        let request = frame.request().map_err(Error::from)?;
        let command = match request {
            WireRequest::Get(get) => {
                self.check_shard(shard, [get.key])?;
                (Command::Read(Read::Get { key: own(get.key), at: at(get.at) }), Asked::from(&get.ctx))
            }
            WireRequest::GetBatch(batch) => {
                self.check_shard(shard, batch.keys)?;
                let keys = batch.keys.iter().map(own).collect();
                (Command::Read(Read::GetBatch { keys, at: at(batch.at) }), Asked::from(&batch.ctx))
            }
            WireRequest::Range(range) => {
                let page = Box::new(own_range(&range, payload));
                (Command::Read(Read::Range(page)), Asked::from(&range.ctx))
            }
            WireRequest::Put(put) => {
                self.check_shard(shard, [put.key])?;
                let item = PutItem { key: own(put.key), value: own(put.value), type_tag: put.type_tag };
                (Command::Write(write(&put.ctx, Change::Put(vec![item]))), Asked::from(&put.ctx))
            }
            WireRequest::PutBatch(batch) => {
                let own_item = |item: mesh_wire::KeyValue<'_>| PutItem {
                    key: own(item.key),
                    value: own(item.value),
                    type_tag: 0,
                };
                let items: Vec<_> = batch.items.iter().map(own_item).collect();
                self.check_shard(shard, items.iter().map(|item| item.key.as_ref()))?;
                let change = Change::Put(last_of_each_key(items));
                (Command::Write(write(&batch.ctx, change)), Asked::from(&batch.ctx))
            }
            WireRequest::Delete(delete) => {
                self.check_shard(shard, delete.keys)?;
                let change = Change::Delete(distinct(delete.keys, payload));
                (Command::Write(write(&delete.ctx, change)), Asked::from(&delete.ctx))
            }
            WireRequest::Transact(transact) => {
                let transaction = own_transaction(&transact, payload);
                self.check_shard(shard, transaction.keys().map(AsRef::as_ref))?;
                if let Some(key) = transaction.repeated_key() {
                    let what = format!("a branch of the transaction has {} twice", key.escape_ascii());
                    return Err(Error::Malformed { what: what.into() });
                }
                let change = Change::Transact(Arc::new(transaction));
                (Command::Write(write(&transact.ctx, change)), Asked::from(&transact.ctx))
            }
            WireRequest::OpenSession(open) => (Command::OpenSession { nonce: open.nonce }, Asked::default()),
            WireRequest::ReplaceNode(replace) => {
                let (name, nonce) = (NodeName::from(replace.name), replace.nonce);
                (Command::ReplaceNode { name, nonce }, Asked::default())
            }
            WireRequest::Hello(_) | WireRequest::Topology | WireRequest::Status => {
                return Err(Error::Malformed { what: "this request is not for a shard".into() });
            }
        };
        Ok(command)
    }

    /// Every key must be of the shard that the frame names.
    fn check_shard<'a>(&self, shard: ShardId, keys: impl IntoIterator<Item = &'a [u8]>) -> Result<(), Error> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let slots = directory.slots();
        for key in keys {
            let owner = slots.shard_of_key(key);
            if owner != shard {
                return Err(Error::WrongShard { shard: owner });
            }
        }
        Ok(())
    }
}

/// On the wire 0 is the newest.
fn at(revision: Revision) -> Revision {
    if revision == Revision::ZERO { Revision::MAX } else { revision }
}

fn write(ctx: &WriteContext<'_>, change: Change) -> Write {
    Write {
        id: WriteId { session: ctx.session, seq: ctx.seq },
        acknowledged_below: ctx.acknowledged_below,
        change,
    }
}

/// Bytes of a payload, or nothing, sharing its memory.
fn share(payload: &Bytes, bytes: &[u8]) -> Bytes {
    if bytes.is_empty() { Bytes::new() } else { payload.slice_ref(bytes) }
}

fn own_range(range: &mesh_wire::Range<'_>, payload: &Bytes) -> Range {
    let own = |bytes: &[u8]| share(payload, bytes);
    let bounded = |asked: u32, most: usize| match usize::try_from(asked) {
        Ok(0) | Err(_) => most,
        Ok(asked) => asked.min(most),
    };
    Range {
        from: own(range.from),
        to: own(range.to),
        after: range.after.map(own),
        items_max: bounded(range.limit, RANGE_ITEMS_MAX),
        bytes_max: bounded(range.bytes, RANGE_PAGE_BYTES),
        shape: if range.keys_only { Shape::KeysOnly } else { Shape::Items },
        order: if range.reverse { Order::Descending } else { Order::Ascending },
        at: at(range.at),
    }
}

fn own_transaction(transact: &Transact<'_>, payload: &Bytes) -> Transaction {
    let own = |bytes: &[u8]| share(payload, bytes);
    let wish = |is_wanted| if is_wanted { Previous::Wanted } else { Previous::Unwanted };
    let operation = |operation: mesh_wire::Operation<'_>| Operation {
        key: own(operation.key),
        action: match operation.action {
            mesh_wire::Action::Put { value, type_tag, previous, .. } => {
                Action::Put { value: own(value), type_tag, previous: wish(previous) }
            }
            mesh_wire::Action::Delete { previous } => Action::Delete { previous: wish(previous) },
            mesh_wire::Action::Increment { delta } => Action::Increment { delta },
            // Others are refused where the message is read.
            mesh_wire::Action::Get | mesh_wire::Action::Other(_) => Action::Get,
        },
    };
    let condition = |condition: mesh_wire::Condition<'_>| Condition {
        key: own(condition.key),
        expect: match condition.expect {
            mesh_wire::Expect::Exists | mesh_wire::Expect::Other(_) => Expect::Exists,
            mesh_wire::Expect::Absent => Expect::Absent,
            mesh_wire::Expect::Revision(revision) => Expect::Revision(revision),
            mesh_wire::Expect::Version(version) => Expect::Version(version),
            mesh_wire::Expect::Value(value) => Expect::Value(own(value)),
        },
    };
    Transaction {
        conditions: transact.conditions.iter().map(condition).collect(),
        reads_at: transact.reads_at,
        reads: transact.reads.iter().map(own).collect(),
        ranges: transact.ranges.iter().map(|it| KeySpan { from: own(it.from), to: own(it.to) }).collect(),
        operations: transact.operations.iter().map(operation).collect(),
        otherwise: transact.otherwise.map(|list| list.iter().map(operation).collect()),
    }
}

/// The keys of a list, each once.
fn distinct(keys: List<'_, &[u8]>, payload: &Bytes) -> Vec<Bytes> {
    let mut distinct: Vec<_> = keys.iter().map(|key| payload.slice_ref(key)).collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}
