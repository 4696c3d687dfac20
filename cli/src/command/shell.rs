//! `windlass shell`: into the workspace that a failed job left on this machine, and into its image where it had one.

mod container;

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use windlass_agent::kept::Kept;

use super::{find_build, find_job, reach};
use crate::client::ServerArguments;
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// The build must have been run with `windlass run --keep`, and the step must have failed.
#[derive(Debug, Args)]
pub(crate) struct ShellArguments {
    /// The build's id, PIPELINE/NUMBER, or `latest`.
    build: String,
    /// The step by key, label or id.
    step: String,
    /// Of this attempt, from 1; the last one by default.
    #[arg(long, value_name = "N")]
    attempt: Option<u64>,
    #[command(flatten)]
    server: ServerArguments,
}

/// Variables that stay those of who looks: the rest is the job's.
const ONES_OWN: [&str; 6] = ["HOME", "PATH", "SHELL", "USER", "LOGNAME", "TERM"];

/// A workspace that was kept.
struct Workspace {
    checkout: PathBuf,
    what: String,
    attempt: String,
    variables: Vec<(&'static str, String)>,
    kept: Option<Kept>,
}

/// Becomes a shell in the workspace, or stands before one in a container.
pub(crate) async fn run(arguments: &ShellArguments, ui: &Ui) -> Result<Code, Failure> {
    let reached = reach::to_read(&arguments.server).await?;
    let found = workspace(arguments, &reached).await;
    // The shell may live for long: nothing of ours stays open beside it.
    reached.end().await;
    let Workspace { checkout, what, attempt, variables, kept } = found?;
    if let Some((kept, image)) = kept.as_ref().and_then(|kept| Some((kept, kept.image.as_ref()?))) {
        ui.say(&format!("the workspace of {what} in {image}: {}", checkout.display()));
        return container::enter(kept, image, &attempt, &checkout).await;
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    ui.say(&format!("the workspace of {what}: {}", checkout.display()));
    let jobs = kept.map(|kept| kept.env).unwrap_or_default();
    let jobs = jobs.into_iter().filter(|(name, _)| !ONES_OWN.contains(&name.as_str()));
    let error = Command::new(&shell).current_dir(&checkout).envs(variables).envs(jobs).exec();
    Err(Failure::system(format!("{} cannot be started in {}", shell.display(), checkout.display()), &error))
}

async fn workspace(arguments: &ShellArguments, reached: &reach::Reached) -> Result<Workspace, Failure> {
    let (build, _) = find_build(reached.client(), &arguments.build).await?;
    let job = find_job(&build, &arguments.step)?;
    let what = format!("{} of build {}", job.name(), build.name());
    let attempt = match arguments.attempt {
        Some(number) => job.attempts.iter().find(|attempt| attempt.number == number),
        None => job.attempts.last(),
    };
    let attempt = attempt.ok_or_else(|| Failure::usage(format!("{what} has no such attempt")))?;
    let Some(data) = reached.data() else {
        return Err(Failure::usage("the server runs elsewhere: workspaces are kept on the agent's machine")
            .hint("run the build here with `windlass run --keep`"));
    };
    let root = data.join("agent/work").join(&attempt.id);
    let checkout = root.join("checkout");
    match std::fs::metadata(&checkout) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let why = match job.state.as_str() {
                "failed" | "timed_out" | "canceled" => "its build was not told to keep it, or it ran elsewhere",
                state => return Err(Failure::usage(format!("{what} is {state}: only failed jobs leave a workspace"))),
            };
            return Err(Failure::usage(format!("there is no workspace of {what} on this machine: {why}"))
                .hint("run it again with `windlass run --keep`"));
        }
        Err(error) => return Err(Failure::system(format!("{} cannot be entered", checkout.display()), &error)),
    }
    let variables = vec![
        ("WINDLASS", "true".to_owned()),
        ("WINDLASS_BUILD_ID", build.id.clone()),
        ("WINDLASS_JOB_ID", job.id.clone()),
        ("WINDLASS_ATTEMPT_ID", attempt.id.clone()),
    ];
    let unread = |e| Failure::system(format!("what {} says of its job cannot be read", root.display()), &e);
    let kept = Kept::read(&root).map_err(unread)?;
    Ok(Workspace { checkout, what, attempt: attempt.id.clone(), variables, kept })
}
