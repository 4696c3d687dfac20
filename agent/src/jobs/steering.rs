//! What a job's supervisor is told to do. It is a state and no queue: nothing that a job does makes it full, nothing stands
//! before it, and who lost a part of it is told all of it again.

use std::io;

use tokio::sync::watch;
use windlass_agent_runner::Steering;
use windlass_agent_runner::control::Request;
use windlass_protocol::{Cause, Instant64};

/// The wishes about one job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wishes {
    /// That it ends at once.
    kill: Option<Cause>,
    /// That it ends, with the shortest grace that was given.
    cancel: Option<(Cause, u64)>,
    /// The latest end of its lease, by `CLOCK_BOOTTIME`.
    lease: Option<u64>,
}

impl Wishes {
    /// The first cause stands.
    pub(super) fn kill(&mut self, cause: Cause) {
        self.kill.get_or_insert(cause);
    }

    pub(super) fn cancel(&mut self, cause: Cause, grace_ms: u64) {
        let (_, grace) = self.cancel.get_or_insert((cause, grace_ms));
        *grace = grace_ms.min(*grace);
    }

    pub(super) fn renew(&mut self, deadline: Instant64) {
        self.lease = self.lease.max(Some(deadline.0));
    }

    /// What a supervisor that knows `told` lacks, the most urgent first.
    fn beyond(&self, told: &Self) -> Vec<Request> {
        let kill = self.kill.clone().filter(|_| told.kill.is_none()).map(|cause| Request::Kill { cause });
        let cancel = self.cancel.clone().filter(|cancel| told.cancel.as_ref() != Some(cancel));
        let cancel = cancel.map(|(cause, grace_ms)| Request::Cancel { cause, grace_ms });
        let lease = self.lease.filter(|lease| told.lease != Some(*lease));
        let lease = lease.map(|deadline_boot_ms| Request::Lease { deadline_boot_ms });
        kill.into_iter().chain(cancel).chain(lease).collect()
    }
}

/// The wishes on their way to one supervisor.
#[derive(Debug)]
pub(super) struct Steered {
    wishes: watch::Receiver<Wishes>,
    told: Wishes,
}

impl Steered {
    pub(super) fn new(wishes: watch::Receiver<Wishes>) -> Self {
        Self { wishes, told: Wishes::default() }
    }

    /// Waits for a new wish. Nobody wishes any more once its job is forgotten.
    pub(super) async fn changed(&mut self) -> bool {
        self.wishes.changed().await.is_ok()
    }

    /// Tells what is new.
    pub(super) async fn tell(&mut self, steering: &Steering) -> io::Result<()> {
        let wishes = self.wishes.borrow_and_update().clone();
        for request in wishes.beyond(&self.told) {
            steering.send(&request).await?;
        }
        self.told = wishes;
        Ok(())
    }

    /// Tells everything: what was told by a connection that broke may never have been heard.
    pub(super) async fn tell_again(&mut self, steering: &Steering) -> io::Result<()> {
        self.told = Wishes::default();
        self.tell(steering).await
    }
}

#[cfg(test)]
mod tests {
    use windlass_protocol::cause::CauseKind;

    use super::*;

    #[test]
    fn wishes_are_told_once_each_and_the_most_urgent_first() {
        let cause = |detail: &str| Cause::new(CauseKind::Canceled, detail);
        let mut wishes = Wishes::default();
        for deadline in 0..1_000 {
            wishes.renew(Instant64(5_000 - deadline));
            wishes.cancel(cause("by ada"), 10_000 + deadline);
        }
        let before = wishes.clone();
        let lease = Request::Lease { deadline_boot_ms: 5_000 };
        let cancel = Request::Cancel { cause: cause("by ada"), grace_ms: 10_000 };
        assert_eq!(wishes.beyond(&Wishes::default()), [cancel, lease.clone()]);
        assert_eq!(wishes.beyond(&before), []);
        wishes.kill(cause("now"));
        wishes.kill(cause("again"));
        wishes.cancel(cause("by bob"), 20);
        let kill = Request::Kill { cause: cause("now") };
        let sooner = Request::Cancel { cause: cause("by ada"), grace_ms: 20 };
        assert_eq!(wishes.beyond(&before), [kill.clone(), sooner.clone()]);
        assert_eq!(wishes.beyond(&Wishes::default()), [kill, sooner, lease], "a supervisor that is reached again");
    }
}
