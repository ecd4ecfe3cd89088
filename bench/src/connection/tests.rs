//! A connection, and a system that answers as the test says. Its requests are a tag and the number of keys, its answers a
//! tag and what became of them, each in two numbers.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use mesh_base::prng::Prng;

use super::*;
use crate::distribution::Distribution;
use crate::keyspace::{Keyspace, KeyspaceSpec};
use crate::pace::{ArrivalKind, Pace, Seat};
use crate::stats::Second;
use crate::tally::Tally;
use crate::target::{Broken, PartitionId};
use crate::workload::{Items, Mix, Shares};

const WRITTEN: u64 = 1000;
const OVERLOADED: u64 = 1001;
const NOT_LEADER: u64 = 1002;
const NO_SPACE: u64 = 1003;
const NONSENSE: u64 = 1004;
/// Of four keys, and there are more.
const PAGE: u64 = 1005;

#[derive(Default)]
struct Simple {
    admitted: Vec<Tag>,
    settled: Vec<Tag>,
}

impl Lane for Simple {
    fn admit(&mut self, tag: Tag, _kind: OpKind) -> Admission {
        self.admitted.push(tag);
        Admission::Granted
    }

    fn encode(&mut self, tag: Tag, op: &Op, _keyspace: &Keyspace, out: &mut Vec<u8>) {
        out.extend_from_slice(&tag.number().to_le_bytes());
        out.extend_from_slice(&(op.keys.len() as u64).to_le_bytes());
    }

    fn decode(&mut self, received: &[u8]) -> Result<Option<Decoded>, Broken> {
        let Some((tag, answer)) = pair(received) else { return Ok(None) };
        let answer = match answer {
            WRITTEN => Answer::Written,
            OVERLOADED => {
                Answer::Setback { name: "Overloaded", then: Then::Again { after: Duration::from_millis(20) } }
            }
            NOT_LEADER => Answer::Setback { name: "NotLeader", then: Then::Reopen },
            NO_SPACE => Answer::Setback { name: "NoSpace", then: Then::GiveUp },
            NONSENSE => return Err(Broken("nonsense".into())),
            PAGE => Answer::Scanned { found: Found { right: 4, ..Found::default() }, rest: Rest::Some },
            right => Answer::Read(Found { right: usize::try_from(right).unwrap(), ..Found::default() }),
        };
        Ok(Some(Decoded { length: 16, tag: Tag::from_number(tag), answer }))
    }

    fn values(&self, answer: &[u8], each: &mut dyn FnMut(Option<&[u8]>)) {
        let found = pair(answer).map_or(0, |(_, found)| found);
        (0..found).for_each(|_| each(Some(b"x")));
    }

    fn say(&mut self, _out: &mut Vec<u8>) {}

    fn settle(&mut self, tag: Tag, _kind: OpKind) {
        self.settled.push(tag);
    }
}

fn pair(bytes: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some((number(0)?, number(8)?))
}

/// A connection with both of its ends.
struct Scene {
    connection: Connection<Simple>,
    shared: Shared,
    seconds: Receiver<Second>,
    other: TcpStream,
}

impl Scene {
    fn new(reads: u32, in_flight: u16, batch: usize) -> Self {
        Self::with(Shares::reads(reads), in_flight, batch, Pace::Closed)
    }

    fn with(shares: Shares, in_flight: u16, batch: usize, pace: Pace) -> Self {
        let spec = KeyspaceSpec {
            keys: 100,
            inserts: 0,
            value_bytes: 1,
            distribution: Distribution::Uniform,
            seed: 1,
        };
        let keyspace = Arc::new(Keyspace::new(spec, 1, |_| PartitionId(0)).unwrap());
        let feed = Feed::new(&keyspace, PartitionId(0), Mix::Random(shares), batch, Prng::new(1));
        let start = Instant::now();
        let schedule = Schedule { start, measure: start, seconds: Some(3600) };
        let (to, seconds) = channel();
        let shared = Shared {
            recorder: Recorder::new(schedule, to),
            schedule,
            scratch: vec![0; 4096],
            poller: Poller::new().unwrap(),
            alarm: None,
            calls: BinaryHeap::new(),
        };
        let arrivals = Arrivals::new(pace, Seat { number: 0, of: 1 }, Prng::new(1));
        let mut connection = Connection::new(0, feed, in_flight).with_arrivals(arrivals);
        connection.start(start);
        let (socket, other) = sockets();
        connection.connect(Simple::default(), socket, &shared.poller).unwrap();
        let mut scene = Self { connection, shared, seconds, other };
        assert_eq!(scene.go_on(Duration::ZERO), Turn::GoesOn);
        scene
    }

