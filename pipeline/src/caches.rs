//! The file that names caches, `.buildkite/cache.yml` (reference 19.9): for each its key, part by part, and its paths.

use std::collections::BTreeSet;

use windlass_protocol::limits::{CACHE_PATHS_MAX, CACHES_PER_FILE_MAX};

use crate::cache_key::Part;
use crate::yaml::{self, Kind, Map, Node};

/// A cache that the file names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCache {
    /// Its name in the file.
    pub name: String,
    /// What its key is made of, in order.
    pub key: Vec<Part>,
    /// How many of the first parts another key must agree in to do in its place; none where no other will do.
    pub fallback: Option<usize>,
    /// What it keeps.
    pub paths: Vec<String>,
}

/// Reads the file's text.
///
/// # Errors
/// What is wrong, with the line, for people.
pub fn read(text: &str) -> Result<Vec<NamedCache>, String> {
    let parsed = yaml::parse(text);
    if let Some(error) = parsed.error {
        return Err(format!("line {}: {}", error.span.line, error.message));
    }
    let root = parsed.documents.first().and_then(Node::as_map).ok_or("the file is a mapping with `caches`")?;
    let list = root.get("caches").map(|entry| &entry.value.kind);
    let Some(Kind::List(list)) = list else { return Err("`caches` is a list".to_owned()) };
    if list.len() > CACHES_PER_FILE_MAX {
        return Err(format!("there are more than {CACHES_PER_FILE_MAX} caches"));
    }
    let mut names = BTreeSet::new();
    let mut caches = Vec::with_capacity(list.len());
    for node in list {
        let cache = cache(node).map_err(|why| format!("line {}: {why}", node.span.line))?;
        if !names.insert(cache.name.clone()) {
            return Err(format!("line {}: two caches are called {:?}", node.span.line, cache.name));
        }
        caches.push(cache);
    }
    Ok(caches)
}

fn cache(node: &Node) -> Result<NamedCache, String> {
    let map = node.as_map().ok_or("a cache is a mapping of `name`, `cache_key` and `target_paths`")?;
    let name = map.get("name").and_then(|entry| scalar(&entry.value)).filter(|name| !name.trim().is_empty());
    let name = name.ok_or("`name` cannot be empty")?;
    let (key, fallback) = key(map)?;
    let paths = map.get("target_paths").map(|entry| texts(&entry.value)).unwrap_or_default();
    let paths = paths.filter(|paths| (1..=CACHE_PATHS_MAX).contains(&paths.len()));
    let paths = paths.ok_or_else(|| format!("`target_paths` is a list of 1 to {CACHE_PATHS_MAX} paths"))?;
    Ok(NamedCache { name, key, fallback, paths })
}

fn key(map: &Map) -> Result<(Vec<Part>, Option<usize>), String> {
    let Some(Kind::List(list)) = map.get("cache_key").map(|entry| &entry.value.kind) else {
        return Err("`cache_key` is a list".to_owned());
    };
    let (mut parts, mut fallback) = (Vec::with_capacity(list.len()), None);
    for node in list {
        let (part, is_limit) = part(node)?;
        parts.push(part);
        if is_limit && fallback.replace(parts.len()).is_some() {
            return Err("`fallback_limit` may be set on one part of a `cache_key`".to_owned());
        }
    }
    if parts.is_empty() { Err("`cache_key` cannot be empty".to_owned()) } else { Ok((parts, fallback)) }
}

/// A part, and whether all after it may differ.
fn part(node: &Node) -> Result<(Part, bool), String> {
    let Some(map) = node.as_map() else {
        let text = scalar(node).filter(|text| !text.is_empty());
        return Ok((Part::Text(text.ok_or("a part of a `cache_key` is a text or a mapping")?), false));
    };
    let (mut found, mut is_limit) = (None, false);
    for entry in map {
        let value = &entry.value;
        let one = match entry.key.as_str() {
            "fallback_limit" | "fallbackLimit" => {
                let Kind::Bool(on) = value.kind else { return Err("`fallback_limit` is true or false".to_owned()) };
                is_limit = on;
                continue;
            }
            "agent" => match scalar(value).as_deref() {
                Some("os") => Part::Os,
                Some("arch") => Part::Arch,
                _ => return Err("`agent` is `os` or `arch`".to_owned()),
            },
            "env" => Part::Env(scalar(value).filter(|name| !name.is_empty()).ok_or("`env` is a variable's name")?),
            "checksum" => {
                let files = texts(value).filter(|files| !files.is_empty() && files.iter().all(|file| !file.is_empty()));
                Part::Checksum(files.ok_or("`checksum` is a file, or a list of patterns")?)
            }
            other => return Err(format!("`{other}` is no part of a `cache_key`: there are agent, checksum and env")),
        };
        if found.replace(one).is_some() {
            return Err("a part of a `cache_key` names one source".to_owned());
        }
    }
    Ok((found.ok_or("a part of a `cache_key` names one source")?, is_limit))
}

fn scalar(node: &Node) -> Option<String> {
    node.natural().ok()
}

/// One text or a list of them.
fn texts(node: &Node) -> Option<Vec<String>> {
    match &node.kind {
        Kind::List(items) => items.iter().map(scalar).collect(),
        _ => scalar(node).map(|text| vec![text]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cache_has_a_key_of_parts_and_paths() {
        let text = "caches:\n  - name: node\n    cache_key:\n      - v1\n      - {agent: os}\n      - {agent: arch, fallback_limit: true}\n      \
                    - {checksum: [a, '*.lock']}\n      - {env: X}\n    target_paths: [node_modules, ~/.npm]\n  - name: go\n    \
                    cache_key: [{checksum: go.sum}]\n    target_paths: go\n";
        let caches = read(text).unwrap();
        let files = |files: &[&str]| Part::Checksum(files.iter().map(|file| (*file).to_owned()).collect());
        let (x, v1) = (Part::Env("X".to_owned()), Part::Text("v1".to_owned()));
        assert_eq!(caches[0].key, [v1, Part::Os, Part::Arch, files(&["a", "*.lock"]), x]);
        assert_eq!(
            (caches[0].fallback, caches[0].paths.as_slice()),
            (Some(3), ["node_modules", "~/.npm"].map(str::to_owned).as_slice())
        );
        assert_eq!(
            (caches[1].fallback, &caches[1].key, caches[1].name.as_str()),
            (None, &vec![files(&["go.sum"])], "go")
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let cache = |rest: &str| format!("caches:\n  - name: a\n    {rest}\n");
        for (text, why) in [
            ("a: [".to_owned(), "line"),
            ("[]".to_owned(), "a mapping with `caches`"),
            ("caches: x".to_owned(), "`caches` is a list"),
            (cache("target_paths: x"), "line 2: `cache_key` is a list"),
            (cache("cache_key: []\n    target_paths: x"), "cannot be empty"),
            (cache("cache_key: [{agent: tag}]\n    target_paths: x"), "`os` or `arch`"),
            (cache("cache_key: [{git: x}]\n    target_paths: x"), "`git` is no part"),
            (cache("cache_key: [{env: a, agent: os}]\n    target_paths: x"), "one source"),
            (cache("cache_key: [{fallback_limit: true}]\n    target_paths: x"), "one source"),
            (cache("cache_key: [x]"), "`target_paths` is a list"),
            (
                format!(
                    "{0}{1}",
                    cache("cache_key: [x]\n    target_paths: x"),
                    "  - name: a\n    cache_key: [x]\n    target_paths: y\n"
                ),
                "two caches",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
