//! `--json`: one object a line, as the interface has them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::client::shape::{Attempt, Job};
use crate::follow::{Show, Wrote};
use crate::ui::{Ui, text};

/// Prints events.
#[derive(Debug)]
pub(crate) struct Json<'a> {
    ui: &'a Ui,
    /// By attempt: the beginning of a character at the end of a piece, and its offset.
    cut: BTreeMap<String, (u64, Vec<u8>)>,
}

impl<'a> Json<'a> {
    pub(crate) const fn new(ui: &'a Ui) -> Self {
        Self { ui, cut: BTreeMap::new() }
    }

    /// One event about something.
    pub(crate) fn event(&self, event: &str, name: &str, value: &Value) {
        self.ui.data(&json!({"event": event, "at": text::now(), name: value}).to_string());
    }

    fn piece(&self, job: &Job, attempt: &Attempt, offset: u64, at: &str, bytes: &[u8]) {
        let mut event = json!({
            "event": "log", "at": at, "job_id": job.id, "attempt": attempt.number, "attempt_id": attempt.id,
            "offset": offset, "length": bytes.len(),
        });
        let (name, value) = match std::str::from_utf8(bytes) {
            Ok(text) => ("text", text.to_owned()),
            Err(_) => ("data", STANDARD.encode(bytes)),
        };
        if let Some(members) = event.as_object_mut() {
            members.insert(name.to_owned(), Value::String(value));
        }
        self.ui.data(&event.to_string());
    }
}

impl Show for Json<'_> {
    fn changed(&mut self, _: &mut dyn Iterator<Item = &Job>) {}

    fn started(&mut self, job: &Job, raw: &Value, _: &Attempt) {
        if job.is_command() {
            self.event("job_started", "job", raw);
        }
    }

    fn log(&mut self, job: &Job, attempt: &Attempt, wrote: Wrote<'_>) {
        let (offset, mut bytes) = self.cut.remove(&attempt.id).unwrap_or((wrote.offset, Vec::new()));
        bytes.extend_from_slice(wrote.bytes);
        // A character that a piece cuts waits for its rest, so that text stays text.
        let rest = bytes.split_off(bytes.len() - begun_character(&bytes));
        if !rest.is_empty() {
            self.cut.insert(attempt.id.clone(), (offset + bytes.len() as u64, rest));
        }
        if !bytes.is_empty() {
            self.piece(job, attempt, offset, wrote.at, &bytes);
        }
    }

    fn log_ended(&mut self, job: &Job, attempt: &Attempt) {
        if let Some((offset, rest)) = self.cut.remove(&attempt.id) {
            self.piece(job, attempt, offset, &text::now(), &rest);
        }
    }

    fn finished(&mut self, job: &Job, raw: &Value) {
        if job.is_command() {
            self.event("job_finished", "job", raw);
        }
    }
}

/// Bytes at the end that begin a UTF-8 character and do not end it.
fn begun_character(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => bytes.len() - error.valid_up_to(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_character_that_may_still_be_completed_waits() {
        assert_eq!(begun_character("aü".as_bytes()), 0);
        assert_eq!(begun_character(b"a\xc3"), 1);
        assert_eq!(begun_character(b"a\xe5\xa4"), 2);
        assert_eq!(begun_character(b"a\xff"), 0);
        assert_eq!(begun_character(b"\xff\xc3"), 0);
    }
}
