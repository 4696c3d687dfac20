//! A turn: a bounded share from each source, so that none of them starves the others.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use windlass_coordinator_core::input::Input;
use windlass_protocol::limits;

use super::Expiring;
use super::handle::{Asked, DeskError, FromClient, Inbox, Look};
use crate::writer::{Done, Writer};

/// What a turn brought.
#[derive(Debug)]
pub(super) enum Turn {
    /// The writer has done its work; `None` if it is gone.
    Done(Option<Done>),
    /// Inputs stand in [`Sources::taken`].
    Inputs,
    /// Something may be due.
    Timer,
}

/// One input that was taken from a queue.
pub(super) enum Taken<C> {
    Asked(Asked),
    Agent(Box<Input>),
    Expire(Expiring),
    Look(Look<C>),
}

/// The queues, and what was taken from them.
pub(super) struct Sources<C> {
    inbox: Inbox<C>,
    /// Taken, not yet served; alternating between the queues, each in its own order.
    pub(super) taken: VecDeque<Taken<C>>,
    /// Asked to stop, or nobody is left who could ask for anything.
    pub(super) stopping: bool,
}

/// What each queue may bring in a turn.
const SHARE: usize = limits::TURN_MAX_INPUTS / 2;

impl<C> Sources<C> {
    pub(super) const fn new(inbox: Inbox<C>) -> Self {
        Self { inbox, taken: VecDeque::new(), stopping: false }
    }

    /// Waits for whatever comes first. Inputs are taken only if there is room for them.
    pub(super) async fn next_turn(&mut self, writer: &mut Writer, room: bool, sleep: Duration) -> Turn {
        let open = room && !self.stopping && self.taken.is_empty();
        if room && !self.taken.is_empty() {
            return Turn::Inputs;
        }
        let Inbox { clients, agents, stop } = &mut self.inbox;
        // In this order, so that a run can be repeated; each branch is served again only after the others had a turn,
        // since one turn takes from all queues.
        let (from_agent, from_client) = tokio::select! {
            biased;
            done = writer.finished() => return Turn::Done(done),
            () = stopped(stop), if !self.stopping => {
                self.stopping = true;
                return Turn::Inputs;
            }
            input = agents.recv(), if open => (input, None),
            asked = clients.recv(), if open => (None, asked),
            () = tokio::time::sleep(sleep) => return Turn::Timer,
        };
        if from_agent.is_none() && from_client.is_none() {
            self.stopping = true;
        }
        self.fill(from_agent, from_client);
        Turn::Inputs
    }

    /// Takes each queue's share, alternating.
    fn fill(&mut self, mut from_agent: Option<Input>, mut from_client: Option<FromClient<C>>) {
        for _ in 0..SHARE {
            from_agent = from_agent.or_else(|| self.inbox.agents.try_recv().ok());
            from_client = from_client.or_else(|| self.inbox.clients.try_recv().ok());
            if from_agent.is_none() && from_client.is_none() {
                break;
            }
            self.taken.extend(from_agent.take().map(|input| Taken::Agent(Box::new(input))));
            self.taken.extend(from_client.take().map(|item| match item {
                FromClient::Asked(asked) => Taken::Asked(*asked),
                FromClient::Expire(expiring) => Taken::Expire(expiring),
                FromClient::Look(look) => Taken::Look(look),
            }));
        }
    }

    /// Whether agents' messages stand in the queue.
    pub(super) fn agents_waiting(&self) -> bool {
        !self.inbox.agents.is_empty() || self.taken.iter().any(|taken| matches!(taken, Taken::Agent(_)))
    }

    /// Closes the queues and refuses what is left in them.
    pub(super) fn refuse_rest(&mut self) {
        self.inbox.clients.close();
        self.inbox.agents.close();
        loop {
            self.fill(None, None);
            if self.taken.is_empty() {
                break;
            }
            for taken in self.taken.drain(..) {
                match taken {
                    Taken::Asked(asked) => {
                        let _gone = asked.answer.send(Err(DeskError::ShuttingDown));
                    }
                    Taken::Expire((_, answer)) => {
                        let _gone = answer.send(Err(DeskError::ShuttingDown));
                    }
                    // Agents tell again what was not acknowledged; a look that is dropped is refused.
                    Taken::Agent(_) | Taken::Look(_) => {}
                }
            }
        }
    }
}

/// Returns when the desk is to stop; never if nobody can say so any more.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}
