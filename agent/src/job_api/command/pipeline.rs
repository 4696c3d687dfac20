//! `pipeline upload` (reference 1.1, 7, 14, 19.4): which texts, with which variables, and what of them goes to the
//! coordinator: documents in their normal form, so that neither variables nor secrets travel.

use std::sync::Arc;

use windlass_pipeline::file::{BUILDKITE, OWN};
use windlass_pipeline::normal::{
    Changed, Documents, Failed, Normal, NotJson, Session, apply_if_changed, has_if_changed, to_json, to_placed_json,
    to_yaml,
};
use windlass_pipeline::render::Interpolation;
use windlass_pipeline::secret::{Check, PATTERNS};
use windlass_pipeline::yaml::{Kind, Node};
use windlass_pipeline::{Diagnostic, Severity};
use windlass_protocol::call::part;
use windlass_protocol::limits::{PIPELINE_MAX_BYTES, SECRET_MIN_BYTES};
use windlass_protocol::message::{Asked, Told};

use super::{Call, Fail, changed, fatal, untold};

/// How documents are shown that are not uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Yaml,
}

/// One call of the command.
struct Upload {
    session: Session,
    /// What interpolation sees at its beginning; what an `env` block sets is no variable of the process.
    variables: Arc<Vec<(String, String)>>,
    patterns: Arc<Vec<String>>,
    /// Shown in place of being uploaded.
    dry: Option<Format>,
    /// Documents so far.
    count: u64,
    /// Files that have changed; asked for once, by the first step that waits for some.
    changed: Option<Arc<Option<Vec<String>>>>,
}

pub(super) async fn upload(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    for flag in ["jwks-file", "signing-aws-kms-key", "signing-gcp-kms-key"] {
        if call.line.has(flag) {
            return Err(fatal(format!("pipeline upload --{flag}: signed pipelines are not served by Windlass")));
        }
    }
    let format = match call.line.text("format") {
        "json" => Format::Json,
        "yaml" => Format::Yaml,
        other => return Err(fatal(format!("invalid format {other:?}: it is json or yaml"))),
    };
    let files = call.line.arguments.clone();
    // What is missing is told before anything is done.
    let first = if files.is_empty() { Some(found(call).await?) } else { None };
    let interpolates = !call.line.is_on("no-interpolation");
    let variables = variables(call, interpolates).await?;
    let prefer_variables = call.line.texts("experiment").iter().any(|name| name == "interpolation-prefers-runtime-env");
    let interpolation = Interpolation { variables: &variables, prefer_variables };
    let session = Session::new(interpolates.then_some(&interpolation));
    let given = call.line.texts("redacted-vars").to_vec();
    let patterns = if given.is_empty() { PATTERNS.map(str::to_owned).to_vec() } else { given };
    let dry = call.line.is_on("dry-run").then_some(format);
    let (variables, patterns) = (Arc::new(variables), Arc::new(patterns));
    let mut upload = Upload { session, variables, patterns, dry, count: 0, changed: None };
    if let Some((file, text)) = first {
        return upload.text(call, file, text).await;
    }
    for file in files {
        let text = read(call, &file).await?;
        upload.text(call, file, text).await?;
    }
    Ok(())
}

/// The variables of the command's process. A commit that has a name is known by its id (reference 14.2, 1).
async fn variables(call: &mut Call<'_>, interpolates: bool) -> Result<Vec<(String, String)>, Fail> {
    const COMMIT: &str = "BUILDKITE_COMMIT";
    let mut variables = call.hands.environment.clone();
    let named = variables.get(COMMIT).filter(|name| interpolates && !name.is_empty()).cloned();
    if let Some(name) = named {
        match changed::commit(call, &name).await {
            Ok(id) => drop(variables.insert(COMMIT.to_owned(), id)),
            Err(Fail::Fatal(why)) => {
                call.note("warning", &format!("{COMMIT} is used as it is: {why}")).await?;
            }
            Err(other) => return Err(other),
        }
    }
    Ok(variables.into_iter().collect())
}

/// The input, or the one file that is there.
async fn found(call: &mut Call<'_>) -> Result<(String, String), Fail> {
    if call.hands.is_given {
        let bytes = call.hands.read_input(PIPELINE_MAX_BYTES).await?;
        let text = String::from_utf8(bytes).map_err(|_| fatal("the input is no text in UTF-8"))?;
        return Ok(("(stdin)".to_owned(), text));
    }
    let mut there = Vec::new();
    if call.hands.stat(OWN, true).await?.is_some() {
        there.push(OWN);
    } else {
        for file in BUILDKITE {
            if call.hands.stat(file, true).await?.is_some() {
                there.push(file);
            }
        }
    }
    match there.as_slice() {
        [file] => Ok(((*file).to_owned(), read(call, file).await?)),
        [] => Err(fatal(format!("could not find a default pipeline file: one of {OWN} {}", BUILDKITE.join(" ")))),
        many => Err(fatal(format!(
            "found multiple configuration files: {}. Please only have 1 configuration file present",
            many.join(", ")
        ))),
    }
}

