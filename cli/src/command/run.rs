//! `windlass run`: this directory's pipeline, on a server that runs, or on one that this process brings along.

mod find;
mod fleet;
mod git;
mod host;
mod registration;
mod still;
mod upload;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use windlass_agent_core::Signal;
use windlass_coordinator::upstream::Upstream;
use windlass_pipeline::graph::{Graph, NodeKind};

use super::serve;
use super::unblock::Gates;
use crate::client::shape::{self, Build};
use crate::client::{Client, ServerArguments};
use crate::error::{Code, Failure};
use crate::follow::{self, Show, Watch};
use crate::show::{Human, Json, words};
use crate::ui::Ui;
use find::Pipeline;
pub(super) use find::read as read_pipeline;
use host::Host;
use registration::Registration;
use still::Still;

/// Runs the pipeline of a directory as it is now, uncommitted changes and all, and ends with the build's result.
///
/// Without a server an embedded coordinator and agent are started; a second run beside it uses them too. The first Ctrl-C
/// asks the build to cancel, a second one leaves.
#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The directory.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The pipeline's file; by default .windlass/pipeline.yml, else Buildkite's usual places.
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// A variable of the build.
    #[arg(long, value_name = "K=V")]
    env: Vec<String>,
    /// The build's branch; git's by default.
    #[arg(long)]
    branch: Option<String>,
    /// The build's message; the last commit's by default.
    #[arg(long)]
    message: Option<String>,
    /// Only this step, and what it depends on.
    #[arg(long, value_name = "KEY")]
    step: Vec<String>,
    /// With --step: without what it depends on.
    #[arg(long, requires = "step")]
    only: bool,
    /// Keep the workspaces of failed jobs; `windlass shell` leads into them.
    #[arg(long)]
    keep: bool,
    /// Run every step, whatever earlier results there are; what they make is used by later builds.
    #[arg(long)]
    no_reuse: bool,
    /// Use no fleet's results but those that are here already.
    #[arg(long, env = "WINDLASS_OFFLINE", value_parser = clap::builder::FalseyValueParser::new())]
    offline: bool,
    /// Use the results of this fleet, which you are logged in to; by default of the one that you logged in to last.
    #[arg(long, value_name = "URL")]
    fleet: Option<String>,
    /// Submit the build, print its id and leave.
    #[arg(long)]
    detach: bool,
    /// Print events, one JSON object a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// What a run is about.
#[derive(Debug)]
struct Plan {
    dir: PathBuf,
    pipeline: Pipeline,
    env: Vec<(String, String)>,
    git: git::Facts,
}

/// Runs a directory.
pub(crate) async fn run(arguments: RunArguments, ui: &Ui) -> Result<Code, Failure> {
    serve::trace("warn", ui);
    let plan = plan(&arguments)?;
    let mut signals = serve::signals()?;
    let host = tokio::select! {
        host = checked(&arguments, &plan, ui) => host?,
        _ = signals.recv() => return Ok(Code::Interrupted),
    };
    let result = run_there(&arguments, &plan, host.client(), &mut signals, ui).await;
    match result {
        Ok(Ending::Left) => {
            host.leave().await;
            Ok(Code::Interrupted)
        }
        Ok(Ending::Code(code)) => host.close(&mut signals, ui).await.map(|()| code),
        Err(failure) => {
            // The failure is what the user should hear of.
            if let Err(second) = host.close(&mut signals, ui).await {
                tracing::warn!(error = second.what, "embedded_server_not_stopped");
            }
            Err(failure)
        }
    }
}

/// How it went.
enum Ending {
    Code(Code),
    /// The user would not wait.
    Left,
}

/// The server of the run, and the pipeline checked by what is known there; before one is started, where none runs.
async fn checked(arguments: &RunArguments, plan: &Plan, ui: &Ui) -> Result<Host, Failure> {
    let found = host::find(&arguments.server).await?;
    let registration = match &found {
        Some(host) => Registration::ask(host.client(), &plan.pipeline.name).await,
        None => Registration::of_data(&host::data()?),
    };
    let graph = plan.pipeline.compile(&plan.dir, &plan.env, &plan.git, &registration, ui)?;
    check_steps(&graph, &arguments.step)?;
    let host = match found {
        Some(host) => host,
        None => {
            let upstream = upstream(arguments, plan, &graph, ui).await?;
            host::reach(&arguments.server, arguments.detach, upstream, ui).await?
        }
    };
    if host.is_embedded() {
        warn_of_images(&graph, ui);
    }
    Ok(host)
}

