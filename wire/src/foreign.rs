//! What else might have knocked on the port, and a farewell in its own words.

/// A protocol that is not this one, guessed from the first bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// HTTP/1 or the preface of HTTP/2.
    Http,
    /// A TLS handshake.
    Tls,
    /// RESP, or a Redis command typed inline.
    Redis,
    /// None of these.
    Unknown,
}

const HTTP: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"PATCH ",
    b"TRACE ",
    b"CONNECT ",
    b"PRI * HTTP/2",
];
/// Commands that people type and clients open with. `GET` and the like begin HTTP requests as well; `GET /` decides.
const REDIS: [&[u8]; 6] = [b"PING", b"ECHO", b"AUTH", b"INFO", b"QUIT", b"SET "];

impl Foreign {
    /// Guesses from what came first.
    #[must_use]
    pub fn guess(bytes: &[u8]) -> Self {
        match bytes {
            [0x16, 0x03, ..] | [0x16] => return Self::Tls,
            [b'*' | b'$', rest @ ..] if rest.first().is_none_or(u8::is_ascii_digit) => return Self::Redis,
            _ => {}
        }
        if HTTP.iter().any(|word| begins(bytes, word)) {
            Self::Http
        } else if REDIS.iter().any(|word| begins(bytes, word)) {
            Self::Redis
        } else {
            Self::Unknown
        }
    }

    /// What to send before closing, so that the other side's user reads why; empty if no words are known.
    #[must_use]
    pub const fn farewell(self) -> &'static [u8] {
        match self {
            Self::Http => {
                b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 69\r\nConnection: close\r\n\r\nThis port speaks the Mesh protocol, not HTTP. Use the mesh command.\r\n"
            }
            // An alert: fatal, protocol_version.
            Self::Tls => &[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46],
            Self::Redis => b"-ERR this port speaks the Mesh protocol, not RESP\r\n",
            Self::Unknown => b"",
        }
    }

    /// For the end of an error message.
    pub(crate) const fn hint(self) -> &'static str {
        match self {
            Self::Http => ": this looks like HTTP",
            Self::Tls => ": this looks like TLS",
            Self::Redis => ": this looks like the Redis protocol",
            Self::Unknown => "",
        }
    }
}

/// Whether the bytes begin with the word in any case, or are the beginning of it.
fn begins(bytes: &[u8], word: &[u8]) -> bool {
    let common = bytes.len().min(word.len());
    common >= 3 && bytes.iter().zip(word).all(|(a, b)| a.eq_ignore_ascii_case(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_protocols_are_told_by_their_first_bytes() {
        let client_hello = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
        for (bytes, protocol) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], Foreign::Http),
            (b"PUT /v1/kv/a HTTP/1.1\r\n", Foreign::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Foreign::Http),
            (b"GET", Foreign::Http),
            (&client_hello, Foreign::Tls),
            (b"*1\r\n$4\r\nPING\r\n", Foreign::Redis),
            (b"PING\r\n", Foreign::Redis),
            (b"ping\r\n", Foreign::Redis),
            (b"*", Foreign::Redis),
            (b"SSH-2.0-OpenSSH_9.9\r\n", Foreign::Unknown),
            (b"\0\0\0\0", Foreign::Unknown),
            (b"", Foreign::Unknown),
        ] {
            assert_eq!(Foreign::guess(bytes), protocol, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_farewell_to_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(Foreign::Http.farewell()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
