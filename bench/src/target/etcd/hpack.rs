//! Header blocks (HPACK, RFC 7541) without the table that both sides keep: this side tells the other to keep none for what it sends,
//! and keeps to literals and the fixed table itself.
//!
//! Invariant: equal blocks mean equal headers, since nothing that came before changes what a block means.

/// Names of the fixed table (appendix A) by their number, as far as answers of gRPC use them.
const STATUS_200: usize = 8;
/// `:status` with other values.
const STATUSES: std::ops::RangeInclusive<usize> = 9..=14;
const AUTHORITY: usize = 1;
const METHOD_POST: u8 = 0x80 | 3;
const PATH: usize = 4;
const SCHEME_HTTP: u8 = 0x80 | 6;
const CONTENT_TYPE: usize = 31;
/// How a literal begins that is not to be remembered.
const LITERAL: u8 = 0x00;

/// The Huffman code (appendix B) is canonical: codes of a length go up with their symbols, shorter ones before longer ones. The
/// lengths with their symbols, up to the longest that printable characters have.
const CODE: [(u32, &[u8]); 11] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
];

/// What an answer's headers say.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Said {
    /// Whether HTTP itself went well; absent in trailers.
    pub(super) is_ok: Option<bool>,
    /// gRPC's status, in trailers.
    pub(super) status: Option<u32>,
    /// What the server says of it.
    pub(super) message: String,
}

/// The header block of every request to a method.
pub(super) fn request(authority: &str, path: &str) -> Vec<u8> {
    let mut block = vec![METHOD_POST, SCHEME_HTTP];
    append_indexed_name(PATH, path, &mut block);
    append_indexed_name(AUTHORITY, authority, &mut block);
    append_indexed_name(CONTENT_TYPE, "application/grpc", &mut block);
    block.push(LITERAL);
    append_string("te", &mut block);
    append_string("trailers", &mut block);
    block
}

fn append_indexed_name(name: usize, value: &str, block: &mut Vec<u8>) {
    append_integer(LITERAL, 4, name, block);
    append_string(value, block);
}

fn append_string(text: &str, block: &mut Vec<u8>) {
    append_integer(0, 7, text.len(), block);
    block.extend_from_slice(text.as_bytes());
}

/// A number in the low bits of a byte, and in those that follow if it has no room there.
fn append_integer(high: u8, bits: u32, number: usize, block: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    let low = |number: usize| u8::try_from(number & 0xff).unwrap_or_default();
    if number < most {
        return block.push(high | low(number));
    }
    block.push(high | low(most));
    let mut rest = number - most;
    while rest >= 128 {
        block.push(0x80 | low(rest & 0x7f));
        rest >>= 7;
    }
    block.push(low(rest));
}

/// What a block says.
///
/// # Errors
/// It breaks the rules.
pub(super) fn read(block: &[u8]) -> Result<Said, String> {
    let (mut said, mut rest) = (Said::default(), block);
    while let Some((&first, behind)) = rest.split_first() {
        if first & 0x80 != 0 {
            let (index, behind) = integer(rest, 7)?;
            if index == STATUS_200 {
                said.is_ok = Some(true);
            } else if STATUSES.contains(&index) {
                said.is_ok = Some(false);
            }
            rest = behind;
        } else if first & 0xe0 == 0x20 {
            // The size of the table that is not kept.
            rest = integer(rest, 5)?.1;
        } else {
            let bits = if first & 0x40 != 0 { 6 } else { 4 };
            let (index, behind_index) =
                if first & ((1 << bits) - 1) == 0 { (0, behind) } else { integer(rest, bits)? };
            let (name, behind_name) =
                if index == 0 { string(behind_index)? } else { (name(index).into(), behind_index) };
            let (value, behind) = string(behind_name)?;
            said.take(&name, value);
            rest = behind;
        }
    }
    Ok(said)
}

impl Said {
    fn take(&mut self, name: &str, value: String) {
        match name {
            ":status" => self.is_ok = Some(value == "200"),
            "grpc-status" => self.status = Some(value.parse().unwrap_or(u32::MAX)),
            "grpc-message" => self.message = value,
            _ => {}
        }
    }
}

