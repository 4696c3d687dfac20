//! Keys of caches: what they are made of, and the templates that say so (docs/design/026). They are filled in where the job
//! runs, for they may name its files.

/// A piece of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// This text.
    Text(String),
    /// The system that the agent runs on, such as `linux`.
    Os,
    /// The kind of processor, such as `amd64`.
    Arch,
    /// A variable of the job; empty where it is not set.
    Env(String),
    /// SHA-256 of a file, or of all files that patterns describe, in hex.
    Checksum(Vec<String>),
}

/// `text{{ checksum "a" "b" }}{{ env "X" }}{{ agent.os }}{{ agent.arch }}`, as its parts.
///
/// # Errors
/// What in it is no template, for people.
pub fn parse(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        let (inner, after) = after.split_once("}}").ok_or("`{{` has no `}}`")?;
        parts.push(part(inner.trim())?);
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    if parts.is_empty() { Err("a key cannot be empty".to_owned()) } else { Ok(parts) }
}

fn part(inner: &str) -> Result<Part, String> {
    let (word, rest) = inner.split_at(inner.find(char::is_whitespace).unwrap_or(inner.len()));
    let mut arguments =
        quoted(rest.trim()).ok_or_else(|| format!("`{{{{ {inner} }}}}`: what follows is not in quotes"))?;
    match (word, arguments.len()) {
        ("agent.os" | "runner.os", 0) => Ok(Part::Os),
        ("agent.arch" | "runner.arch", 0) => Ok(Part::Arch),
        ("env", 1) => Ok(Part::Env(arguments.remove(0))),
        ("checksum", 1..) => Ok(Part::Checksum(arguments)),
        ("agent.os" | "agent.arch" | "runner.os" | "runner.arch", _) => Err(format!("`{word}` takes nothing")),
        ("env", _) => Err("`env` takes the name of one variable, in quotes".to_owned()),
        ("checksum", _) => Err("`checksum` takes files or patterns, each in quotes".to_owned()),
        _ => Err(format!("`{word}` is unknown: there are checksum, env, agent.os and agent.arch")),
    }
}

/// Words in double or single quotes.
fn quoted(mut rest: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    while let Some(quote) = rest.chars().next() {
        if quote != '"' && quote != '\'' {
            return None;
        }
        let (word, after) = rest.get(1..)?.split_once(quote)?;
        if word.is_empty() {
            return None;
        }
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_text_and_what_stands_in_braces() {
        let text = |text: &str| Part::Text(text.to_owned());
        let files = |files: &[&str]| Part::Checksum(files.iter().map(|file| (*file).to_owned()).collect());
        for (template, parts) in [
            ("node", vec![text("node")]),
            ("v1-{{agent.os}}-{{ agent.arch }}", vec![text("v1-"), Part::Os, text("-"), Part::Arch]),
            ("{{ checksum \"a.lock\" }}", vec![files(&["a.lock"])]),
            ("{{checksum 'a b' \"**/c\"}}x", vec![files(&["a b", "**/c"]), text("x")]),
            ("{{ env \"RUBY\" }}}", vec![Part::Env("RUBY".to_owned()), text("}")]),
        ] {
            assert_eq!(parse(template), Ok(parts), "{template}");
        }
        for bad in [
            "",
            "{{",
            "{{ }}",
            "{{ checksum }}",
            "{{ checksum a }}",
            "{{ checksum \"a }}",
            "{{ env \"A\" \"B\" }}",
            "{{ .Branch }}",
            "{{ agent.os \"x\" }}",
            "{{ env \"\" }}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
