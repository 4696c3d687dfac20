//! The coordinator: fleet over QUIC, HTTP API, certificates and the loop around the core.
