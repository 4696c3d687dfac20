//! Benchmarks, each beside the peer or the limit it is compared with.
