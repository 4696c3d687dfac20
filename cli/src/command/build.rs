//! `windlass build`: look at builds, cancel them, run them again.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{find_build, find_job, list, reach, serve};
use crate::client::shape::{self, Build};
use crate::client::{Client, ClientError, ServerArguments, segment};
use crate::error::{Code, Failure};
use crate::show::words;
use crate::ui::{Ui, text};

/// What to do with builds.
#[derive(Debug, Subcommand)]
pub(crate) enum BuildCommand {
    /// List builds, newest first.
    List(ListArguments),
    /// Show a build and its steps.
    Show(OneArguments),
    /// Cancel a build: nothing of it starts any more, and what runs ends.
    Cancel(OneArguments),
    /// Run what failed again, in the same build; with STEP only that.
    Retry(StepArguments),
    /// Make a new build of the same pipeline and source.
    Rebuild(OneArguments),
    /// Open a gate at which a build waits: a block or an input step.
    Unblock(super::unblock::UnblockArguments),
    /// Say why a step does not run, or what was weighed when its agent got it.
    Why(WhyArguments),
    /// List who was told of a build by its `notify`, and what came of it.
    Notifications(super::notifications::NotificationsArguments),
}

/// Which builds.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Of this pipeline.
    #[arg(long)]
    pipeline: Option<String>,
    /// In this state, such as running or failed.
    #[arg(long)]
    state: Option<String>,
    /// Of this branch.
    #[arg(long)]
    branch: Option<String>,
    #[command(flatten)]
    list: list::ServerList,
}

/// One build.
#[derive(Debug, Args)]
pub(crate) struct OneArguments {
    /// Its id, PIPELINE/NUMBER, or `latest`.
    #[arg(default_value = "latest")]
    build: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// A build, or one of its steps.
#[derive(Debug, Args)]
pub(crate) struct StepArguments {
    /// Its id, PIPELINE/NUMBER, or `latest`.
    #[arg(default_value = "latest")]
    build: String,
    /// A step by key, label or id.
    step: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// A step of a build.
#[derive(Debug, Args)]
pub(crate) struct WhyArguments {
    /// The build's id, PIPELINE/NUMBER, or `latest`.
    build: String,
    /// The step by key, label or id.
    step: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Runs one of them.
pub(crate) async fn run(command: BuildCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        BuildCommand::List(arguments) => {
            let reached = reach::to_read(&arguments.list.server).await?;
            let listed = list_builds(&arguments, reached.client(), ui).await;
            reached.end().await;
            listed.map(|()| Code::Done)
        }
        BuildCommand::Show(arguments) => {
            let reached = reach::to_read(&arguments.server).await?;
            let found = found_whole(reached.client(), &arguments).await;
            reached.end().await;
            let (build, raw) = found?;
            show(&build, &raw, arguments.json, ui);
            Ok(Code::Done)
        }
        BuildCommand::Cancel(arguments) => {
            let client = arguments.server.target()?.client;
            let (build, _) = find_build(&client, &arguments.build).await?;
            let raw = client.post_again(&format!("/builds/{}/cancel", build.id), None).await?;
            said(&raw, arguments.json, ui)
        }
        BuildCommand::Retry(arguments) => retry(&arguments, ui).await,
        BuildCommand::Rebuild(arguments) => {
            let client = arguments.server.target()?.client;
            let (build, _) = find_build(&client, &arguments.build).await?;
            let key = format!("rebuild-{}", serve::random_hex()?);
            let raw = client.post_keyed(&format!("/builds/{}/rebuild", build.id), &json!({}), &key).await?;
            said(&raw, arguments.json, ui)
        }
        BuildCommand::Unblock(arguments) => super::unblock::run(&arguments, ui).await,
        BuildCommand::Why(arguments) => why(&arguments, ui).await,
        BuildCommand::Notifications(arguments) => super::notifications::run(&arguments, ui).await,
    }
}

async fn list_builds(arguments: &ListArguments, client: &Client, ui: &Ui) -> Result<(), Failure> {
    let filters = [("pipeline", &arguments.pipeline), ("state", &arguments.state), ("branch", &arguments.branch)];
    let query: Vec<String> = filters
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_deref()?))))
        .collect();
    let path = if query.is_empty() { "/builds".to_owned() } else { format!("/builds?{}", query.join("&")) };
    let listing = &arguments.list.listing;
    let found = list(client, &path, listing.limit()).await?;
    let columns = ["BUILD", "STATE", "BRANCH", "AGE", "TIME", "MESSAGE", "ID"];
    let row = |item: &Value| {
        let build: Build = shape::read(item)?;
        let (mark, style, state) = words::build_state(&build);
        let took = text::between(build.started_at.as_deref(), build.finished_at.as_deref());
        let message = build.message.as_deref().and_then(|message| message.lines().next()).unwrap_or_default();
        Ok(vec![
            build.name(),
            ui.paint_out(style, &format!("{mark} {state}")),
            build.branch.clone().unwrap_or_default(),
            text::ago(build.created_at.as_deref()),
            took.map(text::duration).unwrap_or_default(),
            words::short(message),
            build.id,
        ])
    };
    listing.show(found, "builds", &columns, row, ui)
}

