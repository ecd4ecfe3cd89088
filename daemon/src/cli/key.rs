//! Keys on the command line and in what it prints: any bytes, as text that can be pasted back.
//!
//! A key stands for itself, with two exceptions: `\xHH` is the byte with that number, and `\\` is a backslash. What is
//! printed keeps to the same notation, so that a key from `mesh range` is an argument for `mesh get`.
//!
//! Invariant: parsing what was written gives the same bytes.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::builder::{OsStringValueParser, TypedValueParser};

/// The bytes of a key, or of what keys begin with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Key(Vec<u8>);

impl Key {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Reads a key off the command line.
pub(super) fn parser() -> impl TypedValueParser<Value = Key> {
    OsStringValueParser::new().try_map(|text: OsString| parse(&text))
}

fn parse(text: &OsStr) -> Result<Key, String> {
    // Most have no escapes.
    if !text.as_bytes().contains(&b'\\') {
        return Ok(Key(text.to_owned().into_vec()));
    }
    let mut key = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                key.push(b'\\');
                tail
            }
            (b'\\', [b'x', high, low, tail @ ..]) if [high, low].iter().all(|c| c.is_ascii_hexdigit()) => {
                key.push(digit(*high) << 4 | digit(*low));
                tail
            }
            (b'\\', _) => {
                let at = text.len() - tail.len();
                return Err(format!(
                    "the `\\` at byte {at} stands for nothing: write `\\\\` for a backslash, or `\\xHH` for any byte"
                ));
            }
            (byte, tail) => {
                key.push(byte);
                tail
            }
        };
    }
    Ok(Key(key))
}

/// The value of a hexadecimal digit.
const fn digit(c: u8) -> u8 {
    match c {
        b'0'..=b'9' => c - b'0',
        _ => (c | 0x20) - b'a' + 10,
    }
}

/// Bytes for a line that people read: what is not readable, and what would break or disguise the line, is escaped.
pub(super) fn readable(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => line.push_str("\\\\"),
                c if is_readable(c) => line.push(c),
                c => escape(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut line),
            }
        }
        escape(chunk.invalid(), &mut line);
    }
    line
}

/// Whether a character is seen, and changes nothing about the others: no controls, no marks of text direction, no
/// separators of lines and no marks of byte order.
fn is_readable(c: char) -> bool {
    let is_format = matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    );
    !c.is_control() && !is_format
}

fn escape(bytes: &[u8], line: &mut String) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(line, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use quickcheck::quickcheck;

    use super::*;

    fn key(text: &str) -> Result<Vec<u8>, String> {
        parse(text.as_ref()).map(|key| key.0)
    }

    #[test]
    fn a_key_stands_for_itself_but_for_the_escapes() {
        assert_eq!(key("users/42").unwrap(), b"users/42");
        assert_eq!(key(r"a\x00\xfF\\x00").unwrap(), b"a\0\xff\\x00");
        assert_eq!(parse(OsStr::from_bytes(&[0xff, b'a'])).unwrap().as_bytes(), [0xff, b'a']);
    }

    #[test]
    fn what_is_no_escape_is_refused_with_its_place_and_the_remedy() {
        for text in [r"ab\n", r"ab\", r"ab\x1", r"ab\xg0"] {
            let why = key(text).unwrap_err();
            assert!(why.contains("at byte 3") && why.contains(r"`\\`") && why.contains(r"`\xHH`"), "{why}");
        }
    }

    #[test]
    fn a_line_stays_one_line_and_hides_nothing() {
        let line = readable("tab\tand \\ line\n ü\u{1b}\u{202e}\u{85}".as_bytes());
        assert_eq!(line, r"tab\x09and \\ line\x0a ü\x1b\xe2\x80\xae\xc2\x85");
        assert_eq!(readable(&[b'a', 0xff, 0xc3]), r"a\xff\xc3");
    }

    quickcheck! {
        fn what_is_printed_can_be_pasted_back(bytes: Vec<u8>) -> bool {
            key(&readable(&bytes)).unwrap() == bytes
        }

        fn so_can_text(text: String) -> bool {
            key(&readable(text.as_bytes())).unwrap() == text.as_bytes()
        }
    }
}
