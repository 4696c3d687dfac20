//! The log store from outside: behaviour, a model, crashes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking; clippy knows only #[test] functions as tests"
)]

mod crash;
mod kit;
mod model;
mod sealed;
mod store;
