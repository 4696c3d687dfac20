//! `redactor add`: values that appear in the job's log no more (reference 19.10, 21.4).

use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, Visitor};
use windlass_agent_runner::mask::is_secret_name;
use windlass_protocol::limits::{
    JOB_INPUT_MAX_BYTES, REDACTED_VARS_EFFORT_MAX, REDACTED_VARS_MAX, SECRET_MIN_BYTES, SECRETS_PER_JOB_MAX,
};

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
    if patterns.len() > REDACTED_VARS_MAX {
        return Err(fatal(format!("{} patterns are given, and {REDACTED_VARS_MAX} are the most", patterns.len())));
    }
    let values = if format == "json" {
        call.hands.share.grow(text.len()).await?;
        let names = filter.then_some(Names { patterns, left: REDACTED_VARS_EFFORT_MAX });
        call.party.account.work(move || chosen(&text, names)).await?.map_err(fatal)?
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

/// Why values are not taken. What is wrong with a text is not shown: it would show what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum NotChosen {
    #[error("failed to parse secrets")]
    Unread,
    #[error("failed to redact secrets: more than {SECRETS_PER_JOB_MAX} values are given")]
    TooMany,
    #[error("failed to redact secrets: so many names and patterns take too long to match")]
    TooLong,
}

/// The values of an object of texts whose names are chosen; of all, where nothing chooses.
fn chosen(text: &str, names: Option<Names>) -> Result<Vec<String>, NotChosen> {
    let mut choice = Choice { names, values: Vec::new(), failed: None };
    let mut json = serde_json::Deserializer::from_str(text);
    let read = json.deserialize_map(&mut choice).and_then(|()| json.end());
    match (choice.failed, read) {
        (Some(failed), _) => Err(failed),
        (None, Err(_)) => Err(NotChosen::Unread),
        (None, Ok(())) => Ok(choice.values),
    }
}

/// Takes the values one by one, so that what is not chosen is not kept.
struct Choice {
    names: Option<Names>,
    values: Vec<String>,
    failed: Option<NotChosen>,
}

impl Choice {
    fn take(&mut self, name: &str, value: String) -> Result<(), NotChosen> {
        let is_chosen = self.names.as_mut().map_or(Ok(true), |names| names.has(name))?;
        if is_chosen {
            self.values.push(value);
        }
        if self.values.len() > SECRETS_PER_JOB_MAX { Err(NotChosen::TooMany) } else { Ok(()) }
    }
}

impl<'de> Visitor<'de> for &mut Choice {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            self.take(&name, value).map_err(|failed| {
                self.failed = Some(failed);
                A::Error::custom(failed)
            })?;
        }
        Ok(())
    }
}

/// Patterns of names, which are shells' with `*` and `?`; without any, the agent's own count.
struct Names {
    patterns: Vec<String>,
    /// Looks at bytes that are left.
    left: usize,
}

impl Names {
    fn has(&mut self, name: &str) -> Result<bool, NotChosen> {
        if self.patterns.is_empty() {
            return Ok(is_secret_name(name));
        }
        for pattern in &self.patterns {
            if matches(pattern.as_bytes(), name.as_bytes(), &mut self.left)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn matches(pattern: &[u8], name: &[u8], left: &mut usize) -> Result<bool, NotChosen> {
    // Where the last star stood, and how much of the name it had taken.
    let (mut at, mut taken, mut star) = (0, 0, None);
    while taken < name.len() {
        *left = left.checked_sub(1).ok_or(NotChosen::TooLong)?;
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, taken));
                at += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(taken) => (at, taken) = (at + 1, taken + 1),
            _ => {
                let Some((before, had)) = star else { return Ok(false) };
                star = Some((before, had + 1));
                (at, taken) = (before + 1, had + 1);
            }
        }
    }
    let rest = pattern.get(at..).unwrap_or_default();
    *left = left.checked_sub(rest.len()).ok_or(NotChosen::TooLong)?;
    Ok(rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns_as_a_shell_s() {
        let mut names = Names { patterns: ["*_TOKEN", "KEY?", "A*B*C"].map(str::to_owned).to_vec(), left: 1_000 };
        for name in ["_TOKEN", "MY_TOKEN", "KEY1", "ABC", "AxBBxC"] {
            assert_eq!(names.has(name), Ok(true), "{name}");
        }
        for name in ["TOKEN", "MY_TOKENS", "KEY", "KEY12", "AxC", "my_token"] {
            assert_eq!(names.has(name), Ok(false), "{name}");
        }
        let mut own = Names { patterns: Vec::new(), left: 0 };
        assert_eq!((own.has("DB_PASSWORD"), own.has("DB_NAME")), (Ok(true), Ok(false)));
    }

    #[test]
    fn the_values_of_chosen_names_are_taken_and_no_others() {
        let text = r#"{"A_TOKEN": "one", "B": "two", "C_\u0054OKEN": "three"}"#;
        let names = || Some(Names { patterns: vec!["*_TOKEN".to_owned()], left: 1_000 });
        assert_eq!(chosen(text, names()).unwrap(), ["one", "three"]);
        assert_eq!(chosen(text, None).unwrap(), ["one", "two", "three"]);
        for text in ["", "[]", "{\"A\": 1}", "{\"A\": \"1\"} x", "{\"A\""] {
            assert_eq!(chosen(text, None), Err(NotChosen::Unread), "{text}");
        }
    }

    #[test]
    fn what_takes_too_long_to_match_is_refused_as_is_what_is_too_much() {
        // By itself a hundred thousand million looks.
        let text = format!("{{{:?}: \"value\"}}", "a".repeat(1 << 20));
        let pattern = format!("*{}b", "a".repeat(100_000));
        let names = Names { patterns: vec![pattern], left: REDACTED_VARS_EFFORT_MAX };
        assert_eq!(chosen(&text, Some(names)), Err(NotChosen::TooLong));
        let many: Vec<String> = (0..=SECRETS_PER_JOB_MAX).map(|at| format!("\"{at}\": \"value\"")).collect();
        assert_eq!(chosen(&format!("{{{}}}", many.join(",")), None), Err(NotChosen::TooMany));
        assert_eq!(chosen(&format!("{{{}}}", many[1..].join(",")), None).unwrap().len(), SECRETS_PER_JOB_MAX);
    }
}
