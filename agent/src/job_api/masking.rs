//! Values that a job has masked: each is told to the job's supervisor, and nobody goes on before it is masked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, mpsc, oneshot};
use windlass_agent_runner::control::Request;
use windlass_protocol::limits::{MASK_ANSWER_MS, REDACTION_MAX_BYTES};

/// How often a supervisor is asked: an answer may be lost with a connection.
const TRIES: u32 = 3;

/// Why a value is not masked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaskFailed {
    /// It is too long.
    #[error("a value to redact has at most {REDACTION_MAX_BYTES} bytes")]
    TooLong,
    /// The supervisor refuses it.
    #[error("{0}")]
    Refused(String),
    /// It is gone, or too old to answer.
    #[error("the job's supervisor does not confirm it")]
    Unconfirmed,
}

/// Who waits for which answer.
type Waiting = BTreeMap<u64, oneshot::Sender<Option<String>>>;

/// The mask of one attempt's log.
#[derive(Debug, Clone)]
pub(crate) struct Masking {
    requests: mpsc::Sender<Request>,
    answers: Answers,
    /// One value is under way at a time, so that a job's values are no more than that for who carries them.
    turn: Arc<Turn<()>>,
}

/// The supervisor's answers, for who waits for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answers {
    shared: Arc<Mutex<(u64, Waiting)>>,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, (u64, Waiting)> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The supervisor has answered.
    pub(crate) fn heard(&self, ticket: u64, refused: Option<String>) {
        if let Some(waiting) = self.lock().1.remove(&ticket) {
            // Who waited may have gone.
            let _ = waiting.send(refused);
        }
    }

    fn expect(&self) -> (u64, oneshot::Receiver<Option<String>>) {
        let (answer, heard) = oneshot::channel();
        let mut shared = self.lock();
        // Those whose callers are gone are forgotten here, so that there are never more than callers.
        shared.1.retain(|_, waiting| !waiting.is_closed());
        shared.0 += 1;
        let ticket = shared.0;
        shared.1.insert(ticket, answer);
        (ticket, heard)
    }
}

impl Masking {
    pub(crate) fn new(requests: mpsc::Sender<Request>, answers: Answers) -> Self {
        Self { requests, answers, turn: Arc::default() }
    }

    /// Masks a value; once this returns, every later byte of the job's output is.
    pub(crate) async fn add(&self, value: &str) -> Result<(), MaskFailed> {
        if value.len() > REDACTION_MAX_BYTES {
            return Err(MaskFailed::TooLong);
        }
        let _turn = self.turn.lock().await;
        for _ in 0..TRIES {
            let (ticket, heard) = self.answers.expect();
            let asked = self.requests.send(Request::Mask { ticket, value: value.to_owned() }).await;
            asked.map_err(|_| MaskFailed::Unconfirmed)?;
            match tokio::time::timeout(Duration::from_millis(MASK_ANSWER_MS), heard).await {
                Ok(Ok(None)) => return Ok(()),
                Ok(Ok(Some(refused))) => return Err(MaskFailed::Refused(refused)),
                Ok(Err(_)) => return Err(MaskFailed::Unconfirmed),
                Err(_) => {}
            }
        }
        Err(MaskFailed::Unconfirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_value_is_asked_for_again_until_the_supervisor_answers() {
        let (requests, mut queue) = mpsc::channel(4);
        let answers = Answers::default();
        let masking = Masking::new(requests, answers.clone());
        let adding = tokio::spawn(async move { masking.add("hunter22").await });
        assert!(matches!(queue.recv().await, Some(Request::Mask { ticket: 1, .. })));
        // Nobody answers the first; time runs by itself here.
        assert!(matches!(queue.recv().await, Some(Request::Mask { ticket: 2, .. })));
        assert!(!adding.is_finished());
        answers.heard(2, None);
        adding.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_is_refused_or_never_confirmed_fails() {
        let (requests, mut queue) = mpsc::channel(4);
        let answers = Answers::default();
        let masking = Masking::new(requests, answers.clone());
        let (one, two) = tokio::join!(masking.add("hunter22"), async {
            queue.recv().await.unwrap();
            answers.heard(1, Some("too many".to_owned()));
        });
        assert_eq!((one.unwrap_err().to_string().as_str(), two), ("too many", ()));
        let long = "x".repeat(REDACTION_MAX_BYTES + 1);
        assert!(matches!(masking.add(&long).await, Err(MaskFailed::TooLong)));
        assert!(matches!(masking.add("hunter22").await, Err(MaskFailed::Unconfirmed)), "the supervisor is too old");
        assert_eq!(answers.lock().1.len(), 1, "those who gave up are forgotten with the next one");
    }
}
