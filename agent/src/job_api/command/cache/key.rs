//! Keys of caches, filled in where the job runs: with its variables, and with the files that its hands can read.

use ring::digest::{Context, SHA256};
use windlass_pipeline::cache_key::Part;
use windlass_protocol::hex;
use windlass_protocol::limits::CACHE_KEY_MAX_BYTES;

use super::super::{Call, Fail, fatal};
use super::STEP_KEY;
use super::chosen::{Chosen, Recipe};
use crate::job_api::artifact::{FindError, Options, find};
use crate::job_api::hands::Hands;

/// A cache's key, and the beginnings of keys that will do in its place.
pub(super) async fn of(call: &mut Call<'_>, cache: &Chosen) -> Result<(String, Vec<String>), Fail> {
    let (key, beginnings) = match &cache.recipe {
        Recipe::Templates { key, restore } => {
            let key = filled(call, key).await?.concat();
            let mut beginnings = Vec::with_capacity(restore.len());
            for template in restore {
                beginnings.push(filled(call, template).await?.concat());
            }
            (key, beginnings)
        }
        Recipe::Parts { key, fallback } => {
            let parts: Vec<String> = filled(call, key).await?.into_iter().map(|part| apart(&part)).collect();
            let beginning = fallback.filter(|count| *count < parts.len()).and_then(|count| parts.get(..count));
            let beginnings = beginning.map(|some| format!("{}/", some.join("/"))).into_iter().collect();
            (parts.join("/"), beginnings)
        }
    };
    for key in [&key].into_iter().chain(&beginnings) {
        if key.is_empty() || key.len() > CACHE_KEY_MAX_BYTES || key.chars().any(char::is_control) {
            let rule = format!("a key has 1 to {CACHE_KEY_MAX_BYTES} bytes without control characters");
            return Err(fatal(format!("{rule}, and this one is {key:?}")));
        }
    }
    Ok((key, beginnings))
}

/// The key that the step's cache was looked for by, if it was; else as it is made now.
pub(super) async fn to_save(call: &mut Call<'_>, cache: &Chosen) -> Result<String, Fail> {
    let kept = if cache.of_step { call.party.changes.variables().remove(STEP_KEY) } else { None };
    match kept.filter(|key| !key.is_empty()) {
        Some(key) => Ok(key),
        None => Ok(of(call, cache).await?.0),
    }
}

/// Keeps the key for the save.
pub(super) async fn keep(call: &mut Call<'_>, cache: &Chosen, key: &str) -> Result<(), Fail> {
    if !cache.of_step {
        return Ok(());
    }
    let (changes, values) =
        (std::sync::Arc::clone(&call.party.changes), [(STEP_KEY.to_owned(), key.to_owned())].into());
    call.party.account.work(move || changes.set(values)).await?.map(drop).map_err(fatal)
}

/// A part of which nothing can be taken for the border to the next one.
fn apart(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}

async fn filled(call: &mut Call<'_>, parts: &[Part]) -> Result<Vec<String>, Fail> {
    let mut filled = Vec::with_capacity(parts.len());
    for part in parts {
        filled.push(match part {
            Part::Text(text) => text.clone(),
            Part::Os => std::env::consts::OS.to_owned(),
            Part::Arch => arch().to_owned(),
            Part::Env(name) => call.hands.environment.get(name).cloned().unwrap_or_default(),
            Part::Checksum(patterns) => checksum(call, patterns).await?,
        });
    }
    Ok(filled)
}

/// The processor by the name that Go has for it, as upstream's keys do.
const fn arch() -> &'static str {
    match std::env::consts::ARCH.as_bytes() {
        b"x86_64" => "amd64",
        b"aarch64" => "arm64",
        _ => std::env::consts::ARCH,
    }
}

/// SHA-256 of one file; of several, that of their paths and theirs, in order.
async fn checksum(call: &mut Call<'_>, patterns: &[String]) -> Result<String, Fail> {
    let mut files = std::collections::BTreeMap::new();
    for pattern in patterns {
        // Split by nothing: a pattern may have any character.
        let found = match find((&mut *call.hands, &call.party.account), pattern, "", Options::default()).await {
            Ok(found) => found,
            Err(FindError::Hands(error)) => return Err(error.into()),
            Err(error) => return Err(fatal(format!("checksum of {pattern:?}: {error}"))),
        };
        if found.files.is_empty() {
            return Err(fatal(format!("checksum of {pattern:?}: there is no such file")));
        }
        files.extend(found.files.into_iter().map(|file| (file.path, file.file)));
    }
    let mut all = Context::new(&SHA256);
    let single = files.len() == 1;
    for (path, file) in &files {
        let one = sha256(call.hands, file).await?;
        if single {
            return Ok(hex::to(&one));
        }
        all.update(path.as_bytes());
        all.update(&[0]);
        all.update(&one);
    }
    Ok(hex::to(all.finish().as_ref()))
}

async fn sha256(hands: &mut Hands, file: &str) -> Result<Vec<u8>, Fail> {
    let handle = hands.open_file(file).await?;
    let mut context = Context::new(&SHA256);
    loop {
        let piece = hands.read_some(handle, file).await?;
        if piece.is_empty() {
            hands.close(handle).await?;
            return Ok(context.finish().as_ref().to_vec());
        }
        context.update(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_apart() {
        assert_eq!(apart("feature/50%"), "feature%2F50%25");
        assert_ne!([apart("a/b"), apart("c")].join("/"), [apart("a"), apart("b/c")].join("/"));
    }
}
