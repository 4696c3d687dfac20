//! `reuse.blobs`: files of the step that are blobs of the cache, each by its path and its digest.

use windlass_protocol::limits::{REUSE_BLOBS_MAX, TREE_NAME_MAX_BYTES};

use crate::diagnostic::Diagnostic;
use crate::graph::{NamedBlob, Reuse};
use crate::model::attribute::{self, BLOB};
use crate::read::{Reader, shown};
use crate::yaml::{Map, Node};

/// Reads them; none of them lies where another one or what the step declares otherwise lies.
pub(super) fn read(reader: &mut Reader, map: &Map, reuse: &Reuse) -> Vec<NamedBlob> {
    let Some(entry) = map.get("blobs") else { return Vec::new() };
    let items = reader.list("blobs", "a list of mappings of `path`, `digest` and `executable`", &entry.value);
    if items.len() > REUSE_BLOBS_MAX {
        reader.error("too-many", entry.key_span, format!("`reuse` names more than {REUSE_BLOBS_MAX} blobs"));
        return Vec::new();
    }
    let mut blobs: Vec<NamedBlob> = Vec::with_capacity(items.len());
    for item in items {
        let Some((blob, at)) = one(reader, item) else { continue };
        match taken(&blob.path, reuse, &blobs) {
            Some(by) => {
                let message = format!("the blob `{}` cannot lie where {by} lies", shown(&blob.path));
                reader.error("reuse-path", at.span, message);
            }
            None => blobs.push(blob),
        }
    }
    blobs
}

/// What is known to lie at a path. Of wildcards nobody knows before the source is there.
fn taken(path: &str, reuse: &Reuse, blobs: &[NamedBlob]) -> Option<String> {
    let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
    let other = blobs.iter().map(|blob| &blob.path);
    let mut other = other.filter(|known| *known == path || within(known, path) || within(path, known));
    if let Some(known) = other.next() {
        return Some(format!("the blob `{}`", shown(known)));
    }
    let is = |known: &&String| *known == path;
    let input = reuse.inputs.iter().find(is).map(|_| "one of `inputs`");
    input.or_else(|| reuse.artifacts.iter().find(is).map(|_| "one of `artifacts`")).map(str::to_owned)
}

fn one<'a>(reader: &mut Reader, item: &'a Node) -> Option<(NamedBlob, &'a Node)> {
    let Some(map) = item.as_map() else {
        reader.wrong_type("blobs", "a list of mappings of `path`, `digest` and `executable`", item);
        return None;
    };
    attribute::check(reader, map, &BLOB);
    let path = needed(reader, item, map, "path");
    let digest = needed(reader, item, map, "digest");
    let executable = map.get("executable").and_then(|entry| reader.flag(entry)).unwrap_or(false);
    let (path, at) = path.and_then(|node| Some((self::path(reader, node)?, node)))?;
    let digest = digest.and_then(|node| self::digest(reader, node))?;
    Some((NamedBlob { path, digest, executable }, at))
}

fn needed<'a>(reader: &mut Reader, item: &Node, map: &'a Map, key: &str) -> Option<&'a Node> {
    let entry = map.get(key).filter(|entry| !entry.value.is_null());
    if entry.is_none() {
        reader.error("missing-attribute", item.span, format!("the blob has no `{key}`"));
    }
    entry.map(|entry| &entry.value)
}

fn path(reader: &mut Reader, node: &Node) -> Option<String> {
    if reader.is_awaited(node) {
        return None;
    }
    let text = reader.text("path", node)?;
    let path = text.strip_prefix("./").unwrap_or(&text);
    let leads_out = path.starts_with('~') || path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if leads_out || path.len() > TREE_NAME_MAX_BYTES || path.chars().any(char::is_control) {
        let message = format!("`{}` is not the path of a file within the source", shown(&text));
        let hint = "a blob lies beside the inputs, at a path such as `tools/compiler.tar`";
        reader.findings.push(Diagnostic::error("reuse-path", node.span, message).hint(hint));
        return None;
    }
    Some(path.to_owned())
}

fn digest(reader: &mut Reader, node: &Node) -> Option<crate::graph::BlobName> {
    if reader.is_awaited(node) {
        return None;
    }
    let text = reader.text("digest", node)?;
    let digest = text.trim().parse();
    if digest.is_err() {
        let message = format!("`{}` is not the digest of a blob", shown(&text));
        let hint = "it is `b3:` or `sha256:` and 64 hex digits, as `b3sum` and `sha256sum` print them";
        reader.findings.push(Diagnostic::error("reuse-digest", node.span, message).hint(hint));
    }
    digest.ok()
}
