//! Which caches a command means: those of a file, or the step's own.

use std::collections::BTreeSet;

use windlass_pipeline::cache_key::{self, Part};
use windlass_pipeline::caches::{self, NamedCache};
use windlass_pipeline::graph;
use windlass_protocol::Digest;
use windlass_protocol::limits::{CACHE_FILE_MAX_BYTES, CACHE_PATHS_MAX};

use super::super::{Call, Fail, fatal};
use crate::job_api::hands::{Hands, HandsError};

/// Where the file lies if nobody says.
const FILES: [&str; 2] = [".buildkite/cache.yml", ".buildkite/cache.yaml"];

/// The variable with the step's own cache.
const STEP_CACHE: &str = "WINDLASS_CACHE";

/// A cache that is meant.
#[derive(Debug)]
pub(super) struct Chosen {
    /// For people.
    pub(super) name: String,
    /// It is the step's own.
    pub(super) of_step: bool,
    pub(super) recipe: Recipe,
    /// Of its registry and of its paths as they are written.
    pub(super) scope: Digest,
    /// Absolute, as bytes.
    pub(super) paths: Vec<Vec<u8>>,
}

/// How its key is made.
#[derive(Debug)]
pub(super) enum Recipe {
    /// The parts one after the other, and so for each beginning that will do.
    Templates { key: Vec<Part>, restore: Vec<Vec<Part>> },
    /// Parts that stay apart; as many of the first of them as another key must agree in to do.
    Parts { key: Vec<Part>, fallback: Option<usize> },
}

/// The caches of a call.
pub(super) async fn chosen(call: &mut Call<'_>) -> Result<Vec<Chosen>, Fail> {
    if !call.line.text("cache-store-url").is_empty() {
        call.note("warning", "caches are kept by the coordinator, and no other store").await?;
    }
    if call.line.is_on("of-step") {
        return Ok(vec![of_step(call)?]);
    }
    let named = of_file(call).await?;
    let wanted: BTreeSet<String> = call.line.texts("name").iter().cloned().collect();
    let known: BTreeSet<&String> = named.iter().map(|cache| &cache.name).collect();
    let unknown: Vec<&str> = wanted.iter().filter(|name| !known.contains(name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(fatal(format!("cache names not found in configuration: {}", unknown.join(", "))));
    }
    let registry = call.line.text("registry").to_owned();
    let meant = named.into_iter().filter(|cache| wanted.is_empty() || wanted.contains(&cache.name));
    meant.map(|cache| of_name(call.hands, &registry, cache)).collect()
}

fn of_name(hands: &Hands, registry: &str, cache: NamedCache) -> Result<Chosen, Fail> {
    let NamedCache { name, key, fallback, paths } = cache;
    let places = resolved(hands, &paths).map_err(|why| fatal(format!("cache {name:?}: {why}")))?;
    let recipe = Recipe::Parts { key, fallback };
    Ok(Chosen { name, of_step: false, recipe, scope: scope(registry, &paths), paths: places })
}

fn of_step(call: &Call<'_>) -> Result<Chosen, Fail> {
    let text = call.hands.environment.get(STEP_CACHE).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| fatal("the step has no cache with a key"))?;
    let cache: graph::Cache =
        serde_json::from_str(text).map_err(|error| fatal(format!("{STEP_CACHE} is no cache: {error}")))?;
    let template = |text: &String| cache_key::parse(text).map_err(fatal);
    let key = template(&cache.key.unwrap_or_default())?;
    let restore = cache.restore_keys.iter().map(template).collect::<Result<_, _>>()?;
    let paths = resolved(call.hands, &cache.paths).map_err(fatal)?;
    let name = cache.name.unwrap_or_else(|| cache.paths.join(", "));
    let recipe = Recipe::Templates { key, restore };
    Ok(Chosen { name, of_step: true, recipe, scope: scope("~", &cache.paths), paths })
}

