//! Whatever bytes come in, the answer is a value or an error, and memory stays bounded.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod sample;

use bytes::{BufMut, BytesMut};
use flatbuffers::{FlatBufferBuilder, WIPOffset};
use mesh_base::checksum::crc32;
use mesh_base::prng::Prng;
use mesh_wire::{
    Envelope, FrameDecoder, FrameWriter, HEADER_BYTES, Kind, PeerMessage, Request, Response, WireError,
};
use quickcheck::quickcheck;
use sample::Sample;

/// Memory that looking at a hostile payload may take: the trace of what is wrong with it.
const DECODE_BYTES_MAX: u64 = 16 * 1024;

/// Reads the payload as every class of message, and looks at every field of what it turns out to be.
fn read_all_views(kind: Kind, payload: &[u8]) {
    let mut writer = FrameWriter::new();
    let envelope = Envelope::default();
    let decoded = allocation_counter::measure(|| {
        let _ = (
            Request::decode(kind, payload).is_ok(),
            Response::decode(kind, payload).is_ok(),
            PeerMessage::decode(kind, payload).is_ok(),
        );
    });
    assert!(decoded.bytes_max <= DECODE_BYTES_MAX, "{kind} took {decoded:?}");
    if let Ok(request) = Request::decode(kind, payload) {
        let _ = (format!("{request:?}"), writer.frame(&envelope, &request));
    }
    if let Ok(response) = Response::decode(kind, payload) {
        let _ = (format!("{response:?}"), writer.frame(&envelope, &response));
    }
    if let Ok(peer) = PeerMessage::decode(kind, payload) {
        let _ = (format!("{peer:?}"), writer.frame(&envelope, &peer));
    }
}

/// Decodes a stream as a host does, until it ends or is found to be wrong.
fn read_stream(bytes: &[u8]) {
    let decoder = FrameDecoder::new();
    let mut buffer = BytesMut::new();
    for piece in bytes.chunks(64) {
        decoder.reserve(&mut buffer);
        assert!(buffer.capacity() <= 2 * (64 * 1024 + bytes.len()));
        buffer.put_slice(piece);
        while let Ok(Some(frame)) = decoder.decode(&mut buffer) {
            read_all_views(frame.header.kind, &frame.payload);
        }
    }
}

fn damage(prng: &mut Prng, bytes: &mut Vec<u8>) {
    match prng.index(5) {
        0 if !bytes.is_empty() => {
            let at = prng.index(bytes.len());
            bytes.truncate(at);
        }
        1 => {
            let more = prng.index(40);
            bytes.resize(bytes.len() + more, 0xff);
        }
        _ => {}
    }
    for _ in 0..1 + prng.index(4) {
        if bytes.is_empty() {
            return;
        }
        let at = prng.index(bytes.len());
        match prng.index(4) {
            0 => bytes[at] ^= 1 << prng.index(8),
            1 => bytes[at] = 0,
            2 => bytes[at] = 0xff,
            // Offsets and lengths are four bytes, and those near others' values are the worst.
            _ => {
                let value = *prng.choose(&[4, 8, 16, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0_u32]).unwrap();
                bytes.iter_mut().skip(at / 4 * 4).zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
            }
        }
    }
}

