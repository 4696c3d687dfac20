//! `pipeline upload --dry-run`: everything of an upload but the sending.

use super::*;

const DRY: [&str; 4] = ["buildkite-agent", "pipeline", "upload", "--dry-run"];

impl World {
    /// Writes a file where commands are called.
    fn file(&self, name: &str, text: &str) {
        let path = self.dir.path().join("checkout").join(name);
        let owned = |path: &Path| {
            if let Some(user) = self.user {
                chown(path, Some(user.uid), Some(user.gid)).unwrap();
            }
        };
        if !path.parent().unwrap().exists() {
            fs::create_dir(path.parent().unwrap()).unwrap();
            owned(path.parent().unwrap());
        }
        fs::write(&path, text).unwrap();
        owned(&path);
    }

    /// What is shown of an upload that is taken, and what is said beside it.
    async fn dry(&self, more: &[&str], input: &str) -> (serde_json::Value, String) {
        let (status, output, errors) = self.run_with(&[&DRY[..], more].concat(), input).await;
        assert_eq!(status, Some(0), "{output}{errors}");
        (serde_json::from_str(&output).unwrap_or(serde_json::Value::Null), errors)
    }

    /// Why an upload is not taken.
    async fn not(&self, more: &[&str], input: &str) -> String {
        let (status, output, errors) = self.run_with(&[&DRY[..], more].concat(), input).await;
        assert_eq!(status, Some(1), "{output}{errors}");
        errors
    }

    /// A command of the job with no input at all.
    async fn silent(&self, line: &[&str]) -> Ended {
        let mut command = self.command(line, self.user);
        command.stdin(Stdio::null());
        ended(command.spawn().unwrap()).await
    }

