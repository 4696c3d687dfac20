//! `secret get`: values that are masked before the job can print them (reference 19.10).

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::Secret;
use windlass_protocol::message::{Asked, Told};

use super::{Call, Fail, fatal, untold};

pub(super) async fn get(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    let keys = call.line.arguments.clone();
    if keys.is_empty() {
        return Err(call.misused().await);
    }
    let format = call.line.text("format").to_owned();
    if !matches!(format.as_str(), "default" | "json" | "env") {
        return Err(fatal(format!("invalid format {format:?}: must be one of 'default', 'json', or 'env'")));
    }
    if call.line.is_on("skip-redaction") {
        call.note("warning", "--skip-redaction has no effect: secrets are always redacted").await?;
    }
    let told = call.ask(Asked::GetSecrets { keys: keys.clone() }, &[]).await?;
    let Told::Secrets(values) = told else { return Err(untold("failed to get secrets", told)) };
    let values: Vec<Secret<String>> = values.into_iter().map(Secret::from).collect();
    for value in &values {
        call.party.secrets.add(value.clone());
    }
    let mut forms: BTreeSet<String> = call.party.secrets.values().into_iter().collect();
    forms.extend(values.iter().flat_map(printed));
    for form in forms {
        call.party.masking.add(&form).await.map_err(|error| fatal(format!("failed to redact secrets: {error}")))?;
    }
    let text = match (values.as_slice(), format.as_str()) {
        ([value], "default") => format!("{}\n", value.expose()),
        (values, format) => listed(&keys, values, format == "env")?,
    };
    call.print(&text).await
}

/// A value as this command prints it: as it is, within JSON, and within a shell's quotes.
fn printed(value: &Secret<String>) -> [String; 3] {
    let plain = value.expose();
    let json = serde_json::Value::from(plain.as_str()).to_string();
    let within = json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or(&json).to_owned();
    [plain.clone(), within, plain.replace('\'', r"'\''")]
}

/// Several secrets: as JSON, or as a shell sets variables. By key, as upstream sorts them.
fn listed(keys: &[String], values: &[Secret<String>], is_env: bool) -> Result<String, Fail> {
    let by_key: BTreeMap<&String, &String> = keys.iter().zip(values.iter().map(Secret::expose)).collect();
    if !is_env {
        return Ok(format!("{}\n", serde_json::to_string(&by_key).map_err(fatal)?));
    }
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    Ok(by_key.iter().map(|(key, value)| format!("{}={}\n", key.to_uppercase(), quoted(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_secrets_are_json_or_variables_of_a_shell() {
        let keys = ["b".to_owned(), "A".to_owned()];
        let values = ["it's \"x\"\n".to_owned(), "plain".to_owned()].map(Secret::new);
        let json = listed(&keys, &values, false).ok().unwrap();
        assert_eq!(json, "{\"A\":\"plain\",\"b\":\"it's \\\"x\\\"\\n\"}\n");
        let env = listed(&keys, &values, true).ok().unwrap();
        assert_eq!(env, "A='plain'\nB='it'\\''s \"x\"\n'\n");
    }
}
