//! How far the stream of a snapshot's chunks is, at its sender: what is acknowledged, what is under way, where it goes on.
//!
//! Nothing of a chunk is kept: what was lost is made again from the checkpoint, from wherever the receiver says. So a
//! transfer that broke off, for whatever reason and however long ago, goes on as one that lost a chunk.
//!
//! Invariants:
//! - What is under way lies between what is acknowledged and where the stream goes on.
//! - An acknowledgement only moves it on, however late it comes. Only a wish of the receiver's takes it back, and a wish
//!   that is old costs what is then sent in vain, until the next one.

use std::collections::VecDeque;
use std::time::Duration;

use mesh_base::Instant;
use mesh_base::limits::SNAPSHOT_CHUNKS_IN_FLIGHT_MAX;
use mesh_engine::CellKey;

use super::snapshot::Place;

/// The chunks of a snapshot on their way to one replica.
#[derive(Debug)]
pub(super) struct Stream {
    /// The receiver has everything before.
    acknowledged: Place,
    /// Where the next chunk begins.
    rest: Place,
    /// The ends of the chunks that are not acknowledged, and when each was sent.
    under_way: VecDeque<(Place, Instant)>,
}

impl Stream {
    /// A stream that begins at the beginning.
    pub(super) fn new() -> Self {
        Self { acknowledged: Place::start(), rest: Place::start(), under_way: VecDeque::new() }
    }

    /// Chunks that are sent and not acknowledged.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Where the next chunk is to begin, if one is to be sent.
    pub(super) fn next(&self) -> Option<&CellKey> {
        match &self.rest {
            Place::Before(key) if self.under_way.len() < SNAPSHOT_CHUNKS_IN_FLIGHT_MAX => Some(key),
            Place::Before(_) | Place::End => None,
        }
    }

    /// A chunk was sent that ends there.
    pub(super) fn sent(&mut self, now: Instant, end: Place) {
        self.under_way.push_back((end.clone(), now));
        self.rest = end;
    }

    /// The receiver has everything before a place. Whether that is further than before.
    pub(super) fn acknowledge(&mut self, place: Place) -> bool {
        if place <= self.acknowledged {
            return false;
        }
        while self.under_way.pop_front_if(|(end, _)| *end <= place).is_some() {}
        if self.rest < place {
            self.rest = place.clone();
        }
        self.acknowledged = place;
        true
    }

    /// Whether the receiver was last known to be there.
    pub(super) fn is_at(&self, place: &Place) -> bool {
        self.acknowledged == *place
    }

    /// The receiver wants what begins at a place, and has waited for it. It is sent again unless it has hardly left.
    pub(super) fn resume(&mut self, now: Instant, place: Place, patience: Duration) {
        if (&self.acknowledged..=&self.rest).contains(&&place) {
            self.acknowledge(place.clone());
            if self.under_way.front().is_some_and(|(_, sent)| now.since(*sent) < patience / 2) {
                return;
            }
        }
        *self = Self { acknowledged: place.clone(), rest: place, under_way: VecDeque::new() };
    }
}

#[cfg(test)]
mod tests {
    use mesh_base::{Namespace, Revision};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    fn at(number: u8) -> Place {
        let key = vec![number];
        Place::Before(CellKey { namespace: Namespace::USER, key, revision: Revision(1) })
    }

    fn after(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    /// Chunks that end at 1, 2, 3 and 4, sent at 0 ms.
    fn full() -> Stream {
        let mut stream = Stream::new();
        for number in 1..=4 {
            assert!(stream.next().is_some());
            stream.sent(after(0), at(number));
        }
        assert!(stream.next().is_none());
        stream
    }

    fn next(stream: &Stream) -> Option<Place> {
        stream.next().map(|key| Place::Before(key.clone()))
    }

    #[test]
    fn what_is_acknowledged_makes_room_and_what_comes_late_changes_nothing() {
        let mut stream = full();
        stream.acknowledge(at(2));
        assert_eq!((stream.under_way(), next(&stream)), (2, Some(at(4))));
        stream.acknowledge(at(1));
        assert_eq!((stream.under_way(), next(&stream)), (2, Some(at(4))));
        stream.sent(after(1), Place::End);
        stream.acknowledge(Place::End);
        assert_eq!((stream.under_way(), next(&stream)), (0, None));
    }

    #[test]
    fn what_was_lost_is_sent_again_from_where_the_receiver_is() {
        let mut stream = full();
        stream.resume(after(1000), at(2), PATIENCE);
        assert_eq!((stream.under_way(), next(&stream)), (0, Some(at(2))));
    }

    #[test]
    fn what_has_hardly_left_is_not_sent_twice() {
        let mut stream = full();
        stream.resume(after(400), at(0), PATIENCE);
        stream.resume(after(400), at(1), PATIENCE);
        assert_eq!((stream.under_way(), next(&stream)), (3, Some(at(4))));
    }

    #[test]
    fn a_receiver_that_lost_some_of_it_gets_that_again_and_one_that_has_more_is_not_sent_it() {
        let mut stream = full();
        stream.acknowledge(at(4));
        stream.resume(after(1), at(1), PATIENCE);
        assert_eq!(next(&stream), Some(at(1)));
        stream.resume(after(1), at(9), PATIENCE);
        assert_eq!(next(&stream), Some(at(9)));
    }
}
