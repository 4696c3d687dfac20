//! `windlass cache`: what is stored, and whether it is what it should be.

mod verify;

use clap::Subcommand;

use crate::error::{Code, Failure};
use crate::ui::Ui;

/// What to do with the cache.
#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    #[command(about = "Read everything that is stored, and put aside what is damaged")]
    Verify(verify::VerifyArguments),
}

/// Runs one of them.
pub(crate) async fn run(command: CacheCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        CacheCommand::Verify(arguments) => verify::run(arguments, ui).await,
    }
}
