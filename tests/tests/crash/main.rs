//! Real processes, killed: nothing is lost, nothing is doubled.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

mod account;
mod agents;
mod coordinator;
mod disk;
mod store;
