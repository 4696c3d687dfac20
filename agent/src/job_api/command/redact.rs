//! `redactor add`: values that appear in the job's log no more (reference 19.10, 21.4).

use std::collections::BTreeMap;

use windlass_agent_runner::mask::is_secret_name;
use windlass_protocol::limits::{JOB_INPUT_MAX_BYTES, SECRET_MIN_BYTES};

use super::{Call, Fail, fatal};

pub(super) async fn add(call: &mut Call<'_>) -> Result<(), Fail> {
    let format = call.line.text("format").to_owned();
    if !matches!(format.as_str(), "none" | "json") {
        return Err(fatal(format!("invalid format: {format}, must be one of [\"json\" \"none\"]")));
    }
    let bytes = match call.argument(0).map(str::to_owned) {
        Some(path) => {
            let read = call.hands.read_file(&path, JOB_INPUT_MAX_BYTES).await;
            read.map_err(|error| fatal(format!("failed to open file {error}")))?
        }
        None => call.hands.read_input(JOB_INPUT_MAX_BYTES).await?,
    };
    let text = String::from_utf8(bytes).map_err(|_| fatal("failed to parse secrets: the input is no text"))?;
    let filter = call.line.is_on("apply-vars-filter");
    let patterns = call.line.texts("redacted-vars").to_vec();
    let values: Vec<String> = if format == "json" {
        // What is wrong with it is not shown: it would show what is in it.
        let values: BTreeMap<String, String> =
            serde_json::from_str(&text).map_err(|_| fatal("failed to parse secrets"))?;
        values.into_iter().filter(|(name, _)| !filter || is_named_secret(name, &patterns)).map(|(_, it)| it).collect()
    } else {
        vec![text.trim().to_owned()]
    };
    for value in values {
        if value.is_empty() || (filter && value.len() < SECRET_MIN_BYTES) {
            continue;
        }
        if value.len() < SECRET_MIN_BYTES {
            let words = format!("a value of less than {SECRET_MIN_BYTES} bytes is not redacted");
            call.note("warning", &words).await?;
            continue;
        }
        call.party.masking.add(&value).await.map_err(|error| fatal(format!("failed to redact secrets: {error}")))?;
    }
    Ok(())
}

/// Whether a name is one of the patterns, which are shells' with `*` and `?`; without any, the agent's own count.
fn is_named_secret(name: &str, patterns: &[String]) -> bool {
    if patterns.is_empty() {
        return is_secret_name(name);
    }
    patterns.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // Where the last star stood, and how much of the name it had taken.
    let (mut at, mut taken, mut star) = (0, 0, None);
    while taken < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, taken));
                at += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(taken) => (at, taken) = (at + 1, taken + 1),
            _ => {
                let Some((before, had)) = star else { return false };
                star = Some((before, had + 1));
                (at, taken) = (before + 1, had + 1);
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns_as_a_shell_s() {
        let patterns = ["*_TOKEN".to_owned(), "KEY?".to_owned(), "A*B*C".to_owned()];
        for name in ["_TOKEN", "MY_TOKEN", "KEY1", "ABC", "AxBBxC"] {
            assert!(is_named_secret(name, &patterns), "{name}");
        }
        for name in ["TOKEN", "MY_TOKENS", "KEY", "KEY12", "AxC", "my_token"] {
            assert!(!is_named_secret(name, &patterns), "{name}");
        }
        assert!(is_named_secret("DB_PASSWORD", &[]) && !is_named_secret("DB_NAME", &[]));
    }
}
