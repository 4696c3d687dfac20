//! Secrets that must not be part of a pipeline (reference 14.3): written into an `env` block, or put in by a variable.

use windlass_protocol::limits::SECRET_MIN_BYTES;

use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::glob::Glob;
use crate::yaml::{Entry, Kind, Map, Node};

/// Names of variables whose values are secrets, unless others are given (reference 21.4).
pub const PATTERNS: [&str; 9] = [
    "*_PASSWORD",
    "*_SECRET",
    "*_TOKEN",
    "*_PRIVATE_KEY",
    "*_SSH_KEY",
    "*_ACCESS_KEY",
    "*_SECRET_KEY",
    "*_CONNECTION_STRING",
    "*_API_KEY",
];

/// What is looked for, and how it is said.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    /// Patterns of names, case-sensitive.
    pub patterns: &'a [&'a str],
    /// The variables that interpolation saw.
    pub variables: &'a [(String, String)],
    /// What is found is a warning and no error.
    pub allow: bool,
}

impl Check<'_> {
    /// Looks through a document after interpolation. No value is quoted (I6).
    #[must_use]
    pub fn document(&self, document: &Node) -> Vec<Diagnostic> {
        let patterns: Vec<Glob> = self.patterns.iter().filter_map(|pattern| Glob::parse(pattern).ok()).collect();
        let is_secret = |name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let mut found = Vec::new();
        if let Kind::Map(map) = &document.kind {
            self.blocks(map, &is_secret, &mut found);
        }
        self.values(document, &is_secret, &mut found);
        found
    }

    fn said(&self, span: Span, message: String, hint: &str) -> Diagnostic {
        let severity = if self.allow { Severity::Warning } else { Severity::Error };
        Diagnostic { severity, ..Diagnostic::error("secret", span, message) }.hint(hint)
    }

    /// `env` of the document, its steps, groups' steps, and `build.env` of triggers. Recursion ends at `PIPELINE_DEPTH_MAX`.
    fn blocks(&self, map: &Map, is_secret: &dyn Fn(&str) -> bool, found: &mut Vec<Diagnostic>) {
        let of = |map: &'_ Map, key: &str| map.get(key).map(|entry| entry.value.clone());
        let mut block = |node: Option<Node>| {
            for entry in node.as_ref().and_then(Node::as_map).into_iter().flatten() {
                found.extend(self.written(entry, is_secret));
            }
        };
        block(of(map, "env"));
        block(map.get("build").and_then(|entry| of(entry.value.as_map()?, "env")));
        let steps = map.get("steps").and_then(|entry| entry.value.as_list()).unwrap_or_default();
        for step in steps.iter().filter_map(Node::as_map) {
            // The nested form of a step has its attributes one level below.
            let only = step.iter().next().filter(|_| step.len() == 1).and_then(|entry| entry.value.as_map());
            self.blocks(only.unwrap_or(step), is_secret, found);
        }
    }

    fn written(&self, entry: &Entry, is_secret: &dyn Fn(&str) -> bool) -> Option<Diagnostic> {
        let value = entry.value.natural().ok()?;
        if value.len() < SECRET_MIN_BYTES || is_substitution(&value) || !is_secret(&entry.key) {
            return None;
        }
        let message = format!("the value of `{}` is written into the pipeline", crate::read::shown(&entry.key));
        Some(self.said(
            entry.value.span,
            message,
            "keep it as a secret, or let the job's own shell expand it: `$$NAME`",
        ))
    }

    /// Values of secret variables anywhere in the document's JSON, as they are or as Go quotes them.
    fn values(&self, document: &Node, is_secret: &dyn Fn(&str) -> bool, found: &mut Vec<Diagnostic>) {
        let secrets: Vec<&(String, String)> =
            self.variables.iter().filter(|(name, value)| value.len() >= SECRET_MIN_BYTES && is_secret(name)).collect();
        if secrets.is_empty() {
            return;
        }
        let json = crate::normal::to_json(document).map(|json| json.to_string()).unwrap_or_default();
        for (name, value) in secrets {
            if json.contains(value.as_str()) || json.contains(&quoted(value)) {
                let message = format!("the value of the variable `{name}` has become part of the pipeline");
                let hint = "keep it as a secret, or let the job's own shell expand it: `$$NAME`";
                found.push(self.said(Span::first_of(document.span), message, hint));
            }
        }
    }
}

/// Nothing but one `$NAME` or `${…}`, which the job's shell expands.
fn is_substitution(value: &str) -> bool {
    let Some(rest) = value.strip_prefix('$') else { return false };
    let is_name = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    match rest.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(inner) => is_name(inner),
        None => is_name(rest),
    }
}

/// As Go writes a string, without the quotes around it.
fn quoted(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\0'..='\u{1f}' | '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(character))),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::{Interpolation, render};

    fn found(text: &str, variables: &[(&str, &str)], allow: bool) -> Vec<(Severity, String)> {
        let variables: Vec<(String, String)> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let rendered = render(text, &Interpolation { variables: &variables, ..Interpolation::default() }).unwrap();
        let check = Check { patterns: &PATTERNS, variables: &variables, allow };
        let found = check.document(&rendered.documents[0]);
        found.into_iter().map(|it| (it.severity, it.message)).collect()
    }

    #[test]
    fn secrets_in_any_env_block_are_found() {
        for text in [
            "env: {A_TOKEN: hunter22}\nsteps: []\n",
            "steps:\n- {command: x, env: {A_TOKEN: hunter22}}\n",
            "steps:\n- {command: {command: x, env: {A_TOKEN: hunter22}}}\n",
            "steps:\n- group: g\n  steps:\n  - {command: x, env: {A_TOKEN: hunter22}}\n",
            "steps:\n- {trigger: t, build: {env: {A_TOKEN: hunter22}}}\n",
            "env: {A_TOKEN: '$$ONE$$TWO'}\nsteps: []\n",
        ] {
            let found = found(text, &[], false);
            assert_eq!(found.len(), 1, "{text}");
            assert_eq!(found[0], (Severity::Error, "the value of `A_TOKEN` is written into the pipeline".to_owned()));
        }
        for text in [
            "env: {A_TOKEN: short}\nsteps: []\n",
            "env: {A_TOKEN: '$$OTHER_TOKEN', B_TOKEN: '$${OTHER}'}\nsteps: []\n",
            "env: {a_token: hunter22, TOKEN: hunter22}\nsteps: []\n",
        ] {
            assert_eq!(found(text, &[], false), [], "{text}");
        }
    }

    #[test]
    fn values_of_secret_variables_are_found_wherever_they_stand() {
        let text = "steps:\n- command: 'curl -u $MY_PASSWORD'\n";
        let told = "the value of the variable `MY_PASSWORD` has become part of the pipeline";
        assert_eq!(found(text, &[("MY_PASSWORD", "hunter22")], false), [(Severity::Error, told.to_owned())]);
        assert_eq!(found(text, &[("MY_PASSWORD", "hunter22")], true), [(Severity::Warning, told.to_owned())]);
        assert_eq!(found(text, &[("MY_PASSWORD", "two\nlines")], false).len(), 1, "as Go quotes it");
        assert_eq!(found(text, &[("MY_PASSWORD", "short")], false), []);
        assert_eq!(found("steps: [wait]\n", &[("MY_PASSWORD", "hunter22")], false), []);
    }
}
