//! `windlass pipeline render`: a document after interpolation.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Code, Failure};
use crate::ui::Ui;

/// Prints JSON with the keys in the document's order.
#[derive(Debug, Args)]
pub(crate) struct RenderArguments {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn render(arguments: &RenderArguments, _ui: &Ui) -> Result<Code, Failure> {
    Err(Failure::usage(format!("{} cannot be rendered yet", arguments.file.display())))
}
