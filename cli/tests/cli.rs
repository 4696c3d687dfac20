//! The binary as a person at a terminal without a server meets it: help, and errors that say what to do.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A home of its own, in which no server runs and nothing is configured.
struct Home(TempDir);

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["run", "project"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join("project").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn windlass(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_windlass"))
            .args(arguments)
            .current_dir(self.path().join("project"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("XDG_RUNTIME_DIR", self.path().join("run"))
            .output()
            .unwrap()
    }

    /// Exit code, stdout and stderr, with this home's path as `~`.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.windlass(arguments);
        let text = |bytes: &[u8]| {
            let real = self.path().canonicalize().unwrap();
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            text.replace(real.to_str().unwrap(), "~").replace(self.path().to_str().unwrap(), "~")
        };
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        format!("exit {}\n--- stdout\n{out}--- stderr\n{err}", output.status.code().unwrap())
    }
}

#[test]
fn the_help_names_every_command() {
    insta::assert_snapshot!(Home::new().told(&["--help"]));
}

#[test]
fn an_unknown_file_is_a_usage_error() {
    let home = Home::new();
    insta::assert_snapshot!(home.told(&["pipeline", "check", "nowhere.yml"]));
    insta::assert_snapshot!(home.told(&["run", "nowhere"]));
    insta::assert_snapshot!(home.told(&["run"]));
}

#[test]
fn a_bad_pipeline_is_shown_with_its_lines_and_nothing_runs() {
    let home = Home::new();
    home.write(".windlass/pipeline.yml", "steps:\n  - comand: make\n");
    insta::assert_snapshot!(home.told(&["run"]));
    assert!(!home.path().join(".local").exists(), "no coordinator was started");
    insta::assert_snapshot!(home.told(&["pipeline", "check", ".windlass/pipeline.yml"]));
    insta::assert_snapshot!(home.told(&["pipeline", "check", "--json", ".windlass/pipeline.yml"]));
}

#[test]
fn a_step_that_does_not_exist_is_refused_before_anything_starts() {
    let home = Home::new();
    home.write("buildkite.yml", "steps:\n  - command: \"true\"\n    key: one\n");
    insta::assert_snapshot!(home.told(&["run", "--step", "two"]));
}

#[test]
fn a_server_that_is_not_there_is_exit_3() {
    let home = Home::new();
    insta::assert_snapshot!(home.told(&["build", "list"]));
    insta::assert_snapshot!(home.told(&["build", "list", "--server", "http://127.0.0.1:9"]));
}

#[test]
fn a_token_never_travels_readable_beyond_this_machine_unless_told() {
    let home = Home::new();
    insta::assert_snapshot!(home.told(&["build", "list", "--server", "http://192.0.2.1:7070"]));
    insta::assert_snapshot!(home.told(&["build", "list", "--server", "192.0.2.1:7070"]));
    let missing = home.told(&["build", "list", "--server", "http://127.0.0.1:9", "--token-file", "none"]);
    insta::assert_snapshot!(missing);
}

#[test]
fn a_store_that_comes_later_is_a_usage_error() {
    insta::assert_snapshot!(Home::new().told(&["coordinator", "--store", "postgres://db/windlass"]));
}

#[test]
fn a_detached_run_without_a_server_is_refused() {
    let home = Home::new();
    home.write("buildkite.yml", "steps:\n  - command: \"true\"\n");
    insta::assert_snapshot!(home.told(&["run", "--detach"]));
}
