//! `env get|set|unset|dump` and `workdir set`: the variables and the directory of the job's next phases (reference 19.10).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use windlass_agent_runner::mask::secrets_of;
use windlass_hands::wire::Kind;
use windlass_protocol::limits::{ENV_VARS_MAX, JOB_INPUT_MAX_BYTES};

use super::{Call, Fail, fatal};
use crate::job_api::changes::ChangeError;

/// How variables are given.
#[derive(Debug, Clone, Copy)]
enum Input {
    Plain,
    Json,
}

/// How results are shown.
enum Output {
    Quiet,
    Plain,
    Json { pretty: bool },
}

fn input(call: &Call<'_>) -> Result<Input, Fail> {
    match call.line.text("input-format") {
        "plain" => Ok(Input::Plain),
        "json" => Ok(Input::Json),
        other => Err(fatal(format!("invalid input format {other:?}"))),
    }
}

fn output(call: &Call<'_>, flag: &str) -> Result<Output, Fail> {
    match call.line.text(flag) {
        "quiet" if flag == "output-format" => Ok(Output::Quiet),
        "plain" => Ok(Output::Plain),
        "json" => Ok(Output::Json { pretty: false }),
        "json-pretty" => Ok(Output::Json { pretty: true }),
        other => Err(fatal(format!("invalid output format {other:?}"))),
    }
}

fn json(value: &impl Serialize, pretty: bool) -> Result<String, Fail> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    Ok(text.map_err(fatal)? + "\n")
}

pub(super) async fn get(call: &mut Call<'_>) -> Result<(), Fail> {
    let output = output(call, "format")?;
    let all = call.party.changes.variables();
    // Themselves, those that are chosen, and how they are shown.
    call.hands.share.grow(4 * all.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()).await?;
    let names = call.line.arguments.clone();
    let mut chosen = BTreeMap::new();
    let mut missing = false;
    for name in &names {
        match all.get(name) {
            Some(value) => drop(chosen.insert(name.clone(), value.clone())),
            None => {
                missing = true;
                call.note("warning", &format!("{name:?} is not set")).await?;
            }
        }
    }
    let shown = if names.is_empty() { all } else { chosen };
    let text = match output {
        Output::Plain if names.len() == 1 => shown.values().map(|value| format!("{value}\n")).collect(),
        Output::Plain => shown.iter().map(|(name, value)| format!("{name}={value}\n")).collect(),
        Output::Json { pretty } => json(&shown, pretty)?,
        Output::Quiet => String::new(),
    };
    call.print(&text).await?;
    if missing { Err(Fail::Silent(1)) } else { Ok(()) }
}

/// What variables are given by: the arguments, and for the first dash among them the lines of the input.
struct Given {
    arguments: Vec<String>,
    input: Option<String>,
}

impl Given {
    async fn take(call: &mut Call<'_>) -> Result<Self, Fail> {
        let arguments = call.line.arguments.clone();
        if !arguments.iter().any(|argument| argument == "-") {
            return Ok(Self { arguments, input: None });
        }
        // An input has one end: behind it there is nothing for a second dash.
        let bytes = call.hands.read_input(JOB_INPUT_MAX_BYTES).await?;
        let text = String::from_utf8(bytes).map_err(|_| fatal("the input is no text"))?;
        Ok(Self { arguments, input: Some(text) })
    }

    /// The bytes that are to be read.
    fn bytes(&self) -> usize {
        self.arguments.iter().chain(&self.input).map(String::len).sum()
    }

    /// Has each of them read.
    fn each(&self, mut read: impl FnMut(&str) -> Result<(), String>) -> Result<(), String> {
        let mut input = self.input.as_deref();
        for argument in &self.arguments {
            if argument != "-" {
                let told = read(argument);
                told.map_err(|error| format!("couldn't parse the command-line argument {argument:?}: {error}"))?;
                continue;
            }
            for (at, line) in input.take().into_iter().flat_map(str::lines).enumerate() {
                read(line).map_err(|error| format!("couldn't parse input line {}: {error}", at + 1))?;
            }
        }
        Ok(())
    }

    /// The variables that they set.
    fn values(&self, input: Input) -> Result<BTreeMap<String, String>, String> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        self.each(|text| {
            match input {
                Input::Plain => {
                    let (name, value) = text
                        .split_once('=')
                        .filter(|(name, _)| !name.is_empty())
                        .ok_or_else(|| format!("{text:?} is not in key=value format"))?;
                    values.insert(name.to_owned(), value.to_owned());
                }
                Input::Json => {
                    let more: BTreeMap<String, String> = serde_json::from_str(text).map_err(|it| it.to_string())?;
                    values.extend(more);
                }
            }
            counted(values.len())
        })?;
        Ok(values)
    }

    /// The names of variables that they are.
    fn names(&self, input: Input) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        self.each(|text| {
            match input {
                Input::Plain => names.push(text.to_owned()),
                Input::Json => names.extend(serde_json::from_str::<Vec<String>>(text).map_err(|it| it.to_string())?),
            }
            counted(names.len())
        })?;
        Ok(names)
    }
}

