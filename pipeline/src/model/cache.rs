//! `cache`, Buildkite's and ours (reference 11.4).

use windlass_protocol::limits::CACHE_RESTORE_KEYS_MAX;

use super::attribute::{self, CACHE};
use super::gate::text;
use crate::cache_key;
use crate::diagnostic::Diagnostic;
use crate::graph::Cache;
use crate::read::Reader;
use crate::yaml::{Entry, Kind, Map};

/// What a step says of its cache.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum CacheChoice {
    /// Nothing: the pipeline's.
    #[default]
    Default,
    /// None, whatever the pipeline says.
    Off,
    /// This one.
    Of(Cache),
}

impl CacheChoice {
    /// The step's, else the pipeline's.
    pub(crate) fn or(&mut self, pipeline: &Self) {
        if *self == Self::Default {
            *self = pipeline.clone();
        }
    }

    pub(crate) fn into_cache(self) -> Option<Cache> {
        match self {
            Self::Of(cache) => Some(cache),
            Self::Default | Self::Off => None,
        }
    }
}

pub(super) fn read(reader: &mut Reader, entry: &Entry) -> CacheChoice {
    match &entry.value.kind {
        Kind::Null | Kind::Bool(true) => CacheChoice::Default,
        Kind::Bool(false) => CacheChoice::Off,
        // As the normal form has `true`.
        Kind::Map(map) if map.iter().next().is_none() => CacheChoice::Default,
        Kind::Map(map) => CacheChoice::Of(mapping(reader, entry, map)),
        Kind::Text(_) | Kind::List(_) => match reader.texts("cache", &entry.value) {
            paths if paths.is_empty() => CacheChoice::Default,
            paths => CacheChoice::Of(Cache { paths, ..Cache::default() }),
        },
        Kind::Int(_) | Kind::Unsigned(_) | Kind::Float(_) | Kind::Time(_) => {
            reader
                .decode(|reader| reader.wrong_type("cache", "paths, a mapping with `paths`, or `false`", &entry.value));
            CacheChoice::Default
        }
    }
}

fn mapping(reader: &mut Reader, entry: &Entry, map: &Map) -> Cache {
    attribute::check(reader, map, &CACHE);
    let paths = map.get("paths").map(|entry| reader.texts("paths", &entry.value)).unwrap_or_default();
    if paths.is_empty() {
        reader.error("missing-attribute", entry.key_span, "the cache names no `paths`");
    }
    let key = text(reader, map, "key");
    let restore_keys =
        map.get("restore_keys").map(|entry| reader.texts("restore_keys", &entry.value)).unwrap_or_default();
    check_templates(reader, map, key.as_slice(), &restore_keys);
    if let (None, Some(entry)) = (&key, map.get("restore_keys")) {
        let diagnostic = Diagnostic::error("missing-attribute", entry.key_span, "`restore_keys` needs `key`");
        reader.findings.push(diagnostic.hint("without `key` the cache is a volume, which is always restored"));
    }
    Cache { paths, name: text(reader, map, "name"), size_gb: size(reader, map), key, restore_keys }
}

/// What the templates of keys are filled with is known where the job runs; what no job could fill in is told now.
fn check_templates(reader: &mut Reader, map: &Map, key: &[String], restore_keys: &[String]) {
    for (name, templates) in [("key", key), ("restore_keys", restore_keys)] {
        let Some(entry) = map.get(name) else { continue };
        for why in templates.iter().filter_map(|template| cache_key::parse(template).err()) {
            let diagnostic = Diagnostic::error("cache-key", entry.value.span, format!("`{name}`: {why}"));
            let hint = "such as `node-{{ agent.os }}-{{ checksum \"package-lock.json\" }}`";
            reader.findings.push(diagnostic.hint(hint));
        }
        if templates.len() > CACHE_RESTORE_KEYS_MAX {
            let message = format!("there are more than {CACHE_RESTORE_KEYS_MAX} `{name}`");
            reader.error("cache-key", entry.value.span, message);
        }
    }
}

/// `20g`.
fn size(reader: &mut Reader, map: &Map) -> Option<u32> {
    let entry = map.get("size").filter(|entry| !entry.value.is_null())?;
    let text = reader.text("size", &entry.value)?;
    let size = text.strip_suffix('g').and_then(|digits| digits.parse().ok());
    if size.is_none() {
        reader.wrong_type("size", "gigabytes such as `20g`", &entry.value);
    }
    size
}
