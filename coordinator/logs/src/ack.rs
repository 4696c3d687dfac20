//! Acknowledgements: the latest durable offset of each log that moved.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use windlass_protocol::AttemptId;

/// Tells how far logs are durable. What was not fetched yet is replaced by what is newer, so it holds at most one
/// entry a running log.
#[derive(Debug)]
pub struct Acks {
    shared: Arc<AckBoard>,
}

#[derive(Debug, Default)]
pub(crate) struct AckBoard {
    news: Mutex<(BTreeMap<AttemptId, u64>, bool)>,
    notify: Notify,
}

impl AckBoard {
    pub(crate) fn post(&self, news: &[(AttemptId, u64)]) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).0.extend(news.iter().copied());
        self.notify.notify_one();
    }

    pub(crate) fn close(&self) {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
        self.notify.notify_one();
    }
}

impl Acks {
    pub(crate) fn new() -> (Self, Arc<AckBoard>) {
        let shared = Arc::new(AckBoard::default());
        (Self { shared: Arc::clone(&shared) }, shared)
    }

    /// All that is new, by attempt; waits until something is. `None` once the store has closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<BTreeMap<AttemptId, u64>> {
        loop {
            {
                let mut news = self.shared.news.lock().unwrap_or_else(PoisonError::into_inner);
                if !news.0.is_empty() {
                    return Some(std::mem::take(&mut news.0));
                }
                if news.1 {
                    return None;
                }
            }
            self.shared.notify.notified().await;
        }
    }
}
