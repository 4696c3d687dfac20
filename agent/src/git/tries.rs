//! What may be a network's fault is tried again.

use std::time::Duration;

use windlass_protocol::Cause;
use windlass_protocol::cause::CauseKind;
use windlass_protocol::limits::{CHECKOUT_TRIES_MAX, CHECKOUT_WAIT_MS};

/// Tries of what may be a network's fault, with longer and longer pauses between them.
pub(super) struct Tries {
    left: u32,
    wait_ms: u64,
}

impl Default for Tries {
    fn default() -> Self {
        Self { left: CHECKOUT_TRIES_MAX - 1, wait_ms: CHECKOUT_WAIT_MS }
    }
}

impl Tries {
    /// Waits for the time of another try; the cause itself where there is none.
    pub(super) async fn again(&mut self, cause: Cause) -> Result<(), Cause> {
        if self.left == 0 || !is_transient(&cause) {
            return Err(cause);
        }
        tokio::time::sleep(Duration::from_millis(self.wait_ms)).await;
        (self.left, self.wait_ms) = (self.left - 1, self.wait_ms * 2);
        Ok(())
    }
}

/// Whether the same may go well in a moment: what git says of a network, and nothing of what it says of the question.
pub(super) fn is_transient(cause: &Cause) -> bool {
    const WORDS: [&str; 12] = [
        "Could not resolve host",
        "Couldn't connect to server",
        "Failed to connect",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Operation timed out",
        "early EOF",
        "The remote end hung up unexpectedly",
        "unexpected disconnect",
        "The requested URL returned error: 5",
        "The requested URL returned error: 429",
    ];
    cause.kind == CauseKind::CheckoutFailed && WORDS.iter().any(|words| cause.detail.contains(words))
}
