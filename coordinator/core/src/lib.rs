//! The coordinator's pure state machine: it decides which agent runs what, and owns no socket, file, clock or thread.
//!
//! | module | owns |
//! | --- | --- |
//! | [`row`] | what is durable, and the changes that make it |
//! | [`input`] | everything that can happen |
//! | [`effect`] | everything that it wants done |
//! | [`error`] | why it refuses |
//! | [`terms`] | what a join token asks of an agent beside its secret |
//! | [`policy`] | what an operator may choose |
//! | [`explain`] | why a job waits |
//! | [`served`] | what of the pipeline language it runs |
//! | [`known`] | what of a build its pipeline's conditions see |
//! | [`named`] | which jobs are meant by a name |
//! | [`view`] | what pages and metrics see |
//! | [`invariant`] | what must always hold |
//! | `state`, `load` | the core's data, its face, and how it comes from rows |
//! | `request`, `build`, `upload`, `artifact`, `cancel`, `retry`, `token`, `secret`, `cache` | what clients ask for |
//! | `speech`, `annotation`, `step` | what jobs say about their builds |
//! | `reuse` | results that are used again |
//! | `pin` | builds of which all stays |
//! | [`amount`] | how much some rows are together |
//! | [`roots`] | what of the cache is needed whatever its age |
//! | `account` | what a build's rows hold |
//! | `registry` | pipelines by name |
//! | `hello`, `event`, `lease`, `result` | what agents say, and the rights that they hold |
//! | `agent`, `slot`, `silence`, `zone`, `drain`, [`selector`], `absence` | who is here, what each takes, and how one stops taking |
//! | `fingerprint` | whether the agents that may run a step are the same to its result |
//! | `deps`, `gate`, `concurrency`, `settle` | from jobs that end to jobs that may run, and to ends of builds |
//! | `queue`, `place`, `spec`, `checkout`, `offer` | from a job that may run to an offer |
//! | [`order`], [`trigger`], `schedule` | builds that jobs and schedules make |
//! | [`standing`] | how a step or a group stands, by all of its jobs |
//! | `notify`, `subject`, [`outbox`] | who is to hear of builds, steps and groups, and when it is sent |
//! | [`timetable`] | cron expressions in time zones |
//! | `timer`, `logbook` | deadlines, and the changes of one input |

mod absence;
mod account;
mod agent;
pub mod amount;
mod annotation;
mod artifact;
mod build;
mod cache;
mod cancel;
mod checkout;
mod concurrency;
mod deps;
mod drain;
pub mod effect;
pub mod error;
mod event;
pub mod explain;
mod fingerprint;
mod gate;
mod hello;
pub mod input;
pub mod invariant;
pub mod known;
mod lease;
mod load;
mod logbook;
pub mod named;
mod notify;
mod offer;
pub mod order;
pub mod outbox;
mod patience;
mod pin;
mod place;
pub mod policy;
mod queue;
mod registry;
mod request;
mod result;
mod retry;
mod reuse;
pub mod roots;
pub mod row;
mod schedule;
mod secret;
pub mod selector;
pub mod served;
mod settle;
mod silence;
mod slot;
mod spec;
mod speech;
pub mod standing;
mod state;
mod step;
mod stock;
mod subject;
pub mod terms;
mod timer;
pub mod timetable;
mod token;
pub mod trigger;
mod upload;
pub mod view;
mod weighed;
mod zone;

pub use effect::{Effect, Reply};
pub use error::Rejected;
pub use input::{Input, Request};
pub use invariant::Broken;
pub use policy::{Bugs, Policy};
pub use state::Core;
