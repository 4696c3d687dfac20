//! Real parts: network namespaces as zones, and a real Docker engine.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

mod docker;
mod zones;
