//! `windlass cache pin --build` and `cache ls --pins`: builds of which all stays.

use clap::{ArgGroup, Args};
use indicatif::HumanBytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::list::list;
use super::super::serve::duration_ms;
use super::super::{find_build, reach};
use super::entry::{self, ListArguments};
use crate::client::{Client, ServerArguments, segment, shape};
use crate::error::{Code, Failure};
use crate::ui::{Ui, text};

/// A pinned cache neither makes room for others nor goes because nobody uses it. At most half of what a pipeline's caches may
/// have together can be pinned, and none that an untrusted build saved.
///
/// With --build it is a build that is pinned, a release: its artifacts, its logs, its source, the inputs and results of its steps
/// stay whatever their age, until the pin ends or is undone; of a build that goes on, what it makes too. Saying it again changes
/// name and end, and what is not said stays as it was. Only trusted builds can be pinned. What of the build had gone before is
/// told, and then the command ends with 1; the rest is pinned all the same.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["id", "build"]))]
pub(crate) struct PinArguments {
    /// A cache's id, as `windlass cache ls` shows it.
    id: Option<String>,
    /// A build: its id, PIPELINE/NUMBER, or `latest`.
    #[arg(long)]
    build: Option<String>,
    /// What the build's pin is called: a release's name. No other pin of the pipeline has it.
    #[arg(long, requires = "build", conflicts_with = "id")]
    name: Option<String>,
    /// When the build's pin ends: a time such as 2027-01-31T08:00:00Z, or `never`.
    #[arg(long, value_name = "TIME", requires = "build", conflicts_with_all = ["id", "lasting"], value_parser = until)]
    until: Option<End>,
    /// How long the build's pin lasts from now on, such as 90d.
    #[arg(long = "for", id = "lasting", value_name = "DURATION", requires = "build", conflicts_with = "id", value_parser = seconds)]
    lasting: Option<u64>,
    /// Let it go again when its time is over.
    #[arg(long, conflicts_with_all = ["name", "until", "lasting"])]
    undo: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// When a pin ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Never,
    /// As RFC 3339 has it; what is no time goes to the server as it is, which says what is wrong with it.
    At(String),
}

impl End {
    fn value(&self) -> Value {
        match self {
            Self::Never => Value::Null,
            Self::At(text) => Value::String(text.clone()),
        }
    }
}

fn until(text: &str) -> Result<End, String> {
    if text == "never" {
        return Ok(End::Never);
    }
    match humantime::parse_rfc3339_weak(text) {
        Ok(_) => Ok(End::At(text.to_owned())),
        Err(_) => Err("a time such as 2027-01-31T08:00:00Z, or never; for a duration there is --for".to_owned()),
    }
}

/// A duration; begun seconds are whole.
fn seconds(text: &str) -> Result<u64, String> {
    match duration_ms(text)?.div_ceil(1_000) {
        0 => Err("more than nothing".to_owned()),
        seconds => Ok(seconds),
    }
}

/// A pin of a build.
#[derive(Debug, Deserialize)]
struct Pin {
    build_id: String,
    build_number: u64,
    pipeline: String,
    name: Option<String>,
    pinned_by: String,
    pinned_at: String,
    until: Option<String>,
    files: u64,
    bytes: u64,
    results: u64,
    results_left_out: u64,
    gone: Gone,
}

#[derive(Debug, Deserialize)]
struct Gone {
    files: u64,
    bytes: u64,
    blobs: u64,
    results: u64,
}

#[derive(Debug, Deserialize)]
struct Answer {
    pin: Pin,
    before: Option<Before>,
}

#[derive(Debug, Deserialize)]
struct Undone {
    before: Option<Before>,
}

#[derive(Debug, Deserialize)]
struct Before {
    name: Option<String>,
    until: Option<String>,
}

impl Pin {
    fn title(&self) -> String {
        let name = self.name.as_ref().map(|name| format!(" ({})", text::shown(name))).unwrap_or_default();
        format!("{}/{}{name}", self.pipeline, self.build_number)
    }

    fn holds(&self) -> String {
        let results = if self.results > 0 { format!(", {} results", self.results) } else { String::new() };
        format!("{} artifacts, {}{results}", self.files, HumanBytes(self.bytes))
    }

