//! Masks secrets in a stream of bytes, whatever the writes it was cut into.
//!
//! Every occurrence of a secret becomes `[REDACTED]`; occurrences that overlap become one. What could still turn out
//! to be the beginning of a secret is held back until it cannot, or until the stream ends.
//!
//! The secrets and the text may both be a hostile job's. All of it is one pass: a byte of the text costs a bounded number
//! of looks, whatever the secrets, and to search for one more is made ready in steps between which others have their turn.

mod automaton;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use windlass_protocol::limits::{MASK_MAX_BYTES, SECRET_MIN_BYTES, SECRETS_PER_JOB_MAX};

use self::automaton::{Automaton, Building, ROOT, State};

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

/// Why a value cannot be masked beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MaskError {
    /// The bound on secrets is reached.
    #[error("more than {SECRETS_PER_JOB_MAX} secrets to mask in one job")]
    TooMany,
    /// The bound on their bytes is.
    #[error(
        "the secrets to mask in one job have more than {MASK_MAX_BYTES} bytes together, quoted and trimmed forms included"
    )]
    TooLarge,
}

/// Bytes of the stream that belong to secrets, as offsets in it.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

/// Masks one stream, in one pass over it.
pub struct Masker {
    needles: Vec<Arc<[u8]>>,
    known: HashSet<Arc<[u8]>>,
    /// Of all needles.
    bytes: usize,
    automaton: Automaton,
    /// So many of the needles are searched for, the first ones.
    ready: usize,
    /// So many have to be before anything more may pass.
    needed: usize,
    building: Option<Building>,
    state: State,
    /// Read but not yet written; the first of these bytes has this offset in the stream.
    held: Vec<u8>,
    held_at: usize,
    /// What was read ends here.
    read: usize,
    /// What comes before is written or masked.
    written: usize,
    /// What is to be masked, in order and apart. The first one's mask is written already where it begins before `written`.
    spans: VecDeque<Span>,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Masker").field("needles", &self.needles.len()).field("held", &self.held.len()).finish()
    }
}

/// Masks nothing yet.
impl Default for Masker {
    fn default() -> Self {
        Self {
            needles: Vec::new(),
            known: HashSet::new(),
            bytes: 0,
            automaton: Automaton::new(0),
            ready: 0,
            needed: 0,
            building: None,
            state: ROOT,
            held: Vec::new(),
            held_at: 0,
            read: 0,
            written: 0,
            spans: VecDeque::new(),
        }
    }
}

impl Masker {
    /// A masker for these values (and their quoted and trimmed forms); those shorter than the minimum are left out.
    ///
    /// # Errors
    /// [`MaskError`] where there are too many.
    pub fn new<T: AsRef<[u8]>>(values: impl IntoIterator<Item = T>) -> Result<Self, MaskError> {
        let mut masker = Self::default();
        for value in values {
            masker.add(value.as_ref())?;
        }
        Ok(masker)
    }

    /// Masks `value` too, from the bytes that are not yet written on: the next of them wait until that is so. Says whether
    /// it is long enough to be masked.
    ///
    /// # Errors
    /// [`MaskError`] where there are too many; the others are masked as before.
    pub fn add(&mut self, value: &[u8]) -> Result<bool, MaskError> {
        self.needed = self.take(value)?;
        Ok(value.len() >= SECRET_MIN_BYTES)
    }

    /// Takes `value`, to be masked once [`Self::ready`] is what is answered here, which takes calls of [`Self::go_on`].
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn take(&mut self, value: &[u8]) -> Result<usize, MaskError> {
        // Before anything is made of it. Its quoted form is not shorter.
        if value.len() > MASK_MAX_BYTES {
            return Err(MaskError::TooLarge);
        }
        let mut fresh: Vec<Arc<[u8]>> = Vec::new();
        for form in [value.to_vec(), value.trim_ascii().to_vec(), go_quoted(value)] {
            if form.len() >= SECRET_MIN_BYTES && !self.known.contains(form.as_slice()) {
                let form = Arc::from(form);
                if !fresh.contains(&form) {
                    fresh.push(form);
                }
            }
        }
        // Each value has up to three forms.
        if self.needles.len() + fresh.len() > 3 * SECRETS_PER_JOB_MAX {
            return Err(MaskError::TooMany);
        }
        let bytes = self.bytes + fresh.iter().map(|form| form.len()).sum::<usize>();
        if bytes > MASK_MAX_BYTES {
            return Err(MaskError::TooLarge);
        }
        self.bytes = bytes;
        self.known.extend(fresh.iter().cloned());
        self.needles.extend(fresh);
        Ok(self.needles.len())
    }

