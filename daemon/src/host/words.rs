//! The few frames that the host says of its own accord: refusals, to whoever does not get as far as the pure server.

use bytes::Bytes;
use mesh_base::bytesio::Reader;
use mesh_wire::{Envelope, Error, FrameError, FrameWriter, RequestId, Response};

/// Where a frame's header has the request's id.
const REQUEST_ID_OFFSET: usize = 16;

/// An error's frame.
pub(super) fn refusal(request: RequestId, error: &Error) -> Bytes {
    let envelope = Envelope { request, ..Envelope::default() };
    // An error without a key or an address is always within the limits.
    FrameWriter::new().frame(&envelope, &Response::Error(error.clone())).unwrap_or_default()
}

/// What bytes that are no frames are answered with, in the words of whoever sent them where these are known.
pub(super) fn to_foul(foul: &FrameError) -> Bytes {
    if let FrameError::NotMesh { looks_like } = foul {
        let farewell = looks_like.farewell();
        if !farewell.is_empty() {
            return Bytes::from_static(farewell);
        }
    }
    let error = foul.answer().unwrap_or_else(|| Error::Malformed { what: foul.to_string().into() });
    refusal(RequestId::default(), &error)
}

/// The answer to a request whose kind is not known.
pub(super) fn to_unknown(request: RequestId, unknown: &FrameError) -> Bytes {
    let error = unknown.answer().unwrap_or_else(|| Error::Malformed { what: unknown.to_string().into() });
    refusal(request, &error)
}

/// The answer to a frame that was begun and not gone on with.
pub(super) fn to_unfinished() -> Bytes {
    refusal(RequestId::default(), &Error::Malformed { what: "the frame is not whole".into() })
}

/// The request that a frame of our own answers.
pub(super) fn request_of(frame: &[u8]) -> RequestId {
    let id = frame.get(REQUEST_ID_OFFSET..).and_then(|rest| Reader::new(rest).u64());
    RequestId(id.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use mesh_wire::FrameDecoder;

    use super::*;

    #[test]
    fn the_request_of_an_answer_is_read_off_its_header() {
        let frame = refusal(RequestId(0x0102_0304_0506_0708), &Error::NoSpace);
        assert_eq!(request_of(&frame), RequestId(0x0102_0304_0506_0708));
        let decoded = FrameDecoder::new().peek(&frame).unwrap().unwrap();
        assert_eq!(decoded.header.envelope.request, request_of(&frame));
        assert!(matches!(decoded.response(), Ok(Response::Error(Error::NoSpace))));
        assert_eq!(request_of(b"short"), RequestId(0));
    }
}
