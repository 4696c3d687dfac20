//! Masks secrets in a stream of bytes, whatever the writes it was cut into.
//!
//! Every occurrence of a secret becomes `[REDACTED]`; occurrences that overlap become one. What could still turn out
//! to be the beginning of a secret is held back until it cannot, or until the stream ends.

use aho_corasick::{AhoCorasick, Input, MatchKind};
use windlass_protocol::limits::{SECRET_MIN_BYTES, SECRETS_PER_JOB_MAX};

/// What stands where a secret stood.
pub const REDACTED: &[u8] = b"[REDACTED]";

/// Variables whose names end so hold secrets (buildkite.md 21.4).
const SECRET_SUFFIXES: &[&str] = &[
    "_PASSWORD",
    "_SECRET",
    "_TOKEN",
    "_PRIVATE_KEY",
    "_SSH_KEY",
    "_ACCESS_KEY",
    "_SECRET_KEY",
    "_CONNECTION_STRING",
    "_API_KEY",
];

/// Whether a variable of this name holds a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    SECRET_SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// The secrets of an environment, and the names of those that are too short to mask.
#[must_use]
pub fn secrets_of<'a>(env: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Vec<&'a str>, Vec<&'a str>) {
    let (mut values, mut too_short) = (Vec::new(), Vec::new());
    for (name, value) in env {
        if !is_secret_name(name) || value.is_empty() {
            continue;
        }
        if value.len() < SECRET_MIN_BYTES {
            too_short.push(name);
        } else {
            values.push(value);
        }
    }
    (values, too_short)
}

/// More secrets than one job may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// The bound on secrets is reached.
    #[error("more than {SECRETS_PER_JOB_MAX} secrets to mask in one job")]
    TooMany,
    /// The values together are more than a search can be built for.
    #[error("the secrets to mask are too large together")]
    TooLarge,
}

/// Masks one stream.
pub struct Masker {
    needles: Vec<Vec<u8>>,
    search: Option<AhoCorasick>,
    /// Which bytes some needle begins with.
    first: [bool; 256],
    longest: usize,
    /// Read but not yet written: it may be the beginning of a secret.
    held: Vec<u8>,
    /// How many of the held bytes belong to a mask that is written already.
    covered: usize,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masker").field("needles", &self.needles.len()).field("held", &self.held.len()).finish()
    }
}

impl Masker {
    /// A masker for these values (and their quoted and trimmed forms); those shorter than the minimum are left out.
    ///
    /// # Errors
    /// [`MaskError`] where there are too many.
    pub fn new<T: AsRef<[u8]>>(values: impl IntoIterator<Item = T>) -> Result<Self, MaskError> {
        let mut masker =
            Self { needles: Vec::new(), search: None, first: [false; 256], longest: 0, held: Vec::new(), covered: 0 };
        for value in values {
            masker.take_forms(value.as_ref());
        }
        masker.build()?;
        Ok(masker)
    }

    /// Masks `value` too, from the bytes that are not yet written on. Says whether it is long enough to be masked.
    ///
    /// # Errors
    /// [`MaskError`] where there are too many; the others are masked as before.
    pub fn add(&mut self, value: &[u8]) -> Result<bool, MaskError> {
        let before = self.needles.len();
        self.take_forms(value);
        if self.needles.len() > before
            && let Err(error) = self.build()
        {
            // Else it would count as known when somebody asks again.
            self.needles.truncate(before);
            self.build()?;
            return Err(error);
        }
        Ok(value.len() >= SECRET_MIN_BYTES)
    }

    fn take_forms(&mut self, value: &[u8]) {
        for form in [value.to_vec(), value.trim_ascii().to_vec(), go_quoted(value)] {
            if form.len() >= SECRET_MIN_BYTES && !self.needles.contains(&form) {
                self.needles.push(form);
            }
        }
    }

    fn build(&mut self) -> Result<(), MaskError> {
        // Each value has up to three forms.
        if self.needles.len() > 3 * SECRETS_PER_JOB_MAX {
            return Err(MaskError::TooMany);
        }
        self.longest = self.needles.iter().map(Vec::len).max().unwrap_or(0);
        self.first = [false; 256];
        for byte in self.needles.iter().filter_map(|needle| needle.first()) {
            self.first[usize::from(*byte)] = true;
        }
        if self.needles.is_empty() {
            return Ok(());
        }
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&self.needles);
        self.search = Some(search.map_err(|_| MaskError::TooLarge)?);
        Ok(())
    }

    /// Takes `input` and appends to `out` what is certain by now.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.search.is_none() {
            out.extend_from_slice(input);
            return;
        }
        self.held.extend_from_slice(input);
        let hold = self.hold_from();
        self.write_until(hold, out);
    }

    /// Appends to `out` what was held back: nothing more comes.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.write_until(self.held.len(), out);
    }

    /// Where the longest ending of the held bytes begins that is also the beginning of a needle.
    fn hold_from(&self) -> usize {
        let held = &self.held;
        let window = held.len().saturating_sub(self.longest.saturating_sub(1));
        let could_begin = |at: &usize| {
            let tail = &held[*at..];
            self.first[usize::from(tail[0])]
                && self.needles.iter().any(|needle| needle.len() > tail.len() && needle.starts_with(tail))
        };
        (window..held.len()).find(could_begin).unwrap_or(held.len())
    }

    /// Writes the held bytes before `hold`, masked, and keeps the rest. A mask may reach into the rest: those bytes
    /// count as covered, and what overlaps them later joins the same mask.
    fn write_until(&mut self, hold: usize, out: &mut Vec<u8>) {
        let (mut mask_end, mut from) = (self.covered, 0);
        if let Some(search) = &self.search {
            while let Some(found) = search.find(Input::new(&self.held).range(from..)) {
                if found.start() < mask_end {
                    mask_end = mask_end.max(found.end());
                } else if found.start() < hold {
                    out.extend_from_slice(&self.held[mask_end..found.start()]);
                    out.extend_from_slice(REDACTED);
                    mask_end = found.end();
                } else {
                    break;
                }
                from = found.start() + 1;
            }
        }
        if mask_end < hold {
            out.extend_from_slice(&self.held[mask_end..hold]);
        }
        self.covered = mask_end.saturating_sub(hold);
        self.held.drain(..hold);
    }
}