fn plan(arguments: &RunArguments) -> Result<Plan, Failure> {
    let dir = arguments.dir.canonicalize().map_err(|e| Failure {
        code: Code::Usage,
        ..Failure::system(format!("{} is no directory to run", arguments.dir.display()), &e)
    })?;
    let pipeline = find::pipeline(&dir, arguments.pipeline.as_deref())?;
    let env: Vec<(String, String)> =
        arguments.env.iter().map(|pair| super::agent::key_value(pair)).collect::<Result<_, _>>()?;
    let mut git = git::facts(&dir);
    if let Some(branch) = &arguments.branch {
        git.branch.clone_from(branch);
    }
    if let Some(message) = &arguments.message {
        git.message.clone_from(message);
    }
    Ok(Plan { dir, pipeline, env, git })
}

fn check_steps(graph: &Graph, wanted: &[String]) -> Result<(), Failure> {
    for key in wanted {
        let known = graph.nodes.iter().any(|node| node.key.as_ref() == Some(key) || node.label == *key);
        if !known {
            let keys: Vec<&str> = graph.nodes.iter().filter_map(|node| node.key.as_deref()).take(20).collect();
            let failure = Failure::usage(format!("the pipeline has no step `{key}`"));
            return Err(if keys.is_empty() {
                failure
            } else {
                failure.hint(format!("its steps are {}", keys.join(", ")))
            });
        }
    }
    Ok(())
}

/// The fleet whose results the run uses, asked once.
async fn upstream(arguments: &RunArguments, plan: &Plan, graph: &Graph, ui: &Ui) -> Result<Option<Upstream>, Failure> {
    if arguments.no_reuse || !may_reuse(graph) {
        return Ok(None);
    }
    let Some(login) = fleet::wanted(arguments.fleet.as_deref())? else { return Ok(None) };
    let data = host::data()?;
    if arguments.offline {
        let upstream = fleet::at(&login, &data)?;
        upstream.rest();
        return Ok(Some(upstream));
    }
    let (name, repository) = (plan.pipeline.name.as_str(), plan.git.repository.as_deref());
    fleet::upstream(&login, &data, name, repository, ui).await.map(Some)
}

/// Whether any step may have a fleet's result: one that is there already, or one that a job adds.
fn may_reuse(graph: &Graph) -> bool {
    let adds = |text: &str| text.contains("pipeline upload");
    let may = |kind: &NodeKind| matches!(kind, NodeKind::Command(step) if step.reuse.is_some() || adds(&step.command));
    graph.nodes.iter().any(|node| may(&node.kind))
}

/// Says that Docker is missing, where a step needs it and nowhere else.
fn warn_of_images(graph: &Graph, ui: &Ui) {
    let needs = graph.nodes.iter().find(|node| matches!(&node.kind, NodeKind::Command(step) if step.image.is_some()));
    let Some(node) = needs else { return };
    let socket = crate::place::engine_socket(None);
    if let Err(error) = std::os::unix::net::UnixStream::connect(&socket) {
        let socket = socket.display();
        ui.warn(&format!("step `{}` needs an image, and no Docker answers at {socket}: {error}", node.label));
    }
}

async fn run_there(
    arguments: &RunArguments,
    plan: &Plan,
    client: &Client,
    signals: &mut mpsc::Receiver<Signal>,
    ui: &Ui,
) -> Result<Ending, Failure> {
    let project = plan.pipeline.name.as_str();
    let tree = tokio::select! {
        tree = upload::source(client, &plan.dir, project, ui) => tree?,
        _ = signals.recv() => return Ok(Ending::Left),
    };
    let body = submission(arguments, plan, &tree);
    let key = format!("run-{}", serve::random_hex()?);
    let raw = client.post_keyed("/builds", &body, &key).await?;
    let build: Build = shape::read(&raw)?;
    if arguments.detach {
        return Ok(Ending::Code(detached(arguments, &build, &raw, ui)));
    }
    if arguments.json {
        let mut show = Json::new(ui);
        show.event("build_created", "build", &raw);
        let ending = watch(client, &build, &mut show, signals, ui, false).await?;
        if let Some((_, raw)) = &ending {
            show.event("build_finished", "build", raw);
        }
        return Ok(code_of(ending.map(|(build, _)| build)));
    }
    ui.say(&format!("build {} on {}", build.name(), client.url()));
    let mut show = Human::new(ui, &build);
    let asks = std::io::stdin().is_terminal() && ui.is_live();
    let ending = watch(client, &build, &mut show, signals, ui, asks).await?;
    drop(show);
    if let Some((build, _)) = &ending {
        summary(arguments, build, ui);
    }
    Ok(code_of(ending.map(|(build, _)| build)))
}

