//! What a client does: one request of the protocol, as long as it takes pages, and what the history says of it.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_base::{Instant, Revision, ShardId};
use mesh_wire::{
    Delete, Envelope, FrameWriter, Get, GetBatch, GetBatchAnswer, Item, KeyValue, Operation, Put, PutBatch,
    Range, RangeAnswer, ReadContext, Request, Response, Transact, Transacted, WriteContext,
};

use super::client::Shared;
use super::keys::{Keyspace, Scope};
use super::transactions::{Memory, Reads, Seen, Transaction, WhatRead, range_read};
use super::values;
use crate::counters::{CountId, Counted};
use crate::history::{BatchId, History, OpId, Outcome, Puts, Stamp};
use crate::lists::Contents;

/// One request.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) shard: ShardId,
    pub(super) recorded: Recorded,
    pub(super) kind: Kind,
}

/// Where the history has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Recorded {
    /// As one operation. The request is one of a single key.
    One(OpId),
    /// As several. The request is a batch, even of one key, a range or a transaction.
    Batch(BatchId),
    /// As an increment.
    Count(CountId),
}

impl Recorded {
    /// The operations that the history has of it.
    pub(super) fn operations(self, history: &History) -> Vec<OpId> {
        match self {
            Self::One(op) => vec![op],
            Self::Batch(batch) => history.of_batch(batch).to_vec(),
            Self::Count(_) => Vec::new(),
        }
    }
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Keys and values.
    Put(Vec<(Bytes, Bytes)>),
    Delete(Vec<Bytes>),
    Get(Vec<Bytes>, Pages),
    Range(RangeOf, Pages),
    Transact(Box<Transaction>),
    /// Of a counter, by one.
    Increment(Bytes),
}

/// What a range is asked for with.
#[derive(Debug)]
pub(super) struct RangeOf {
    pub(super) from: Bytes,
    pub(super) to: Bytes,
    pub(super) reverse: bool,
    pub(super) limit: u32,
    pub(super) scope: Scope,
}

/// A read, page by page, all at the revision of the first.
#[derive(Default, Debug)]
pub(super) struct Pages {
    at: Revision,
    /// How many keys of a batch were answered.
    answered: usize,
    found: Vec<Found>,
}

#[derive(Debug)]
struct Found {
    key: Bytes,
    stamp: Stamp,
    revision: Revision,
    version: u64,
    contents: Option<Contents>,
}

/// What an answer means for the work.
pub(super) enum Progress {
    /// It is done, and the history has it. Of a write, how it ended.
    Done(Outcome),
    /// Another page is to be asked for.
    NextPage,
}

impl Work {
    pub(super) const fn is_write(&self) -> bool {
        matches!(self.kind, Kind::Put(_) | Kind::Delete(_) | Kind::Transact(_) | Kind::Increment(_))
    }

    /// The frame that asks for it, or for its next page.
    pub(super) fn frame(
        &self,
        writer: &mut FrameWriter,
        envelope: &Envelope,
        ctx: WriteContext<'_>,
    ) -> Bytes {
        let read = ReadContext { deadline_ms: 2000, ..ReadContext::default() };
        let is_single = matches!(self.recorded, Recorded::One(_));
        match &self.kind {
            Kind::Put(items) => match items.as_slice() {
                [(key, value)] if is_single => {
                    encode(writer, envelope, &Request::Put(Put { ctx, key, value, ..Put::default() }))
                }
                items => {
                    let items: Vec<_> = items.iter().map(|(key, value)| KeyValue { key, value }).collect();
                    encode(writer, envelope, &Request::PutBatch(PutBatch { ctx, items: (&items).into() }))
                }
            },
            Kind::Delete(keys) => {
                let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
                encode(writer, envelope, &Request::Delete(Delete { ctx, keys: (&keys).into() }))
            }
            Kind::Transact(transaction) => {
                transaction.request(ctx, |transact| encode(writer, envelope, &Request::Transact(transact)))
            }
            Kind::Increment(key) => {
                let operations = [Operation { key, action: mesh_wire::Action::Increment { delta: 1 } }];
                let transact = Transact { ctx, operations: (&operations).into(), ..Transact::default() };
                encode(writer, envelope, &Request::Transact(transact))
            }
            Kind::Get(keys, pages) => match keys.as_slice() {
                [key] if is_single => {
                    encode(writer, envelope, &Request::Get(Get { ctx: read, key, ..Get::default() }))
                }
                keys => {
                    let rest: Vec<&[u8]> = keys.iter().skip(pages.answered).map(AsRef::as_ref).collect();
                    let batch = GetBatch { ctx: read, keys: (&rest).into(), at: pages.at };
                    encode(writer, envelope, &Request::GetBatch(batch))
                }
            },
            Kind::Range(range, pages) => {
                let range = Range {
                    ctx: read,
                    from: &range.from,
                    to: &range.to,
                    after: pages.found.last().map(|found| found.key.as_ref()),
                    limit: range.limit,
                    reverse: range.reverse,
                    at: pages.at,
                    ..Range::default()
                };
                encode(writer, envelope, &Request::Range(range))
            }
        }
    }

