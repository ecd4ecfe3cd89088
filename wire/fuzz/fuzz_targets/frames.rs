//! A stream of frames in pieces: the decoder takes it apart or refuses it, and holds no more memory than it may.
//!
//! Checksums are made right first, since no mutation finds them.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use mesh_base::checksum::crc32;
use mesh_wire::{FrameDecoder, FrameError, HEADER_BYTES};

/// Makes the checksums of the frames right, as far as frames can be told.
fn reseal(stream: &mut [u8]) {
    let mut rest = stream;
    while rest.len() >= HEADER_BYTES {
        let length = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        let Some((frame, behind)) = rest.split_at_mut_checked(HEADER_BYTES.saturating_add(length)) else {
            return;
        };
        frame[8..12].fill(0);
        let checksum = crc32(&[frame]);
        frame[8..12].copy_from_slice(&checksum.to_le_bytes());
        rest = behind;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&step, data)) = data.split_first() else { return };
    let mut stream = data.to_vec();
    reseal(&mut stream);
    let decoder = FrameDecoder::new();
    let mut buffer = BytesMut::new();
    for piece in stream.chunks(usize::from(step) + 1) {
        decoder.reserve(&mut buffer);
        assert!(buffer.capacity() <= 4 * (64 * 1024 + stream.len()));
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match decoder.decode(&mut buffer) {
                Ok(Some(frame)) => {
                    assert_eq!(before - buffer.len(), HEADER_BYTES + frame.payload.len());
                    let _ = (frame.request(), frame.response(), frame.peer());
                }
                Ok(None) => {
                    assert!(decoder.need(&buffer) > 0, "more is needed");
                    break;
                }
                Err(FrameError::UnknownKind { .. }) => assert!(buffer.len() < before, "it was taken off"),
                Err(error) => {
                    assert_eq!(decoder.need(&buffer), 0, "nothing more is of use");
                    let _ = (error.answer(), error.to_string());
                    return;
                }
            }
        }
    }
});