/// That so many variables can be meant.
fn counted(count: usize) -> Result<(), String> {
    if count > ENV_VARS_MAX { Err(ChangeError::TooMuch.to_string()) } else { Ok(()) }
}

/// What a text in JSON costs at most when it is read, a byte: an object of texts without a letter.
const JSON_COST: usize = 32;

/// Holds what reading so much costs.
async fn pay(call: &mut Call<'_>, given: &Given, input: Input) -> Result<(), Fail> {
    let each = match input {
        Input::Plain => 1,
        Input::Json => JSON_COST,
    };
    Ok(call.hands.share.grow(each * given.bytes()).await?)
}

pub(super) async fn set(call: &mut Call<'_>) -> Result<(), Fail> {
    let (input, output) = (input(call)?, output(call, "output-format")?);
    let given = Given::take(call).await?;
    pay(call, &given, input).await?;
    let values = call.party.account.work(move || given.values(input)).await?.map_err(fatal)?;
    // Before anything can read them: what is secret by its name appears in no log from now on.
    let named: Vec<(String, String)> = values.clone().into_iter().collect();
    for value in secrets_of(named.iter().map(|(name, value)| (name.as_str(), value.as_str()))).0 {
        let masked = call.party.masking.add(value).await;
        masked.map_err(|error| fatal(format!("couldn't update the job executor environment: {error}")))?;
    }
    let changes = Arc::clone(&call.party.changes);
    let set = call.party.account.work(move || changes.set(values)).await?;
    let set = set.map_err(|error| fatal(format!("couldn't update the job executor environment: {error}")))?;
    let text = match output {
        Output::Quiet => String::new(),
        Output::Plain if set.added.is_empty() && set.updated.is_empty() => {
            "No variables added or updated.\n".to_owned()
        }
        Output::Plain => listed("Added:", '+', &set.added) + &listed("Updated:", '~', &set.updated),
        Output::Json { pretty } => json(&set, pretty)?,
    };
    call.print(&text).await
}

fn listed(title: &str, mark: char, names: &[String]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let lines: String = names.iter().map(|name| format!("{mark} {name}\n")).collect();
    format!("{title}\n{lines}")
}

pub(super) async fn unset(call: &mut Call<'_>) -> Result<(), Fail> {
    let (input, output) = (input(call)?, output(call, "output-format")?);
    let given = Given::take(call).await?;
    pay(call, &given, input).await?;
    let names = call.party.account.work(move || given.names(input)).await?.map_err(fatal)?;
    let changes = Arc::clone(&call.party.changes);
    let unset = call.party.account.work(move || changes.unset(names)).await?;
    let unset =
        unset.map_err(|error| fatal(format!("couldn't unset the job executor environment variables: {error}")))?;
    let text = match output {
        Output::Quiet => String::new(),
        Output::Plain if unset.is_empty() => "No variables unset.\n".to_owned(),
        Output::Plain => listed("Unset:", '-', &unset),
        Output::Json { pretty } => json(&unset, pretty)?,
    };
    call.print(&text).await
}

pub(super) async fn dump(call: &mut Call<'_>) -> Result<(), Fail> {
    let pretty = match call.line.text("format") {
        "json" => false,
        "json-pretty" => true,
        other => return Err(fatal(format!("invalid output format {other:?}"))),
    };
    let text = json(&call.hands.environment, pretty)?;
    call.print(&text).await
}

pub(super) async fn set_directory(call: &mut Call<'_>) -> Result<(), Fail> {
    let [path] = call.line.arguments.as_slice() else { return Err(call.misused().await) };
    let path = path.clone();
    match call.hands.stat(&path, true).await? {
        Some(found) if found.kind == Kind::Directory => {}
        Some(_) => return Err(fatal(format!("{path} is not a directory"))),
        None => return Err(fatal(format!("{path} does not exist"))),
    }
    let whole = String::from_utf8(call.hands.absolute(&path));
    let whole = whole.map_err(|_| fatal("the working directory's path is no text"))?;
    let changes = Arc::clone(&call.party.changes);
    call.party.account.work(move || changes.set_directory(whole)).await?.map_err(fatal)
}