    /// Takes an answer that is no error.
    ///
    /// # Errors
    /// What is wrong with it, where no checker of histories has to be asked.
    pub(super) fn take(
        &mut self,
        response: &Response<'_>,
        now: Instant,
        shared: &Shared,
        memory: &mut Memory,
        history: &mut History,
    ) -> Result<Progress, String> {
        let keys = &shared.keys;
        let progress = match (response, &mut self.kind) {
            (Response::Written(written), Kind::Put(_)) => {
                self.end(now, Outcome::Written(written.revision), None, history)
            }
            (Response::Deleted(deleted), Kind::Delete(asked)) => match deleted.deleted {
                count if count as usize > asked.len() => {
                    return Err(format!("{count} of {} keys are said to be deleted", asked.len()));
                }
                0 => self.end(now, Outcome::NothingRemoved, Some(deleted.revision), history),
                _ => self.end(now, Outcome::Written(deleted.revision), None, history),
            },
            (Response::Get(answer), Kind::Get(asked, pages)) => {
                let key = asked.first().cloned().unwrap_or_default();
                pages.take_item(key, answer.item, keys)?;
                pages.at = answer.revision;
                self.end_read(now, shared, memory, history)?
            }
            (Response::GetBatch(answer), Kind::Get(asked, pages)) => {
                match pages.take_batch(asked, answer, keys)? {
                    Rest::Left => Progress::NextPage,
                    Rest::None => self.end_read(now, shared, memory, history)?,
                }
            }
            (Response::Range(page), Kind::Range(range, pages)) => {
                match pages.take_range(range, page, keys)? {
                    Rest::Left => Progress::NextPage,
                    Rest::None => self.end_read(now, shared, memory, history)?,
                }
            }
            (Response::Transacted(answer), Kind::Transact(transaction)) => {
                let Recorded::Batch(batch) = self.recorded else { unreachable!("a batch: {self:?}") };
                let (done, found) = transaction.take(answer, memory)?;
                history.respond_transaction(now, batch, done, &found);
                Progress::Done(match done.puts {
                    Puts::Done => Outcome::Written(done.revision),
                    Puts::Left => Outcome::NotApplied,
                })
            }
            (Response::Transacted(answer), Kind::Increment(_)) => self.end_increment(answer, history)?,
            (other, kind) => unreachable!("an answer to its request: {other:?} to {kind:?}"),
        };
        Ok(progress)
    }

    /// The work is over without anything having been found.
    pub(super) fn end(
        &self,
        now: Instant,
        outcome: Outcome,
        of: Option<Revision>,
        history: &mut History,
    ) -> Progress {
        match (self.recorded, of) {
            (Recorded::One(op), None) => history.respond(now, op, outcome),
            (Recorded::One(op), Some(of)) => history.respond_of(now, op, outcome, of),
            (Recorded::Batch(batch), of) => history.respond_all(now, batch, outcome, of),
            (Recorded::Count(count), _) => {
                let how = if outcome == Outcome::NotApplied { Counted::Not } else { Counted::Unknown };
                history.end_count(count, how);
            }
        }
        Progress::Done(outcome)
    }

    /// An increment was done.
    fn end_increment(&self, answer: &Transacted<'_>, history: &mut History) -> Result<Progress, String> {
        let Recorded::Count(count) = self.recorded else { unreachable!("a count: {self:?}") };
        let revision = answer.revision;
        let how = match answer.results.get(0).flatten() {
            // Of an answer that came so late that its number is forgotten, no more is known than that it counts.
            None if answer.forgotten => Counted::Unknown,
            Some(item) if item.revision == revision => {
                let number = std::str::from_utf8(item.value).ok().and_then(|text| text.parse().ok());
                let number = number.ok_or_else(|| "an increment left no number".to_owned())?;
                Counted::Done { revision, number }
            }
            other => return Err(format!("an increment at {revision} is answered with {other:?}")),
        };
        history.end_count(count, how);
        Ok(Progress::Done(Outcome::Written(revision)))
    }

    /// Whether a refusal because of a key's revision makes sense.
    pub(super) fn may_conflict(&self, key: &[u8], revision: Revision) -> bool {
        matches!(&self.kind, Kind::Transact(transaction) if transaction.may_conflict(key, revision))
    }

