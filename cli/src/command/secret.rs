//! `windlass secret`: values for jobs that must not be seen.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use windlass_protocol::Secret;
use windlass_protocol::limits::SECRET_MAX_BYTES;

use super::list;
use crate::client::shape::{self, SecretShown};
use crate::client::{ServerArguments, segment};
use crate::error::{Code, Failure};
use crate::ui::{Ui, text};

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Set a secret to what the input or a file holds.
    Set(SetArguments),
    /// List secrets, without their values.
    List(list::ServerList),
    /// Remove a secret; jobs that have it already keep it.
    #[command(name = "rm")]
    Remove(RemoveArguments),
}

/// The value is never an argument, which others could see. One newline at its end is left out. Trusted builds get it,
/// as a variable by `secrets:` of a step or with `buildkite-agent secret get`; of several secrets with one key a job gets
/// the one that is narrowest for it.
#[derive(Debug, Args)]
pub(crate) struct SetArguments {
    #[command(flatten)]
    which: Which,
    /// A file that holds the value; the input without it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Which secret.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Its key: letters, digits, `_`, `-` and `.`, in whatever case.
    key: String,
    /// Only for builds of this pipeline.
    #[arg(long)]
    pipeline: Option<String>,
    /// Only for branches that this pattern matches; `*` is any characters.
    #[arg(long, value_name = "PATTERN")]
    branch: Option<String>,
    /// Only for agents in this zone.
    #[arg(long)]
    zone: Option<String>,
}

/// Which one; named exactly as it was set.
#[derive(Debug, Args)]
pub(crate) struct RemoveArguments {
    #[command(flatten)]
    which: Which,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Runs one of them.
pub(crate) async fn run(command: SecretCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        SecretCommand::Set(arguments) => set(arguments, ui).await,
        SecretCommand::List(arguments) => list_secrets(&arguments, ui).await,
        SecretCommand::Remove(arguments) => remove(&arguments, ui).await,
    }
}

async fn set(arguments: SetArguments, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let value = value(&arguments)?;
    let Which { key, pipeline, branch, zone } = arguments.which;
    let body = json!({ "key": key, "value": value.expose(), "pipeline": pipeline, "branch": branch, "zone": zone });
    let raw = client.post_again("/secrets", Some(&body)).await?;
    if arguments.json {
        ui.data(&raw.to_string());
    } else {
        let secret: SecretShown = shape::read(&raw)?;
        ui.say(&format!("secret {} is set for {}", secret.key, secret.whom()));
    }
    Ok(Code::Done)
}

/// What the file or the input holds, without the newline that ends it.
fn value(arguments: &SetArguments) -> Result<Secret<String>, Failure> {
    let bytes = match &arguments.file {
        Some(path) => {
            let file = std::fs::File::open(path);
            file.and_then(read).map_err(|e| Failure::system(format!("{} cannot be read", path.display()), &e))?
        }
        None if std::io::stdin().is_terminal() => {
            let term = console::Term::stderr();
            let typed = term.write_str(&format!("value of {}: ", arguments.which.key)).and_then(|()| {
                // Not shown while it is typed.
                term.read_secure_line()
            });
            typed.map_err(|e| Failure::system("the value cannot be read", &e))?.into_bytes()
        }
        None => read(std::io::stdin().lock()).map_err(|e| Failure::system("the input cannot be read", &e))?,
    };
    if bytes.len() > SECRET_MAX_BYTES + 1 {
        return Err(Failure::usage(format!("a secret has at most {SECRET_MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Failure::usage("the value is no text in UTF-8")
            .hint("encode it, for example with base64, and decode it in the job")
    })?;
    Ok(Secret::new(text.strip_suffix('\n').map_or_else(|| text.clone(), str::to_owned)))
}

fn read(from: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(SECRET_MAX_BYTES as u64 + 2).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn list_secrets(arguments: &list::ServerList, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let found = list(&client, "/secrets", arguments.listing.limit()).await?;
    let columns = ["KEY", "PIPELINE", "BRANCH", "ZONE", "SET", "BY"];
    let row = |item: &Value| {
        let secret: SecretShown = shape::read(item)?;
        Ok(vec![
            secret.key,
            secret.pipeline.unwrap_or_default(),
            secret.branch.unwrap_or_default(),
            secret.zone.unwrap_or_default(),
            text::ago(secret.updated_at.as_deref()),
            secret.updated_by.map(|creator| creator.name).unwrap_or_default(),
        ])
    };
    arguments.listing.show(found, "secrets", &columns, row, ui)?;
    Ok(Code::Done)
}

async fn remove(arguments: &RemoveArguments, ui: &Ui) -> Result<Code, Failure> {
    let client = arguments.server.target()?.client;
    let Which { key, pipeline, branch, zone } = &arguments.which;
    let whom = [("pipeline", pipeline), ("branch", branch), ("zone", zone)];
    let whom: Vec<String> =
        whom.iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_deref()?)))).collect();
    let query = if whom.is_empty() { String::new() } else { format!("?{}", whom.join("&")) };
    client.delete(&format!("/secrets/{}{query}", segment(key))).await?;
    if arguments.json {
        let name =
            json!({ "key": key.to_uppercase(), "pipeline": pipeline, "branch": branch, "zone": zone, "removed": true });
        ui.data(&name.to_string());
    } else {
        ui.say(&format!("secret {} is gone", key.to_uppercase()));
    }
    Ok(Code::Done)
}
