//! Sizes as people write them: `4GiB`, `512MB`, `0.5` processors.

use crate::error::Failure;

/// Bytes: a number with `B`, `K`, `KB`, `KiB` and so on up to `T`; without a unit it is bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, Failure> {
    let refuse =
        || Failure::usage(format!("`{text}` is no size")).hint("write a number and a unit, such as 4GiB or 512MB");
    let trimmed = text.trim();
    let split = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(refuse()),
    };
    thousandths(number).and_then(|n| Some(n.checked_mul(factor)? / 1_000)).ok_or_else(refuse)
}

/// Thousandths of a processor.
pub(crate) fn cpu_millis(text: &str) -> Result<u64, Failure> {
    let refuse = || Failure::usage(format!("`{text}` is no number of processors")).hint("write 2 or 0.5");
    thousandths(text.trim()).filter(|millis| *millis > 0).ok_or_else(refuse)
}

/// A decimal number, times 1,000; further digits are cut.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part: String = part.chars().chain("000".chars()).take(3).collect();
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(part.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_the_units_that_people_write() {
        let cases = [("4GiB", 4 << 30), ("512MB", 512_000_000), ("1.5k", 1_536), ("7", 7), (" 2 MiB ", 2 << 20)];
        for (text, expected) in cases {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for text in ["", "GiB", "-1", "4 GiBs", "1.2.3", "99999999999999999999", "18446744073709551615T"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn processors_are_read_in_thousandths() {
        assert_eq!(cpu_millis("0.5").unwrap(), 500);
        assert_eq!(cpu_millis("2").unwrap(), 2_000);
        assert!(cpu_millis("0").is_err());
        assert!(cpu_millis("two").is_err());
    }
}
