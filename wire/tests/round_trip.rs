//! What is sent is what is received.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test fails by panicking")]

mod sample;

use bytes::{Bytes, BytesMut};
use mesh_wire::{
    Envelope, Error, Foreign, FrameDecoder, FrameError, FrameWriter, HEADER_BYTES, Kind, Put, Request,
    RequestId, Response,
};
use quickcheck::quickcheck;
use sample::Sample;

fn decode_all(stream: &[u8], pieces: &mut Sample) -> Vec<mesh_wire::Frame> {
    let decoder = FrameDecoder::new();
    let mut buffer = BytesMut::new();
    let mut frames = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((1 + pieces.index(400)).min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = after;
        while let Some(frame) = decoder.decode(&mut buffer).unwrap() {
            frames.push(frame);
        }
    }
    assert!(buffer.is_empty(), "every byte belongs to a frame");
    frames
}

quickcheck! {
    fn every_message_comes_out_of_its_frame_as_it_went_in(seed: u64) -> bool {
        let mut sample = Sample::new(seed);
        let mut writer = FrameWriter::new();
        Kind::ALL.iter().all(|&kind| {
            let (message, envelope) = (sample.message(kind), sample.envelope());
            let bytes = message.frame(&mut writer, &envelope).unwrap();
            let frame = FrameDecoder::new().decode(&mut BytesMut::from(bytes)).unwrap().unwrap();
            assert_eq!((frame.header.kind, frame.header.envelope), (kind, envelope));
            assert_eq!(frame.header.length as usize, frame.payload.len());
            assert!(message.is(&frame), "{message:?}");
            assert!(message.size_hint() >= frame.payload.len(), "the hint of {kind} is too small");
            true
        })
    }

    fn a_stream_of_frames_is_taken_apart_however_it_is_cut(seed: u64) -> bool {
        let mut sample = Sample::new(seed);
        let mut writer = FrameWriter::new();
        let mut stream = Vec::new();
        let messages: Vec<_> = Kind::ALL.iter().map(|&kind| sample.message(kind)).collect();
        for message in &messages {
            message.append(&mut writer, &Envelope::default(), &mut stream).unwrap();
        }
        let frames = decode_all(&stream, &mut sample);
        frames.len() == messages.len() && messages.iter().zip(&frames).all(|(message, frame)| message.is(frame))
    }

    fn what_was_received_can_be_sent_on(seed: u64) -> bool {
        let mut sample = Sample::new(seed);
        let mut writer = FrameWriter::new();
        Kind::ALL.iter().filter(|kind| kind.to_byte() < 64).all(|&kind| {
            let message = sample.message(kind);
            let envelope = Envelope::default();
            let first = message.frame(&mut writer, &envelope).unwrap();
            let frame = FrameDecoder::new().peek(&first).unwrap().unwrap();
            writer.frame(&envelope, &frame.request().unwrap()).unwrap() == first
        })
    }
}

#[test]
fn every_error_keeps_its_fields() {
    let mut writer = FrameWriter::new();
    for seed in 0..50 {
        for error in Sample::new(seed).errors() {
            let response = Response::Error(error);
            let bytes = writer.frame(&Envelope::default(), &response).unwrap();
            let frame = FrameDecoder::new().peek(&bytes).unwrap().unwrap();
            assert_eq!(frame.response().as_ref(), Ok(&response));
        }
    }
}

#[test]
fn errors_have_codes_of_their_own_in_the_order_of_the_list() {
    let codes: Vec<u8> = Sample::new(1).errors().iter().map(Error::code).collect();
    assert_eq!(codes, (1..=26).collect::<Vec<u8>>());
}

#[test]
fn only_three_errors_leave_open_whether_a_write_was_applied() {
    let errors = Sample::new(1).errors();
    let open: Vec<&str> =
        errors.iter().filter(|error| !error.certainly_not_applied()).map(Error::name).collect();
    assert_eq!(open, ["Unknown", "Damaged", "Internal"]);
}

#[test]
fn a_text_beyond_its_limit_is_cut_between_characters() {
    let long = "ü".repeat(2000);
    let response = Response::Error(Error::Damaged { what: long.clone().into() });
    let bytes = FrameWriter::new().frame(&Envelope::default(), &response).unwrap();
    let frame = FrameDecoder::new().peek(&bytes).unwrap().unwrap();
    let Ok(Response::Error(Error::Damaged { what })) = frame.response() else { panic!("another error") };
    assert_eq!(what, long[..1024]);
}

#[test]
fn a_large_value_is_in_one_piece_of_memory_and_the_key_shares_it() {
    let value = vec![7; mesh_base::limits::VALUE_BYTES_MAX];
    let put = Request::Put(Put { ctx: sample::in_session(), key: b"large", value: &value, ..Put::default() });
    let envelope = Envelope { request: RequestId(9), ..Envelope::default() };
    let mut writer = FrameWriter::new();
    let bytes = writer.frame(&envelope, &put).unwrap();
    let mut appended = b"before".to_vec();
    writer.append(&envelope, &put, &mut appended).unwrap();
    assert_eq!(appended[6..], bytes);

    let frame = FrameDecoder::new().decode(&mut BytesMut::from(bytes)).unwrap().unwrap();
    let Ok(Request::Put(received)) = frame.request() else { panic!("another request") };
    assert_eq!(Request::Put(received), put);
    let shared: Bytes = frame.payload.slice_ref(received.value);
    assert_eq!(shared.as_ptr(), received.value.as_ptr());
}