const fn name(index: usize) -> &'static str {
    match index {
        STATUS_200..=14 => ":status",
        _ => "",
    }
}

fn integer(bytes: &[u8], bits: u32) -> Result<(usize, &[u8]), String> {
    let (first, mut rest) = bytes.split_first().ok_or("a header block that is cut off")?;
    let most = (1_usize << bits) - 1;
    let mut number = usize::from(*first) & most;
    if number < most {
        return Ok((number, rest));
    }
    for shift in [0, 7, 14, 21] {
        let (next, behind) = rest.split_first().ok_or("a header block that is cut off")?;
        number += usize::from(next & 0x7f) << shift;
        rest = behind;
        if next & 0x80 == 0 {
            return Ok((number, rest));
        }
    }
    Err("a number that is too long".into())
}

fn string(bytes: &[u8]) -> Result<(String, &[u8]), String> {
    let is_coded = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let (length, rest) = integer(bytes, 7)?;
    let (text, rest) = rest.split_at_checked(length).ok_or("a header block that is cut off")?;
    let text = if is_coded { decoded(text)? } else { text.to_vec() };
    Ok((String::from_utf8_lossy(&text).into_owned(), rest))
}

/// Reads Huffman's code bit by bit: only what differs from a success is read so.
fn decoded(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (mut text, mut code, mut length) = (Vec::new(), 0_usize, 0_u32);
    for bit in bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)) {
        (code, length) = (code << 1 | usize::from(bit), length + 1);
        if let Some(symbol) = symbol(code, length) {
            text.push(symbol);
            (code, length) = (0, 0);
        } else if length > 19 {
            return Err("a header that is no text".into());
        }
    }
    // What is left over is filled up with ones.
    if length < 8 && code + 1 == 1 << length { Ok(text) } else { Err("a header that is cut off".into()) }
}

fn symbol(code: usize, length: u32) -> Option<u8> {
    let (mut first, mut before) = (0, 0);
    for (bits, symbols) in CODE {
        first <<= bits - before;
        if bits == length {
            return code.checked_sub(first).and_then(|index| symbols.get(index).copied());
        }
        (first, before) = (first + symbols.len(), bits);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_specifications_examples() {
        for (bits, number, bytes) in [(5, 10, &[10][..]), (5, 1337, &[31, 154, 10]), (8, 42, &[42])] {
            let mut block = Vec::new();
            append_integer(0, bits, number, &mut block);
            assert_eq!(block, bytes);
            assert_eq!(integer(bytes, bits), Ok((number, &[][..])));
        }
        assert!(integer(&[31, 0x80], 5).is_err());
    }

    #[test]
    fn huffman_is_read_as_in_the_specifications_examples() {
        for (text, bytes) in [
            (
                "www.example.com",
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
            ),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            ("custom-key", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f]),
            ("302", &[0x64, 0x02]),
            (
                "Mon, 21 Oct 2013 20:13:21 GMT",
                &[
                    0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81,
                    0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
                ],
            ),
        ] {
            assert_eq!(String::from_utf8(decoded(bytes).unwrap()).unwrap(), text);
        }
        assert!(decoded(&[0xff, 0xff, 0xff, 0xff]).is_err());
    }

    #[test]
    fn trailers_say_how_it_went() {
        let mut block = vec![0x20, 0x88];
        append_indexed_name(CONTENT_TYPE, "application/grpc", &mut block);
        assert_eq!(read(&block).unwrap(), Said { is_ok: Some(true), ..Said::default() });
        let mut block = vec![LITERAL];
        append_string("grpc-status", &mut block);
        append_string("14", &mut block);
        block.push(LITERAL);
        append_string("grpc-message", &mut block);
        append_string("etcdserver: leader changed", &mut block);
        let said = read(&block).unwrap();
        assert_eq!((said.status, said.message.as_str()), (Some(14), "etcdserver: leader changed"));
        assert!(read(&block[..block.len() - 1]).is_err());
    }
}
