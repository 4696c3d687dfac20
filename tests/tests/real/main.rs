//! Real parts: network namespaces as zones, a real Docker engine, docker-compose and a registry.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

mod bucket;
mod compose;
mod delivery;
mod docker;
mod dynamic;
mod endings;
mod keyed;
mod line;
mod peers;
mod systemd;
mod zones;
