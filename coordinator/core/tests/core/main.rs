//! The core, driven by a fake shell with its own clock and its own store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bugs;
mod fleet;
mod gates;
mod groups;
mod kit;
mod layers;
mod life;
mod meta_data;
mod reference;
mod registry;
mod rules;
mod speech;
mod states;
mod tokens;
mod uploads;
mod walk;