fn submission(arguments: &RunArguments, plan: &Plan, tree: &str) -> Value {
    let env: serde_json::Map<String, Value> =
        plan.env.iter().map(|(k, v)| (k.clone(), Value::from(v.clone()))).collect();
    let mut body = json!({
        "pipeline": plan.pipeline.name,
        "definition": plan.pipeline.text,
        "definition_path": plan.pipeline.shown,
        "origin": {"tree": tree},
        "branch": plan.git.branch,
        "commit": plan.git.commit,
        "message": plan.git.message,
        "env": env,
        "keep_workspace": arguments.keep,
        "no_reuse": arguments.no_reuse,
        "source": "cli",
    });
    if let (false, Some(members)) = (arguments.step.is_empty(), body.as_object_mut()) {
        let steps = json!({"keys": arguments.step, "with_dependencies": !arguments.only});
        members.insert("steps".to_owned(), steps);
    }
    body
}

fn detached(arguments: &RunArguments, build: &Build, raw: &Value, ui: &Ui) -> Code {
    if arguments.json {
        Json::new(ui).event("build_created", "build", raw);
    } else {
        ui.data(&build.id);
        ui.hint(&format!("follow it with `windlass logs {} -f`", build.name()));
    }
    Code::Done
}

/// Follows a build to its end; `None` where the user would not wait for it. A canceled build has `interrupted` set by
/// its state: the first signal asks for that.
async fn watch(
    client: &Client,
    build: &Build,
    show: &mut dyn Show,
    signals: &mut mpsc::Receiver<Signal>,
    ui: &Ui,
    asks: bool,
) -> Result<Option<(Interruptible, Value)>, Failure> {
    let mut watch = Watch::new(client, &build.id);
    let mut interrupted = false;
    let mut gates = Gates::new(asks);
    let mut still = Still::default();
    loop {
        if watch.waits_at_a_gate() && !interrupted {
            let asked = gates.at(client, build, ui);
            tokio::select! {
                asked = asked => asked?,
                Some(_) = signals.recv() => {
                    interrupted = true;
                    cancel(client, build, ui);
                }
            }
        }
        let waiting = watch.waits_for_an_agent().cloned();
        let asks_at = still.asks_at(waiting.is_some());
        tokio::select! {
            more = watch.step(show) => if !more? { break },
            () = tokio::time::sleep_until(asks_at) => if let Some(job) = waiting {
                still.say_why(client, &job, ui).await;
            },
            Some(_) = signals.recv() => {
                if std::mem::replace(&mut interrupted, true) {
                    return Ok(None);
                }
                cancel(client, build, ui);
            }
        }
    }
    let (build, raw) = follow::fetch(client, &build.id).await?;
    Ok(Some((Interruptible { build, interrupted }, raw)))
}

/// Asks the server to cancel a build.
fn cancel(client: &Client, build: &Build, ui: &Ui) {
    ui.say("canceling the build; once more to leave at once");
    let (client, path) = (client.clone(), format!("/builds/{}/cancel", build.id));
    // Its failure shows: the build goes on, and a second signal leaves.
    tokio::spawn(async move {
        if let Err(error) = client.post_again(&path, None).await {
            tracing::warn!(%error, "build_not_canceled");
        }
    });
}

/// A build that ended, and whether the user asked for it.
#[derive(Debug)]
struct Interruptible {
    build: Build,
    interrupted: bool,
}

impl std::ops::Deref for Interruptible {
    type Target = Build;

    fn deref(&self) -> &Build {
        &self.build
    }
}

fn code_of(ending: Option<Interruptible>) -> Ending {
    let Some(ended) = ending else { return Ending::Left };
    Ending::Code(match ended.state.as_str() {
        "passed" => Code::Done,
        _ if ended.interrupted => Code::Interrupted,
        _ => Code::Failed,
    })
}

fn summary(arguments: &RunArguments, build: &Build, ui: &Ui) {
    let paint = |style, text: &str| ui.paint(style, text);
    ui.tell(&format!("\n{}\n", words::table(build, &paint)));
    ui.say(&words::ending(build, ui));
    let failed = build.jobs.iter().find(|job| job.is_command() && job.state == "failed" && !job.soft_failed);
    if let Some(job) = failed {
        let (verb, name) =
            if arguments.keep { ("shell", "look at its workspace") } else { ("logs", "read its log again") };
        let step = super::quote(&job.name());
        ui.hint(&format!("{name} with `windlass {verb} {} {step}`", super::quote(&build.name())));
    }
}

/// A directory's name as a pipeline's.
fn name_of(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let clean: String = name.chars().filter(|c| !c.is_control() && *c != '/').collect();
    let end = clean.floor_char_boundary(windlass_protocol::limits::NAME_MAX_BYTES);
    match clean.get(..end).unwrap_or_default().trim() {
        "" | "." | ".." => "root".to_owned(),
        name => name.to_owned(),
    }
}
