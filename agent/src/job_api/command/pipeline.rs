//! `pipeline upload`: steps that a job adds to its build (reference 1.1, 7, 19.4).

use std::collections::BTreeMap;

use windlass_agent_runner::mask::is_secret_name;
use windlass_pipeline::file::{BUILDKITE, OWN};
use windlass_protocol::limits::{ENV_MAX_BYTES, PIPELINE_MAX_BYTES, SECRET_MIN_BYTES};
use windlass_protocol::message::{Asked, Told};

use super::{Call, Fail, fatal, untold};

pub(super) async fn upload(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    for flag in ["dry-run", "no-interpolation", "reject-parse-warnings"] {
        if call.line.is_on(flag) {
            return Err(fatal(format!("pipeline upload --{flag} is not served yet by this version of Windlass")));
        }
    }
    for flag in ["jwks-file", "signing-aws-kms-key", "signing-gcp-kms-key"] {
        if call.line.has(flag) {
            return Err(fatal(format!("pipeline upload --{flag}: signed pipelines are not served by Windlass")));
        }
    }
    let files = call.line.arguments.clone();
    if files.is_empty() {
        let (file, text) = found(call).await?;
        return send(call, 0, file, text).await;
    }
    for (at, file) in files.into_iter().enumerate() {
        let text = read(call, &file).await?;
        send(call, at, file, text).await?;
    }
    Ok(())
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

/// Uploads one text, with the variables that it names.
async fn send(call: &mut Call<'_>, at: usize, file: String, text: String) -> Result<(), Fail> {
    let variables = named(&text, &call.hands.environment);
    let variables = variables.map_err(|bytes| {
        fatal(format!("{file:?} names variables of {bytes} bytes together, and {ENV_MAX_BYTES} are the most"))
    })?;
    let secret = |(name, value): &&(String, String)| is_secret_name(name) && value.len() >= SECRET_MIN_BYTES;
    let secrets: Vec<&str> = variables.iter().filter(secret).map(|(name, _)| name.as_str()).collect();
    let given = call.party.secrets.values();
    let holds = |text: &str| given.iter().any(|value| value.len() >= SECRET_MIN_BYTES && text.contains(value.as_str()));
    if holds(&text) || variables.iter().any(|(_, value)| holds(value)) {
        // Not even with --allow-secrets: the text becomes a row, and is shown to whoever may see the build.
        return Err(fatal(format!("pipeline {file:?} contains the value of a secret, and cannot be uploaded")));
    }
    if !secrets.is_empty() {
        let words =
            format!("{file:?} contains values interpolated from secret environment variables {}", secrets.join(", "));
        if !call.line.is_on("allow-secrets") {
            return Err(fatal(format!("pipeline {words}, and cannot be uploaded to Buildkite")));
        }
        call.note("warning", &format!("pipeline {words}")).await?;
    }
    // Each file is an upload of its own; a call that is made again makes the same ones.
    let mut number = call.hands.call;
    for (byte, of) in number.iter_mut().rev().zip(at.to_le_bytes()) {
        *byte ^= of;
    }
    let what = Asked::UploadPipeline { replace: call.line.is_on("replace"), variables, file };
    match call.ask_as(number, what, text.as_bytes()).await? {
        Told::Done => Ok(()),
        other => Err(untold("failed to upload and process pipeline", other)),
    }
}

/// The variables that a text names after a `$`: what of it is a name to interpolation is among them. Where they are too
/// much together, so many bytes.
fn named(text: &str, environment: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, usize> {
    let mut all = BTreeMap::new();
    for (at, _) in text.match_indices('$') {
        let rest = text.get(at + 1..).unwrap_or_default();
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        // None is copied before all of them are known: a text may name one two million times.
        if let Some((name, value)) = environment.get_key_value(rest.get(..end).unwrap_or_default()) {
            all.insert(name, value);
        }
    }
    let bytes = all.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > ENV_MAX_BYTES {
        return Err(bytes);
    }
    Ok(all.into_iter().map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_text_names_goes_with_it() {
        let environment = ["A", "B_1", "C", "D", "SECRET_TOKEN"].map(|name| (name.to_owned(), name.to_lowercase()));
        let text = "a: $A ${B_1:-x} ${C} \\$D $$ ${ $9 $\u{e9}";
        let all = named(text, &environment.into()).unwrap();
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B_1", "C", "D"]);
    }

    #[test]
    fn a_variable_is_taken_once_however_often_it_is_named_and_all_of_them_up_to_an_environment_s_bytes() {
        let environment = [("A".to_owned(), "x".repeat(ENV_MAX_BYTES - 1)), ("B".to_owned(), "y".to_owned())].into();
        // Copied as often as it is named, it would be half a terabyte.
        assert_eq!(named(&"$A".repeat(2 << 20), &environment).unwrap().len(), 1);
        assert_eq!(named("$A$B", &environment), Err(ENV_MAX_BYTES + 2));
    }
}
