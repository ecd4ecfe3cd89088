//! Serving reads whose round is proven: from the applied state, in as many attempts as pages have to be fetched.
//!
//! Invariant: all parts of one read are read at one revision, the newest when it was first attempted, so an attempt that
//! continues after a fetch sees what the first one saw. A turn answers a bounded number of bytes; the rest waits for the
//! next.

use std::sync::Arc;

use bytes::Bytes;
use mesh_base::flaw::{self, Flaw};
use mesh_base::limits::{FRAME_PAYLOAD_BYTES_MAX, VALUE_BYTES_MAX};
use mesh_base::{Namespace, Now, Revision};
use mesh_engine::{
    GROUP_KEYS, Lookup, Misses, ScanDirection, ScanEnd, ScanRequest, ScanRest, StoreError, Version, Want,
};
use mesh_wire::{Error, GetAnswer, GetBatchAnswer, Item, RangeAnswer, RangeItem, Response, Transacted};

use super::command::{Order, Range, Read, Shape};
use super::error::ShardError;
use super::output::Output;
use super::proposals::Waiter;
use super::replica::{Parked, Replica};
use super::transacting::on_wire;
use super::transaction::{Branch, Found as Wanted, Transaction};

/// What an answer may hold: the rest of the frame is for the largest value.
const ANSWER_BYTES_SOFT_MAX: usize = FRAME_PAYLOAD_BYTES_MAX - VALUE_BYTES_MAX - 64 * 1024;
/// Bytes that a read of many keys fetches together, about.
const MISSED_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an item in an answer beside its key and value, at most.
const ITEM_BYTES_MAX: usize = 128;

const _: () = assert!(FRAME_PAYLOAD_BYTES_MAX > VALUE_BYTES_MAX + 128 * 1024);

/// A read on its way.
#[derive(Debug)]
pub(super) struct PendingRead {
    pub(super) waiter: Waiter,
    read: Read,
    /// The revision it reads at, fixed by the first attempt.
    at: Option<Revision>,
    /// What earlier attempts found.
    found: Vec<Option<Found>>,
    found_bytes: usize,
    /// What is left of a range.
    rest: Option<Box<ScanRest>>,
}

/// A version copied out of its page.
#[derive(Debug)]
struct Found {
    key: Bytes,
    value: Bytes,
    revision: Revision,
    create_revision: Revision,
    version: u64,
    lease: u64,
    type_tag: u8,
}

impl PendingRead {
    pub(super) const fn new(waiter: Waiter, read: Read) -> Self {
        Self { waiter, read, at: None, found: Vec::new(), found_bytes: 0, rest: None }
    }

    /// The key and the revision of a lookup of one key, which nothing is known of yet.
    fn lookup(&self, newest: Revision) -> Option<(&[u8], Revision)> {
        match &self.read {
            Read::Get { key, at } if self.at.is_none() => Some((key, (*at).min(newest))),
            _ => None,
        }
    }

    fn is_first_lookup(&self) -> bool {
        self.lookup(Revision::MAX).is_some()
    }

    /// It waited for pages so long that the revision which it began at is compacted, and wants the newest, whatever that is.
    fn is_behind(&self) -> bool {
        self.at.is_some_and(|at| at < self.read.at())
    }

    /// Tells that it is not answered. What a transaction found follows upon the transaction, which is done: that its answer
    /// does not come leaves its client in doubt, as the loss of any answer does.
    pub(super) fn fail(&self, error: &Error, out: &mut Output) {
        match self.read {
            Read::Transacted { .. } => out.fail(self.waiter.responder, &Error::Unknown),
            _ => out.fail(self.waiter.responder, error),
        }
    }

    /// What was found so far, in the order of what was asked for.
    fn items(&self) -> Vec<Option<Item<'_>>> {
        self.found.iter().map(|found| found.as_ref().map(Found::item)).collect()
    }

    fn begin_anew(&mut self) {
        let Self { at, found, found_bytes, rest, .. } = self;
        (*at, *rest, *found_bytes) = (None, None, 0);
        found.clear();
    }

    fn keep(&mut self, found: Option<Found>) {
        let bytes = found.as_ref().map_or(0, |found| found.key.len() + found.value.len());
        self.found_bytes += bytes + ITEM_BYTES_MAX;
        self.found.push(found);
    }
}