/// The value as Go's `%q` shows it, without the quotes around it.
fn go_quoted(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_go_char(c, &mut out);
        }
        for byte in chunk.invalid() {
            out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        }
    }
    out
}

fn push_go_char(c: char, out: &mut Vec<u8>) {
    let short = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\n' => "\\n",
        '\t' => "\\t",
        '\r' => "\\r",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\u{b}' => "\\v",
        _ => "",
    };
    let code = u32::from(c);
    if !short.is_empty() {
        out.extend_from_slice(short.as_bytes());
    } else if code < 0x20 || code == 0x7f {
        out.extend_from_slice(format!("\\x{code:02x}").as_bytes());
    } else if c.is_control() {
        out.extend_from_slice(format!("\\u{code:04x}").as_bytes());
    } else {
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every occurrence in the whole text at once, merged where they overlap.
    fn whole(needles: &[Vec<u8>], text: &[u8]) -> Vec<u8> {
        let mut covered: Vec<(usize, usize)> = Vec::new();
        for at in 0..text.len() {
            let longest = needles.iter().filter(|n| text[at..].starts_with(n)).map(Vec::len).max();
            let Some(length) = longest else { continue };
            match covered.last_mut() {
                Some(last) if at < last.1 => last.1 = last.1.max(at + length),
                _ => covered.push((at, at + length)),
            }
        }
        let (mut out, mut from) = (Vec::new(), 0);
        for (start, end) in covered {
            out.extend_from_slice(&text[from..start]);
            out.extend_from_slice(REDACTED);
            from = end;
        }
        out.extend_from_slice(&text[from..]);
        out
    }

    fn streamed(masker: &mut Masker, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in pieces {
            masker.push(piece, &mut out);
        }
        masker.finish(&mut out);
        out
    }

    #[test]
    fn a_secret_split_between_writes_is_masked_and_no_part_of_it_is_written_before() {
        let mut masker = Masker::new(["hunter2hunter2"]).unwrap();
        let mut out = Vec::new();
        masker.push(b"password: hunter2", &mut out);
        assert_eq!(out, b"password: ");
        masker.push(b"hunter2\n", &mut out);
        assert_eq!(out, b"password: [REDACTED]\n");
    }

    #[test]
    fn what_only_began_like_a_secret_comes_out_when_the_stream_ends() {
        let mut masker = Masker::new(["hunter2hunter2"]).unwrap();
        assert_eq!(streamed(&mut masker, &[b"a hunter", b"2"]), b"a hunter2");
    }

    #[test]
    fn the_quoted_and_the_trimmed_forms_are_masked_too() {
        let mut masker = Masker::new(["line \"one\"\nline two\n"]).unwrap();
        let text = br#"{"key":"line \"one\"\nline two\n"}"#;
        assert_eq!(streamed(&mut masker, &[text]), br#"{"key":"[REDACTED]"}"#);
        assert_eq!(streamed(&mut masker, &[b"<line \"one\"\nline two>"]), b"<[REDACTED]>");
    }

    #[test]
    fn names_decide_which_variables_are_secret_and_short_values_are_named() {
        let env = [("DB_PASSWORD", "correct horse"), ("X_TOKEN", "abc"), ("PATH", "/usr/bin:/bin"), ("E_SECRET", "")];
        assert_eq!(secrets_of(env), (vec!["correct horse"], vec!["X_TOKEN"]));
    }

    #[test]
    fn a_value_added_later_is_masked_from_then_on() {
        let mut masker = Masker::new(["first-secret"]).unwrap();
        let mut out = Vec::new();
        masker.push(b"second-secret ", &mut out);
        assert_eq!(masker.add(b"second-secret"), Ok(true));
        assert_eq!(masker.add(b"tiny"), Ok(false));
        masker.push(b"second-secret first-secret tiny", &mut out);
        masker.finish(&mut out);
        assert_eq!(out, b"second-secret [REDACTED] [REDACTED] tiny");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]
        #[test]
        fn any_cutting_of_any_text_is_masked_as_the_whole_is(
            needles in prop::collection::vec("[ab]{6,10}", 1..5),
            pieces in prop::collection::vec("[abc]{0,14}", 0..20),
        ) {
            let mut masker = Masker::new(&needles).unwrap();
            let bytes: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            let needles: Vec<Vec<u8>> = needles.into_iter().map(String::into_bytes).collect();
            prop_assert_eq!(streamed(&mut masker, &bytes), whole(&needles, pieces.concat().as_bytes()));
        }
    }

    #[test]
    fn a_value_that_is_refused_is_refused_again_and_the_others_stay_masked() {
        let most: Vec<String> = (0..3 * SECRETS_PER_JOB_MAX).map(|index| format!("secret-{index:06}")).collect();
        let mut masker = Masker::new(&most).unwrap();
        for _ in 0..2 {
            assert_eq!(masker.add(b"one-too-many"), Err(MaskError::TooMany));
        }
        let mut out = Vec::new();
        masker.push(b"secret-000007 one-too-many\n", &mut out);
        masker.finish(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "[REDACTED] one-too-many\n");
    }
}
