//! Frames of HTTP/2 (RFC 9113), as far as a client of gRPC meets them.
//!
//! A frame is nine bytes (length in three, type, flags, stream in four, all with the highest byte first) and its payload.

/// Bytes before a payload.
pub(super) const HEADER_BYTES: usize = 9;
/// The longest payload that either side may send unless the other allows more.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;
/// The window of a connection, and of a stream unless settings say more, in bytes.
pub(super) const WINDOW_BYTES: i64 = 65_535;
/// The largest window.
pub(super) const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;
/// What a client says first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The stream's end.
pub(super) const END_STREAM: u8 = 0x1;
/// An answer to settings or a ping.
pub(super) const ACK: u8 = 0x1;
/// No more of this header block follows.
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// What a frame is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Data,
    Headers,
    ResetStream,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// One that a client may ignore.
    Other,
}

impl Kind {
    const fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            3 => Self::ResetStream,
            4 => Self::Settings,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Other,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::ResetStream => 3,
            Self::Settings => 4,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Other => u8::MAX,
        }
    }
}

/// The number of a stream; 0 is the connection as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct StreamId(pub(super) u32);

/// The connection as a whole.
pub(super) const CONNECTION: StreamId = StreamId(0);

/// A setting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Setting {
    HeaderTableSize,
    EnablePush,
    InitialWindowSize,
}

impl Setting {
    const fn number(self) -> u16 {
        match self {
            Self::HeaderTableSize => 1,
            Self::EnablePush => 2,
            Self::InitialWindowSize => 4,
        }
    }
}

/// A whole frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    pub(super) stream: StreamId,
    /// Without padding.
    pub(super) payload: &'a [u8],
    /// Bytes of the frame, all of which count against a window if it is of data.
    pub(super) length: usize,
}

impl<'a> Frame<'a> {
    /// The frame at the front, if it is whole.
    ///
    /// # Errors
    /// It breaks the rules.
    pub(super) fn peek(bytes: &'a [u8]) -> Result<Option<Self>, String> {
        let Some((&[a, b, c, kind, flags, d, e, f, g], rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let size = u32::from_be_bytes([0, a, b, c]) as usize;
        if size > PAYLOAD_BYTES_MAX {
            return Err(format!("a frame of {size} bytes"));
        }
        let Some(payload) = rest.get(..size) else { return Ok(None) };
        let (kind, stream) = (Kind::of(kind), StreamId(u32::from_be_bytes([d, e, f, g]) & WINDOW_BYTES_MAX));
        let payload = unpadded(kind, flags, payload).ok_or("a frame with more padding than bytes")?;
        Ok(Some(Self { kind, flags, stream, payload, length: HEADER_BYTES + size }))
    }

    /// Whether a flag is set.
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The first four bytes of the payload as a number: a window's increment, an error's code.
    pub(super) fn number(&self) -> u32 {
        self.payload.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes)) & WINDOW_BYTES_MAX
    }

    /// The value of a setting in a frame of settings.
    pub(super) fn setting(&self, wanted: Setting) -> Option<u32> {
        let mut settings = self.payload.chunks_exact(6).filter_map(|setting| {
            let &[a, b, c, d, e, f] = setting else { return None };
            (u16::from_be_bytes([a, b]) == wanted.number()).then(|| u32::from_be_bytes([c, d, e, f]))
        });
        settings.next_back()
    }
}

/// A payload without padding and priority.
fn unpadded(kind: Kind, flags: u8, payload: &[u8]) -> Option<&[u8]> {
    let mut payload = payload;
    if !matches!(kind, Kind::Data | Kind::Headers) {
        return Some(payload);
    }
    if flags & PADDED != 0 {
        let (&padding, rest) = payload.split_first()?;
        payload = rest.get(..rest.len().checked_sub(usize::from(padding))?)?;
    }
    if kind == Kind::Headers && flags & PRIORITY != 0 {
        payload = payload.get(5..)?;
    }
    Some(payload)
}

/// Appends the head of a frame with so many bytes of payload.
pub(super) fn append_head(kind: Kind, flags: u8, stream: StreamId, size: usize, out: &mut Vec<u8>) {
    debug_assert!(size <= PAYLOAD_BYTES_MAX);
    let [_, a, b, c] = u32::try_from(size).unwrap_or_default().to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind.byte(), flags]);
    out.extend_from_slice(&stream.0.to_be_bytes());
}

/// Appends an answer to settings or to a ping.
pub(super) fn append_ack(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    append_head(kind, ACK, CONNECTION, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends that the other side may send so many more bytes on the connection.
pub(super) fn append_window(bytes: u32, out: &mut Vec<u8>) {
    append_head(Kind::WindowUpdate, 0, CONNECTION, 4, out);
    out.extend_from_slice(&bytes.to_be_bytes());
}

/// Appends settings.
pub(super) fn append_settings(settings: &[(Setting, u32)], out: &mut Vec<u8>) {
    append_head(Kind::Settings, 0, CONNECTION, 6 * settings.len(), out);
    for (setting, value) in settings {
        out.extend_from_slice(&setting.number().to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_a_head_of_nine_bytes_and_its_payload() {
        // A WINDOW_UPDATE of 1000 bytes for stream 3, and the beginning of something.
        let bytes = [0, 0, 4, 8, 0, 0, 0, 0, 3, 0, 0, 3, 232, 1];
        let frame = Frame::peek(&bytes).unwrap().unwrap();
        assert_eq!((frame.kind, frame.stream, frame.number()), (Kind::WindowUpdate, StreamId(3), 1000));
        assert_eq!(frame.length, 13);
        assert_eq!(Frame::peek(&bytes[..12]), Ok(None));
        assert!(Frame::peek(&[1, 0, 0, 0, 0, 0, 0, 0, 1]).is_err(), "65536 bytes were not allowed");
    }

    #[test]
    fn padding_and_priority_are_left_out_of_payloads() {
        let data = [0, 0, 5, 0, PADDED | END_STREAM, 0, 0, 0, 1, 2, b'a', b'b', 0, 0];
        let frame = Frame::peek(&data).unwrap().unwrap();
        assert_eq!((frame.payload, frame.length, frame.has(END_STREAM)), (&b"ab"[..], 14, true));
        let headers = [0, 0, 6, 1, PRIORITY, 0, 0, 0, 1, 0, 0, 0, 0, 9, 0x88];
        assert_eq!(Frame::peek(&headers).unwrap().unwrap().payload, [0x88]);
        assert!(Frame::peek(&[0, 0, 1, 0, PADDED, 0, 0, 0, 1, 7]).is_err());
    }

    #[test]
    fn settings_are_read_as_they_are_written() {
        let mut out = Vec::new();
        append_settings(
            &[(Setting::HeaderTableSize, 0), (Setting::InitialWindowSize, WINDOW_BYTES_MAX)],
            &mut out,
        );
        let frame = Frame::peek(&out).unwrap().unwrap();
        assert_eq!(frame.setting(Setting::HeaderTableSize), Some(0));
        assert_eq!(frame.setting(Setting::InitialWindowSize), Some(WINDOW_BYTES_MAX));
        assert_eq!(frame.setting(Setting::EnablePush), None);
    }
}
