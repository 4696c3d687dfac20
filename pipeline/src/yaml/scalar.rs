//! What a plain scalar is, and how one becomes text again (reference 1.3 and 1.4).

use super::Kind;

/// What a plain scalar is beside text: YAML 1.2 with the number forms that Buildkite's agent knows.
pub(super) fn special(text: &str) -> Option<Kind> {
    Some(match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Kind::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Kind::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => Kind::Float(f64::NAN),
        _ if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => return None,
        _ => return time(text).map(Kind::Time).or_else(|| number(text)),
    })
}

/// The number that a text writes, if it writes one.
pub(super) fn number(text: &str) -> Option<Kind> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    // What is too large for a float stays text.
    let float = || digits.parse().ok().filter(|value: &f64| value.is_finite()).map(Kind::Float);
    integer(&digits).or_else(|| is_float(&digits).then(float).flatten())
}

fn integer(text: &str) -> Option<Kind> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = unsigned.to_ascii_lowercase();
    let (base, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, base).ok()?);
    let value = if negative { -value } else { value };
    i64::try_from(value).map(Kind::Int).ok().or_else(|| u64::try_from(value).map(Kind::Unsigned).ok())
}

/// `[-+]? ( . digits | digits [ . digits? ] ) ( [eE] [-+]? digits )?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some((whole, fraction)) => {
            all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty())
        }
        None => !mantissa.is_empty() && all_digits(mantissa),
    };
    let exponent_fits = exponent.is_none_or(|part| {
        let digits = part.strip_prefix(['-', '+']).unwrap_or(part);
        !digits.is_empty() && all_digits(digits)
    });
    mantissa_fits && exponent_fits
}

/// A number's shortest digits, with an exponent below -4 and from 6 on.
pub(super) fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// An ISO date, or date and time, in RFC 3339.
fn time(text: &str) -> Option<String> {
    if text.len() > 64 || !text.is_ascii() || text.as_bytes().get(4) != Some(&b'-') {
        return None;
    }
    let (date, rest) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((&text[at..=at], text[at + 1..].trim_start()))),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let year: u32 = field(year, 4, 4, 0, 9_999)?;
    let month: u32 = field(month, 1, 2, 1, 12)?;
    let day: u32 = field(day, 1, 2, 1, days(year, month))?;
    if parts.next().is_some() {
        return None;
    }
    let clock = match rest {
        None => "00:00:00Z".to_owned(),
        Some((separator, rest)) => clock(rest, separator == " ")?,
    };
    Some(format!("{year:04}-{month:02}-{day:02}T{clock}"))
}

fn clock(text: &str, zone_may_lack: bool) -> Option<String> {
    let zone_at = text.find(['Z', 'z', '+', '-']);
    let (time, zone) = match zone_at {
        Some(at) if !zone_may_lack => (&text[..at], &text[at..]),
        None if zone_may_lack => (text, "Z"),
        Some(_) | None => return None,
    };
    let mut parts = time.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let (second, fraction) = second.split_once('.').map_or((second, ""), |(second, fraction)| (second, fraction));
    let hour = field(hour, 1, 2, 0, 23)?;
    let minute = field(minute, 1, 2, 0, 59)?;
    let second = field(second, 1, 2, 0, 59)?;
    if parts.next().is_some() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let zone = zone_text(zone)?;
    Some(format!("{hour:02}:{minute:02}:{second:02}{dot}{fraction}{zone}"))
}

fn zone_text(zone: &str) -> Option<String> {
    if zone == "Z" {
        return Some(zone.to_owned());
    }
    let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
    let (hours, minutes) = (field(hours, 2, 2, 0, 23)?, field(minutes, 2, 2, 0, 59)?);
    Some(if (hours, minutes) == (0, 0) { "Z".to_owned() } else { zone.to_owned() })
}

fn field(text: &str, shortest: usize, longest: usize, least: u32, most: u32) -> Option<u32> {
    let fits = (shortest..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let value: u32 = fits.then(|| text.parse().ok()).flatten()?;
    (least..=most).contains(&value).then_some(value)
}

const fn days(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_scalars_have_the_types_that_the_reference_gives_them() {
        for (text, expected) in [
            ("yes", Kind::Text("yes".into())),
            ("0x1F", Kind::Int(31)),
            ("0777", Kind::Int(511)),
            ("0o17", Kind::Int(15)),
            ("-0b11", Kind::Int(-3)),
            ("1_000", Kind::Int(1_000)),
            ("08", Kind::Float(8.0)),
            ("0x", Kind::Text("0x".into())),
            ("-", Kind::Text("-".into())),
            (".", Kind::Text(".".into())),
            ("1:30", Kind::Text("1:30".into())),
            ("-9223372036854775808", Kind::Int(i64::MIN)),
            ("12345678901234567890", Kind::Unsigned(12_345_678_901_234_567_890)),
            ("1e400", Kind::Text("1e400".into())),
            ("-99999999999999999999", Kind::Float(-1e20)),
            ("1_0.5", Kind::Float(10.5)),
            ("1.2.3", Kind::Text("1.2.3".into())),
            ("2002-08-15", Kind::Time("2002-08-15T00:00:00Z".into())),
            ("2002-13-15", Kind::Text("2002-13-15".into())),
            ("2023-02-29", Kind::Text("2023-02-29".into())),
            ("2002-8-5 1:2:3.50", Kind::Time("2002-08-05T01:02:03.5Z".into())),
            ("2002-08-15T10:11:12+02:00", Kind::Time("2002-08-15T10:11:12+02:00".into())),
            ("2002-08-15T10:11:12", Kind::Text("2002-08-15T10:11:12".into())),
        ] {
            assert_eq!(plain(text), expected, "{text}");
        }
    }

    fn plain(text: &str) -> Kind {
        special(text).unwrap_or_else(|| Kind::Text(text.to_owned()))
    }

    proptest! {
        #[test]
        fn every_integer_reads_back_as_itself(value in any::<i64>()) {
            prop_assert_eq!(plain(&value.to_string()), Kind::Int(value));
        }

        #[test]
        fn every_float_reads_back_as_itself(value in proptest::num::f64::NORMAL) {
            prop_assert_eq!(float_text(value).parse::<f64>().unwrap().to_bits(), value.to_bits());
        }

        #[test]
        fn no_text_upsets_the_typing(text in "[-+.0-9eExobTZ:_ a-f]{0,24}") {
            let _ = plain(&text);
        }
    }
}
