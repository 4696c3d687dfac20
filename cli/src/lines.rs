//! Bytes of a log become lines: pieces are put together, what came twice is cut, what has no end is held back.

use windlass_protocol::limits::{API_EVENT_MAX_BYTES, CLI_LINE_MAX_BYTES};

/// One log on its way to be shown.
#[derive(Debug)]
pub(crate) struct Lines {
    next_offset: u64,
    held: Vec<u8>,
    held_max: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self { next_offset: 0, held: Vec::new(), held_max: CLI_LINE_MAX_BYTES }
    }
}

impl Lines {
    /// A log that is shown from an offset on.
    pub(crate) fn from(offset: u64) -> Self {
        Self { next_offset: offset, ..Self::default() }
    }

    /// Lines of our own server's JSON, which are as long as an event may be.
    pub(crate) fn of_json() -> Self {
        Self { held_max: API_EVENT_MAX_BYTES, ..Self::default() }
    }

    /// The offset of the next byte that was not shown.
    pub(crate) const fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// What of a piece is new. A log's bytes at an offset are always the same (I4), so that bytes which the server took
    /// back and sends again are those that were already shown.
    pub(crate) fn fresh<'a>(&mut self, offset: u64, bytes: &'a [u8]) -> &'a [u8] {
        let known = usize::try_from(self.next_offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        let fresh = bytes.get(known..).unwrap_or_default();
        if !fresh.is_empty() {
            self.next_offset = offset.saturating_add(bytes.len() as u64);
        }
        fresh
    }

    /// Takes bytes; hands out each whole line, without its newline.
    pub(crate) fn push(&mut self, bytes: &[u8], on: &mut dyn FnMut(&[u8])) {
        let mut rest = bytes;
        while let Some(end) = memchr(rest) {
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            if self.held.is_empty() {
                on(line);
            } else {
                self.held.extend_from_slice(line);
                on(&std::mem::take(&mut self.held));
            }
        }
        self.held.extend_from_slice(rest);
        while self.held.len() > self.held_max {
            let after = self.held.split_off(whole_characters(&self.held, self.held_max));
            on(&std::mem::replace(&mut self.held, after));
        }
    }

    /// The line that has no end yet.
    pub(crate) fn unfinished(&self) -> &[u8] {
        &self.held
    }

    /// The log ended: its last line may lack a newline.
    pub(crate) fn finish(&mut self, on: &mut dyn FnMut(&[u8])) {
        if !self.held.is_empty() {
            on(&std::mem::take(&mut self.held));
        }
    }
}

fn memchr(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n')
}

/// The largest cut at or below `at` that goes through no UTF-8 character.
fn whole_characters(bytes: &[u8], at: usize) -> usize {
    let begins = |cut: &usize| bytes.get(*cut).is_none_or(|byte| byte & 0xc0 != 0x80);
    (at.saturating_sub(3)..=at).rev().find(begins).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut log, mut shown) = (Lines::default(), Vec::new());
        let mut on = |line: &[u8]| shown.push(String::from_utf8(line.to_vec()).unwrap());
        for piece in pieces {
            log.push(piece, &mut on);
        }
        log.finish(&mut on);
        shown
    }

    #[test]
    fn lines_and_characters_are_whole_wherever_the_pieces_are_cut() {
        let text = "eins\nzwei ü 大\n\ndrei";
        for at in 0..text.len() {
            let (first, rest) = text.as_bytes().split_at(at);
            assert_eq!(lines(&[first, rest]), ["eins", "zwei ü 大", "", "drei"], "cut at {at}");
        }
    }

    #[test]
    fn an_endless_line_is_shown_in_pieces_that_cut_no_character() {
        let text = "ü".repeat(CLI_LINE_MAX_BYTES);
        let shown = lines(&[b"x", text.as_bytes()]);
        assert!(shown.len() >= 2 && shown.iter().all(|line| line.len() <= CLI_LINE_MAX_BYTES));
        assert_eq!(shown.concat(), format!("x{text}"));
    }

    #[test]
    fn bytes_that_come_again_after_a_reset_are_shown_once() {
        let mut log = Lines::default();
        let mut shown = Vec::new();
        for (offset, piece) in [(0, "abc"), (3, "def"), (2, "cdefg"), (0, "abc"), (7, "h"), (6, "ghi")] {
            shown.extend_from_slice(log.fresh(offset, piece.as_bytes()));
        }
        assert_eq!(shown, b"abcdefghi");
        assert_eq!(log.next_offset(), 9);
    }
}
