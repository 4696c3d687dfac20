//! The one binary `windlass`.

fn main() {}
