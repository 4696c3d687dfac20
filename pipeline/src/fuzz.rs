//! The fuzz entries: any bytes at all, through everything that foreign text goes through. None may panic.

use crate::compile::{Inputs, check, compile_with};
use crate::condition::{Context, EntryPoint, decide, validate};
use crate::glob::{Glob, branch_matches};
use crate::render::{Interpolation, render};
use crate::secret::{Check, PATTERNS};
use crate::{identifiers, normal};

fn variables() -> [(String, String); 3] {
    [("A", "alpha"), ("é", "$A"), ("X_TOKEN", "hunter22")].map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// Compiles what the bytes say, leniently and strictly, and renders what was found.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let env = variables();
    let strict = compile_with(&text, "fuzz.yml", &Inputs { build_env: &env, ..Inputs::default() });
    let _ = strict.render(&text);
    let _ = check(&text, "fuzz.yml").render(&text);
}

/// Renders documents, brings them into their normal form, and looks for secrets in them.
pub fn fuzz_document(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let env = variables();
    let interpolation = Interpolation { variables: &env, prefer_variables: bytes.len().is_multiple_of(2) };
    if let Ok(rendered) = render(&text, &interpolation) {
        for document in &rendered.documents {
            let _ = normal::to_json(document);
            let _ = Check { patterns: &PATTERNS, variables: &env, allow: false }.document(document);
        }
    }
    let _ = normal::upload(&text, Some(&interpolation));
}

/// Expands the text itself.
pub fn fuzz_interpolation(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let _ = identifiers(&text);
    let document = serde_json::json!({ "x": text, text.clone(): 1 }).to_string();
    let _ = render(&document, &Interpolation { variables: &variables(), prefer_variables: false });
}

/// Reads, checks, prints, reads again, and evaluates an expression; what it prints must say the same.
pub fn fuzz_condition(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut context = Context::default();
    context.set_build_env(variables());
    if let Ok(condition) = validate(&text, EntryPoint::StepNotification) {
        let again = validate(&condition.to_string(), EntryPoint::StepNotification);
        assert_eq!(again.as_ref(), Ok(&condition), "{text}");
        let _ = condition.evaluate(&context);
    }
    let _ = decide(&text, EntryPoint::BuildCondition, &context);
}

/// The first line is a pattern, the rest a path and a branch.
pub fn fuzz_glob(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, path) = text.split_once('\n').unwrap_or((&text, "a/b.c"));
    if let Ok(glob) = Glob::parse(pattern) {
        let _ = glob.matches(path);
    }
    let _ = branch_matches(pattern, path);
}
