//! The items of a range, merged from all shards.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use mesh_base::limits::{CLIENT_RANGE_BYTES_MAX, RANGE_PAGE_BYTES};
use mesh_base::{Revision, ShardId};

use super::bounds::{Order, Range};
use super::cursor::Cursor;
use super::lane::{Lane, Query};
use crate::core::Handle;
use crate::request::{Deadline, Failure};
use crate::{Entry, Error, Result};

/// The least bytes of a page, however many shards there are.
const PAGE_BYTES_MIN: usize = 4 * 1024;

/// The items of a range in the order of their keys; made by [`crate::Cluster::range`].
///
/// A stream, and also read by [`Items::next`]. It ends after the last item, at the limit, or after an error; where it was
/// left off is told by [`Items::cursor`].
#[must_use = "a range is read when its items are asked for"]
pub struct Items {
    query: Arc<Query>,
    _handle: Arc<Handle>,
    lanes: Vec<Lane>,
    /// Lanes whose next key is not known.
    open: Vec<usize>,
    heads: BinaryHeap<Head>,
    stage: Stage,
    /// When the item that is asked for must be here.
    deadline: Option<Deadline>,
    /// How often slots have moved since an item was last returned.
    rounds: u32,
    left: Option<u64>,
    /// The last key that was returned.
    last: Option<Bytes>,
    /// The revisions that shards are to be read at.
    revisions: Vec<(ShardId, Revision)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It was not asked for an item yet.
    New,
    Reading,
    /// There may be more, but no more is returned.
    Stopped,
    /// All was returned.
    End,
}

/// The next key of a lane.
#[derive(PartialEq, Eq)]
struct Head {
    key: Bytes,
    lane: usize,
    order: Order,
}

impl Ord for Head {
    /// The greatest is the one to be returned first.
    fn cmp(&self, other: &Self) -> Ordering {
        let ascending = other.key.cmp(&self.key);
        let by_key = if self.order == Order::Ascending { ascending } else { ascending.reverse() };
        by_key.then_with(|| other.lane.cmp(&self.lane))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Items {
    pub(crate) fn new(handle: Arc<Handle>, range: Range) -> Self {
        let cursor = range.cursor.clone();
        let (last, revisions) = cursor.map(|cursor| (cursor.last, cursor.revisions)).unzip();
        Self {
            left: range.limit,
            query: Arc::new(Query {
                core: Arc::clone(handle.core()),
                range,
                deadline: None,
                page_bytes: 0,
                round: 0,
            }),
            _handle: handle,
            lanes: Vec::new(),
            open: Vec::new(),
            heads: BinaryHeap::new(),
            stage: Stage::New,
            deadline: None,
            rounds: 0,
            last,
            revisions: revisions.unwrap_or_default(),
        }
    }

    /// How long to go on trying when an item is asked for; the cluster handle's deadline unless set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.query = Arc::new(Query { deadline: Some(deadline), ..Query::clone(&self.query) });
        self
    }

    /// The next item; `None` after the last. May be called again after it was given up.
    ///
    /// # Errors
    /// Why no more items can be read.
    pub async fn next(&mut self) -> Option<Result<Entry>> {
        // One that was given up had a time of its own.
        self.deadline = None;
        poll_fn(|cx| self.poll(cx)).await
    }

    /// All items that are left.
    ///
    /// # Errors
    /// Why not all items can be read.
    pub async fn collect(mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        while let Some(entry) = self.next().await {
            entries.push(entry?);
        }
        Ok(entries)
    }

    /// Where a later reading can go on behind the last item that was returned, at the same revisions; `None` if no item
    /// was returned, or all were.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        if self.stage == Stage::End {
            return None;
        }
        let lanes = self.lanes.iter().map(|lane| (lane.shard, lane.at));
        let known: Vec<_> = lanes.filter(|(_, at)| *at != Revision::ZERO).collect();
        Some(Cursor {
            cluster: self.query.core.view.topology().cluster(),
            order: self.query.range.order,
            last: self.last.clone()?,
            revisions: if known.is_empty() { self.revisions.clone() } else { known },
        })
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Entry>>> {
        let deadline = *self.deadline.get_or_insert_with(|| self.query.deadline());
        let item = ready!(self.poll_item(deadline, cx));
        (self.deadline, self.rounds) = (None, 0);
        Poll::Ready(item)
    }

