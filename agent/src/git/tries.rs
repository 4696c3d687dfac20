//! What may be a network's fault is tried again.

use std::time::Duration;

use windlass_git::said;
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

/// Whether the same may go well in a moment.
pub(super) fn is_transient(cause: &Cause) -> bool {
    cause.kind == CauseKind::CheckoutFailed && said::is_transient(&cause.detail)
}

/// Whether what failed in a mirror may be the mirror's own fault.
pub(super) fn may_be_damage(cause: &Cause) -> bool {
    cause.kind == CauseKind::CheckoutFailed && said::may_be_damage(&cause.detail)
}