async fn read(call: &mut Call<'_>, file: &str) -> Result<String, Fail> {
    let bytes = call.hands.read_file(file, PIPELINE_MAX_BYTES).await;
    let bytes = bytes.map_err(|error| fatal(format!("failed to read file {error}")))?;
    if bytes.is_empty() {
        return Err(fatal(format!("config file {file:?} is empty")));
    }
    String::from_utf8(bytes).map_err(|_| fatal(format!("{file} is no text in UTF-8")))
}

impl Upload {
    /// Reads a text, and uploads its documents one by one: those before one that fails stay. Reading, and whatever else takes
    /// long, is done in the job's own turn, and what is read is paid for from its account.
    async fn text(&mut self, call: &mut Call<'_>, file: String, text: String) -> Result<(), Fail> {
        let mut session = std::mem::replace(&mut self.session, Session::new(None));
        let expected = cost_of_text(&text);
        call.hands.share.grow(expected).await?;
        let reading = move || {
            let read = session.read(&text);
            let held = read.documents.iter().map(|normal| cost_of(&normal.document)).sum::<usize>();
            (session, read, held)
        };
        let (session, Documents { documents, failed }, held) = call.party.account.work(reading).await?;
        self.session = session;
        // Variables may have made it larger than it was written.
        let held = held.max(expected);
        call.hands.share.grow(held - expected).await?;
        for document in documents {
            self.document(call, &file, document).await?;
        }
        call.hands.share.shrink(held);
        let (doing, errors) = match failed {
            None => return Ok(()),
            Some(Failed::Parsing(errors)) => ("parsing", errors),
            Some(Failed::Interpolation(errors)) => ("interpolation", errors),
        };
        Err(fatal(format!("pipeline {doing} of {file:?} failed: {}", told(&file, &errors))))
    }

    async fn document(&mut self, call: &mut Call<'_>, file: &str, normal: Normal) -> Result<(), Fail> {
        let Normal { document, mut warnings } = normal;
        let (document, more) = self.decide(call, document).await?;
        warnings.extend(more);
        if !warnings.is_empty() {
            let words = format!("pipeline parsing of {file:?} completed with warnings: {}", told(file, &warnings));
            if call.line.is_on("reject-parse-warnings") {
                return Err(fatal(words));
            }
            call.note("warning", &words).await?;
        }
        let document = self.look_for_secrets(call, file, document).await?;
        self.count += 1;
        match self.dry {
            Some(format) => self.show(call, document, format).await,
            None => self.send(call, file, document).await,
        }
    }

    /// Decides `if_changed`, and takes it away; what is to be said of that.
    async fn decide(&mut self, call: &mut Call<'_>, document: Node) -> Result<(Node, Vec<Diagnostic>), Fail> {
        if !has_if_changed(&document) {
            return Ok((document, Vec::new()));
        }
        let applies = call.line.is_on("apply-if-changed");
        let files = match &self.changed {
            _ if !applies => Arc::default(),
            Some(files) => Arc::clone(files),
            None => Arc::new(changed::files(call).await?),
        };
        if applies {
            self.changed = Some(Arc::clone(&files));
        }
        let deciding = move || {
            let mut document = document;
            let changed = files.as_ref().as_deref().map_or(Changed::Unknown, Changed::Files);
            let warnings = apply_if_changed(&mut document, changed);
            (document, warnings)
        };
        Ok(call.party.account.work(deciding).await?)
    }

