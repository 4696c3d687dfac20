//! `windlass cache`: what the fleet's cache holds, what of it stays, whether it is what it should be, and why a
//! step's result was there or was not.

mod entry;
mod explain;
mod gc;
mod pin;
mod prefetch;
mod stats;
mod verify;

use clap::Subcommand;

use crate::error::{Code, Failure};
use crate::ui::Ui;

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    #[command(name = "ls", about = "List what builds have saved under keys, or builds that are pinned")]
    List(entry::ListArguments),
    /// Show what the coordinator's store holds, and what crossed each zone's border.
    Stats(stats::StatsArguments),
    /// Say whether a step's result was there, and if not, which of its inputs differ from the nearest earlier run.
    Explain(explain::ExplainArguments),
    #[command(about = "Let go now of what no build needs, by age and size, and give the disk back what is free")]
    Gc(gc::GcArguments),
    #[command(about = "Bring what a build needs to agents, ahead of its jobs")]
    Prefetch(prefetch::PrefetchArguments),
    // Without a comment here, `--help` shows the arguments' own, longer text.
    #[command(about = "Let a cache stay, whoever needs room, or all of a build, a release, whatever its age")]
    Pin(pin::PinArguments),
    #[command(about = "Read everything that is stored, and put aside what is damaged")]
    Verify(verify::VerifyArguments),
    #[command(name = "rm", about = "Remove a cache, a pinned one too")]
    Remove(entry::RemoveArguments),
}

/// Runs one of them.
pub(crate) async fn run(command: CacheCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        CacheCommand::List(arguments) if arguments.pins => pin::list_pins(&arguments, ui).await,
        CacheCommand::List(arguments) => entry::list_caches(&arguments, ui).await,
        CacheCommand::Stats(arguments) => stats::run(&arguments, ui).await,
        CacheCommand::Explain(arguments) => explain::run(&arguments, ui).await,
        CacheCommand::Gc(arguments) => gc::run(&arguments, ui).await,
        CacheCommand::Prefetch(arguments) => prefetch::run(&arguments, ui).await,
        CacheCommand::Pin(arguments) => pin::run(&arguments, ui).await,
        CacheCommand::Verify(arguments) => verify::run(arguments, ui).await,
        CacheCommand::Remove(arguments) => entry::remove(&arguments, ui).await,
    }
}
