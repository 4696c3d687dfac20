//! `artifact upload|search|download|shasum`: what is not served yet fails, after what can be said was said.

use windlass_protocol::message::Asked;

use super::{Call, Fail, fatal, untold};
use crate::job_api::artifact::{FindError, Options, find};

pub(super) async fn upload(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    let Some(patterns) = call.argument(0).map(str::to_owned) else { return Err(call.misused().await) };
    let options = Options {
        literal: call.line.is_on("literal"),
        follow: call.line.is_on("glob-resolve-follow-symlinks"),
        skip_links: call.line.is_on("upload-skip-symlinks"),
    };
    let delimiter = call.line.text("delimiter").to_owned();
    let found = match find(call.hands, &patterns, &delimiter, options).await {
        Ok(found) => found,
        Err(FindError::Hands(error)) => return Err(error.into()),
        Err(error) => return Err(fatal(format!("failed to upload artifacts: {error}"))),
    };
    for note in &found.notes {
        call.note("warning", note).await?;
    }
    if found.files.is_empty() {
        return call.note("notice", &format!("No files matched paths: {patterns}")).await;
    }
    for file in &found.files {
        call.note("notice", &format!("{} ({} bytes), found as {}", file.path, file.bytes, file.file)).await?;
    }
    Err(fatal(format!(
        "{} files match; artifact upload is not served yet by this version of Windlass",
        found.files.len()
    )))
}

/// Asks for artifacts by a query, which is what the other commands begin with.
pub(super) async fn query(call: &mut Call<'_>) -> Result<(), Fail> {
    let Some(query) = call.argument(0).map(str::to_owned) else { return Err(call.misused().await) };
    let step = call.line.text("step").to_owned();
    let retried = call.line.is_on("include-retried-jobs");
    let what = Asked::FindArtifacts { build: call.build()?, query, step, retried };
    // No coordinator has a list to answer with yet: whatever it says is a refusal, or makes no sense.
    let told = call.ask(what, &[]).await?;
    Err(untold("failed to find artifacts", told))
}
