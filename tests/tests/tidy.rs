//! Style as a test: what no lint can see.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use windlass_tests::kit::world::repository;

/// Files that git knows, and that are text.
fn tracked() -> Vec<(String, String)> {
    let root = repository();
    let listed = Command::new("git").arg("-C").arg(&root).args(["ls-files", "-z"]).output().unwrap();
    assert!(listed.status.success(), "git does not list the files");
    let names = String::from_utf8(listed.stdout).unwrap();
    let names = names.split('\0').filter(|name| !name.is_empty());
    // A file that is deleted but not yet committed is no file.
    let read = |name: &str| Some((name.to_owned(), String::from_utf8(std::fs::read(root.join(name)).ok()?).ok()?));
    let files: Vec<_> = names.filter_map(read).collect();
    assert!(files.len() > 100, "the repository is larger than that");
    files
}

fn rust() -> Vec<(String, String)> {
    tracked().into_iter().filter(|(name, _)| has_extension(name, "rs")).collect()
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// Lines for which `bad` is true, as `file:line: text`.
fn lines_where(files: &[(String, String)], bad: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in files {
        for (at, line) in text.lines().enumerate() {
            if bad(name, line) {
                found.push(format!("{name}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    found
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Words that this file looks for must not be found in itself.
fn word(parts: &[&str]) -> String {
    parts.concat()
}

#[test]
fn nothing_is_left_for_later_in_a_macro() {
    let macros = [word(&["todo", "!("]), word(&["unimplemented", "!("]), word(&["dbg", "!("])];
    let found = lines_where(&rust(), |_, line| macros.iter().any(|name| line.contains(name)));
    none("macros that stand for missing code", &found);
}

#[test]
fn no_test_is_ignored() {
    let ignored = word(&["#[ig", "nore"]);
    none("ignored tests", &lines_where(&rust(), |_, line| line.trim_start().starts_with(&ignored)));
}

#[test]
fn modules_lie_beside_their_folders() {
    let found: Vec<_> = rust().into_iter().map(|(name, _)| name).filter(|name| name.ends_with("/mod.rs")).collect();
    none("mod.rs", &found);
}

#[test]
fn no_file_has_more_than_a_thousand_lines() {
    let long = rust().into_iter().filter_map(|(name, text)| {
        let lines = text.lines().count();
        (lines > 1_000).then(|| format!("{name}: {lines} lines"))
    });
    none("long files", &long.collect::<Vec<_>>());
}

#[test]
fn every_rust_file_says_first_what_it_owns() {
    let silent = rust().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(name, _)| name);
    none("files that begin without a //! line", &silent.collect::<Vec<_>>());
}

#[test]
fn the_lock_file_names_neither_aws_lc_nor_openssl() {
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"ring\""), "this is not the lock file that was meant");
    for name in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{name}\"")), "{name} is in Cargo.lock");
    }
}

#[test]
fn no_tracked_file_names_a_path_of_somebodys_machine() {
    let paths = [word(&["/wo", "rk/"]), word(&["/ho", "me/"]), word(&["/ro", "ot/"]), word(&["/Us", "ers/"])];
    // Paths in examples of what a hostile archive may hold are nobody's; they are listed where they stand.
    let found = lines_where(&tracked(), |name, line| {
        paths.iter().any(|path| line.contains(path.as_str())) && !stands_for_nobody(name, line)
    });
    none("paths of a machine", &found);
}

/// Words in which one of the paths above is only a part, such as a URL's.
fn stands_for_nobody(name: &str, line: &str) -> bool {
    name == "Cargo.lock" || line.contains("/work/<") || line.contains("/work/{") || line.contains("/root/.ssh")
}

#[test]
fn every_allowed_lint_has_a_reason() {
    let mut found = Vec::new();
    for (name, text) in rust() {
        for opening in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            for (at, _) in text.match_indices(opening) {
                let before = text.get(..at).unwrap_or_default();
                let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
                // Words in a comment or a string allow nothing.
                if before.get(line_start..).is_some_and(|start| !start.trim().is_empty()) {
                    continue;
                }
                let attribute = text.get(at..).and_then(|rest| rest.split_once(")]")).map_or("", |(inside, _)| inside);
                if !attribute.contains("reason = \"") {
                    found.push(format!("{name}:{}", before.lines().count()));
                }
            }
        }
    }
    none("allowed lints without a reason", &found);
}

#[test]
fn design_pages_are_numbered_without_gaps_and_named_nowhere_in_vain() {
    let dir = repository().join("docs/design");
    let mut numbers = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (number, rest) = name.split_once('-').unwrap_or_else(|| panic!("{name} has no number"));
        assert!(number.len() == 3 && has_extension(rest, "md"), "{name} is not NNN-name.md");
        assert!(numbers.insert(number.parse::<usize>().unwrap()), "two pages have the number {number}");
    }
    let wanted: BTreeSet<_> = (1..=numbers.len()).collect();
    assert_eq!(numbers, wanted, "numbers of design pages");
}

#[test]
fn pages_that_documents_point_to_exist() {
    let mut found = Vec::new();
    for (name, text) in tracked().into_iter().filter(|(name, _)| has_extension(name, "md")) {
        let folder = repository().join(&name).parent().map(Path::to_owned).unwrap();
        for target in links(&text) {
            let path = target.split('#').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:") || path.is_empty();
            if !outside && !folder.join(path).exists() {
                found.push(format!("{name}: {target}"));
            }
        }
    }
    none("links that lead nowhere", &found);
}

/// Targets of a Markdown text's links.
fn links(text: &str) -> Vec<String> {
    let ends = text.match_indices("](").filter_map(|(at, _)| text.get(at + 2..)?.split_once(')'));
    ends.map(|(target, _)| target.to_owned()).collect()
}

#[test]
fn commands_of_the_readme_exist() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let mut fenced = false;
    let mut seen = 0;
    for line in readme.lines() {
        if line.starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let line = line.trim().trim_start_matches("$ ");
        let Some(words) = fenced.then(|| line.split_whitespace().collect::<Vec<_>>()) else { continue };
        match words.as_slice() {
            ["cargo", "run", rest @ ..] => {
                let after: Vec<_> = rest.iter().skip_while(|word| **word != "--").skip(1).copied().collect();
                check_windlass(&after);
                seen += 1;
            }
            ["windlass", rest @ ..] => {
                check_windlass(rest);
                seen += 1;
            }
            [program, ..] if program.starts_with("./") => {
                let path = repository().join(program);
                assert!(is_executable(&path), "README runs {program}, which is no program of this repository");
                seen += 1;
            }
            _ => {}
        }
    }
    assert!(seen >= 2, "the README's two commands were not found");
}

fn is_executable(path: &PathBuf) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// That the program under test knows the command, and that what looks like a directory of this repository is one.
fn check_windlass(words: &[&str]) {
    let binary = windlass_tests::kit::world::binary().unwrap();
    let Some(command) = words.first() else { panic!("the README runs windlass with nothing") };
    let known = Command::new(binary).args([command, "--help"]).output().unwrap();
    assert!(known.status.success(), "the README names `windlass {command}`, which is unknown");
    for path in words.iter().filter(|word| word.starts_with("examples/")) {
        assert!(repository().join(path).exists(), "the README names {path}, which is not there");
    }
}