    /// How many of what was taken are searched for.
    #[must_use]
    pub const fn ready(&self) -> usize {
        self.ready
    }

    /// Whether something that was taken is not searched for yet.
    #[must_use]
    pub const fn is_building(&self) -> bool {
        self.ready < self.needles.len()
    }

    /// Goes on making the search for what was taken, for about `states` of its states.
    pub fn go_on(&mut self, states: usize) {
        if !self.is_building() {
            return;
        }
        let (needles, bytes) = (self.needles.len(), self.bytes);
        let building = self.building.get_or_insert_with(|| Building::new(needles, bytes));
        if !building.go_on(&self.needles, states) {
            return;
        }
        if let Some(built) = self.building.take() {
            self.ready = built.needles;
            self.automaton = built.done();
            self.search_again();
        }
    }

    fn make_ready(&mut self) {
        while self.ready < self.needed {
            self.go_on(usize::MAX);
        }
    }

    /// Takes `input` and appends to `out` what is certain by now.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if input.is_empty() {
            return;
        }
        self.make_ready();
        if self.automaton.is_empty() {
            out.extend_from_slice(input);
            return;
        }
        self.held.extend_from_slice(input);
        self.search();
        self.write_until(self.read - self.automaton.depth(self.state), out);
    }

    /// Appends to `out` what was held back: nothing more comes.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.held.is_empty() {
            self.make_ready();
            self.state = ROOT;
            self.write_until(self.read, out);
        }
    }

    /// Searches what is not written again, by another automaton.
    fn search_again(&mut self) {
        self.state = ROOT;
        self.read = self.written;
        while self.spans.back().is_some_and(|span| span.start >= self.written) {
            self.spans.pop_back();
        }
        self.search();
    }

    /// Searches what is held and was not searched yet.
    fn search(&mut self) {
        let end = self.held_at + self.held.len();
        while self.read < end {
            if self.state == ROOT {
                // What begins no secret is most of any log.
                let rest = &self.held[self.read - self.held_at..];
                self.read += rest.iter().position(|byte| self.automaton.begins(*byte)).unwrap_or(rest.len());
                if self.read == end {
                    return;
                }
            }
            self.state = self.automaton.next(self.state, self.held[self.read - self.held_at]);
            self.read += 1;
            let whole = self.automaton.whole(self.state);
            if whole > 0 {
                self.cover(self.read - whole, self.read);
            }
            self.state = self.automaton.open(self.state);
        }
    }

    /// Notes a secret, which ends behind all that are known; those that it overlaps become one with it.
    fn cover(&mut self, mut start: usize, end: usize) {
        while let Some(span) = self.spans.pop_back_if(|span| span.end > start) {
            start = start.min(span.start);
        }
        self.spans.push_back(Span { start, end });
    }

    /// Writes what comes before `hold`, masked, and keeps the rest. A mask may reach into the rest, and what overlaps it
    /// there later joins the same mask.
    fn write_until(&mut self, hold: usize, out: &mut Vec<u8>) {
        while let Some(span) = self.spans.front().copied().filter(|span| span.start < hold) {
            if span.start >= self.written {
                out.extend_from_slice(&self.held[self.written - self.held_at..span.start - self.held_at]);
                out.extend_from_slice(REDACTED);
            }
            self.written = span.end.min(hold);
            if span.end > hold {
                break;
            }
            self.spans.pop_front();
        }
        if self.written < hold {
            out.extend_from_slice(&self.held[self.written - self.held_at..hold - self.held_at]);
            self.written = hold;
        }
        // What is kept is moved only where that is less than what goes.
        let gone = self.written - self.held_at;
        if gone >= self.held.len() - gone {
            self.held.drain(..gone);
            self.held_at = self.written;
        }
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

    #[test]
    fn a_value_that_is_added_while_its_bytes_are_held_back_is_masked_when_the_stream_ends() {
        let mut masker = Masker::new(["abcdef-and-more"]).unwrap();
        let mut out = Vec::new();
        masker.push(b"abcdef", &mut out);
        assert_eq!(masker.add(b"abcdef"), Ok(true));
        masker.finish(&mut out);
        assert_eq!(out, REDACTED);
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

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
        #[test]
        fn values_that_are_made_ready_in_steps_are_masked_from_the_first_byte_that_is_not_written(
            first in prop::collection::vec("[ab]{6,9}", 0..4),
            second in prop::collection::vec("[ab]{6,12}", 1..4),
            before in "[abc]{0,30}",
            after in prop::collection::vec("[abc]{0,14}", 0..10),
            steps in 1_usize..9,
        ) {
            let mut masker = Masker::new(&first).unwrap();
            let mut out = Vec::new();
            masker.push(before.as_bytes(), &mut out);
            // Nothing of what is held back has a mask that is written already, or the text would not be what is left of it.
            prop_assume!(masker.spans.is_empty());
            let written = masker.written.max(if first.is_empty() { before.len() } else { 0 });
            for value in &second {
                masker.take(value.as_bytes()).unwrap();
            }
            let mut calls = 0;
            while masker.is_building() {
                masker.go_on(steps);
                calls += 1;
                prop_assert!(calls < 500);
            }
            let begun = out.len();
            let pieces: Vec<&[u8]> = after.iter().map(String::as_bytes).collect();
            out.extend(streamed(&mut masker, &pieces));
            let all: Vec<Vec<u8>> = first.iter().chain(&second).map(|value| value.clone().into_bytes()).collect();
            let rest = before[written..].to_owned() + &after.concat();
            prop_assert_eq!(&out[begun..], whole(&all, rest.as_bytes()));
        }
    }

    /// Values that share all but their ends, and a text that is always about to be one of them.
    fn hostile() -> (Vec<String>, Vec<u8>) {
        let long = "a".repeat(16 << 10);
        let values = (0..60).map(|index| format!("{long}{index:02}")).collect();
        (values, [vec![b'a'; 15 << 10], b"b".to_vec()].concat().repeat(16))
    }

    #[test]
    fn a_byte_costs_a_bounded_number_of_looks_whatever_the_values() {
        let (values, text) = hostile();
        let mut masker = Masker::new(&values).unwrap();
        let mut out = Vec::new();
        for piece in text.chunks(700) {
            masker.push(piece, &mut out);
        }
        masker.push(&vec![b'a'; 200_000], &mut out);
        masker.finish(&mut out);
        assert_eq!(out.len(), text.len() + 200_000, "there is no whole value in it");
        let bytes = text.len() + 200_000 + masker.bytes;
        // With a look to make the links, and chains of children.
        assert!(masker.automaton.looks.get() < 8 * bytes, "{} looks for {bytes} bytes", masker.automaton.looks.get());
    }

    #[test]
    fn a_state_with_many_children_is_looked_at_once() {
        let values: Vec<String> = (0..=255_u8).map(|byte| format!("a{}-value", char::from(byte))).collect();
        let mut masker = Masker::new(&values).unwrap();
        let (mut out, text) = (Vec::new(), "a\u{2}".repeat(10_000));
        masker.push(text.as_bytes(), &mut out);
        masker.finish(&mut out);
        assert_eq!(out, text.as_bytes());
        assert!(masker.automaton.looks.get() < 300_000, "{}", masker.automaton.looks.get());
    }

    #[test]
    fn a_search_is_made_in_steps_while_the_one_before_goes_on() {
        let (values, _) = hostile();
        let mut masker = Masker::new(["first-secret"]).unwrap();
        let mut out = Vec::new();
        masker.push(b"first-secret\n", &mut out);
        for value in &values {
            masker.take(value.as_bytes()).unwrap();
        }
        let mut steps = 0;
        while masker.is_building() {
            masker.go_on(10_000);
            masker.push(b"first-secret\n", &mut out);
            steps += 1;
        }
        // The bytes of all values, and their states.
        assert!((98..=104).contains(&steps), "{steps}");
        assert_eq!((masker.ready(), out), (61, b"[REDACTED]\n".repeat(steps + 1)));
        let mut out = Vec::new();
        masker.push(values[59].as_bytes(), &mut out);
        assert_eq!(out, REDACTED);
    }

    #[test]
    fn values_are_masked_up_to_so_many_bytes_together() {
        let mut masker = Masker::new(["first-secret"]).unwrap();
        let half = "x".repeat(MASK_MAX_BYTES / 2);
        assert_eq!(masker.add(half.as_bytes()), Ok(true));
        for _ in 0..2 {
            assert_eq!(masker.add(half.replace('x', "y").as_bytes()), Err(MaskError::TooLarge));
            assert_eq!(masker.take(&vec![b'z'; MASK_MAX_BYTES + 1]), Err(MaskError::TooLarge));
        }
        assert_eq!(masker.add(half.as_bytes()), Ok(true), "it is one of them already");
        assert_eq!(Masker::new([&half, "one more secret", &half.replace('x', "y")]).unwrap_err(), MaskError::TooLarge);
        let mut out = Vec::new();
        masker.push(format!("{half} first-secret\n").as_bytes(), &mut out);
        assert_eq!(out, b"[REDACTED] [REDACTED]\n");
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