    /// Takes the lane away from a lost connection and gives it another.
    fn reconnect(&mut self) {
        let lane = self.connection.disconnect(&mut self.shared.recorder).unwrap();
        let (socket, other) = sockets();
        self.other = other;
        self.connection.connect(lane, socket, &self.shared.poller).unwrap();
        assert_eq!(self.go_on(Duration::ZERO), Turn::GoesOn);
    }

    fn go_on(&mut self, later: Duration) -> Turn {
        self.connection.go_on(Instant::now() + later, &mut self.shared)
    }

    /// The next request: its tag, and how many keys it has.
    fn request(&mut self) -> (u64, u64) {
        let mut bytes = [0; 16];
        self.other.read_exact(&mut bytes).unwrap();
        pair(&bytes).unwrap()
    }

    fn answer(&mut self, answers: &[(u64, u64)]) -> Turn {
        let bytes: Vec<_> =
            answers.iter().flat_map(|(tag, what)| [tag.to_le_bytes(), what.to_le_bytes()].concat()).collect();
        self.other.write_all(&bytes).unwrap();
        self.shared.poller.wait(Duration::from_millis(999), &mut vec![]);
        self.connection.turn(&mut self.shared)
    }

    /// Nothing more was sent.
    fn assert_silence(&mut self) {
        self.other.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        assert!(self.other.read(&mut [0; 1]).is_err());
        self.other.set_read_timeout(None).unwrap();
    }

    /// Ends it, and gives what was counted.
    fn counted(self) -> (Tally, Simple) {
        let Self { shared, seconds, connection, .. } = self;
        shared.recorder.finish(Instant::now(), connection.unanswered() as u64, 0);
        (seconds.recv().unwrap().tally, connection.wire.unwrap().lane)
    }
}

fn sockets() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (Socket::new(stream).unwrap(), listener.accept().unwrap().0)
}

#[test]
fn every_answer_makes_room_for_the_next_operation() {
    let mut scene = Scene::new(0, 2, 1);
    let (one, other) = (scene.request().0, scene.request().0);
    assert_eq!(scene.answer(&[(other, WRITTEN), (one, WRITTEN)]), Turn::GoesOn);
    let next = [scene.request().0, scene.request().0];
    assert!(!next.contains(&one) && !next.contains(&other));
    scene.assert_silence();
    let (tally, lane) = scene.counted();
    assert_eq!((tally.requests(), tally.keys, tally.unanswered), (2, 2, 2));
    assert_eq!((lane.admitted.len(), lane.settled.len()), (4, 2));
}

#[test]
fn an_answer_may_come_in_pieces() {
    let mut scene = Scene::new(0, 1, 1);
    let tag = scene.request().0;
    scene.other.write_all(&tag.to_le_bytes()).unwrap();
    scene.shared.poller.wait(Duration::from_millis(999), &mut vec![]);
    assert_eq!(scene.connection.turn(&mut scene.shared), Turn::GoesOn);
    scene.other.write_all(&WRITTEN.to_le_bytes()).unwrap();
    scene.shared.poller.wait(Duration::from_millis(999), &mut vec![]);
    assert_eq!(scene.connection.turn(&mut scene.shared), Turn::GoesOn);
    assert_eq!(scene.counted().0.requests(), 1);
}

