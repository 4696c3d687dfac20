//! What an agent and a job's supervisor say to each other: one JSON object a line over the attempt's socket.
//!
//! Both sides may be of different versions of Windlass: a supervisor outlives an upgrade of its agent. Fields are
//! only added, with defaults, and a request that a supervisor does not know is passed over.

use serde::{Deserialize, Serialize};
use windlass_protocol::cause::Cause;
use windlass_protocol::id::AttemptId;
use windlass_protocol::job::Epoch;
use windlass_protocol::time::WallMs;

/// The version of these lines that this program speaks.
pub const CONTROL_VERSION: u32 = 1;

/// An agent's request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// End the job: the polite signal, then after the grace the kill.
    Cancel {
        /// Why; it becomes the outcome's cause.
        cause: Cause,
        /// Between signal and kill.
        grace_ms: u64,
    },
    /// End the job at once.
    Kill {
        /// Why; it becomes the outcome's cause unless there is an earlier one.
        cause: Cause,
    },
    /// The lease of an exclusive job was renewed.
    Lease {
        /// When it ends, by `CLOCK_BOOTTIME`.
        deadline_boot_ms: u64,
    },
    /// Log bytes below this offset are durable elsewhere.
    Acked {
        /// The offset.
        offset: u64,
    },
    /// Mask this value from now on.
    Redact {
        /// The value.
        value: String,
    },
    /// Mask this value from now on, and tell by [`Report::Masked`] once that is so: for who prints it next.
    Mask {
        /// Named in the answer.
        ticket: u64,
        /// The value.
        value: String,
    },
    /// Write this into the log, masked as the job's output is.
    Note {
        /// The text, with its newline.
        text: String,
    },
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cancel { cause, grace_ms } => write!(f, "Cancel({cause}, {grace_ms} ms)"),
            Self::Kill { cause } => write!(f, "Kill({cause})"),
            Self::Lease { deadline_boot_ms } => write!(f, "Lease(until {deadline_boot_ms} ms)"),
            Self::Acked { offset } => write!(f, "Acked({offset})"),
            Self::Redact { .. } => f.write_str("Redact(***)"),
            Self::Mask { ticket, .. } => write!(f, "Mask({ticket}, ***)"),
            Self::Note { text } => write!(f, "Note({} bytes)", text.len()),
        }
    }
}

/// A supervisor's report. A client that does not keep up misses some; the next one tells the state again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Report {
    /// First on every connection.
    Hello {
        /// [`CONTROL_VERSION`] of the supervisor.
        version: u32,
        /// Whose job it is.
        attempt: AttemptId,
        /// By which right it was launched.
        epoch: Epoch,
        /// The supervisor's process id.
        supervisor: u32,
        /// When the command started.
        started_at: WallMs,
        /// The log's length so far.
        log_bytes: u64,
    },
    /// The log has grown.
    Output {
        /// Its length.
        log_bytes: u64,
    },
    /// Killed processes are not gone: the machine is unwell (F26). Said again until they are.
    Stuck {
        /// Some of them.
        processes: Vec<u32>,
    },
    /// Answer to [`Request::Mask`]. Who misses it asks again: that a value is masked twice changes nothing.
    Masked {
        /// The request's.
        ticket: u64,
        /// Why the value is not masked, where it is not.
        refused: Option<String>,
    },
    /// The outcome is written; the supervisor leaves.
    Finished,
}

/// A message as a line, with its newline.
///
/// # Errors
/// None that these types can meet; serde's signature has them.
pub fn to_line<T: Serialize>(message: &T) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_protocol::cause::CauseKind;

    #[test]
    fn requests_keep_their_form_on_the_wire() {
        let cancel = Request::Cancel { cause: Cause::new(CauseKind::Canceled, "by ada"), grace_ms: 10_000 };
        let line = r#"{"type":"cancel","cause":{"kind":"canceled","detail":"by ada"},"grace_ms":10000}"#;
        assert_eq!(to_line(&cancel).unwrap(), format!("{line}\n").into_bytes());
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), cancel);
    }

    #[test]
    fn a_value_to_mask_is_not_shown() {
        assert_eq!(format!("{:?}", Request::Redact { value: "hunter2".into() }), "Redact(***)");
        assert_eq!(format!("{:?}", Request::Mask { ticket: 3, value: "hunter2".into() }), "Mask(3, ***)");
    }
}
