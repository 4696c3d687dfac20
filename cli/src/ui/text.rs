//! Words for people: times, lines that do no harm to a terminal.

use std::time::{Duration, SystemTime};

/// How long something took, in at most two units.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
    }
}

/// A time of the interface.
pub(crate) fn time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok()
}

/// From one time of the interface to another, or to now.
pub(crate) fn between(from: Option<&str>, to: Option<&str>) -> Option<Duration> {
    let from = time(from?)?;
    let to = match to {
        Some(to) => time(to)?,
        None => SystemTime::now(),
    };
    to.duration_since(from).ok()
}

/// How long ago something was.
pub(crate) fn ago(text: Option<&str>) -> String {
    between(text, None).map_or_else(String::new, |age| format!("{} ago", duration(age)))
}

/// Now, as the interface writes times.
pub(crate) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// A text of others', without what a terminal would obey.
pub(crate) fn shown(text: &str) -> String {
    String::from_utf8_lossy(&line(text.as_bytes())).into_owned()
}

/// Back to no colour.
const RESET: &[u8] = b"\x1b[0m";

/// A line of a log as it may stand beside others on a terminal: colours and tabs stay, whatever moves the cursor goes,
/// and of what a carriage return wrote over only the last is left.
pub(crate) fn line(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let begin = line.iter().rposition(|byte| *byte == b'\r').map_or(0, |at| at + 1);
    let mut rest = line.get(begin..).unwrap_or_default();
    let (mut shown, mut coloured) = (Vec::with_capacity(rest.len()), false);
    while let Some(&byte) = rest.first() {
        let (piece, after) = rest.split_at(escape(rest).max(1));
        rest = after;
        if byte == 0xc2 && matches!(rest.first(), Some(0x80..=0x9f)) {
            // One of the eight-bit controls: to some terminals the same as ESC and a letter.
            rest = rest.get(1..).unwrap_or_default();
            continue;
        }
        if piece.starts_with(b"\x1b[") && piece.ends_with(b"m") {
            coloured = true;
            shown.extend_from_slice(piece);
        } else if byte == b'\t' || (byte >= 0x20 && byte != 0x7f) {
            shown.push(byte);
        }
    }
    if coloured && !shown.ends_with(RESET) {
        shown.extend_from_slice(RESET);
    }
    shown
}

/// The length of the escape sequence at the beginning, if there is one.
fn escape(text: &[u8]) -> usize {
    let ends = |from: usize, last: &dyn Fn(u8) -> bool| {
        text.iter().skip(from).position(|byte| last(*byte)).map_or(text.len(), |at| from + at + 1)
    };
    match text {
        [0x1b, b'[', ..] => ends(2, &|byte| (0x40..=0x7e).contains(&byte)),
        [0x1b, b']' | b'P' | b'_' | b'^' | b'X', ..] => ends(2, &|byte| byte == 0x07 || byte == b'\\'),
        [0x1b, _, ..] => 2,
        [0x1b] => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_at_most_two_units() {
        let shown = |ms| duration(Duration::from_millis(ms));
        assert_eq!(
            [shown(40), shown(9_950), shown(12_400), shown(61_000), shown(3_700_000)],
            ["0.0s", "9.9s", "12s", "1m01s", "1h01m"]
        );
    }

    #[test]
    fn a_line_keeps_its_colours_and_loses_what_would_steer_the_terminal() {
        let shown = |text: &str| String::from_utf8(line(text.as_bytes())).unwrap();
        assert_eq!(shown("plain ü\ttext"), "plain ü\ttext");
        assert_eq!(shown("\x1b[31mred\x1b[0m"), "\x1b[31mred\x1b[0m");
        assert_eq!(shown("\x1b[31mred"), "\x1b[31mred\x1b[0m");
        assert_eq!(shown("a\u{9b}2J\u{85}b°"), "a2Jb°", "eight-bit controls too");
        assert_eq!(shown("a\x1b[2J\x1b[10;1Hb\x07\x08c"), "abc");
        assert_eq!(shown("\x1b]0;title\x07x\x1b]8;;http://h\x1b\\y"), "xy");
        assert_eq!(shown("10%\r50%\r100%\r"), "100%");
        assert_eq!(shown("\x1b"), "");
    }
}
