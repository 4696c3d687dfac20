//! `checkout`: how the source is checked out (reference 11.7).

use super::attribute::{self, CHECKOUT, FLAGS, SPARSE};
use super::gate::{text, word};
use crate::diagnostic::Diagnostic;
use crate::graph::{Checkout, CheckoutFlags, CommitVerification, Feature};
use crate::read::Reader;
use crate::yaml::{Entry, Kind, Map};

const VERIFICATIONS: [(&str, CommitVerification); 3] =
    [("strict", CommitVerification::Strict), ("off", CommitVerification::Off), ("warn", CommitVerification::Warn)];

pub(super) fn read(reader: &mut Reader, entry: &Entry) -> Checkout {
    let map = match &entry.value.kind {
        Kind::Map(map) => map,
        Kind::Null => return Checkout::default(),
        Kind::Bool(_)
        | Kind::Int(_)
        | Kind::Unsigned(_)
        | Kind::Float(_)
        | Kind::Time(_)
        | Kind::Text(_)
        | Kind::List(_) => {
            return not_a_mapping(reader, entry);
        }
    };
    attribute::check(reader, map, &CHECKOUT);
    let mut flag = |key: &str| map.get(key).filter(|entry| !entry.value.is_null()).and_then(|entry| reader.flag(entry));
    let (skip, submodules, lfs) = (flag("skip"), flag("submodules"), flag("lfs"));
    let flags = map.get("flags").and_then(|entry| reader.map("flags", "a mapping", &entry.value));
    let sparse = map.get("sparse").and_then(|entry| reader.map("sparse", "a mapping with `paths`", &entry.value));
    for (key, feature) in [("ssh_secret", Feature::CheckoutKey), ("commit_verification", Feature::CommitVerification)] {
        if let Some(entry) = map.get(key).filter(|entry| !entry.value.is_null()) {
            reader.uses(feature, entry.key_span);
        }
    }
    Checkout {
        skip,
        submodules,
        lfs,
        depth: map.get("depth").filter(|entry| !entry.value.is_null()).and_then(|entry| {
            let depth = reader.integer("depth", &entry.value, 1, i64::from(u32::MAX))?;
            u32::try_from(depth).ok()
        }),
        flags: flags.map(|flags| of_commands(reader, flags)).unwrap_or_default(),
        sparse: sparse.map(|sparse| paths(reader, sparse)).unwrap_or_default(),
        ssh_secret: text(reader, map, "ssh_secret"),
        commit_verification: map.get("commit_verification").and_then(|entry| word(reader, entry, &VERIFICATIONS)),
    }
}

fn not_a_mapping(reader: &mut Reader, entry: &Entry) -> Checkout {
    let hint = match &entry.value.kind {
        Kind::Bool(false) => Some("write `checkout: { skip: true }` to check out nothing"),
        Kind::Bool(true) => Some("leave it out to check out as usual"),
        _ => None,
    };
    let message = format!("`checkout` must be a mapping, but {} stands here", entry.value.kind_name());
    let diagnostic = Diagnostic::error("wrong-type", entry.value.span, message);
    let diagnostic = diagnostic.maybe_hint(hint.map(str::to_owned));
    if reader.is_decoding() {
        reader.unrunnable(diagnostic);
    } else {
        reader.findings.push(diagnostic);
    }
    Checkout::default()
}

fn of_commands(reader: &mut Reader, map: &Map) -> CheckoutFlags {
    attribute::check(reader, map, &FLAGS);
    CheckoutFlags {
        clone: text(reader, map, "clone"),
        fetch: text(reader, map, "fetch"),
        checkout: text(reader, map, "checkout"),
        clean: text(reader, map, "clean"),
    }
}

fn paths(reader: &mut Reader, map: &Map) -> Vec<String> {
    attribute::check(reader, map, &SPARSE);
    map.get("paths").map(|entry| reader.texts("paths", &entry.value)).unwrap_or_default()
}

/// Key by key, the step's first.
pub(crate) fn merge(step: Checkout, pipeline: &Checkout) -> Checkout {
    let pipeline = pipeline.clone();
    Checkout {
        skip: step.skip.or(pipeline.skip),
        submodules: step.submodules.or(pipeline.submodules),
        lfs: step.lfs.or(pipeline.lfs),
        depth: step.depth.or(pipeline.depth),
        flags: CheckoutFlags {
            clone: step.flags.clone.or(pipeline.flags.clone),
            fetch: step.flags.fetch.or(pipeline.flags.fetch),
            checkout: step.flags.checkout.or(pipeline.flags.checkout),
            clean: step.flags.clean.or(pipeline.flags.clean),
        },
        sparse: if step.sparse.is_empty() { pipeline.sparse } else { step.sparse },
        ssh_secret: step.ssh_secret.or(pipeline.ssh_secret),
        commit_verification: step.commit_verification.or(pipeline.commit_verification),
    }
}
