//! What connections that misbehave are told, and what those that behave get.

use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use mesh_base::ShardId;
use mesh_base::checksum::crc32;
use mesh_base::limits::HELLO_TIMEOUT;
use mesh_wire::{Error, Frame, HEADER_BYTES, Response, Role};

use crate::host::tests::{Client, TestNode, eventually, get, hello};

fn error(frame: &Frame) -> Error {
    match frame.response() {
        Ok(Response::Error(error)) => error,
        other => panic!("not an error: {other:?}"),
    }
}

/// A frame of a kind that there is none of.
fn unknown_kind(request: u64) -> [u8; HEADER_BYTES] {
    let mut frame = [0; HEADER_BYTES];
    frame[..3].copy_from_slice(&[mesh_wire::MAGIC, 1, 63]);
    frame[12..14].copy_from_slice(&[0xff, 0xff]);
    frame[16..24].copy_from_slice(&request.to_le_bytes());
    let checksum = crc32(&[&frame]);
    frame[8..12].copy_from_slice(&checksum.to_le_bytes());
    frame
}

#[test]
fn other_protocols_are_told_in_their_own_words_and_closed() {
    let node = TestNode::start(1);
    for (words, told) in [
        (&b"GET / HTTP/1.1\r\nHost: mesh\r\n\r\n"[..], &b"HTTP/1.1 400 "[..]),
        (b"*1\r\n$4\r\nPING\r\n", b"-ERR "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x15\x03\x01"),
    ] {
        let mut client = Client::connect(node.address);
        client.send(words);
        let rest = client.rest();
        assert!(rest.starts_with(told), "{} got {}", words.escape_ascii(), rest.escape_ascii());
    }
}

#[test]
fn garbage_gets_an_error_frame_and_is_closed_however_much_of_it_follows() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    // More than the node reads: what it says must arrive all the same.
    let _ = client.stream.write_all(&vec![b'x'; 300_000]);
    assert!(matches!(error(&client.frame().unwrap()), Error::Malformed { .. }));
    assert!(client.frame().is_none());
}

#[test]
fn half_a_hello_gets_an_error_frame_when_the_rest_does_not_come() {
    let node = TestNode::start(1);
    let whole = hello("client", Role::Client, None);
    let mut client = Client::connect(node.address);
    client.send(&whole[..whole.len() / 2]);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(error(&client.frame().unwrap()), Error::Malformed { .. }));
    assert!(client.frame().is_none());
}

#[test]
fn a_connection_that_says_no_hello_is_closed_after_a_while() {
    let node = TestNode::start(1);
    let begun = Instant::now();
    let (mut silent, mut slow) = (Client::connect(node.address), Client::connect(node.address));
    slow.send(&hello("client", Role::Client, None)[..40]);
    assert!(silent.frame().is_none());
    assert!(begun.elapsed() >= HELLO_TIMEOUT);
    assert!(matches!(error(&slow.frame().unwrap()), Error::Malformed { .. }));
    assert!(slow.frame().is_none());
}

#[test]
fn a_hello_longer_than_any_is_refused_by_its_header_alone() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    let mut header = hello("client", Role::Client, None)[..HEADER_BYTES].to_vec();
    header[4..8].copy_from_slice(&100_000_000_u32.to_le_bytes());
    client.send(&header);
    assert!(matches!(error(&client.frame().unwrap()), Error::TooLarge { actual: 100_000_000, .. }));
    assert!(client.frame().is_none());
}

#[test]
fn a_refused_hello_gets_its_answer_and_is_closed() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    client.send(&hello("stranger", Role::Client, None));
    assert_eq!(error(&client.frame().unwrap()), Error::Unauthenticated);
    assert!(client.frame().is_none());
}

#[test]
fn requests_are_pipelined_from_the_hello_on() {
    let node = TestNode::start(1);
    let mut client = Client::connect(node.address);
    let mut bytes = hello("client", Role::Client, None).to_vec();
    bytes.extend((0..2000).flat_map(|id| get(id, &format!("key {id}"))));
    client.send(&bytes);
    assert!(matches!(client.frame().unwrap().response(), Ok(Response::SessionOpened(_))));
    for id in 0..2000 {
        assert_eq!(client.value(), (id, format!("key {id}").into()));
    }
}

