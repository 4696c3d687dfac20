//! The core, driven by a fake shell with its own clock and its own store.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod account;
mod artifacts;
mod bugs;
mod caches;
mod entries;
mod fleet;
mod gates;
mod groups;
mod kit;
mod large;
mod layers;
mod life;
mod meta_data;
mod notify;
mod offers;
mod order;
mod pins;
mod placement;
mod reference;
mod registry;
mod reuse;
mod rules;
mod schedules;
mod secrets;
mod speech;
mod states;
mod tokens;
mod triggers;
mod uploads;
mod walk;