    fn end_read(
        &mut self,
        now: Instant,
        shared: &Shared,
        memory: &mut Memory,
        history: &mut History,
    ) -> Result<Progress, String> {
        let what = match &self.kind {
            Kind::Range(range, _) => range_read(shared, range.scope, self.shard),
            Kind::Get(keys, _) => WhatRead::Keys(keys.clone()),
            _ => unreachable!("a read: {self:?}"),
        };
        let (Kind::Get(_, pages) | Kind::Range(_, pages)) = &mut self.kind else {
            unreachable!("a read: {self:?}")
        };
        let of = pages.at;
        memory.read(self.shard, Reads { of, what });
        for Found { key, revision, version, .. } in &pages.found {
            memory.saw(key, Seen { revision: *revision, version: *version });
        }
        let mut contents: BTreeMap<Bytes, Contents> = BTreeMap::new();
        for found in &mut pages.found {
            contents.extend(found.contents.take().map(|contents| (found.key.clone(), contents)));
        }
        match self.recorded {
            Recorded::One(op) => {
                let found = pages.found.first().map(|found| Outcome::Found(found.stamp, found.revision));
                history.respond_of(now, op, found.unwrap_or(Outcome::Absent), of);
                contents.into_values().for_each(|contents| history.note_contents(op, contents));
            }
            Recorded::Count(_) => unreachable!("a read: {self:?}"),
            Recorded::Batch(batch) => {
                let asked = history.of_batch(batch).to_vec();
                let gets: BTreeMap<Bytes, OpId> =
                    asked.into_iter().map(|get| (history.get(get).key.clone(), get)).collect();
                let stranger = pages.found.iter().find(|found| !gets.contains_key(&found.key));
                if let Some(Found { key, .. }) = stranger {
                    return Err(format!("found \"{}\", which nobody ever wrote", key.escape_ascii()));
                }
                let found = pages.found.iter().map(|it| (it.key.clone(), it.stamp, it.revision));
                history.respond_found(now, batch, of, &found.collect::<Vec<_>>());
                for (key, contents) in contents {
                    gets.get(&key).into_iter().for_each(|get| history.note_contents(*get, contents.clone()));
                }
            }
        }
        Ok(Progress::Done(Outcome::Absent))
    }
}

/// Whether there is more to be asked for.
enum Rest {
    Left,
    None,
}

impl Pages {
    fn take_item(&mut self, key: Bytes, item: Option<Item<'_>>, keys: &Keyspace) -> Result<(), String> {
        let Some(item) = item else { return Ok(()) };
        let damaged = || format!("the value of \"{}\" is not as it was written", key.escape_ascii());
        let (stamp, what) = values::read(item.value).ok_or_else(damaged)?;
        let contents = if keys.is_list(&key) { values::contents(what) } else { None };
        self.found.push(Found { key, stamp, revision: item.revision, version: item.version, contents });
        Ok(())
    }

    fn take_batch(
        &mut self,
        asked: &[Bytes],
        answer: &GetBatchAnswer<'_>,
        keys: &Keyspace,
    ) -> Result<Rest, String> {
        self.begin_page(answer.revision)?;
        let left = asked.len() - self.answered;
        let count = answer.items.len();
        if count == 0 || count > left {
            return Err(format!("{count} items answer {left} keys"));
        }
        for (key, item) in asked.iter().skip(self.answered).zip(answer.items.iter()) {
            self.take_item(key.clone(), item, keys)?;
        }
        self.answered += count;
        Ok(if self.answered < asked.len() { Rest::Left } else { Rest::None })
    }

    fn take_range(
        &mut self,
        range: &RangeOf,
        page: &RangeAnswer<'_>,
        keys: &Keyspace,
    ) -> Result<Rest, String> {
        self.begin_page(page.revision)?;
        for found in page.items {
            let key = Bytes::copy_from_slice(found.key);
            let is_next = self.found.last().is_none_or(|last| match range.reverse {
                true => key < last.key,
                false => key > last.key,
            });
            if !is_next {
                return Err(format!("a range is out of order at \"{}\"", key.escape_ascii()));
            }
            self.take_item(key, Some(found.item), keys)?;
        }
        Ok(if page.more && self.at != Revision::ZERO { Rest::Left } else { Rest::None })
    }

    /// The pages of a read are of one revision.
    fn begin_page(&mut self, of: Revision) -> Result<(), String> {
        let asked = std::mem::replace(&mut self.at, of);
        let is_so = asked == Revision::ZERO || asked == of;
        is_so
            .then_some(())
            .ok_or_else(|| format!("a page of {of} was answered, and one of {asked} asked for"))
    }
}

pub(super) fn encode(writer: &mut FrameWriter, envelope: &Envelope, request: &Request<'_>) -> Bytes {
    match writer.frame(envelope, request) {
        Ok(frame) => frame,
        Err(error) => unreachable!("the client asks within limits: {error}"),
    }
}
