//! The commands, and what they share.

mod agent;
mod agents;
mod artifact;
mod build;
mod cache;
mod config;
mod coordinator;
mod list;
mod login;
mod logs;
mod notifications;
mod pipeline;
mod reach;
mod run;
mod secret;
mod serve;
mod shell;
mod token;
mod unblock;
mod up;
mod why;

use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::Value;

use crate::client::shape::{self, Build, Job};
use crate::client::{Client, segment};
use crate::error::{Code, Failure};
use crate::ui::Ui;
use list::list;

/// A fleet of build agents with one shared cache.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    // Without a comment here, `--help` shows the arguments' own, longer text.
    #[command(about = "Run the pipeline of a directory, and end with its result")]
    Run(run::RunArguments),
    /// Look at builds, cancel them, run them again.
    #[command(subcommand)]
    Build(build::BuildCommand),
    /// Print the logs of a build.
    Logs(logs::LogsArguments),
    /// Look at the files that jobs left, and download them.
    #[command(subcommand)]
    Artifact(artifact::ArtifactCommand),
    /// Look after what is stored: results that are used again, what builds have saved under keys, and every byte.
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// Go into the kept workspace of a failed job of this machine.
    Shell(shell::ShellArguments),
    /// Check pipelines, and tell the server of them.
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    Up(up::UpArguments),
    /// Run a coordinator.
    Coordinator(coordinator::CoordinatorArguments),
    Agent(agent::AgentArguments),
    /// Look at agents, drain and revoke them.
    #[command(subcommand)]
    Agents(agents::AgentsCommand),
    /// Make tokens for agents and for clients.
    #[command(subcommand)]
    Token(token::TokenCommand),
    // Without a comment here, `--help` shows the arguments' own, longer text.
    #[command(about = "Log in to a fleet, so that commands reach it and `run` uses its results")]
    Login(login::LoginArguments),
    /// Forget the token of a fleet.
    Logout(login::LogoutArguments),
    /// Set, list and remove secrets of jobs.
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// Runs one command.
pub(crate) async fn dispatch(arguments: Arguments, ui: &Ui) -> Result<Code, Failure> {
    match arguments.command {
        Command::Run(arguments) => Box::pin(run::run(arguments, ui)).await,
        Command::Build(command) => build::run(command, ui).await,
        Command::Logs(arguments) => logs::run(arguments, ui).await,
        Command::Artifact(command) => artifact::run(command, ui).await,
        Command::Cache(command) => cache::run(command, ui).await,
        Command::Shell(arguments) => shell::run(&arguments, ui).await,
        Command::Pipeline(command) => pipeline::run(&command, ui).await,
        Command::Up(arguments) => Box::pin(up::run(arguments, ui)).await,
        Command::Coordinator(arguments) => Box::pin(coordinator::run(arguments, ui)).await,
        Command::Agent(arguments) => Box::pin(agent::run(arguments, ui)).await,
        Command::Agents(command) => agents::run(command, ui).await,
        Command::Token(command) => token::run(command, ui).await,
        Command::Login(arguments) => login::run(arguments, ui).await,
        Command::Logout(arguments) => login::log_out(&arguments, ui),
        Command::Secret(command) => secret::run(command, ui).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "windlass", &mut script);
            ui.raw(&script);
            Ok(Code::Done)
        }
    }
}

/// The build that a word names: an id, `PIPELINE/NUMBER`, or `latest`.
async fn find_build(client: &Client, word: &str) -> Result<(Build, Value), Failure> {
    let path = match word.rsplit_once('/') {
        Some((pipeline, number)) => format!("/pipelines/{}/builds/{}", segment(pipeline), segment(number)),
        None => format!("/builds/{}", segment(word)),
    };
    let raw = client.get(&path).await.map_err(|error| {
        let failure = Failure::from(error);
        let unknown = failure.code == Code::Usage && failure.hint.is_none();
        if unknown {
            failure.hint("`windlass build list` shows builds; name one by id, PIPELINE/NUMBER, or `latest`")
        } else {
            failure
        }
    })?;
    Ok((shape::read(&raw)?, raw))
}

/// The one job of a build that a word names: a key, a label, an id.
fn find_job<'a>(build: &'a Build, word: &str) -> Result<&'a Job, Failure> {
    let named: Vec<&Job> = build.jobs.iter().filter(|job| job.is_named(word)).collect();
    match named.as_slice() {
        [job] => Ok(job),
        [] => {
            let names: Vec<String> = build.jobs.iter().filter(|job| job.is_command()).take(20).map(Job::name).collect();
            Err(Failure::usage(format!("build {} has no step `{word}`", build.name()))
                .hint(format!("its steps are {}", names.join(", "))))
        }
        several => {
            let names: Vec<String> = several.iter().take(20).map(|job| job.name()).collect();
            Err(Failure::usage(format!("`{word}` names {} jobs of build {}", several.len(), build.name()))
                .hint(format!("name one: {}", names.join(", "))))
        }
    }
}

/// A word as a shell takes it back.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_and_flags_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_list_is_asked_for_in_the_same_way() {
        let mut root = Arguments::command();
        root.build();
        let paths: [&[&str]; 8] = [
            &["agents", "list"],
            &["artifact", "ls"],
            &["build", "list"],
            &["build", "notifications"],
            &["pipeline", "list"],
            &["pipeline", "schedule", "list"],
            &["secret", "list"],
            &["token", "list"],
        ];
        for path in paths {
            let command = path.iter().fold(&root, |command, name| command.find_subcommand(name).unwrap());
            let argument = |name: &str| command.get_arguments().find(|argument| argument.get_id() == name).unwrap();
            assert_eq!(argument("limit").get_default_values(), ["50"], "{path:?}");
            assert!(argument("json").get_help().is_some() && argument("server").get_help().is_some(), "{path:?}");
        }
    }

    #[test]
    fn a_quoted_word_is_one_word_to_a_shell() {
        assert_eq!(["hello/3", "a b", "it's", ""].map(quote), ["hello/3", "'a b'", r"'it'\''s'", "''"]);
    }

    #[test]
    fn a_word_that_names_no_step_or_several_is_refused_with_the_names() {
        let job = |id: &str, key: &str, index: Option<u64>| Job {
            id: id.to_owned(),
            step_key: Some(key.to_owned()),
            kind: "command".to_owned(),
            parallel_index: index,
            parallel_total: index.map(|_| 2),
            ..Job::default()
        };
        let jobs = vec![job("1", "lint", None), job("2", "test", Some(0)), job("3", "test", Some(1))];
        let build = Build { pipeline: "p".to_owned(), number: 1, jobs, ..Build::default() };
        assert_eq!(find_job(&build, "lint").unwrap().id, "1");
        assert_eq!(find_job(&build, "test 2/2").unwrap().id, "3");
        assert_eq!(find_job(&build, "test").unwrap_err().hint.unwrap(), "name one: test 1/2, test 2/2");
        assert_eq!(find_job(&build, "x").unwrap_err().hint.unwrap(), "its steps are lint, test 1/2, test 2/2");
    }
}
