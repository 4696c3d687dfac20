//! `windlass pipeline create|update|list|show`: pipelines that the server knows by name.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::client::shape::{self, Pipeline};
use crate::client::{Client, ServerArguments, segment};
use crate::command::run::read_pipeline;
use crate::command::{agent, list};
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// What is said of a pipeline.
#[derive(Debug, Args)]
struct Settings {
    /// What git is given to fetch its source. Empty: builds bring their own source.
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// Where builds that say no branch are made. [default: main]
    #[arg(long, value_name = "BRANCH")]
    default_branch: Option<String>,
    /// Where the definition stands in the source. Empty: where it is always looked for (.windlass/pipeline.yml first).
    #[arg(long, value_name = "PATH")]
    file: Option<String>,
    /// A definition for the server to keep; it goes before the source's.
    #[arg(long, value_name = "FILE")]
    definition: Option<PathBuf>,
    /// A branch, or a ref such as refs/tags/v*, whose commits are trusted; several times for several. [default: the
    /// default branch]
    #[arg(long, value_name = "PATTERN")]
    protect: Vec<String>,
    /// For people.
    #[arg(long)]
    description: Option<String>,
    /// A variable of every build; it lies beneath those of the definition.
    #[arg(long, value_name = "K=V")]
    env: Vec<String>,
    /// How many minutes a command step may run that says none; 0: as long as the server allows.
    #[arg(long, value_name = "MINUTES")]
    timeout: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Register a pipeline.
#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// Its name.
    name: String,
    #[command(flatten)]
    settings: Settings,
}

/// Change a registered pipeline; what is not named stays.
#[derive(Debug, Args)]
pub(crate) struct UpdateArguments {
    /// Its name.
    name: String,
    /// The server keeps no definition any more: the source's is taken.
    #[arg(long, conflicts_with = "definition")]
    no_definition: bool,
    /// Protect the default branch alone again.
    #[arg(long, conflicts_with = "protect")]
    no_protect: bool,
    /// Take a variable away.
    #[arg(long, value_name = "K")]
    unset_env: Vec<String>,
    #[command(flatten)]
    settings: Settings,
}

/// Which pipeline.
#[derive(Debug, Args)]
pub(crate) struct ShowArguments {
    /// Its name.
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// The request's body; what nobody said is left to the server.
fn body(settings: &Settings) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    // An empty word takes away.
    let word = |text: &Option<String>| {
        text.as_ref().map(|text| if text.is_empty() { Value::Null } else { Value::from(text.clone()) })
    };
    set("repository", word(&settings.repository));
    set("default_branch", settings.default_branch.clone().map(Value::from));
    set("file", word(&settings.file));
    if let Some(path) = &settings.definition {
        set("definition", Some(Value::from(read_pipeline(path)?)));
        set("definition_path", Some(Value::from(path.display().to_string())));
    }
    set("protected_refs", (!settings.protect.is_empty()).then(|| Value::from(settings.protect.clone())));
    set("description", settings.description.clone().map(Value::from));
    let mut env = Map::new();
    for pair in &settings.env {
        let (name, value) = agent::key_value(pair)?;
        env.insert(name, Value::from(value));
    }
    set("env", (!env.is_empty()).then_some(Value::Object(env)));
    set("timeout_in_minutes", settings.timeout.map(|minutes| if minutes == 0 { Value::Null } else { minutes.into() }));
    Ok(body)
}

fn changes(arguments: &UpdateArguments) -> Result<Map<String, Value>, Failure> {
    let mut body = body(&arguments.settings)?;
    if arguments.no_definition {
        body.insert("definition".to_owned(), Value::Null);
    }
    if arguments.no_protect {
        body.insert("protected_refs".to_owned(), json!([]));
    }
    if !arguments.unset_env.is_empty() {
        let env = body.entry("env").or_insert_with(|| json!({}));
        for name in &arguments.unset_env {
            env[name] = Value::Null;
        }
    }
    if body.is_empty() {
        return Err(
            Failure::usage("nothing is to be changed").hint("`windlass pipeline update --help` lists what can be")
        );
    }
    Ok(body)
}

/// Registers one.
pub(super) async fn create(arguments: &CreateArguments, ui: &Ui) -> Result<Code, Failure> {
    let mut body = body(&arguments.settings)?;
    body.insert("name".to_owned(), Value::from(arguments.name.clone()));
    let client = arguments.settings.server.target()?.client;
    let raw = client.post("/pipelines", Some(&Value::Object(body))).await?;
    tell(&raw, arguments.settings.json, "registered", ui)
}