impl Found {
    fn copy(key: &[u8], version: &Version<'_>, shape: Shape) -> Self {
        let value = match shape {
            Shape::Items => version.value.to_vec().into(),
            Shape::KeysOnly => Bytes::new(),
        };
        Self {
            key: Bytes::copy_from_slice(key),
            value,
            revision: version.revision,
            create_revision: version.attributes.create_revision,
            version: version.attributes.version,
            lease: version.attributes.lease,
            type_tag: version.attributes.type_tag,
        }
    }

    fn item(&self) -> Item<'_> {
        Item {
            value: &self.value,
            revision: self.revision,
            create_revision: self.create_revision,
            version: self.version,
            lease: self.lease,
            type_tag: self.type_tag,
        }
    }
}

impl Replica {
    /// Serves the reads whose rounds are proven and applied.
    pub(super) fn serve_proven_reads(&mut self, now: Now, out: &mut Output) -> Result<(), ShardError> {
        if self.receiving.is_installing() {
            return Ok(());
        }
        let mut lookups = Vec::new();
        while out.has_room()
            && let Some(read) = self.reads.next_ready(self.state.applied.index)
        {
            if !read.is_first_lookup() {
                self.serve(now, read, out)?;
                continue;
            }
            lookups.push(read);
            if lookups.len() == GROUP_KEYS {
                self.serve_lookups(now, std::mem::take(&mut lookups), out)?;
            }
        }
        self.serve_lookups(now, lookups, out)
    }

    /// Serves lookups of a key each, all of them together: a turn's waits for main memory go on side by side.
    fn serve_lookups(
        &mut self,
        now: Now,
        reads: Vec<PendingRead>,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        let newest = self.state.newest;
        let targets: Vec<_> = reads.iter().filter_map(|read| read.lookup(newest)).collect();
        let found = match self.state.store.get_group(Namespace::USER, &targets, Want::Value) {
            Ok(found) if reads.len() > 1 => found,
            // One of them asks for what is compacted: it is told, and the others are not.
            _ => return reads.into_iter().try_for_each(|read| self.serve(now, read, out)),
        };
        let mut missed = Vec::new();
        let ats: Vec<_> = targets.iter().map(|(_, at)| *at).collect();
        for ((mut read, at), found) in reads.into_iter().zip(ats).zip(found) {
            match found {
                _ if read.waiter.deadline <= now.monotonic => {
                    read.fail(&Error::DeadlineExceeded, out);
                }
                _ if !out.has_room() => self.reads.postpone(read),
                Lookup::Ready(found) => answer_lookup(&read, found.live(), at, out),
                Lookup::Miss(misses) => {
                    read.at = Some(at);
                    missed.push((read, misses));
                }
            }
        }
        for (read, misses) in missed {
            self.park(&misses, Parked::Read(read), out);
        }
        Ok(())
    }