#[test]
fn what_is_refused_for_now_is_sent_again_after_a_pause_and_its_time_goes_on() {
    let mut scene = Scene::new(0, 1, 1);
    let tag = scene.request().0;
    assert_eq!(scene.answer(&[(tag, OVERLOADED)]), Turn::GoesOn);
    assert_eq!(scene.go_on(Duration::ZERO), Turn::GoesOn);
    scene.assert_silence();
    assert!(scene.shared.alarm.is_some());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(scene.go_on(Duration::ZERO), Turn::GoesOn);
    assert_eq!(scene.request().0, tag, "the same operation");
    assert_eq!(scene.answer(&[(tag, WRITTEN)]), Turn::GoesOn);
    let (tally, lane) = scene.counted();
    assert_eq!((tally.errors["Overloaded"].retried, tally.errors["Overloaded"].failed), (1, 0));
    assert!(tally.latency(Class::Writes).unwrap().min() >= 20_000_000, "both sendings and the pause");
    assert_eq!(lane.settled.len(), 1);
}

#[test]
fn what_was_in_flight_is_sent_over_the_next_connection() {
    let mut scene = Scene::new(0, 3, 1);
    let sent = [scene.request().0, scene.request().0, scene.request().0];
    assert_eq!(scene.answer(&[(sent[0], WRITTEN), (sent[1], NOT_LEADER)]), Turn::Lost);
    scene.reconnect();
    let again: Vec<_> = (0..3).map(|_| scene.request().0).collect();
    assert!(again.contains(&sent[1]) && again.contains(&sent[2]) && !again.contains(&sent[0]), "{again:?}");
    let answers: Vec<_> = again.iter().map(|&tag| (tag, WRITTEN)).collect();
    assert_eq!(scene.answer(&answers), Turn::GoesOn);
    let (tally, _) = scene.counted();
    assert_eq!(tally.requests(), 4);
    assert_eq!(tally.errors["NotLeader"].retried, 1);
    assert_eq!(tally.errors[CONNECTION_LOST].retried, 2);
}

#[test]
fn an_end_or_nonsense_loses_the_connection() {
    let mut scene = Scene::new(0, 1, 1);
    let tag = scene.request().0;
    assert_eq!(scene.answer(&[(tag, NONSENSE)]), Turn::Lost);
    scene.reconnect();
    scene.request();
    scene.other.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(scene.answer(&[]), Turn::Lost);
}

#[test]
fn what_cannot_be_done_is_counted_and_followed_by_the_next() {
    let mut scene = Scene::new(0, 1, 1);
    let tag = scene.request().0;
    assert_eq!(scene.answer(&[(tag, NO_SPACE)]), Turn::GoesOn);
    assert_ne!(scene.request().0, tag);
    let (tally, lane) = scene.counted();
    assert_eq!((tally.requests(), tally.errors["NoSpace"].failed, lane.settled.len()), (0, 1, 1));
}

#[test]
fn an_answer_that_nobody_asked_for_is_counted_and_changes_nothing() {
    let mut scene = Scene::new(0, 1, 1);
    let tag = scene.request().0;
    assert_eq!(scene.answer(&[(tag, WRITTEN)]), Turn::GoesOn);
    let next = scene.request().0;
    assert_eq!(scene.answer(&[(tag, WRITTEN), (12_345, WRITTEN)]), Turn::GoesOn);
    assert_eq!(scene.answer(&[(next, WRITTEN)]), Turn::GoesOn);
    let (tally, _) = scene.counted();
    assert_eq!((tally.requests(), tally.errors[STRAY_ANSWER].failed), (2, 2));
}

#[test]
fn the_rest_of_a_batch_is_asked_for_when_its_beginning_comes() {
    let mut scene = Scene::new(100, 1, 10);
    let (tag, keys) = scene.request();
    assert_eq!(keys, 10);
    assert_eq!(scene.answer(&[(tag, 7)]), Turn::GoesOn);
    assert_eq!(scene.request(), (tag, 3));
    assert_eq!(scene.answer(&[(tag, 3)]), Turn::GoesOn);
    let (tally, _) = scene.counted();
    assert_eq!((tally.requests(), tally.keys), (1, 10));
}

#[test]
fn after_the_end_nothing_is_begun_and_the_last_answer_is_waited_for() {
    let mut scene = Scene::new(0, 1, 1);
    let tag = scene.request().0;
    scene.shared.schedule.seconds = Some(0);
    assert_eq!(scene.go_on(Duration::ZERO), Turn::GoesOn);
    assert_eq!(scene.answer(&[(tag, WRITTEN)]), Turn::Over);
    scene.assert_silence();
}