    /// What had gone before it was pinned, in words.
    fn lacks(&self) -> Vec<String> {
        let Gone { files, bytes, blobs, results } = &self.gone;
        let mut lacks = Vec::new();
        if *files > 0 {
            let of = files.saturating_add(self.files);
            lacks.push(format!("{files} of its {of} artifacts, {}, whose time was over", HumanBytes(*bytes)));
        }
        if *blobs > 0 {
            lacks.push(format!(
                "{blobs} files or directories of its source and its steps' inputs: it cannot be built again"
            ));
        }
        if *results > 0 {
            lacks.push(format!("{results} results of its steps: those steps run when it is built again"));
        }
        lacks
    }
}

fn end(until: Option<&String>) -> String {
    until.map_or_else(|| "until it is undone".to_owned(), |until| format!("until {until}"))
}

/// What was done, in a sentence.
fn told(Answer { pin, before }: &Answer) -> String {
    let title = pin.title();
    let holds = pin.holds();
    let Some(before) = before else {
        return format!("{title} is pinned {}: {holds}", end(pin.until.as_ref()));
    };
    let mut changes = Vec::new();
    if before.until != pin.until {
        changes.push(format!("from now on {}, before {}", end(pin.until.as_ref()), end(before.until.as_ref())));
    }
    if before.name != pin.name {
        changes.push(match &before.name {
            Some(name) => format!("it was called {}", text::shown(name)),
            None => "it had no name".to_owned(),
        });
    }
    if changes.is_empty() {
        return format!("{title} was pinned already, {}: {holds}", end(pin.until.as_ref()));
    }
    format!("{title} was pinned already; {}: {holds}", changes.join("; "))
}

/// Lets a cache or a build stay, or no longer.
pub(super) async fn run(arguments: &PinArguments, ui: &Ui) -> Result<Code, Failure> {
    let PinArguments { id, build, undo, json, server, .. } = arguments;
    let client = server.target()?.client;
    match (id, build) {
        (Some(id), _) => entry::pin(&client, id, *undo, *json, ui).await,
        (None, Some(build)) if *undo => undo_pin(&client, build, *json, ui).await,
        (None, Some(build)) => pin_build(&client, build, arguments, ui).await,
        (None, None) => Err(Failure::usage("name a cache by its id, or a build with --build")),
    }
}

async fn pin_build(client: &Client, build: &str, arguments: &PinArguments, ui: &Ui) -> Result<Code, Failure> {
    let (build, _) = find_build(client, build).await?;
    let mut said = Map::new();
    if let Some(name) = &arguments.name {
        said.insert("name".to_owned(), json!(name));
    }
    if let Some(end) = &arguments.until {
        said.insert("until".to_owned(), end.value());
    }
    if let Some(seconds) = arguments.lasting {
        said.insert("for_s".to_owned(), json!(seconds));
    }
    let raw = client.put(&format!("/builds/{}/pin", segment(&build.id)), &Value::Object(said)).await?;
    let answer: Answer = shape::read(&raw)?;
    if arguments.json {
        ui.data(&raw.to_string());
    } else {
        ui.say(&told(&answer));
    }
    if answer.pin.results_left_out > 0 {
        let left_out = answer.pin.results_left_out;
        ui.say(&format!(
            "{left_out} of its steps' results are not held: pins of the pipeline hold as many as they may"
        ));
    }
    let lacks = answer.pin.lacks();
    if lacks.is_empty() {
        return Ok(Code::Done);
    }
    let mut failure = Failure::new(Code::Failed, "some of the build had gone before it was pinned; the rest stays");
    failure.causes.extend(lacks);
    Err(failure)
}

async fn undo_pin(client: &Client, word: &str, json: bool, ui: &Ui) -> Result<Code, Failure> {
    let (build, _) = find_build(client, word).await?;
    let raw = client.delete(&format!("/builds/{}/pin", segment(&build.id))).await?;
    let Undone { before } = shape::read(&raw)?;
    if json {
        ui.data(&json!({ "build_id": build.id, "unpinned": before.is_some() }).to_string());
    } else {
        ui.say(&undone(&build.name(), before.as_ref()));
    }
    Ok(Code::Done)
}

/// What was undone, in a sentence.
fn undone(build: &str, before: Option<&Before>) -> String {
    match before {
        Some(_) => format!("{build} is not pinned any more: what is past its time goes within the hour"),
        None => format!("{build} was not pinned"),
    }
}

/// Lists pins of builds.
pub(super) async fn list_pins(arguments: &ListArguments, ui: &Ui) -> Result<Code, Failure> {
    let ListArguments { pipeline, list: listed, .. } = arguments;
    let of = pipeline.as_ref().map(|pipeline| format!("?pipeline={}", segment(pipeline))).unwrap_or_default();
    let reached = reach::to_read(&listed.server).await?;
    let found = list(reached.client(), &format!("/pins{of}"), listed.listing.limit()).await;
    reached.end().await;
    let columns = ["BUILD", "NAME", "BY", "PINNED", "UNTIL", "FILES", "SIZE", "RESULTS", "ID", ""];
    listed.listing.show(found?, "pinned builds", &columns, row, ui)?;
    Ok(Code::Done)
}

