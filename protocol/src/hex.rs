//! Bytes as lower-case hex digits, and back.

/// Two digits for each byte.
#[must_use]
pub fn to(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that a text's digits stand for, in either case; `None` if it has anything else, or an odd number of them.
#[must_use]
pub fn from(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// Whether a text is the whole id of a git commit: 40 digits of SHA-1, or 64 of SHA-256, in either case.
#[must_use]
pub fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_back_and_nothing_else_is() {
        assert_eq!(to(&[0, 10, 255]), "000aff");
        assert_eq!(from("000aff"), Some(vec![0, 10, 255]));
        assert_eq!(from(""), Some(Vec::new()));
        for bad in ["0", "0afff", "0g11", "é1", "+1", " 1"] {
            assert_eq!(from(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_commit_has_an_id_of_one_of_two_lengths() {
        assert!(is_commit_id(&"0aF9".repeat(10)) && is_commit_id(&"0aF9".repeat(16)));
        for bad in ["", "HEAD", &"a".repeat(39), &"a".repeat(41), &"a".repeat(63), &"g".repeat(40)] {
            assert!(!is_commit_id(bad), "{bad}");
        }
    }
}
