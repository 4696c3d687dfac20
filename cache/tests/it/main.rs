//! The crate from outside: what it promises to those who call it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests; helpers too end a test by panicking"
)]

mod absent;
mod alias;
mod alike;
mod archive;
mod assembly;
mod chunks;
mod compact;
mod crash;
mod floor;
mod fuzz;
mod killed;
mod layout;
mod memory;
mod model;
mod origin;
mod partial;
mod policy;
mod space;
mod stat_cache;
mod store;
mod sweep;
mod tree;
mod verify;