#[test]
fn a_frame_of_an_unknown_kind_is_taken_off_and_the_next_one_is_read() {
    let mut writer = FrameWriter::new();
    let envelope = Envelope { request: RequestId(3), ..Envelope::default() };
    let mut stream = writer.frame(&envelope, &Request::Status).unwrap().to_vec();
    stream[2] = 60;
    let length = stream.len();
    reseal(&mut stream);
    writer.append(&envelope, &Request::Topology, &mut stream).unwrap();

    let mut buffer = BytesMut::from(&stream[..]);
    let decoder = FrameDecoder::new();
    let unknown = FrameError::UnknownKind { kind: 60, request: RequestId(3) };
    assert_eq!(decoder.decode(&mut buffer), Err(unknown));
    assert_eq!(buffer.len(), stream.len() - length);
    let frame = decoder.decode(&mut buffer).unwrap().unwrap();
    assert_eq!(frame.request(), Ok(Request::Topology));
}

#[test]
fn each_field_of_the_header_is_looked_at() {
    let sound = FrameWriter::new().frame(&Envelope::default(), &Request::Topology).unwrap();
    let error_of = |at: usize, byte: u8| {
        let mut frame = sound.to_vec();
        frame[at] = byte;
        FrameDecoder::new().peek(&frame).unwrap_err()
    };
    assert_eq!(error_of(0, b'G'), FrameError::NotMesh { looks_like: Foreign::Unknown });
    assert_eq!(error_of(1, 2), FrameError::Version { version: 2 });
    assert_eq!(error_of(3, 1), FrameError::Reserved { field: "flags" });
    assert_eq!(error_of(14, 1), FrameError::Reserved { field: "reserved field" });
    for at in [2, 8, 12, 16, 24, HEADER_BYTES, sound.len() - 1] {
        assert!(matches!(error_of(at, sound[at] ^ 1), FrameError::Checksum { .. }), "byte {at}");
    }
}

#[test]
fn a_frame_longer_than_the_limit_is_refused_by_its_header_alone() {
    let mut header = FrameWriter::new().frame(&Envelope::default(), &Request::Topology).unwrap().to_vec();
    header.truncate(HEADER_BYTES);
    header[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut buffer = BytesMut::from(&header[..]);
    let decoder = FrameDecoder::new();
    assert_eq!(decoder.need(&buffer), 0);
    decoder.reserve(&mut buffer);
    assert!(buffer.capacity() < 1024, "nothing is reserved for it");
    let error = decoder.decode(&mut buffer).unwrap_err();
    let limit = mesh_base::limits::FRAME_PAYLOAD_BYTES_MAX;
    assert_eq!(error, FrameError::TooLong { length: u32::MAX, limit });
    assert_eq!(error.answer().unwrap().name(), "TooLarge");
}

#[test]
fn memory_is_reserved_in_proportion_to_what_came() {
    let value = vec![7; 8 << 20];
    let put = Request::Put(Put { ctx: sample::in_session(), key: b"k", value: &value, ..Put::default() });
    let bytes = FrameWriter::new().frame(&Envelope::default(), &put).unwrap();
    let decoder = FrameDecoder::new();
    let mut buffer = BytesMut::new();
    let mut rest = &bytes[..];
    let mut reads = 0;
    loop {
        assert_eq!(
            decoder.need(&buffer),
            if buffer.len() < HEADER_BYTES {
                HEADER_BYTES - buffer.len()
            } else {
                bytes.len() - buffer.len()
            }
        );
        if decoder.need(&buffer) == 0 {
            break;
        }
        decoder.reserve(&mut buffer);
        assert!(buffer.capacity() <= (2 * buffer.len()).max(256 * 1024));
        let (piece, after) = rest.split_at((buffer.capacity() - buffer.len()).min(rest.len()));
        buffer.extend_from_slice(piece);
        rest = after;
        reads += 1;
    }
    assert!(reads < 16, "the buffer grows fast enough: {reads} reads");
    assert_eq!(decoder.decode(&mut buffer).unwrap().unwrap().request(), Ok(put));
}

#[test]
fn other_protocols_are_recognised_before_a_whole_header_came() {
    for (bytes, looks_like) in [
        (&b"GET / HTTP/1.1\r\nHost: localhost:7700\r\n\r\n"[..], Foreign::Http),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Foreign::Tls),
        (b"*1\r\n$4\r\nPING\r\n", Foreign::Redis),
        (b"PING\r\n", Foreign::Redis),
    ] {
        let mut buffer = BytesMut::from(bytes);
        let error = FrameDecoder::before_hello().decode(&mut buffer).unwrap_err();
        assert_eq!(error, FrameError::NotMesh { looks_like });
        assert!(!looks_like.farewell().is_empty() && error.answer().is_none());
    }
}

/// Makes the checksum of a changed frame right.
fn reseal(frame: &mut [u8]) {
    frame[8..12].fill(0);
    let checksum = mesh_base::checksum::crc32(&[frame]);
    frame[8..12].copy_from_slice(&checksum.to_le_bytes());
}
