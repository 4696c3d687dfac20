//! Jobs as real processes, under a real spawner and real supervisors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the helpers of tests fail as tests do, and clippy knows only the tests themselves"
)]

mod docker;
mod engine_loss;
mod kit;
mod lifetime;
mod output;
mod own_engine;
mod process;
mod reuse;
