//! Which files have changed, as `if_changed` asks (reference 11.1): by a list, or by what git says in the job's directory.

use windlass_git::changed::{Looks, With};
use windlass_protocol::limits::{CHANGED_FILES_MAX, CHANGED_FILES_MAX_BYTES};

use super::{Call, Fail, fatal};

/// The files by their paths in the repository; `None` where nobody knows, so that every step runs.
pub(super) async fn files(call: &mut Call<'_>) -> Result<Option<Vec<String>>, Fail> {
    let list = call.line.text("changed-files-path").to_owned();
    if !list.is_empty() {
        let bytes = call.hands.read_file(&list, CHANGED_FILES_MAX_BYTES).await;
        let bytes = bytes.map_err(|error| fatal(format!("failed to read the changed files {error}")))?;
        let text = String::from_utf8_lossy(&bytes);
        return Ok(Some(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()));
    }
    match by_git(call).await {
        Ok(files) => Ok(Some(files)),
        Err(Fail::Fatal(why)) => {
            call.note("warning", &format!("if_changed is not decided, and every step runs: {why}")).await?;
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

async fn by_git(call: &mut Call<'_>) -> Result<Vec<String>, Fail> {
    let base = base(call);
    if call.line.is_on("fetch-diff-base") {
        let (remote, name) = base.split_once('/').unwrap_or(("origin", &base));
        if let Err(Fail::Fatal(why)) = git(call, &["fetch", "--", remote, name]).await {
            call.note("warning", &why).await?;
        }
    }
    let (at, head) = (commit(call, &base).await?, commit(call, "HEAD").await?);
    let files = windlass_git::changed::files(call, &at, &head, With::WorkTree).await?;
    if files.len() > CHANGED_FILES_MAX {
        return Err(fatal(format!("{} files have changed; {CHANGED_FILES_MAX} are the most", files.len())));
    }
    Ok(files)
}

impl Looks for Call<'_> {
    type Error = Fail;

    async fn git(&mut self, arguments: &[&str]) -> Result<String, Fail> {
        git(self, arguments).await
    }
}

/// What the files are compared with.
fn base(call: &Call<'_>) -> String {
    let branch = |name: &str| call.hands.environment.get(name).map_or("", String::as_str);
    let (pull_request, default) =
        (branch("BUILDKITE_PULL_REQUEST_BASE_BRANCH"), branch("BUILDKITE_PIPELINE_DEFAULT_BRANCH"));
    windlass_git::changed::base(call.line.text("git-diff-base"), pull_request, default)
}

/// The commit that a name means.
pub(super) async fn commit(call: &mut Call<'_>, name: &str) -> Result<String, Fail> {
    let id = git(call, &["rev-parse", "--verify", "--quiet", "--end-of-options", name]).await?;
    Ok(id.trim().to_owned())
}

async fn git(call: &mut Call<'_>, arguments: &[&str]) -> Result<String, Fail> {
    let line = [&["git"], arguments].concat();
    let (status, output) = call.hands.run(&line, CHANGED_FILES_MAX_BYTES).await.map_err(|error| match error {
        super::HandsError::Refused { .. } | super::HandsError::TooLarge { .. } => fatal(error),
        gone => gone.into(),
    })?;
    if status != 0 {
        return Err(fatal(format!("`{}` ended with status {status}", line.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output).into_owned())
}
