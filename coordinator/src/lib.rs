//! The coordinator: fleet over QUIC, HTTP API, certificates and the loop around the core.
//!
//! | module | owns |
//! | --- | --- |
//! | [`desk`] | the loop around the core: inputs in, commits, and only then effects out |
//! | [`writer`] | the thread that owns the store |
//! | [`views`] | what clients may see: published by committed number |
//! | [`clock`] | both clocks, read together |
//! | [`fleet`] | agents' connections over QUIC |
//! | [`logbook`] | the desk's port to the log store |
//! | [`authority`] | the CA and what it signs |
//! | [`oidc`] | tokens that say who a job is |
//! | [`api`], `http` | what clients speak |
//! | [`definitions`] | pipelines' texts as their repositories have them |
//! | [`vault`] | the key of the secrets, and what it seals |
//! | `facts` | what a pipeline is compiled with |
//! | [`orders`] | what builds run that jobs make |
//! | [`courier`] | sending notifications |
//! | [`keying`] | what decides a step's result, and the key that it makes |
//! | [`upstream`] | a fleet whose results are used here |
//! | `last_use` | when tokens were last used |
//! | [`verifier`] | the check of every stored byte while the coordinator serves |
//! | [`uploads`] | uploads that are gone on with after their connections broke |
//! | [`shelf`] | what jobs keep, and letting go of what nobody names |
//! | `pinning` | from a look at a build to its pin, and whatever goes between them |
//! | [`sweeper`] | letting go by policy of what nothing live needs |
//! | `retention` | deleting what is past its time |
//! | [`config`], [`run`] | a whole coordinator |

pub mod api;
pub mod authority;
mod certificates;
pub mod clock;
mod compiling;
pub mod config;
pub mod courier;
pub mod definitions;
pub mod desk;
mod facts;
pub mod fleet;
mod http;
pub mod job_desk;
pub mod keying;
pub mod keys;
mod last_use;
mod leap;
pub mod logbook;
mod needs;
pub mod oidc;
pub mod orders;
mod pinning;
mod retention;
mod room;
pub mod run;
pub mod shelf;
pub mod sweeper;
pub mod uploads;
pub mod upstream;
pub mod vault;
pub mod verifier;
pub mod views;
pub mod writer;

pub use config::{Config, Http};
pub use run::{Coordinator, StartError};
pub use windlass_coordinator_core::known::Known;
pub use windlass_coordinator_core::served::SERVED;
