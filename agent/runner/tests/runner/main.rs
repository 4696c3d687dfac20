//! Jobs as real processes, under a real spawner and real supervisors.

mod kit;
mod lifetime;
mod output;
mod process;