fn row(item: &Value) -> Result<Vec<String>, Failure> {
    let pin: Pin = shape::read(item)?;
    let lacks = if pin.lacks().is_empty() { "" } else { "incomplete" };
    Ok(vec![
        format!("{}/{}", pin.pipeline, pin.build_number),
        text::shown(pin.name.as_deref().unwrap_or_default()),
        text::shown(&pin.pinned_by),
        text::ago(Some(&pin.pinned_at)),
        pin.until.unwrap_or_else(|| "never".to_owned()),
        pin.files.to_string(),
        HumanBytes(pin.bytes).to_string(),
        pin.results.to_string(),
        pin.build_id,
        lacks.to_owned(),
    ])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        pin: PinArguments,
    }

    fn parsed(line: &str) -> Result<PinArguments, String> {
        let words = std::iter::once("pin").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.pin).map_err(|error| error.to_string())
    }

    #[test]
    fn a_cache_or_a_build_is_named_and_only_a_build_s_pin_has_a_name_and_an_end() {
        for good in ["4711", "4711 --undo", "--build web/3", "--build web/3 --name v1 --for 90d", "--build b --undo"] {
            assert!(parsed(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "--undo",
            "4711 --build web/3",
            "4711 --name v1",
            "4711 --for 1d",
            "--build b --for 1d --until never",
            "--build b --undo --name v1",
            "--build b --undo --for 1d",
            "--build b --until tomorrow",
            "--build b --for 0s",
        ] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
        assert_eq!(parsed("--build b --until never").unwrap().until, Some(End::Never));
        assert_eq!(parsed("--build b --for 1d").unwrap().lasting, Some(86_400));
        assert_eq!(parsed("--build b --for 1ms").unwrap().lasting, Some(1));
        let neither = parsed("--name v1").unwrap_err();
        assert!(neither.contains("ID") && neither.contains("--build <BUILD>"), "{neither}");
    }

    fn pin(name: Option<&str>, until: Option<&str>, gone: (u64, u64, u64)) -> Pin {
        let (files, blobs, results) = gone;
        let gone = json!({ "files": files, "bytes": files, "blobs": blobs, "results": results });
        let pin = json!({
            "build_id": "id", "build_number": 3, "pipeline": "web", "name": name, "pinned_by": "ada",
            "pinned_at": "2026-01-01T00:00:00.000Z", "until": until, "files": 2, "bytes": 2048, "results": 1,
            "results_left_out": 0, "gone": gone
        });
        serde_json::from_value(pin).unwrap()
    }

    #[test]
    fn what_is_done_is_told_with_what_it_was_before() {
        let before = |name: Option<&str>, until: Option<&str>| {
            Some(Before { name: name.map(str::to_owned), until: until.map(str::to_owned) })
        };
        let holds = "2 artifacts, 2.00 KiB, 1 results";
        for (now, before, expected) in [
            (pin(Some("v1"), None, (0, 0, 0)), None, format!("web/3 (v1) is pinned until it is undone: {holds}")),
            (pin(None, Some("T"), (0, 0, 0)), None, format!("web/3 is pinned until T: {holds}")),
            (
                pin(None, Some("T"), (0, 0, 0)),
                before(None, Some("T")),
                format!("web/3 was pinned already, until T: {holds}"),
            ),
            (
                pin(Some("v2"), None, (0, 0, 0)),
                before(Some("v1"), Some("T")),
                format!(
                    "web/3 (v2) was pinned already; from now on until it is undone, before until T; it was called v1: {holds}"
                ),
            ),
        ] {
            assert_eq!(told(&Answer { pin: now, before }), expected);
        }
        assert!(undone("web/3", before(None, None).as_ref()).starts_with("web/3 is not pinned any more: "));
        assert_eq!(undone("web/3", None), "web/3 was not pinned");
    }

    #[test]
    fn each_kind_of_what_is_gone_is_named() {
        assert_eq!(pin(None, None, (0, 0, 0)).lacks(), [""; 0]);
        let lacks = pin(None, None, (1, 2, 3)).lacks();
        assert!(lacks[0].starts_with("1 of its 3 artifacts"), "{lacks:?}");
        assert!(lacks[1].contains("cannot be built again") && lacks[2].starts_with("3 results"), "{lacks:?}");
    }
}