#[test]
fn a_connection_goes_to_the_core_it_asks_for_with_everything_it_sent() {
    let node = TestNode::start(2);
    for attempt in 0..20 {
        let mut client = Client::connect(node.address);
        let wanted = ShardId(attempt % 2);
        let mut bytes = hello("client", Role::Client, Some(wanted)).to_vec();
        let first = get(1, "core:");
        bytes.extend_from_slice(&first);
        // A frame that is cut by the hand-over.
        bytes.extend_from_slice(&first[..10]);
        client.send(&bytes);
        assert!(matches!(client.frame().unwrap().response(), Ok(Response::SessionOpened(_))));
        assert_eq!(client.value(), (1, wanted.to_string().into()));
        client.send(&first[10..]);
        assert_eq!(client.value(), (1, wanted.to_string().into()));
    }
    eventually("every connection is gone", || node.logged("disconnected") == 20);
}

#[test]
fn a_frame_of_an_unknown_kind_is_answered_and_the_connection_goes_on() {
    let node = TestNode::start(1);
    let mut client = Client::hello(node.address, None);
    client.send(&unknown_kind(77));
    let frame = client.frame().unwrap();
    assert_eq!(frame.header.envelope.request.0, 77);
    assert!(matches!(error(&frame), Error::Malformed { .. }));
    assert_eq!(client.get("still here"), "still here");
}

#[test]
fn a_damaged_frame_gets_an_error_and_ends_the_connection() {
    let node = TestNode::start(1);
    let mut client = Client::hello(node.address, None);
    let mut damaged = get(1, "key").to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    client.send(&damaged);
    assert!(matches!(error(&client.frame().unwrap()), Error::Malformed { .. }));
    assert!(client.frame().is_none());
    eventually("the core is told", || node.logged("disconnected") == 1);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_not_read_either() {
    let node = TestNode::start(1);
    let mut client = Client::hello(node.address, None);
    let request = get(1, "big:1000000");
    client.stream.set_nonblocking(true).unwrap();
    // Until the sockets' buffers are full: the node takes no more.
    let mut sent = 0;
    let mut refusals = 0;
    while refusals < 50 {
        match client.stream.write(&request[sent % request.len()..]) {
            Ok(count) => (sent, refusals) = (sent + count, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refusals += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => panic!("{error}"),
        }
        assert!(sent < 64 * 1024 * 1024, "it reads on and on");
    }
    client.stream.set_nonblocking(false).unwrap();
    // Everyone else is served meanwhile,
    assert_eq!(Client::hello(node.address, None).get("other"), "other");
    // and so is this one, once it reads.
    for _ in 0..(sent / request.len()).min(100) {
        assert_eq!(client.value().1.len(), 1_000_000);
    }
}

#[test]
fn frames_that_arrive_piece_by_piece_are_answered_while_each_is_whole_in_time() {
    let limit = Duration::from_millis(250);
    let node = TestNode::start_with(1, |claim| claim.bounds.frame_timeout = limit);
    let mut client = Client::hello(node.address, None);
    // Whatever is sent ends in the middle of a frame, for several times as long as one may take.
    let (request, begun) = (get(1, "key"), Instant::now());
    client.send(&request[..30]);
    while begun.elapsed() < 4 * limit {
        client.send(&request[30..]);
        client.send(&request[..30]);
        assert_eq!(client.value(), (1, "key".into()));
        std::thread::sleep(limit / 10);
    }
    let stopped = Instant::now();
    assert!(
        matches!(error(&client.frame().unwrap()), Error::Malformed { .. }),
        "the last one is never whole"
    );
    assert!(stopped.elapsed() < 10 * limit && client.frame().is_none());
}

#[test]
fn a_value_of_the_largest_size_passes() {
    let node = TestNode::start(1);
    let mut client = Client::hello(node.address, None);
    assert_eq!(client.get("big:8388608").len(), 8_388_608);
}
