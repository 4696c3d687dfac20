//! Where plugins are found (reference 12.1).

use crate::yaml::{Kind, Map, Node};

/// Rewrites all sources in a normal form.
pub(super) fn resolve(document: &mut Node) {
    let Kind::Map(map) = &mut document.kind else { return };
    for entry in map.entries_mut() {
        if entry.key == "steps" {
            steps(&mut entry.value);
        }
    }
}

fn steps(list: &mut Node) {
    let Kind::List(steps) = &mut list.kind else { return };
    for step in steps {
        let Kind::Map(map) = &mut step.kind else { continue };
        let is_command = super::is_command(map);
        for entry in map.entries_mut() {
            match entry.key.as_str() {
                "plugins" if is_command => plugins(&mut entry.value),
                "steps" => self::steps(&mut entry.value),
                _ => {}
            }
        }
    }
}

fn plugins(list: &mut Node) {
    let Kind::List(items) = &mut list.kind else { return };
    for item in items {
        if let Kind::Map(map) = &mut item.kind {
            rename(map);
        }
    }
}

fn rename(map: &mut Map) {
    for entry in map.entries_mut() {
        entry.key = full_source(&entry.key);
    }
}

/// `docker#v1` is `github.com/buildkite-plugins/docker-buildkite-plugin#v1`; a path, a URL or more than two parts stay.
fn full_source(source: &str) -> String {
    if source.is_empty() || source.starts_with(['/', '.', '\\']) || has_scheme(source) {
        return source.to_owned();
    }
    let (path, version) = source.split_once('#').map_or((source, ""), |(path, version)| (path, version));
    let hash = if version.is_empty() { "" } else { "#" };
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        [name] => format!("github.com/buildkite-plugins/{name}-buildkite-plugin{hash}{version}"),
        [owner, name] => format!("github.com/{owner}/{name}-buildkite-plugin{hash}{version}"),
        _ => source.to_owned(),
    }
}

/// A letter, then letters, digits, `+`, `-`, `.`, up to a colon.
fn has_scheme(source: &str) -> bool {
    let Some((scheme, _)) = source.split_once(':') else { return false };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_become_what_the_reference_says() {
        for (source, full) in [
            ("docker#v1.0", "github.com/buildkite-plugins/docker-buildkite-plugin#v1.0"),
            ("docker", "github.com/buildkite-plugins/docker-buildkite-plugin"),
            ("org/tool#main", "github.com/org/tool-buildkite-plugin#main"),
            ("github.com/org/repo/sub/dir#v1", "github.com/org/repo/sub/dir#v1"),
            ("./vendored", "./vendored"),
            ("/opt/plugin", "/opt/plugin"),
            ("\\share", "\\share"),
            ("https://x.y/z.git#v1", "https://x.y/z.git#v1"),
            ("ssh://git@h/a/b.git", "ssh://git@h/a/b.git"),
            ("file:///a/b", "file:///a/b"),
            ("zip+https://x.y/z", "zip+https://x.y/z"),
            ("", ""),
        ] {
            assert_eq!(full_source(source), full, "{source}");
        }
    }
}
