//! Sends notifications: each once, with a bound on everything that the receiver may do; the core decides what follows
//! (docs/design/025).
//!
//! | module | owns |
//! | --- | --- |
//! | `key` | what webhooks are signed with |
//! | `address` | which addresses a pipeline's URL may reach |
//! | `http` | one request, one answer |
//! | `webhook`, `github` | what is sent to whom |

mod address;
mod github;
mod http;
mod key;
mod webhook;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use windlass_coordinator_core::input::Input;
use windlass_coordinator_core::row::{Delivery, Message, NotificationRow};
use windlass_protocol::WallMs;
use windlass_protocol::host::now;
use windlass_protocol::limits::{DELIVERY_BODY_MS, DELIVERY_MS};

pub(crate) use self::address::Guard;
use self::http::PostError;
pub(crate) use self::http::{Answer, Connector};
pub use self::key::KeyError;
use self::key::Keys;
use crate::config::{GithubConfig, NotifyConfig};
use crate::desk::{Deliveries, DeskHandle};

/// Takes what is due from the desk, and tells it what came of it.
#[derive(Debug, Clone)]
pub struct Courier {
    desk: DeskHandle,
    sender: Arc<Sender>,
}

impl Courier {
    /// One that answers this desk.
    #[must_use]
    pub const fn new(desk: DeskHandle, sender: Arc<Sender>) -> Self {
        Self { desk, sender }
    }
}

impl Deliveries for Courier {
    /// The core has a bounded number of them under way.
    fn deliver(&self, row: NotificationRow) {
        let Self { desk, sender } = self.clone();
        tokio::spawn(async move {
            let (id, attempt) = (row.id, row.attempts + 1);
            let longest = Duration::from_millis(DELIVERY_MS + DELIVERY_BODY_MS);
            let sent = tokio::time::timeout(longest, sender.send(&row)).await;
            let slow = |_| Delivery::Later { status: None, detail: "it took too long".to_owned(), after_ms: None };
            let delivery = sent.unwrap_or_else(slow);
            tell(&row, attempt, &delivery);
            // A desk that ends sends it again when it starts.
            let _ending = desk.agent_input(Input::Delivered { id, attempt, delivery }).await;
        });
    }
}

/// For operators. Paths and queries of webhooks may be secrets: they are not shown.
fn tell(row: &NotificationRow, attempt: u32, delivery: &Delivery) {
    let (id, build, target) = (row.id, row.build, row.message.target());
    match delivery {
        Delivery::Done { status } => tracing::debug!(%id, %build, target, attempt, status, "notification_delivered"),
        Delivery::Later { status, detail, .. } => {
            tracing::info!(%id, %build, target, attempt, status, detail, "notification_put_off");
        }
        Delivery::Never { status, detail } => {
            tracing::warn!(%id, %build, target, attempt, status, detail, "notification_refused");
        }
    }
}

/// What sends: keys, rules and tokens.
#[derive(Debug)]
pub struct Sender {
    keys: Keys,
    guard: Guard,
    github: Vec<GithubConfig>,
    connector: Connector,
    /// Where people find a build.
    url: String,
}

impl Sender {
    /// With the operator's key, or that of the data directory, which the first start makes. Blocks on the disk.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn open(data: &Path, config: &NotifyConfig, url: &str) -> Result<Self, KeyError> {
        Ok(Self {
            keys: Keys::open(data, config)?,
            guard: Guard::new(config.allow.clone()),
            github: config.github.clone(),
            connector: Connector::default(),
            url: url.to_owned(),
        })
    }

    async fn send(&self, row: &NotificationRow) -> Delivery {
        let at = now().wall;
        let (post, guard) = match &row.message {
            Message::Webhook { url, event, facts } => {
                let body = webhook::body(row, *event, facts, &self.url);
                (webhook::post(url, *event, row.id, body, &self.keys, at), Some(&self.guard))
            }
            Message::GithubCommitStatus { repository, .. } => match github::find(&self.github, repository) {
                // The operator himself said where: it may be anywhere.
                Some(place) => (github::post(place, row, &self.url).await, None),
                None => return never("no token is configured for this repository (`notify.github`)"),
            },
            Message::Unsent { .. } => return never("there is nothing to be sent"),
        };
        let post = match post {
            Ok(post) => post,
            Err(delivery) => return delivery,
        };
        match self.connector.post(post, guard).await {
            Ok(answer) => judge(&answer, at, guard.is_none()),
            Err(PostError::Refused(why)) => never(why),
            Err(error) => Delivery::Later { status: None, detail: error.to_string(), after_ms: None },
        }
    }
}

fn never(detail: impl Into<String>) -> Delivery {
    Delivery::Never { status: None, detail: detail.into() }
}

/// What an answer means. What a receiver of a pipeline's choice writes is not shown to who may look at the build: it may
/// be inside of the operator's network.
fn judge(answer: &Answer, at: WallMs, shows_reason: bool) -> Delivery {
    let status = answer.status;
    let told = || if shows_reason { answer.told_with_reason() } else { answer.told() };
    let limited = status == 429 || (status == 403 && answer.is_rate_limit());
    match status {
        200..=299 => Delivery::Done { status },
        300..=399 => {
            let detail = format!("it answered {status}; redirects are not followed: write the place itself");
            Delivery::Never { status: Some(status), detail }
        }
        408 | 425 | 500..=599 => {
            let detail = told();
            Delivery::Later { status: Some(status), detail, after_ms: answer.after_ms(at) }
        }
        _ if limited => Delivery::Later { status: Some(status), detail: told(), after_ms: answer.after_ms(at) },
        _ => Delivery::Never { status: Some(status), detail: told() },
    }
}

#[cfg(test)]
mod tests;
