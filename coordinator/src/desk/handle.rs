//! How others reach the desk: bounded queues, one for clients and one for agents.

use std::fmt::{self, Debug};

use tokio::sync::{mpsc, oneshot, watch};
use windlass_coordinator_core::effect::Reply;
use windlass_coordinator_core::input::{Input, Request};
use windlass_coordinator_core::row::{Actor, NewToken};
use windlass_coordinator_core::{Core, Rejected};
use windlass_coordinator_store::{Expired, Fault, Retention};
use windlass_protocol::limits;

use super::{Answer, Expiring};

/// Why a request has no reply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// The core refused it; nothing has changed.
    #[error(transparent)]
    Rejected(Rejected),
    /// Nothing is known to have changed; ask again later (with the same idempotency key).
    #[error("the coordinator cannot answer now; try again")]
    Unavailable,
    /// The disk is full: no new builds until there is space. Running ones go on.
    #[error("the coordinator's disk is full; new builds are refused until there is space")]
    StorageFull,
    /// It ends.
    #[error("the coordinator is shutting down")]
    ShuttingDown,
}

impl DeskError {
    /// What a fault of the store means to who waits.
    pub(super) const fn of(fault: &Fault) -> Self {
        match fault {
            Fault::DiskFull => Self::StorageFull,
            Fault::Fenced { .. } | Fault::Corrupt { .. } | Fault::Io { .. } | Fault::TooLarge { .. } => {
                Self::Unavailable
            }
        }
    }
}

/// A client's request on its way.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) actor: Actor,
    pub(super) request: Request,
    pub(super) answer: Answer,
}

/// What comes through the clients' queue.
pub(super) enum FromClient<C> {
    Asked(Box<Asked>),
    Expire(Expiring),
    Look(Look<C>),
}

/// A look at the core.
pub(super) type Look<C> = Box<dyn FnOnce(&C) + Send>;

/// The desk's door; clones are cheap.
pub struct DeskHandle<C = Core> {
    clients: mpsc::Sender<FromClient<C>>,
    agents: mpsc::Sender<Input>,
    stop: watch::Sender<bool>,
}

impl<C> Clone for DeskHandle<C> {
    fn clone(&self) -> Self {
        Self { clients: self.clients.clone(), agents: self.agents.clone(), stop: self.stop.clone() }
    }
}

impl<C> Debug for DeskHandle<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeskHandle").field("clients_room", &self.clients.capacity()).finish_non_exhaustive()
    }
}

/// The desk's side of the door.
pub struct Inbox<C = Core> {
    pub(super) clients: mpsc::Receiver<FromClient<C>>,
    pub(super) agents: mpsc::Receiver<Input>,
    pub(super) stop: watch::Receiver<bool>,
}

impl<C> Debug for Inbox<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("clients", &self.clients.len()).field("agents", &self.agents.len()).finish()
    }
}

/// Both sides of a door.
#[must_use]
pub fn channel<C>() -> (DeskHandle<C>, Inbox<C>) {
    let (clients, from_clients) = mpsc::channel(limits::CORE_QUEUE_MAX);
    let (agents, from_agents) = mpsc::channel(limits::CORE_QUEUE_MAX);
    let (stop, stopped) = watch::channel(false);
    (DeskHandle { clients, agents, stop }, Inbox { clients: from_clients, agents: from_agents, stop: stopped })
}

impl<C> DeskHandle<C> {
    /// Asks the core, and waits until the answer is durable. A full queue is an answer at once: come again.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn request(&self, actor: Actor, request: Request) -> Result<Reply, DeskError> {
        let (answer, answered) = oneshot::channel();
        self.hand_in(FromClient::Asked(Box::new(Asked { actor, request, answer })))?;
        answered.await.unwrap_or(Err(DeskError::ShuttingDown))
    }

    /// Has the core make a token.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn create_token(&self, actor: Actor, new: NewToken) -> Result<(), DeskError> {
        match self.request(actor, Request::CreateToken(Box::new(new))).await? {
            Reply::Token { .. } => Ok(()),
            Reply::Done
            | Reply::Secrets(_)
            | Reply::Cache(_)
            | Reply::Submitted { .. }
            | Reply::Joined { .. }
            | Reply::Pinned { .. }
            | Reply::Unpinned { .. }
            | Reply::Drained { .. } => Err(DeskError::Unavailable),
        }
    }

    /// Hands in what an agent said, or how its log came out; waits while the queue is full, so that its connection is
    /// read no faster than the core decides.
    ///
    /// # Errors
    /// [`DeskError::ShuttingDown`].
    pub async fn agent_input(&self, input: Input) -> Result<(), DeskError> {
        self.agents.send(input).await.map_err(|_| DeskError::ShuttingDown)
    }

    /// Deletes a bounded piece of what is past its retention, between two commits. The core is told separately, by
    /// [`Request::Retain`], which idempotency keys it may forget.
    ///
    /// # Errors
    /// [`DeskError`]; then nothing was deleted.
    pub async fn expire(&self, retention: Retention) -> Result<Expired, DeskError> {
        let (answer, answered) = oneshot::channel();
        self.hand_in(FromClient::Expire((retention, answer)))?;
        answered.await.unwrap_or(Err(DeskError::ShuttingDown))
    }

    /// Looks at the core between two inputs: usage, queues, why a job waits. What is seen is volatile, and may be ahead of
    /// what is durable; rows are to be read with a [`crate::views::Reader`].
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce(&C) -> T + Send + 'static) -> Result<T, DeskError> {
        let (answer, answered) = oneshot::channel();
        let look = move |core: &C| {
            let _gone = answer.send(look(core));
        };
        self.hand_in(FromClient::Look(Box::new(look)))?;
        // Without a core, or at the end, the look is dropped unused.
        answered.await.map_err(|_| DeskError::Unavailable)
    }

    /// Takes nothing more, makes durable what was taken, and ends.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn hand_in(&self, item: FromClient<C>) -> Result<(), DeskError> {
        self.clients.try_send(item).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => DeskError::Unavailable,
            mpsc::error::TrySendError::Closed(_) => DeskError::ShuttingDown,
        })
    }
}
