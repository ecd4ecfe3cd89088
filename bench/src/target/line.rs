//! What protocols of lines have in common: lines that end with a carriage return and a line feed, decimal numbers, and blocks of
//! bytes between them.
//!
//! Invariant: what is cut off the front was whole; a piece that is not gives `None` and is looked at again with more behind it.

/// A line longer than this is none: its end would have come.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// A block longer than this is none.
pub(super) const BLOCK_BYTES_MAX: usize = 1 << 30;
/// What ends lines and blocks.
pub(super) const END: &[u8; 2] = b"\r\n";

/// A part at the front, and what is behind it.
pub(super) type Cut<'a> = (&'a [u8], &'a [u8]);

/// The line at the front without its end, and what is behind it.
///
/// # Errors
/// There is no end where one has to be.
pub(super) fn line(bytes: &[u8]) -> Result<Option<Cut<'_>>, String> {
    let Some(end) = bytes.windows(END.len()).position(|pair| pair == END) else {
        return if bytes.len() > LINE_BYTES_MAX { Err("a line without an end".into()) } else { Ok(None) };
    };
    let (line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
    Ok(Some((line, rest.get(END.len()..).unwrap_or_default())))
}

/// The block of so many bytes at the front without its end, and what is behind it.
///
/// # Errors
/// It does not end there.
pub(super) fn block(bytes: &[u8], length: usize) -> Result<Option<Cut<'_>>, String> {
    let Some((block, rest)) = bytes.split_at_checked(length) else { return Ok(None) };
    match rest.split_at_checked(END.len()) {
        None => Ok(None),
        Some((end, rest)) if end == END => Ok(Some((block, rest))),
        Some(_) => Err("a block longer than it said".into()),
    }
}

/// A decimal number, up to the longest block.
///
/// # Errors
/// It is none.
pub(super) fn number(digits: &[u8]) -> Result<usize, String> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    number
        .filter(|number| *number <= BLOCK_BYTES_MAX)
        .ok_or_else(|| format!("`{}` is not a length", String::from_utf8_lossy(digits)))
}

/// Appends a decimal number.
pub(super) fn append(number: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let (mut rest, mut count) = (number, 0);
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        (rest, count) = (rest / 10, count + 1);
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - count..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_blocks_are_cut_off_when_they_are_whole() {
        assert_eq!(line(b"+OK\r\nrest"), Ok(Some((&b"+OK"[..], &b"rest"[..]))));
        assert_eq!(line(b"+OK\r"), Ok(None));
        assert!(line(&vec![b'x'; LINE_BYTES_MAX + 1]).is_err());
        assert_eq!(block(b"a\r\nb\r\nrest", 4), Ok(Some((&b"a\r\nb"[..], &b"rest"[..]))));
        assert_eq!(block(b"abc\r", 3), Ok(None));
        assert!(block(b"abcd\r\n", 3).is_err());
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        for value in [0, 7, 10, 256, 1_000_000] {
            let mut out = Vec::new();
            append(value, &mut out);
            assert_eq!(
                (String::from_utf8(out.clone()).unwrap(), number(&out)),
                (value.to_string(), Ok(value))
            );
        }
        for wrong in [&b""[..], b"-1", b"1x", b"99999999999"] {
            assert!(number(wrong).is_err());
        }
    }
}
