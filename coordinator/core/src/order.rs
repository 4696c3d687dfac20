//! Orders: builds that nobody submits, but that a job or a schedule makes. What such a build is to run is not for the core to
//! read, so it asks the shell ([`Effect::Obtain`]) and makes the build when the answer is there ([`Input::Obtained`]).
//!
//! The build's id is written down before the shell is asked, and the build is made in the commit that ends the order: an
//! answer that comes twice, or after a restart, finds no order and makes nothing (I3). An order has an owner, the job or
//! schedule, and a deadline (I10); after a restart the shell is asked again.
//!
//! [`Input::Obtained`]: crate::input::Input::Obtained

use windlass_pipeline::graph::Graph;
use windlass_protocol::job::Source;
use windlass_protocol::{BuildId, Cause, CauseKind, JobId, ScheduleId, limits};

use crate::effect::Effect;
use crate::error::Rejected;
use crate::row::{Actor, BuildSource, PipelineRow, TriggeredFrom};
use crate::state::Core;
use crate::timer::Timer;

/// Whose order it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Orderer {
    /// A trigger job's.
    Job(JobId),
    /// A schedule's.
    Schedule(ScheduleId),
}

/// A build that is to be made, for the shell to find out what it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its id, because its pipeline may say it.
    pub build: BuildId,
    /// Its pipeline, as it is registered now.
    pub pipeline: PipelineRow,
    /// The branch.
    pub branch: String,
    /// A full commit id, or `HEAD` of the branch.
    pub commit: String,
    /// As in the build.
    pub message: String,
    /// As in the build.
    pub env: Vec<(String, String)>,
    /// How it comes to be.
    pub source: BuildSource,
    /// Who makes it.
    pub creator: Actor,
    /// Where it comes from, if a job makes it.
    pub triggered_from: Option<TriggeredFrom>,
}

/// What an ordered build is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obtained {
    /// The number that the pipeline was compiled with, if it says it; another one is asked for anew.
    pub number: Option<u64>,
    /// The pipeline's text.
    pub definition: String,
    /// What the text came to.
    pub graph: Graph,
    /// Where its files come from.
    pub origin: Source,
    /// As in the build.
    pub branch: String,
    /// As in the build; resolved, where the source is a repository that was read.
    pub commit: String,
    /// Nobody untrusted wrote what it runs: it has no source of its own, or a commit that was seen on a protected ref.
    pub verified: bool,
    /// The registration that all this was found out by; where the pipeline has another one by now, it is found out anew.
    pub registration: Box<PipelineRow>,
}

impl Core {
    /// Gives out an order; the shell is asked when its owner's row is durable.
    pub(crate) fn order(&mut self, build: BuildId, by: Orderer) {
        self.orders.insert(build, by);
        self.timers.set(Timer::Order(build), self.now.mono.plus_ms(limits::ORDER_MS));
        self.ask_for(build, by);
    }

    fn ask_for(&mut self, build: BuildId, by: Orderer) {
        let order = match by {
            Orderer::Job(job) => self.trigger_order(build, job),
            Orderer::Schedule(schedule) => self.schedule_order(build, schedule),
        };
        // A pipeline that is registered stays; were it gone, the deadline would tell.
        if let Some(order) = order {
            self.book.out.push(Effect::Obtain(Box::new(order)));
        }
    }

    /// Nobody waits for it any more.
    pub(crate) fn drop_order(&mut self, build: BuildId) -> bool {
        self.timers.clear(Timer::Order(build));
        self.orders.remove(&build).is_some()
    }

    /// The shell has found out what an ordered build runs, or why it does not.
    pub(crate) fn on_obtained(&mut self, build: BuildId, obtained: Result<Obtained, Cause>) -> Result<(), Rejected> {
        let Some(by) = self.orders.get(&build).copied() else { return Err(Rejected::NoOrder(build)) };
        let obtained = match obtained {
            Ok(obtained) => obtained,
            Err(cause) => {
                self.fail_order(build, Self::cause(cause.kind, &cause.detail));
                return Ok(());
            }
        };
        let filled = match by {
            Orderer::Job(job) => self.make_triggered(build, job, obtained),
            Orderer::Schedule(schedule) => self.make_scheduled(schedule, obtained),
        };
        match filled {
            Ok(()) if self.policy.bugs.trigger_twice => {}
            Ok(()) => drop(self.drop_order(build)),
            // Somebody was given the number first; or what was trusted by the pipeline's registration may not be by the one
            // that there is now. The order's deadline ends this.
            Err(Rejected::NumberTaken { .. } | Rejected::PipelineChanged(_)) => self.ask_for(build, by),
            Err(refused) => {
                let kind = match refused {
                    Rejected::Limit { .. } => CauseKind::RefusedByPolicy,
                    _ => CauseKind::SourceMissing,
                };
                self.fail_order(build, Self::cause(kind, &refused.to_string()));
            }
        }
        Ok(())
    }

    /// The shell did not answer.
    pub(crate) fn on_order_overdue(&mut self, build: BuildId) {
        let detail = "the pipeline's definition was not read in time";
        self.fail_order(build, Self::cause(CauseKind::CheckoutFailed, detail));
    }

    fn fail_order(&mut self, build: BuildId, cause: Cause) {
        let by = self.orders.get(&build).copied();
        self.drop_order(build);
        match by {
            Some(Orderer::Job(job)) => self.end_trigger(job, crate::row::JobState::Failed, Some(cause)),
            Some(Orderer::Schedule(schedule)) => self.fail_scheduled(schedule, cause),
            None => {}
        }
    }
}