    /// Serves a read as far as the pages in memory allow.
    pub(super) fn serve(
        &mut self,
        now: Now,
        mut read: PendingRead,
        out: &mut Output,
    ) -> Result<(), ShardError> {
        if read.waiter.deadline <= now.monotonic {
            read.fail(&Error::DeadlineExceeded, out);
            return Ok(());
        }
        if !out.has_room() {
            self.reads.postpone(read);
            return Ok(());
        }
        loop {
            match self.attempt(&mut read, now, out) {
                Ok(None) => return Ok(()),
                Ok(Some(misses)) => {
                    self.park(&misses, Parked::Read(read), out);
                    return Ok(());
                }
                Err(ShardError::Store(StoreError::Compacted { .. })) if read.is_behind() => read.begin_anew(),
                Err(ShardError::Store(StoreError::Compacted { oldest })) => {
                    read.fail(&Error::Compacted { oldest }, out);
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers a read, or returns the pages it misses.
    fn attempt(
        &mut self,
        read: &mut PendingRead,
        now: Now,
        out: &mut Output,
    ) -> Result<Option<Misses>, ShardError> {
        let newest = self.state.newest;
        let asked = match &read.read {
            Read::Range(range) if range.at < newest && flaw::is_planted(Flaw::RangeIgnoresRevision) => newest,
            read => read.at(),
        };
        let at = *read.at.get_or_insert(asked.min(newest));
        match &read.read {
            Read::Get { key, .. } => {
                match self.state.store.get(Namespace::USER, key, at, Want::Value)? {
                    Lookup::Miss(misses) => return Ok(Some(misses)),
                    Lookup::Ready(found) => answer_lookup(read, found.live(), at, out),
                }
                Ok(None)
            }
            Read::GetBatch { keys, .. } => {
                let keys = keys.clone();
                self.attempt_batch(read, &keys, at, out)
            }
            Read::Range(range) => {
                let range = range.clone();
                self.attempt_range(read, &range, at, now, out)
            }
            Read::Transacted { transaction, branch, revision } => {
                let (transaction, branch, revision) = (Arc::clone(transaction), *branch, *revision);
                self.attempt_results(read, &transaction, branch, revision, out)
            }
        }
    }

    /// Answers what a transaction found: what its keys held right before its revision, and hold at it.
    fn attempt_results(
        &mut self,
        read: &mut PendingRead,
        transaction: &Transaction,
        branch: Branch,
        revision: Revision,
        out: &mut Output,
    ) -> Result<Option<Misses>, ShardError> {
        let mut forgotten = false;
        for operation in transaction.branch(branch).iter().skip(read.found.len()) {
            let at = match operation.found() {
                Wanted::Nothing => {
                    read.keep(None);
                    continue;
                }
                Wanted::Before => Revision(revision.0.saturating_sub(1)),
                Wanted::After => revision,
            };
            match self.state.store.get(Namespace::USER, &operation.key, at, Want::Value) {
                Ok(Lookup::Miss(misses)) => return Ok(Some(misses)),
                Ok(Lookup::Ready(found)) => {
                    let found = found.live().map(|version| Found::copy(&[], &version, Shape::Items));
                    read.keep(found);
                }
                Err(StoreError::Compacted { .. }) => {
                    forgotten = true;
                    read.found.clear();
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            if read.found_bytes >= ANSWER_BYTES_SOFT_MAX {
                break;
            }
        }
        let items = read.items();
        let (branch, results) = (on_wire(branch), (&items).into());
        let answer = Transacted { revision, branch, results, forgotten };
        out.answer(read.waiter.responder, &Response::Transacted(answer));
        Ok(None)
    }

    fn attempt_batch(
        &mut self,
        read: &mut PendingRead,
        keys: &[Bytes],
        at: Revision,
        out: &mut Output,
    ) -> Result<Option<Misses>, ShardError> {
        let newest = self.state.newest;
        let is_late = !read.found.is_empty() && at < newest;
        let at = if is_late && flaw::is_planted(Flaw::ReadBatchAnew) { newest } else { at };
        while let Some(key) = keys.get(read.found.len()) {
            match self.state.store.get(Namespace::USER, key, at, Want::Value)? {
                Lookup::Miss(_) => {
                    let rest = keys.iter().skip(read.found.len()).map(AsRef::as_ref);
                    let store = &self.state.store;
                    return Ok(Some(store.missing_of(Namespace::USER, rest, at, MISSED_BYTES_MAX)?));
                }
                Lookup::Ready(found) => {
                    let found = found.live().map(|version| Found::copy(&[], &version, Shape::Items));
                    read.keep(found);
                }
            }
            if read.found_bytes >= ANSWER_BYTES_SOFT_MAX {
                break;
            }
        }
        let items = read.items();
        out.answer(
            read.waiter.responder,
            &Response::GetBatch(GetBatchAnswer { items: (&items).into(), revision: at }),
        );
        Ok(None)
    }

    fn attempt_range(
        &mut self,
        read: &mut PendingRead,
        range: &Range,
        at: Revision,
        now: Now,
        out: &mut Output,
    ) -> Result<Option<Misses>, ShardError> {
        let scan = self.scan(read, range, at)?;
        if let Some(misses) = scan.misses {
            return Ok(Some(misses));
        }
        let items =
            read.found.iter().flatten().map(|found| RangeItem { key: &found.key, item: found.item() });
        let items: Vec<_> = items.collect();
        if scan.more {
            self.history.hold(at, now.monotonic, &self.options.history);
        }
        out.answer(
            read.waiter.responder,
            &Response::Range(RangeAnswer { items: (&items).into(), more: scan.more, revision: at }),
        );
        Ok(None)
    }
}

/// Answers a lookup of one key.
fn answer_lookup(read: &PendingRead, found: Option<Version<'_>>, at: Revision, out: &mut Output) {
    let responder = read.waiter.responder;
    let Some(version) = found else {
        return out.answer(responder, &Response::Get(GetAnswer { item: None, revision: at }));
    };
    let copy;
    let value = match version.value.as_slice() {
        Some(value) => value,
        None => {
            copy = version.value.to_vec();
            &copy
        }
    };
    let item = Item {
        value,
        revision: version.revision,
        create_revision: version.attributes.create_revision,
        version: version.attributes.version,
        lease: version.attributes.lease,
        type_tag: version.attributes.type_tag,
    };
    out.answer(responder, &Response::Get(GetAnswer { item: Some(item), revision: at }));
}

/// How a scan of a page of a range went.
struct Scanned {
    misses: Option<Misses>,
    more: bool,
}

impl Replica {
    /// Continues a range where earlier attempts ended.
    fn scan(&mut self, read: &mut PendingRead, range: &Range, at: Revision) -> Result<Scanned, ShardError> {
        let mut rest = read.rest.take().map_or_else(|| whole(range), |rest| *rest);
        loop {
            let items_max = range.items_max.saturating_sub(read.found.len());
            // The last item may be the largest there is.
            let bytes_max = range.bytes_max.min(ANSWER_BYTES_SOFT_MAX).saturating_sub(read.found_bytes);
            if !read.found.is_empty() && (items_max == 0 || bytes_max == 0) {
                return Ok(Scanned { misses: None, more: true });
            }
            let request = ScanRequest {
                namespace: Namespace::USER,
                start: &rest.start,
                end: rest.end.as_deref(),
                direction: match range.order {
                    Order::Ascending => ScanDirection::Forward,
                    Order::Descending => ScanDirection::Reverse,
                },
                at,
                want: match range.shape {
                    Shape::Items => Want::Value,
                    Shape::KeysOnly => Want::Head,
                },
                items_max,
                bytes_max,
            };
            let outcome = self.state.store.scan(&request, |key, version| {
                read.keep(Some(Found::copy(key, version, range.shape)));
            })?;
            match outcome.end {
                ScanEnd::Complete => return Ok(Scanned { misses: None, more: false }),
                // The limit of the page, or of what one call passes over: the loop's head tells them apart.
                ScanEnd::Limit { rest: left } => rest = left,
                ScanEnd::Miss { rest: left, misses } => {
                    read.rest = Some(Box::new(left));
                    return Ok(Scanned { misses: Some(misses), more: true });
                }
            }
        }
    }
}

/// The keys of a range that come after where the page begins.
fn whole(range: &Range) -> ScanRest {
    let mut start = range.from.to_vec();
    let mut end = (!range.to.is_empty()).then(|| range.to.to_vec());
    match (&range.after, range.order) {
        (Some(after), Order::Ascending) => {
            // The least key above `after`.
            let mut next = after.to_vec();
            next.push(0);
            start = start.max(next);
        }
        (Some(after), Order::Descending) => {
            let before = after.to_vec();
            end = Some(end.map_or_else(|| before.clone(), |end| end.min(before.clone())));
        }
        (None, _) => {}
    }
    ScanRest { start, end }
}