/// The file's caches.
async fn of_file(call: &mut Call<'_>) -> Result<Vec<NamedCache>, Fail> {
    let given = call.line.text("cache-config-file").to_owned();
    let path = if given.is_empty() { the_file(call.hands).await? } else { given };
    let text = match call.hands.read_file(&path, CACHE_FILE_MAX_BYTES).await {
        Err(error @ (HandsError::Refused { .. } | HandsError::TooLarge { .. })) => {
            return Err(fatal(format!("failed to read the cache configuration: {error}")));
        }
        text => String::from_utf8(text?).map_err(|_| fatal(format!("{path} is no text")))?,
    };
    let read = call.party.account.work(move || caches::read(&text)).await?;
    read.map_err(|why| fatal(format!("failed to load the cache configuration {path}: {why}")))
}

async fn the_file(hands: &mut Hands) -> Result<String, Fail> {
    let mut there = Vec::new();
    for path in FILES {
        if hands.stat(path, true).await?.is_some() {
            there.push(path);
        }
    }
    match there.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => Err(fatal(format!("there is no cache configuration: neither {} nor {}", FILES[0], FILES[1]))),
        _ => Err(fatal(format!("there are both {} and {}: keep one of them", FILES[0], FILES[1]))),
    }
}

/// What caches have to share to be the same under one key.
fn scope(registry: &str, paths: &[String]) -> Digest {
    let mut text = registry.as_bytes().to_vec();
    for path in paths {
        // No path has a NUL in it.
        text.push(0);
        text.extend_from_slice(path.as_bytes());
    }
    Digest::of(&text)
}

/// Paths as the job means them. One that holds the whole of where the job works is refused: nothing could take its place.
fn resolved(hands: &Hands, paths: &[String]) -> Result<Vec<Vec<u8>>, String> {
    if paths.len() > CACHE_PATHS_MAX {
        return Err(format!("there are more than {CACHE_PATHS_MAX} paths"));
    }
    let home = hands.environment.get("HOME").map(String::as_bytes).filter(|home| home.starts_with(b"/"));
    let mut all: Vec<Vec<u8>> = Vec::with_capacity(paths.len());
    for path in paths {
        let bytes = match (path.strip_prefix('~'), home) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => [home, rest.as_bytes()].concat(),
            _ => hands.absolute(path),
        };
        if path.trim().is_empty() || path.contains('\0') {
            return Err(format!("{path:?} is no path"));
        }
        let place = normal(&bytes);
        let whole = [Some(hands.directory.as_slice()), home].into_iter().flatten().map(normal);
        if whole.into_iter().any(|whole| is_within(&whole, &place)) {
            return Err(format!("{path:?} holds the whole home or working directory; name something in it"));
        }
        if let Some(other) = all.iter().find(|other| is_within(&place, other) || is_within(other, &place)) {
            return Err(format!("{path:?} and {} lie within each other", String::from_utf8_lossy(other)));
        }
        all.push(place);
    }
    Ok(all)
}

/// Without `.`, `..` and empty parts.
fn normal(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    [b"/".as_slice(), &parts.join(&b'/')].concat()
}

/// Whether a path is another one, or below it.
fn is_within(path: &[u8], other: &[u8]) -> bool {
    other == b"/" || path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_within_another_is_seen_by_its_parts() {
        for (path, other, within) in
            [("/a/b", "/a", true), ("/a", "/a", true), ("/a", "/", true), ("/ab", "/a", false), ("/a", "/a/b", false)]
        {
            assert_eq!(is_within(path.as_bytes(), other.as_bytes()), within, "{path} {other}");
        }
        assert_eq!(normal(b"/a/./b//../c/"), b"/a/c");
        assert_eq!(normal(b"/../.."), b"/");
    }

    #[test]
    fn the_same_key_for_other_paths_or_of_another_registry_is_another_cache() {
        let of = |registry, paths: &[&str]| {
            scope(registry, &paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>())
        };
        let one = of("~", &["a", "b"]);
        assert_eq!(one, of("~", &["a", "b"]));
        assert!(
            [of("x", &["a", "b"]), of("~", &["b", "a"]), of("~", &["ab"]), of("~", &["a"])]
                .iter()
                .all(|other| *other != one)
        );
    }
}