/// Changes one.
pub(super) async fn update(arguments: &UpdateArguments, ui: &Ui) -> Result<Code, Failure> {
    let body = Value::Object(changes(arguments)?);
    let client = arguments.settings.server.target()?.client;
    let raw = client.patch(&format!("/pipelines/{}", segment(&arguments.name)), &body).await?;
    tell(&raw, arguments.settings.json, "changed", ui)
}

fn tell(raw: &Value, json: bool, done: &str, ui: &Ui) -> Result<Code, Failure> {
    if json {
        ui.data(&raw.to_string());
    } else {
        let pipeline: Pipeline = shape::read(raw)?;
        ui.say(&format!("pipeline {} is {done}", pipeline.name));
    }
    Ok(Code::Done)
}

/// Lists them.
pub(super) async fn list_all(arguments: &list::ServerList, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let found = list(&client, "/pipelines", arguments.listing.limit()).await?;
    let columns = ["NAME", "DEFAULT BRANCH", "DEFINITION", "REPOSITORY", "DESCRIPTION"];
    let row = |item: &Value| {
        let pipeline: Pipeline = shape::read(item)?;
        let (definition, repository) = (pipeline.definition(), pipeline.repository.unwrap_or_default());
        Ok(vec![pipeline.name, pipeline.default_branch, definition, repository, pipeline.description])
    };
    arguments.listing.show(found, "pipelines", &columns, row, ui)?;
    Ok(Code::Done)
}

/// Shows one.
pub(super) async fn show(arguments: &ShowArguments, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let raw = get(&client, &arguments.name).await?;
    if arguments.json {
        ui.data(&raw.to_string());
        return Ok(Code::Done);
    }
    let pipeline: Pipeline = shape::read(&raw)?;
    let env = pipeline.env.iter().map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()));
    let timeout = pipeline.timeout_in_minutes.map(|minutes| format!("{minutes} min"));
    for (name, value) in [
        ("pipeline", pipeline.name.clone()),
        ("id", pipeline.id.clone()),
        ("for", pipeline.description.clone()),
        ("repository", pipeline.repository.clone().unwrap_or_default()),
        ("default branch", pipeline.default_branch.clone()),
        ("protected", pipeline.protected_refs.join(" ")),
        ("definition", pipeline.definition()),
        ("env", env.collect::<Vec<_>>().join(" ")),
        ("timeout", timeout.unwrap_or_default()),
        ("registered", pipeline.created_at.clone()),
    ] {
        if !value.is_empty() {
            ui.data(&format!("{name:<15} {value}"));
        }
    }
    Ok(Code::Done)
}

/// A registered pipeline.
pub(super) async fn get(client: &Client, name: &str) -> Result<Value, Failure> {
    let answer = client.get(&format!("/pipelines/{}", segment(name))).await;
    answer.map_err(|error| {
        let failure = Failure::from(error);
        let unknown = failure.code == Code::Usage && failure.hint.is_none();
        if unknown { failure.hint("`windlass pipeline list` shows those that are registered") } else { failure }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Update {
        #[command(flatten)]
        arguments: UpdateArguments,
    }

    fn said(line: &str) -> Result<Value, String> {
        let words = ["update", "web"].into_iter().chain(line.split(' ').filter(|word| !word.is_empty()));
        let words = words.map(|word| word.trim_matches('\''));
        let update = Update::try_parse_from(words).map_err(|error| error.to_string())?;
        changes(&update.arguments).map(Value::Object).map_err(|failure| failure.what)
    }

    #[test]
    fn what_is_named_is_changed_and_an_empty_word_takes_away() {
        let all = said(
            "--repository https://git.example/web --default-branch trunk --file ci.yml --protect main --protect refs/tags/v* \
             --description shop --env A=1 --env B= --unset-env C --timeout 30",
        );
        assert_eq!(
            all.unwrap(),
            json!({"repository": "https://git.example/web", "default_branch": "trunk", "file": "ci.yml",
                "protected_refs": ["main", "refs/tags/v*"], "description": "shop", "env": {"A": "1", "B": "", "C": null},
                "timeout_in_minutes": 30})
        );
        let away = said("--repository '' --file '' --no-definition --no-protect --timeout 0");
        assert_eq!(
            away.unwrap(),
            json!({"repository": null, "file": null, "definition": null, "protected_refs": [],
                "timeout_in_minutes": null})
        );
        for wrong in ["", "--no-definition --definition x", "--env A", "--timeout soon", "--no-protect --protect x"] {
            assert!(said(wrong).is_err(), "{wrong}");
        }
    }
}