/// A build with its pin; what its jobs wrote beside it comes with it where all of it is printed.
async fn found_whole(client: &Client, arguments: &OneArguments) -> Result<(Build, Value), Failure> {
    let (build, mut raw) = find_build(client, &arguments.build).await?;
    let pin = pin_of(client, &build.id).await?;
    if let Some(whole) = raw.as_object_mut() {
        whole.insert("pin".to_owned(), pin);
    }
    if arguments.json
        && let Some(whole) = raw.as_object_mut()
    {
        let mut annotations = client.get(&format!("/builds/{}/annotations", build.id)).await?;
        whole.insert("annotations".to_owned(), annotations["items"].take());
    }
    Ok((build, raw))
}

/// A build's pin; null where it has none, or the token may not see pins.
async fn pin_of(client: &Client, build: &str) -> Result<Value, Failure> {
    match client.get(&format!("/builds/{build}/pin")).await {
        Err(ClientError::Problem(problem)) if [403, 404].contains(&problem.status) => Ok(Value::Null),
        answer => Ok(answer?),
    }
}

/// Under which name a build is pinned, and until when.
fn pinned(pin: &Value) -> Option<String> {
    let until = match pin.get("until")?.as_str() {
        Some(until) => format!("until {until}"),
        None => "until it is undone".to_owned(),
    };
    Some(pin["name"].as_str().map_or(until.clone(), |name| format!("as {name}, {until}")))
}

fn show(build: &Build, raw: &Value, json: bool, ui: &Ui) {
    if json {
        ui.data(&raw.to_string());
        return;
    }
    let (mark, style, state) = words::build_state(build);
    let state = ui.paint_out(style, &format!("{mark} {state}"));
    ui.data(&format!("{}  {state}", build.name()));
    let creator = build.creator.as_ref().map(|creator| format!("{} {}", creator.kind, creator.name));
    let facts = [
        ("id", Some(build.id.clone())),
        ("branch", build.branch.clone()),
        ("message", build.message.as_deref().and_then(|message| message.lines().next()).map(str::to_owned)),
        ("source", Some(build.source.clone())),
        ("by", creator),
        ("created", build.created_at.clone()),
        ("finished", build.finished_at.clone()),
        ("because", build.cause.as_ref().map(words::cause)),
        ("untrusted", build.untrusted.clone()),
        ("notes", annotated(build.annotations_count)),
        ("told", told(build.notifications_count)),
        ("pinned", pinned(&raw["pin"])),
    ];
    for (name, value) in facts {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            ui.data(&format!("  {name:<9} {}", text::shown(&value)));
        }
    }
    ui.data("");
    let paint = |style, text: &str| ui.paint_out(style, text);
    ui.raw(words::table(build, &paint).as_bytes());
}

/// How many annotations a build has, and where they are.
fn annotated(count: usize) -> Option<String> {
    let plural = if count == 1 { "annotation" } else { "annotations" };
    (count > 0).then(|| format!("{count} {plural}; --json prints them"))
}

/// How many notifications were made of a build, and where they are.
fn told(count: u32) -> Option<String> {
    let plural = if count == 1 { "notification" } else { "notifications" };
    (count > 0).then(|| format!("{count} {plural}; `windlass build notifications` lists them"))
}

/// Says what became of a build.
fn said(raw: &Value, json: bool, ui: &Ui) -> Result<Code, Failure> {
    let build: Build = shape::read(raw)?;
    if json {
        ui.data(&raw.to_string());
    } else {
        ui.say(&format!("build {} is {}", build.name(), words::build_state(&build).2));
        ui.data(&build.id);
    }
    Ok(Code::Done)
}

async fn retry(arguments: &StepArguments, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let (build, _) = find_build(&client, &arguments.build).await?;
    let Some(step) = &arguments.step else {
        let raw = client.post(&format!("/builds/{}/retry", build.id), None).await?;
        return said(&raw, arguments.json, ui);
    };
    let job = find_job(&build, step)?;
    let raw = client.post(&format!("/jobs/{}/retry", job.id), None).await?;
    if arguments.json {
        ui.data(&raw.to_string());
    } else {
        ui.say(&format!("{} of build {} runs again", job.name(), build.name()));
        ui.data(&job.id);
    }
    Ok(Code::Done)
}

async fn why(arguments: &WhyArguments, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let (build, _) = find_build(&client, &arguments.build).await?;
    let job = find_job(&build, &arguments.step)?;
    let raw = client.get(&format!("/jobs/{}/why", job.id)).await?;
    if arguments.json {
        ui.data(&raw.to_string());
        return Ok(Code::Done);
    }
    for line in super::why::lines(&job.name(), &raw)? {
        ui.data(&line);
    }
    Ok(Code::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_shown_with_its_name_and_its_end_as_far_as_it_has_them() {
        for (pin, shown) in [
            (Value::Null, None),
            (json!({ "name": null, "until": null }), Some("until it is undone")),
            (json!({ "name": "v1", "until": null }), Some("as v1, until it is undone")),
            (json!({ "name": "v1", "until": "T" }), Some("as v1, until T")),
        ] {
            assert_eq!(pinned(&pin).as_deref(), shown, "{pin}");
        }
    }
}