quickcheck! {
    fn random_bytes_are_refused_quietly(seed: u64) -> bool {
        let mut prng = Prng::new(seed);
        let mut bytes = vec![0; prng.index(2000)];
        prng.fill(&mut bytes);
        read_stream(&bytes);
        // So that they get past the first byte as well.
        bytes.splice(..bytes.len().min(2), [0xb7, 1]);
        read_stream(&bytes);
        true
    }

    fn random_payloads_are_refused_quietly(seed: u64) -> bool {
        let mut prng = Prng::new(seed);
        let mut payload = vec![0; prng.index(400)];
        prng.fill(&mut payload);
        // Small numbers are the offsets that lead somewhere.
        payload.iter_mut().step_by(4).for_each(|byte| *byte &= 0x3f);
        payload.iter_mut().enumerate().filter(|(at, _)| at % 4 > 1).for_each(|(_, byte)| *byte = 0);
        Kind::ALL.iter().for_each(|&kind| read_all_views(kind, &payload));
        true
    }

    fn damaged_payloads_are_refused_or_read_and_never_crash(seed: u64) -> bool {
        let mut prng = Prng::new(seed);
        let mut sample = Sample::new(seed);
        let mut writer = FrameWriter::new();
        for &kind in Kind::ALL {
            let frame = sample.message(kind).frame(&mut writer, &Envelope::default()).unwrap();
            for _ in 0..8 {
                let mut payload = frame[HEADER_BYTES..].to_vec();
                damage(&mut prng, &mut payload);
                read_all_views(kind, &payload);
                // The payload of one kind under the name of another.
                read_all_views(*prng.choose(Kind::ALL).unwrap(), &payload);
            }
        }
        true
    }

    fn damaged_frames_are_refused_or_read_and_never_crash(seed: u64) -> bool {
        let mut prng = Prng::new(seed);
        let mut sample = Sample::new(seed);
        let mut writer = FrameWriter::new();
        let mut stream = Vec::new();
        for _ in 0..4 {
            let kind = *prng.choose(Kind::ALL).unwrap();
            sample.message(kind).append(&mut writer, &sample.envelope(), &mut stream).unwrap();
        }
        damage(&mut prng, &mut stream);
        read_stream(&stream);
        true
    }

    fn a_frame_with_any_bit_flipped_is_refused(seed: u64) -> bool {
        let mut sample = Sample::new(seed);
        let kind = Kind::ALL[sample.index(Kind::ALL.len())];
        let mut frame = sample.message(kind).frame(&mut FrameWriter::new(), &sample.envelope()).unwrap().to_vec();
        let at = sample.index(frame.len());
        frame[at] ^= 1 << sample.index(8);
        !matches!(FrameDecoder::new().peek(&frame), Ok(Some(_)))
    }
}

/// The payload of a batched put (fields `ctx`, which has a session, and `items`) whose items are one and the same.
fn batch_of_one_item_many_times(count: usize, value: &[u8]) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let key = builder.create_vector(b"k");
    let value = builder.create_vector(value);
    let start = builder.start_table();
    builder.push_slot_always(4, key);
    builder.push_slot_always(6, value);
    let item = builder.end_table(start);
    let items = builder.create_vector(&vec![item; count]);
    let start = builder.start_table();
    for field in [4, 6, 8] {
        builder.push_slot_always(field, 1_u64);
    }
    let ctx = builder.end_table(start);
    let start = builder.start_table();
    builder.push_slot_always(4, ctx);
    builder.push_slot_always(6, items);
    let root = builder.end_table(start);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

#[test]
fn a_payload_that_looks_much_larger_than_it_is_is_refused() {
    let honest = batch_of_one_item_many_times(1, b"value");
    assert!(Request::decode(Kind::PutBatch, &honest).is_ok());
    for (count, value_bytes, what) in
        [(4000, 100_000, "too many fields share their bytes"), (1_000_000, 1, "there are too many tables")]
    {
        let hostile = batch_of_one_item_many_times(count, &vec![7; value_bytes]);
        let kind = Kind::PutBatch;
        assert_eq!(Request::decode(kind, &hostile), Err(WireError::Invalid { kind, what }));
    }
}

/// The payload of a probe (fields `address`, `members` and `state`) of an empty node that knows of no others.
fn probe_in_state(state: u8) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let address = builder.create_string("a:7700");
    let members = builder.create_vector::<WIPOffset<&str>>(&[]);
    let start = builder.start_table();
    builder.push_slot_always(4, address);
    builder.push_slot_always(6, members);
    builder.push_slot_always(10, state);
    let root = builder.end_table(start);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

#[test]
fn a_probe_in_a_state_that_is_none_is_refused() {
    for kind in [Kind::NodeProbe, Kind::NodeProbeAnswer] {
        assert!(PeerMessage::decode(kind, &probe_in_state(1)).is_ok());
        for state in [0, 5, 255] {
            let error = WireError::Malformed { what: "probe state" };
            assert_eq!(PeerMessage::decode(kind, &probe_in_state(state)), Err(error));
        }
    }
}

#[test]
fn the_checksum_does_not_hide_a_hostile_payload() {
    let mut frame = FrameWriter::new().frame(&Envelope::default(), &Request::Status).unwrap().to_vec();
    frame[HEADER_BYTES..].fill(0xff);
    frame[8..12].fill(0);
    let checksum = crc32(&[&frame]);
    frame[8..12].copy_from_slice(&checksum.to_le_bytes());
    let frame = FrameDecoder::new().peek(&frame).unwrap().unwrap();
    assert!(frame.request().is_err());
}