    fn poll_item(&mut self, deadline: Deadline, cx: &mut Context<'_>) -> Poll<Option<Result<Entry>>> {
        loop {
            match self.stage {
                Stage::New => {
                    if let Err(error) = self.begin() {
                        self.stage = Stage::Stopped;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Stage::Reading if self.left == Some(0) => self.stop(),
                Stage::Reading => {}
                Stage::Stopped | Stage::End => return Poll::Ready(None),
            }
            if self.stage != Stage::Reading {
                continue;
            }
            match self.poll_heads(deadline, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => return Poll::Ready(self.pop().map(Ok)),
                Poll::Ready(Err(Failure::Rerouted)) => {
                    // Slots have moved. The revisions are those of shards that were something else.
                    self.revisions.clear();
                    self.rounds += 1;
                    self.spread();
                }
                Poll::Ready(Err(Failure::Error(error))) => {
                    self.stop();
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }

    fn begin(&mut self) -> Result<()> {
        let Query { core, range, .. } = &*self.query;
        if let Some(cursor) = &range.cursor {
            let cluster = core.view.topology().cluster();
            cursor.check(cluster, range.order).map_err(|flaw| Error::Cursor { flaw })?;
        }
        if range.is_empty() {
            self.stage = Stage::End;
            return Ok(());
        }
        self.stage = Stage::Reading;
        self.spread();
        Ok(())
    }

    /// Begins to read every shard that can have keys of the range.
    fn spread(&mut self) {
        let Query { core, range, .. } = &*self.query;
        let topology = core.view.topology();
        let shards: Vec<_> = match range.slot {
            Some(slot) => vec![topology.shard_of_slot(slot)],
            None => topology.shards().collect(),
        };
        let page_bytes =
            (CLIENT_RANGE_BYTES_MAX / (2 * shards.len())).clamp(PAGE_BYTES_MIN, RANGE_PAGE_BYTES);
        let page_bytes = u32::try_from(page_bytes).unwrap_or(u32::MAX);
        self.query = Arc::new(Query { page_bytes, round: self.rounds, ..Query::clone(&self.query) });
        let at =
            |shard| self.revisions.iter().find(|(of, _)| *of == shard).map_or(Revision::ZERO, |(_, at)| *at);
        self.lanes = shards.iter().map(|&shard| Lane::new(shard, at(shard), self.last.clone())).collect();
        self.open = (0..self.lanes.len()).collect();
        self.heads.clear();
    }

    /// Finds out the next key of every lane.
    fn poll_heads(&mut self, deadline: Deadline, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut still_open = Vec::new();
        for number in std::mem::take(&mut self.open) {
            let Some(lane) = self.lanes.get_mut(number) else { continue };
            match lane.poll_head(&self.query, deadline, cx) {
                Poll::Pending => still_open.push(number),
                Poll::Ready(Ok(None)) => {}
                Poll::Ready(Ok(Some(key))) => {
                    self.heads.push(Head { key, lane: number, order: self.query.range.order });
                }
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
            }
        }
        self.open = still_open;
        if self.open.is_empty() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Takes the first of the heads.
    fn pop(&mut self) -> Option<Entry> {
        assert!(self.open.is_empty(), "every lane's next key is known");
        let Some(head) = self.heads.pop() else {
            self.stage = Stage::End;
            return None;
        };
        let entry = self.lanes.get_mut(head.lane).and_then(|lane| lane.take(&self.query))?;
        assert!(entry.key == head.key, "the head of a lane is its first entry");
        self.open.push(head.lane);
        self.last = Some(entry.key.clone());
        self.left = self.left.map(|left| left - 1);
        Some(entry)
    }

    /// Ends the reading where it is; what was fetched and not returned is let go.
    fn stop(&mut self) {
        self.stage = if self.lanes.iter().all(Lane::is_spent) { Stage::End } else { Stage::Stopped };
        self.heads.clear();
        self.open.clear();
        for lane in &mut self.lanes {
            *lane = Lane::new(lane.shard, lane.at, None);
        }
    }
}

impl Stream for Items {
    type Item = Result<Entry>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { query, stage, last, .. } = self;
        let range = &query.range;
        f.debug_struct("Items")
            .field("range", range)
            .field("stage", stage)
            .field("last", last)
            .finish_non_exhaustive()
    }
}
