//! `env get|set|unset|dump` and `workdir set`: the variables and the directory of the job's next phases (reference 19.10).

use std::collections::BTreeMap;

use serde::Serialize;
use windlass_agent_runner::mask::secrets_of;
use windlass_hands::wire::Kind;
use windlass_protocol::limits::JOB_INPUT_MAX_BYTES;

use super::{Call, Fail, fatal};

/// How variables are given.
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

/// What the arguments give, and for a dash the lines of the input, each read by `read`.
async fn given(call: &mut Call<'_>, mut read: impl FnMut(&str) -> Result<(), String>) -> Result<(), Fail> {
    for argument in call.line.arguments.clone() {
        if argument != "-" {
            let told = read(&argument);
            told.map_err(|error| fatal(format!("couldn't parse the command-line argument {argument:?}: {error}")))?;
            continue;
        }
        let bytes = call.hands.read_input(JOB_INPUT_MAX_BYTES).await?;
        let text = String::from_utf8(bytes).map_err(|_| fatal("the input is no text"))?;
        for (at, line) in text.lines().enumerate() {
            read(line).map_err(|error| fatal(format!("couldn't parse input line {}: {error}", at + 1)))?;
        }
    }
    Ok(())
}

pub(super) async fn set(call: &mut Call<'_>) -> Result<(), Fail> {
    let (input, output) = (input(call)?, output(call, "output-format")?);
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    given(call, |text| match input {
        Input::Plain => {
            let (name, value) = text
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| format!("{text:?} is not in key=value format"))?;
            values.insert(name.to_owned(), value.to_owned());
            Ok(())
        }
        Input::Json => {
            let more: BTreeMap<String, String> = serde_json::from_str(text).map_err(|error| error.to_string())?;
            values.extend(more);
            Ok(())
        }
    })
    .await?;
    // Before anything can read them: what is secret by its name appears in no log from now on.
    let named: Vec<(String, String)> = values.clone().into_iter().collect();
    for value in secrets_of(named.iter().map(|(name, value)| (name.as_str(), value.as_str()))).0 {
        let masked = call.party.masking.add(value).await;
        masked.map_err(|error| fatal(format!("couldn't update the job executor environment: {error}")))?;
    }
    let set = call.party.changes.set(values);
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
    let mut names = Vec::new();
    given(call, |text| match input {
        Input::Plain => {
            names.push(text.to_owned());
            Ok(())
        }
        Input::Json => {
            names.extend(serde_json::from_str::<Vec<String>>(text).map_err(|error| error.to_string())?);
            Ok(())
        }
    })
    .await?;
    let unset = call.party.changes.unset(names);
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
    call.party.changes.set_directory(whole).map_err(fatal)
}