#[test]
fn only_a_connection_that_owes_answers_is_silent() {
    let mut scene = Scene::new(0, 1, 1);
    let tag = scene.request().0;
    scene.shared.schedule.seconds = Some(0);
    let long_ago = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
    assert!(scene.connection.silent_since(long_ago).is_none());
    assert!(scene.connection.silent_since(Instant::now()).is_some());
    scene.connection.hang_up();
    assert_eq!(scene.answer(&[]), Turn::Lost);
    scene.reconnect();
    scene.request();
    assert_eq!(scene.answer(&[(tag, WRITTEN)]), Turn::Over);
    assert!(scene.connection.silent_since(Instant::now()).is_none());
}

#[test]
fn a_write_follows_its_read_and_both_count_as_a_whole_too() {
    let shares = Shares { modifies: 100, ..Shares::reads(0) };
    let mut scene = Scene::with(shares, 1, 1, Pace::Closed);
    let read = scene.request().0;
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(scene.answer(&[(read, 1)]), Turn::GoesOn);
    let write = scene.request().0;
    assert_ne!(write, read);
    scene.shared.schedule.seconds = Some(0);
    assert_eq!(scene.answer(&[(write, WRITTEN)]), Turn::Over);
    scene.shared.schedule.seconds = Some(3600);
    let (tally, lane) = scene.counted();
    let count = |class| tally.latency(class).map(hdrhistogram::Histogram::len);
    assert_eq!((tally.requests(), tally.keys, lane.settled.len()), (2, 2, 2));
    assert_eq!([Class::Reads, Class::Writes, Class::Modifies].map(count), [Some(1); 3]);
    assert!(tally.latency(Class::Modifies).unwrap().min() >= 5_000_000, "from the read on");
}

#[test]
fn a_range_is_asked_for_page_by_page_and_counts_once() {
    let shares = Shares { scans: 100, items: Items::Exactly(10), ..Shares::reads(0) };
    let mut scene = Scene::with(shares, 1, 1, Pace::Closed);
    for _ in 0..3 {
        let tag = scene.request().0;
        assert_eq!(scene.answer(&[(tag, PAGE)]), Turn::GoesOn);
    }
    let (tally, lane) = scene.counted();
    assert_eq!((tally.requests(), tally.keys, tally.items, lane.settled.len()), (1, 1, 12, 1));
}

#[test]
fn what_is_due_while_nothing_is_answered_is_timed_from_when_it_was_due() {
    let pace = Pace::Open { rate: 1000.0, arrivals: ArrivalKind::Uniform };
    let mut scene = Scene::with(Shares::reads(0), 1, 1, pace);
    let first = scene.request().0;
    std::thread::sleep(Duration::from_millis(50));
    // By now 50 are due, and there is one slot.
    assert_eq!(scene.answer(&[(first, WRITTEN)]), Turn::GoesOn);
    let second = scene.request().0;
    assert_eq!(scene.answer(&[(second, WRITTEN)]), Turn::GoesOn);
    assert!(scene.connection.overdue(Instant::now()) >= 46);
    let (tally, _) = scene.counted();
    let (response, service) = (tally.latency(Class::Writes).unwrap(), tally.service(Class::Writes).unwrap());
    assert_eq!((response.len(), service.len()), (2, 2));
    assert!(response.min() >= 45_000_000, "the second was due a millisecond after the first");
    assert!(service.min() < response.min());
}

#[test]
fn nothing_is_begun_before_it_is_due() {
    let pace = Pace::Open { rate: 20.0, arrivals: ArrivalKind::Uniform };
    let mut scene = Scene::with(Shares::reads(0), 4, 1, pace);
    scene.request();
    scene.assert_silence();
    let Reverse((due, number)) = scene.shared.calls.pop().unwrap();
    assert!(scene.shared.calls.is_empty(), "it is called once");
    assert_eq!((number, due.saturating_duration_since(scene.shared.schedule.start).as_millis()), (0, 50));
    assert_eq!(scene.connection.called(due, &mut scene.shared), Turn::GoesOn);
    scene.request();
}