    /// What is secret must not become part of a pipeline (reference 14.3).
    async fn look_for_secrets(&self, call: &mut Call<'_>, file: &str, document: Node) -> Result<Node, Fail> {
        let (patterns, variables) = (Arc::clone(&self.patterns), Arc::clone(&self.variables));
        let (allow, given) = (call.line.is_on("allow-secrets"), call.party.secrets.values());
        let looking = move || {
            let is_given = |text: &str| given.iter().any(|value| is_long(value) && text.contains(value.as_str()));
            if holds(&document, &is_given) {
                return (document, None);
            }
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let found = Check { patterns: &patterns, variables: &variables, allow }.document(&document);
            (document, Some(found))
        };
        let (document, found) = call.party.account.work(looking).await?;
        // Not even with --allow-secrets: the text becomes a row, and is shown to whoever may see the build.
        let given = || fatal(format!("pipeline {file:?} contains the value of a secret, and cannot be uploaded"));
        let found = found.ok_or_else(given)?;
        if found.is_empty() {
            return Ok(document);
        }
        let words = format!("pipeline {file:?} holds secrets: {}", told(file, &found));
        if found.iter().any(|found| found.severity == Severity::Error) {
            return Err(fatal(format!("{words}; --allow-secrets uploads it regardless")));
        }
        call.note("warning", &words).await?;
        Ok(document)
    }

    async fn show(&self, call: &mut Call<'_>, document: Node, format: Format) -> Result<(), Fail> {
        let later = self.count > 1;
        let showing = move || {
            let json = to_json(&document)?;
            Ok::<_, NotJson>(match format {
                Format::Json => format!("{json:#}\n"),
                Format::Yaml if later => format!("---\n{}", to_yaml(&json)),
                Format::Yaml => to_yaml(&json),
            })
        };
        let text = call.party.account.work(showing).await?.map_err(fatal)?;
        call.print(&text).await
    }

    async fn send(&self, call: &mut Call<'_>, file: &str, document: Node) -> Result<(), Fail> {
        let writing = move || {
            let placed = to_placed_json(&document)?;
            if placed.len() <= PIPELINE_MAX_BYTES {
                Ok(placed)
            } else {
                to_json(&document).map(|json| json.to_string())
            }
        };
        let text = call.party.account.work(writing).await?.map_err(fatal)?;
        if text.len() > PIPELINE_MAX_BYTES {
            let bytes = text.len();
            return Err(fatal(format!("pipeline {file:?} has {bytes} bytes; {PIPELINE_MAX_BYTES} are the most")));
        }
        // Each document is an upload of its own; a call that is made again makes the same ones.
        let number = part(call.hands.call, self.count - 1);
        // A later document does not take the place of those before it.
        let replace = call.line.is_on("replace") && self.count == 1;
        let what = Asked::UploadPipeline { replace, file: file.to_owned() };
        match call.ask_as(number, what, text.as_bytes()).await? {
            Told::Done => Ok(()),
            other => Err(untold("failed to upload and process pipeline", other)),
        }
    }
}

/// What a value costs beside its text, with its key and its place.
const NODE_BYTES: usize = 128;

/// What a text comes to once it is read, at most: each value is parted from the next by one of these, and its text is kept
/// beside what was read.
fn cost_of_text(text: &str) -> usize {
    let parts = text.bytes().filter(|byte| b"\n,:[{-".contains(byte)).count();
    2 * text.len() + NODE_BYTES * (parts + 1)
}

/// What a tree costs. Recursion ends at `PIPELINE_DEPTH_MAX`.
fn cost_of(node: &Node) -> usize {
    NODE_BYTES
        + match &node.kind {
            Kind::List(items) => items.iter().map(cost_of).sum(),
            Kind::Map(map) => map.iter().map(|entry| entry.key.len() + cost_of(&entry.value)).sum(),
            Kind::Time(text) | Kind::Text(text) => text.len(),
            Kind::Null | Kind::Bool(_) | Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) => 0,
        }
}

/// Whether a value is so long that it is no word by chance.
const fn is_long(value: &str) -> bool {
    value.len() >= SECRET_MIN_BYTES
}

/// Whether a key or a value anywhere in it is such a text. Recursion ends at `PIPELINE_DEPTH_MAX`.
fn holds(node: &Node, is: &dyn Fn(&str) -> bool) -> bool {
    match &node.kind {
        Kind::List(items) => items.iter().any(|item| holds(item, is)),
        Kind::Map(map) => map.iter().any(|entry| is(&entry.key) || holds(&entry.value, is)),
        Kind::Time(text) | Kind::Text(text) => is(text),
        Kind::Int(number) => is(&number.to_string()),
        Kind::Unsigned(number) => is(&number.to_string()),
        Kind::Float(number) => is(&number.to_string()),
        Kind::Null | Kind::Bool(_) => false,
    }
}

/// What was found, and where.
fn told(file: &str, found: &[Diagnostic]) -> String {
    let one = |found: &Diagnostic| {
        let hint = found.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{file}:{}:{}: {}{hint}", found.span.line, found.span.column, found.message)
    };
    found.iter().map(one).collect::<Vec<_>>().join("\n")
}