    async fn git(&self, arguments: &[&str]) {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main"]);
        command.args(arguments).current_dir(self.dir.path().join("checkout")).env("HOME", self.dir.path());
        if let Some(user) = self.user {
            command.uid(user.uid).gid(user.gid);
        }
        let done = command.output().await.unwrap();
        assert!(done.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

#[tokio::test]
async fn variables_of_the_process_are_put_in_and_nothing_else_is_shown() {
    let mut world = World::new().await;
    world.env.push(("WHO".to_owned(), "world".to_owned()));
    let text =
        "env: {GREETING: \"hello $WHO\"}\nsteps:\n- {commands: [\"echo $GREETING\", 'x $$Y'], name: l, priority: 3}\n";
    let (shown, errors) = world.dry(&[], text).await;
    let expected = serde_json::json!({
        "env": { "GREETING": "hello world" },
        "steps": [{ "command": "echo hello world\nx $Y", "label": "l", "priority": 3 }],
    });
    assert_eq!((shown, errors.as_str()), (expected, ""));
    let (shown, _) = world.dry(&["--no-interpolation"], text).await;
    assert_eq!(shown["steps"][0]["command"], "echo $GREETING\nx $$Y");
    let (_, output, _) = world.run_with(&[&DRY[..], &["--format", "yaml"]].concat(), text).await;
    let expected = "env:\n    GREETING: hello world\nsteps:\n    - command: \"echo hello world\\nx $Y\"\n      label: l\n      \
                    priority: 3\n";
    assert_eq!(output, expected);
    let (_, output, _) = world.run_with(&DRY, "- wait\n").await;
    assert_eq!(output, "{\n  \"steps\": [\n    \"wait\"\n  ]\n}\n", "two spaces");
    assert!(world.not(&["--format", "toml"], text).await.contains("json or yaml"));
}

#[tokio::test]
async fn all_documents_of_all_files_are_shown_in_order_and_those_before_a_bad_one() {
    let world = World::new().await;
    world.file("one.yml", "env: {A: one}\nsteps: [\"$A\"]\n---\n- $A two\n");
    world.file("two.yml", "- $A three\n---\n{\n");
    world.file("empty.yml", "");
    let (status, output, errors) = world.run(&[&DRY[..], &["one.yml", "two.yml"]].concat()).await;
    let scalar = |line: &&str| line.starts_with("    \"") && !line.contains(':');
    let shown: Vec<_> = output.lines().filter(scalar).map(str::trim).collect();
    assert_eq!(shown, ["\"one\"", "\"one two\"", "\"one three\""], "{output}");
    assert_eq!(status, Some(1));
    assert!(errors.contains("pipeline parsing of \"two.yml\" failed: two.yml:"), "{errors}");
    let (_, output, _) = world.run(&[&DRY[..], &["--format=yaml", "one.yml"]].concat()).await;
    assert_eq!(output, "env:\n    A: one\nsteps:\n    - one\n---\nsteps:\n    - one two\n");
    assert!(world.not(&["empty.yml"], "").await.contains("is empty"));
    assert!(world.not(&["absent.yml"], "").await.contains("absent.yml"));
    let wrong = world.not(&[], "- command: ${A:x}\n").await;
    assert!(wrong.contains("pipeline interpolation of \"(stdin)\" failed: (stdin):1:12: "), "{wrong}");
}

#[tokio::test]
async fn without_files_and_input_the_one_file_that_is_there_is_read() {
    let world = World::new().await;
    let (status, _, errors) = world.silent(&DRY).await;
    assert!(status == Some(1) && errors.contains("could not find a default pipeline file"), "{errors}");
    world.file(".buildkite/pipeline.yml", "- label: theirs\n  command: a\n");
    assert!(world.silent(&DRY).await.1.contains("theirs"));
    world.file("buildkite.json", "[]");
    let (status, _, errors) = world.silent(&DRY).await;
    assert!(status == Some(1) && errors.contains("buildkite.json, .buildkite/pipeline.yml"), "{errors}");
    world.file(".windlass/pipeline.yml", "- label: ours\n  command: a\n");
    assert!(world.silent(&DRY).await.1.contains("ours"), "ours is looked for first");
}

#[tokio::test]
async fn warnings_are_told_or_refused_and_secrets_never_go() {
    let world = World::new().await;
    let (shown, errors) = world.dry(&[], "- {nothing: x}\n").await;
    assert_eq!(shown["steps"][0]["nothing"], "x");
    assert!(errors.contains("completed with warnings") && errors.contains("(stdin):1:"), "{errors}");
    let refused = world.not(&["--reject-parse-warnings"], "- {nothing: x}\n").await;
    assert!(refused.starts_with("fatal: "), "{refused}");
    // The world's MY_TOKEN is a secret by its name.
    for text in
        ["- command: echo $MY_TOKEN\n", "- command: echo hunter22\n", "- {command: a, env: {OTHER_TOKEN: written}}\n"]
    {
        let refused = world.not(&[], text).await;
        assert!(refused.contains("--allow-secrets") && !refused.contains("hunter22"), "{refused}");
        let (_, errors) = world.dry(&["--allow-secrets"], text).await;
        assert!(errors.starts_with("warning: "), "{errors}");
    }
    let (_, errors) = world.dry(&[], "- command: echo $$MY_TOKEN\n").await;
    assert_eq!(errors, "");
    let (_, errors) = world.dry(&["--redacted-vars", "NOTHING_*"], "- command: echo $MY_TOKEN\n").await;
    assert_eq!(errors, "", "other names are secret then");
}

const STEPS: &str = "- {command: rust, if_changed: '**.rs'}\n- {command: docs, if_changed: 'docs/**'}\n";

/// Which of [`STEPS`] are skipped.
fn skipped(shown: &serde_json::Value) -> [bool; 2] {
    [0, 1].map(|index| shown["steps"][index]["skip"].is_string())
}

#[tokio::test]
async fn changed_files_are_those_of_a_list_or_of_git() {
    let mut world = World::new().await;
    let (shown, errors) = world.dry(&[], STEPS).await;
    assert_eq!(skipped(&shown), [false, false], "where there is no repository every step runs");
    assert!(errors.contains("if_changed is not decided"), "{errors}");
    world.file("list", "src/a.rs\n\n");
    let (shown, errors) = world.dry(&["--changed-files-path", "list"], STEPS).await;
    assert_eq!((skipped(&shown), errors.as_str()), ([false, true], ""));
    let (shown, _) = world.dry(&["--apply-if-changed=false", "--changed-files-path", "list"], STEPS).await;
    assert_eq!(shown, serde_json::json!({ "steps": [{ "command": "rust" }, { "command": "docs" }] }));
    assert!(world.not(&["--changed-files-path", "absent"], STEPS).await.contains("absent"));

    world.git(&["init", "--quiet"]).await;
    world.file("src/a.rs", "");
    world.git(&["add", "."]).await;
    world.git(&["commit", "--quiet", "-m", "one"]).await;
    world.git(&["branch", "base"]).await;
    let (shown, _) = world.dry(&["--git-diff-base", "base"], STEPS).await;
    assert_eq!(skipped(&shown), [false, true], "the last commit alone, where the base is the head");
    world.file("docs/é \"x\".md", "");
    world.git(&["add", "."]).await;
    world.git(&["commit", "--quiet", "-m", "two"]).await;
    let (shown, errors) = world.dry(&["--git-diff-base", "base"], STEPS).await;
    assert_eq!((skipped(&shown), errors.as_str()), ([true, false], ""));
    world.file("src/a.rs", "// changed");
    let (shown, _) = world.dry(&["--git-diff-base", "base"], STEPS).await;
    assert_eq!(skipped(&shown), [false, false], "what is not committed counts");
    world.git(&["update-ref", "refs/remotes/origin/release", "HEAD"]).await;
    world.git(&["checkout", "--quiet", "."]).await;
    world.env.push(("BUILDKITE_PIPELINE_DEFAULT_BRANCH".to_owned(), "release".to_owned()));
    let (shown, _) = world.dry(&[], STEPS).await;
    assert_eq!(skipped(&shown), [true, false], "the pipeline's default branch is the base");
    let (shown, errors) = world.dry(&["--git-diff-base", "--output=x"], STEPS).await;
    assert_eq!(skipped(&shown), [false, false]);
    assert!(errors.contains("rev-parse") && !world.dir.path().join("checkout/x").exists(), "{errors}");
}

#[tokio::test]
async fn a_base_that_is_fetched_and_a_commit_by_its_name_are_known() {
    let mut world = World::new().await;
    world.git(&["init", "--quiet"]).await;
    world.file("src/a.rs", "");
    world.git(&["add", "."]).await;
    world.git(&["commit", "--quiet", "-m", "one"]).await;
    world.git(&["clone", "--quiet", "--bare", ".", "origin.git"]).await;
    world.git(&["remote", "add", "origin", "./origin.git"]).await;
    world.file("docs/a.md", "");
    world.git(&["add", "docs"]).await;
    world.git(&["commit", "--quiet", "-m", "two"]).await;
    let (_, errors) = world.dry(&[], STEPS).await;
    assert!(errors.contains("origin/main"), "it was never fetched: {errors}");
    let (shown, errors) = world.dry(&["--fetch-diff-base"], STEPS).await;
    assert_eq!((skipped(&shown), errors.as_str()), ([true, false], ""));
    world.env.push(("BUILDKITE_COMMIT".to_owned(), "HEAD".to_owned()));
    let (shown, _) = world.dry(&[], "- command: echo $BUILDKITE_COMMIT\n").await;
    let id = shown["steps"][0]["command"].as_str().unwrap().trim_start_matches("echo ").to_owned();
    assert!(id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
}
