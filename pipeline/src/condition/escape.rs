//! Escapes in strings (reference 15.2). They make bytes: `\xe9` alone is no character.

/// What a backslash and what follows it stand for in `"…"`, and how many bytes they take.
///
/// # Errors
/// Nothing follows, or the octal number is too large for a byte.
pub(super) fn double(bytes: &[u8]) -> Result<(u8, usize), &'static str> {
    let Some(&next) = bytes.get(1).filter(|byte| **byte != 0) else { return Err("nothing follows the backslash") };
    let byte = match next {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'b' => 0x08,
        b'a' => 0x07,
        b'e' => 0x1b,
        b's' => b' ',
        b'x' => {
            return Ok(match (hex(bytes.get(2)), hex(bytes.get(3))) {
                (Some(high), Some(low)) => (high << 4 | low, 4),
                _ => (b'x', 2),
            });
        }
        b'0'..=b'7' => return octal(bytes),
        other => other,
    };
    Ok((byte, 2))
}

fn octal(bytes: &[u8]) -> Result<(u8, usize), &'static str> {
    let digits = bytes[1..].iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7'));
    let (value, width) =
        digits.fold((0_u32, 1), |(value, width), digit| (value << 3 | u32::from(digit - b'0'), width + 1));
    let byte = u8::try_from(value).map_err(|_| "an octal escape is at most `\\377`")?;
    Ok((byte, width))
}

fn hex(digit: Option<&u8>) -> Option<u8> {
    let value = char::from(*digit?).to_digit(16)?;
    u8::try_from(value).ok()
}

/// The bytes of a `'…'`: only `\\` and `\'` are escapes.
pub(super) fn single(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte == b'\\' && matches!(raw.get(at + 1), Some(b'\\' | b'\'')) {
            at += 1;
        }
        out.push(raw[at]);
        at += 1;
    }
    out
}

/// The byte after the quote that closes the one at `start`; a backslash takes the next byte's meaning away.
pub(super) fn quoted_end(bytes: &[u8], start: usize, quote: u8) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            0 => return None,
            b'\\' => at += 2,
            byte if *byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_double_quotes_make_the_bytes_of_the_reference() {
        for (source, byte, width) in [
            ("\\n", b'\n', 2),
            ("\\r", b'\r', 2),
            ("\\t", b'\t', 2),
            ("\\v", 0x0b, 2),
            ("\\f", 0x0c, 2),
            ("\\b", 8, 2),
            ("\\a", 7, 2),
            ("\\e", 0x1b, 2),
            ("\\s", b' ', 2),
            ("\\\\", b'\\', 2),
            ("\\\"", b'"', 2),
            ("\\x41z", b'A', 4),
            ("\\xe9", 0xe9, 4),
            ("\\x4g", b'x', 2),
            ("\\x", b'x', 2),
            ("\\0", 0, 2),
            ("\\61", b'1', 3),
            ("\\1411", b'a', 4),
            ("\\377", 0xff, 4),
            ("\\8", b'8', 2),
            ("\\q", b'q', 2),
            ("\\$", b'$', 2),
        ] {
            assert_eq!(double(source.as_bytes()), Ok((byte, width)), "{source}");
        }
        assert!(double(b"\\400").is_err());
        assert!(double(b"\\").is_err());
    }

    #[test]
    fn single_quotes_know_two_escapes() {
        assert_eq!(single(b"a\\'b\\\\c\\n\\"), b"a'b\\c\\n\\");
    }
}
