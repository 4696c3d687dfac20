//! Builds from submit to their end: what is shown, listed, repeated and narrowed.

use serde_json::json;
use windlass_cache::{Directory, Entry, Node};
use windlass_coordinator_core::input::AgentEvent;
use windlass_coordinator_core::row::Scope;
use windlass_protocol::message::Health;
use windlass_protocol::stock::{Fetched, InputName, Stocked};
use windlass_protocol::{Digest, Namespace};

use super::{Bench, ONE_STEP, redacted, request, text};

#[tokio::test]
async fn a_submitted_build_is_shown_in_the_interfaces_words() {
    let bench = Bench::new().await;
    let definition = "steps:\n  - label: Make it\n    command: make $BUILDKITE_BRANCH\n    key: one\n  - wait\n  \
                      - command: b\n    parallelism: 2\n";
    let body = json!({
        "pipeline": "web", "definition": definition,
        "branch": "main", "commit": "HEAD", "message": "why", "env": { "B": "2", "WHO": "me" },
        "meta_data": { "k": "v" }, "source": "cli",
    });
    let answer = bench.post("/api/v1/builds", body).await.is(201);
    let build = answer.json();
    assert_eq!(answer.header("location"), format!("/api/v1/builds/{}", text(&build["id"])));
    assert_eq!(build, bench.get(&format!("/api/v1/builds/{}", text(&build["id"]))).await.is(200).json());
    assert_eq!(build, bench.get("/api/v1/pipelines/web/builds/1").await.is(200).json());
    assert_eq!(build, bench.get("/api/v1/builds/latest").await.is(200).json());
    assert_eq!(build["env"].as_object().unwrap().keys().collect::<Vec<_>>(), ["B", "WHO"], "the order is kept");
    insta::assert_snapshot!(redacted(build));
}

#[tokio::test]
async fn a_build_that_an_agent_ran_shows_its_attempt_and_its_end() {
    let mut bench = Bench::new().await;
    let agent = bench.agent().await;
    let id = text(&bench.build().await["id"]).to_owned();
    let attempt = bench.run(0, b"hello\n").await;
    let build = bench.ended(&id).await;
    assert_eq!(build["state"], "passed");
    let job = &build["jobs"][0];
    assert_eq!((&job["state"], &job["exit_status"], &job["zone"]), (&json!("passed"), &json!(0), &json!("local")));
    let shown = &job["attempts"][0];
    assert_eq!(shown["id"], attempt.to_string());
    assert_eq!(shown["agent"]["id"], agent.to_string());
    assert_eq!((&shown["state"], &shown["log_bytes"]), (&json!("finished"), &json!(6)));
    assert_eq!(shown["log_digest"], Digest::of(b"hello\n").to_string());
    assert_eq!(text(&shown["finished_at"]).len(), "2026-01-01T00:00:00.000Z".len());
}

#[tokio::test]
async fn one_idempotency_key_makes_one_build_and_refuses_another_body() {
    let bench = Bench::new().await;
    let send = async |token: &str, message: &str| {
        let body = json!({ "pipeline": "web", "definition": ONE_STEP, "message": message }).to_string();
        let request = request(token, "POST", "/api/v1/builds").header("idempotency-key", "k1");
        bench.send(request.body(body.into()).unwrap()).await
    };
    let first = send(&bench.admin, "m").await.is(201).json();
    let again = send(&bench.admin, "m").await.is(200).json();
    assert_eq!(first["id"], again["id"]);
    let other = send(&bench.admin, "other").await.is(422).json();
    assert_eq!(other["type"], "/problems/idempotency-mismatch");
    let stranger = bench.token(&[Scope::BuildsWrite], None, None).await;
    assert_ne!(send(&stranger, "m").await.is(201).json()["id"], first["id"], "keys are each token's own");
}

#[tokio::test]
async fn a_list_is_newest_first_filtered_and_cut_into_pages() {
    let bench = Bench::new().await;
    for branch in ["a", "b", "a", "a"] {
        let body = json!({ "pipeline": "web", "definition": ONE_STEP, "branch": branch });
        bench.post("/api/v1/builds", body).await.is(201);
    }
    let numbers = |page: &serde_json::Value| -> Vec<u64> {
        page["items"].as_array().unwrap().iter().map(|build| build["number"].as_u64().unwrap()).collect()
    };
    let first = bench.get("/api/v1/builds?branch=a&limit=2").await.is(200).json();
    assert_eq!(numbers(&first), [4, 3]);
    assert!(first["items"][0].get("jobs").is_none(), "lists come without jobs");
    let next = format!("/api/v1/builds?branch=a&limit=2&cursor={}", text(&first["next_cursor"]));
    let second = bench.get(&next).await.is(200).json();
    assert_eq!((numbers(&second), &second["next_cursor"]), (vec![1], &json!(null)));
    assert_eq!(numbers(&bench.get("/api/v1/builds?state=passed").await.is(200).json()), [] as [u64; 0]);
    assert_eq!(numbers(&bench.get("/api/v1/builds?state=scheduled&pipeline=web").await.is(200).json()), [4, 3, 2, 1]);
    assert_eq!(numbers(&bench.get("/api/v1/builds?state=blocked").await.is(200).json()), [] as [u64; 0]);
}

#[tokio::test]
async fn a_canceled_build_ends_and_cannot_be_canceled_again() {
    let bench = Bench::new().await;
    let id = text(&bench.build().await["id"]).to_owned();
    let canceled = bench.post(&format!("/api/v1/builds/{id}/cancel"), json!({})).await.is(200).json();
    assert_eq!(canceled["state"], "canceled");
    assert_eq!(canceled["cause"]["kind"], "canceled");
    assert_eq!(canceled["jobs"][0]["cause"]["retryable"], false);
    let again = bench.post(&format!("/api/v1/builds/{id}/cancel"), json!({})).await.is(409).json();
    assert_eq!(again["type"], "/problems/conflict");
}

#[tokio::test]
async fn what_failed_is_run_again_though_its_build_has_left_memory() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let id = text(&bench.build().await["id"]).to_owned();
    let attempt = bench.run(1, b"").await;
    let failed = bench.ended(&id).await;
    assert_eq!(failed["state"], "failed");
    let retried = bench.post(&format!("/api/v1/builds/{id}/retry"), json!({})).await.is(200).json();
    assert_eq!(retried["finished_at"], json!(null));
    bench.run(1, b"").await;
    bench.ended(&id).await;
    // By the id of an attempt, its job.
    let job = bench.post(&format!("/api/v1/jobs/{attempt}/retry"), json!({})).await.is(200).json();
    assert_eq!((&job["id"], &job["retries"]), (&failed["jobs"][0]["id"], &json!(2)));
    bench.run(0, b"").await;
    assert_eq!(bench.ended(&id).await["state"], "passed");
    bench.post(&format!("/api/v1/builds/{id}/retry"), json!({})).await.is(409);
}

#[tokio::test]
async fn a_job_can_be_canceled_alone_and_says_why_it_waits() {
    let bench = Bench::new().await;
    let definition = "steps:\n  - command: a\n    key: a\n  - command: b\n    depends_on: a\n";
    let build =
        bench.post("/api/v1/builds", json!({ "pipeline": "web", "definition": definition })).await.is(201).json();
    let (a, b) = (text(&build["jobs"][0]["id"]), text(&build["jobs"][1]["id"]));
    let why = bench.get(&format!("/api/v1/jobs/{a}/why")).await.is(200).json();
    assert_eq!((&why["kind"], &why["state"]), (&json!("no_pool"), &json!("scheduled")));
    assert_eq!(why["text"], "no pool serves queue `default` for trusted builds");
    let why = bench.get(&format!("/api/v1/jobs/{b}/why")).await.is(200).json();
    assert_eq!((&why["kind"], &why["dependencies"]), (&json!("dependencies"), &json!(["a"])));
    let canceled = bench.post(&format!("/api/v1/jobs/{a}/cancel"), json!({})).await.is(200).json();
    assert_eq!(canceled["state"], "canceled");
    let why = bench.get(&format!("/api/v1/jobs/{a}/why")).await.is(200).json();
    assert_eq!(why["kind"], "ended");
    assert!(text(&why["text"]).starts_with("it was canceled ("), "{why}");
    let why = bench.get(&format!("/api/v1/jobs/{b}/why")).await.is(200).json();
    assert_eq!((&why["kind"], &why["text"]), (&json!("ended"), &json!("it did not run: a was canceled")));
    bench.post(&format!("/api/v1/jobs/{a}/cancel"), json!({})).await.is(409);
}

#[tokio::test]
async fn a_job_that_ran_says_what_was_weighed_for_its_agent() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let health = Health { runs_images: true, ..Health::default() };
    bench.says(AgentEvent::Beat { seq: 1, health, held: vec![] }).await;
    let inputs = vec![Stocked { name: InputName::image("big"), bytes: 1 << 30 }];
    bench.says(AgentEvent::Stock { inputs, fetched: Fetched::default() }).await;
    let definition = "steps:\n  - command: a\n    image: big\n  - command: b\n";
    let build = json!({ "pipeline": "web", "definition": definition });
    let build = bench.post("/api/v1/builds", build).await.is(201).json();
    for _ in 0..2 {
        bench.run(0, b"").await;
    }
    let build = bench.ended(text(&build["id"])).await;
    let why = bench.get(&format!("/api/v1/jobs/{}/why", text(&build["jobs"][0]["id"]))).await.is(200).json();
    insta::assert_snapshot!(redacted(why["weighed"].clone()));
    let why = bench.get(&format!("/api/v1/jobs/{}/why", text(&build["jobs"][1]["id"]))).await.is(200).json();
    assert_eq!(why["weighed"], json!(null), "nothing was weighed for a step without large inputs");
}

#[tokio::test]
async fn a_rebuild_is_a_new_build_of_the_same_text() {
    let bench = Bench::new().await;
    let first = bench.build().await;
    let path = format!("/api/v1/builds/{}/rebuild", text(&first["id"]));
    let second = bench.post(&path, json!({})).await.is(201).json();
    assert_eq!((&second["number"], &second["rebuilt_from"]), (&json!(2), &first["id"]));
    assert_eq!(second["jobs"][0]["step_key"], "one");
}

#[tokio::test]
async fn a_rebuild_never_gains_trust() {
    let bench = Bench::new().await;
    let stranger = bench.token(&[Scope::BuildsWrite], None, None).await;
    let body = json!({ "pipeline": "web", "definition": ONE_STEP }).to_string();
    let low = bench.call(&stranger, "POST", "/api/v1/builds", body).await.is(201).json();
    let overlay = format!("token:{}", super::id_of(&stranger));
    assert_eq!(low["namespace"], overlay);
    let again = bench.post(&format!("/api/v1/builds/{}/rebuild", text(&low["id"])), json!({})).await.is(201).json();
    assert_eq!(again["namespace"], overlay, "not even by an admin's hand");
    let high = bench.build().await;
    assert_eq!(high["namespace"], "trusted");
    let path = format!("/api/v1/builds/{}/rebuild", text(&high["id"]));
    assert_eq!(bench.call(&stranger, "POST", &path, "").await.is(201).json()["namespace"], overlay);
}

#[tokio::test]
async fn some_steps_run_alone_or_with_what_they_depend_on() {
    let bench = Bench::new().await;
    let definition = "steps:\n  - { command: a, key: a }\n  - { command: b, key: b }\n  \
                      - { command: c, key: c, depends_on: a }\n";
    let submit = async |keys: &[&str], with: bool| {
        let steps = json!({ "keys": keys, "with_dependencies": with });
        let body = json!({ "pipeline": "web", "definition": definition, "steps": steps });
        bench.post("/api/v1/builds", body).await
    };
    let keys = |build: &serde_json::Value| -> Vec<(String, usize)> {
        let jobs = build["jobs"].as_array().unwrap().iter();
        jobs.map(|job| (text(&job["step_key"]).to_owned(), job["depends_on"].as_array().unwrap().len())).collect()
    };
    assert_eq!(keys(&submit(&["c"], true).await.is(201).json()), [("a".to_owned(), 0), ("c".to_owned(), 1)]);
    assert_eq!(keys(&submit(&["c"], false).await.is(201).json()), [("c".to_owned(), 0)]);
    let unknown = submit(&["d"], false).await.is(422).json();
    assert_eq!(
        (&unknown["type"], &unknown["errors"][0]["hint"]),
        (&json!("/problems/pipeline-invalid"), &json!("its steps are a, b, c"))
    );
}

/// A tree with these files, at most one directory deep.
pub(super) fn tree(bench: &Bench, namespace: &Namespace, files: &[(&str, &str)]) -> Digest {
    let store = &bench.ground.fleet.store;
    let mut dirs: std::collections::BTreeMap<&str, Vec<Entry>> = std::collections::BTreeMap::new();
    for (path, text) in files {
        let (dir, name) = path.split_once('/').unwrap_or(("", path));
        let digest = store.put(namespace, text.as_bytes()).unwrap();
        let node = Node::File { digest, len: text.len() as u64, mode: 0o644 };
        dirs.entry(dir).or_default().push(Entry { name: name.as_bytes().to_vec(), node });
    }
    let mut root = dirs.remove("").unwrap_or_default();
    for (name, entries) in dirs {
        let digest = store.put(namespace, &Directory::new(entries).unwrap().encode()).unwrap();
        root.push(Entry { name: name.as_bytes().to_vec(), node: Node::Directory { digest, mode: 0o755 } });
    }
    store.put(namespace, &Directory::new(root).unwrap().encode()).unwrap()
}

#[tokio::test]
async fn a_pipeline_is_read_from_the_source_tree_ours_first() {
    let bench = Bench::new().await;
    let namespace = Namespace::trusted("web");
    let step = |key: &str| format!("steps:\n  - command: make\n    key: {key}\n");
    let (own, theirs) = (step("own"), step("theirs"));
    let submit = async |files: &[(&str, &str)]| {
        let root = tree(&bench, &namespace, files);
        bench.post("/api/v1/builds", json!({ "pipeline": "web", "origin": { "tree": root } })).await
    };
    let both = submit(&[(".windlass/pipeline.yml", &own), (".buildkite/pipeline.yml", &theirs)]).await.is(201).json();
    assert_eq!(both["jobs"][0]["step_key"], "own");
    let one = submit(&[(".buildkite/pipeline.yaml", &theirs), ("README", "x")]).await.is(201).json();
    assert_eq!(one["jobs"][0]["step_key"], "theirs");
    let several = submit(&[(".buildkite/pipeline.yml", &theirs), ("buildkite.yml", &theirs)]).await.is(422).json();
    assert!(text(&several["detail"]).contains("buildkite.yml, .buildkite/pipeline.yml"), "{several}");
    assert_eq!(submit(&[("README", "x")]).await.is(422).json()["type"], "/problems/pipeline-invalid");
}

#[tokio::test]
async fn a_tree_that_the_token_cannot_see_is_missing() {
    let bench = Bench::new().await;
    let foreign = Namespace::overlay("web", "token:somebody");
    let root = tree(&bench, &foreign, &[(".windlass/pipeline.yml", ONE_STEP)]);
    let body = json!({ "pipeline": "web", "definition": ONE_STEP, "origin": { "tree": root } });
    let refused = bench.post("/api/v1/builds", body.clone()).await.is(422).json();
    assert_eq!(refused["type"], "/problems/source-missing");
    tree(&bench, &Namespace::trusted("web"), &[(".windlass/pipeline.yml", ONE_STEP)]);
    assert_eq!(bench.post("/api/v1/builds", body).await.is(201).json()["origin"], json!({ "tree": root }));
}

#[tokio::test]
async fn what_git_would_take_for_an_option_is_no_repository_of_a_pipeline_or_a_build() {
    let bench = Bench::new().await;
    for bad in ["--upload-pack=x", "ssh://-oProxyCommand=x/a", "git@-oProxyCommand=x:a", ""] {
        let pipeline = json!({ "name": "web", "repository": bad });
        bench.post("/api/v1/pipelines", pipeline).await.is(422);
        let origin = json!({ "repository": bad, "commit": "HEAD", "branch": "main" });
        let build = json!({ "pipeline": "web", "definition": ONE_STEP, "origin": origin });
        bench.post("/api/v1/builds", build).await.is(422);
    }
    bench.post("/api/v1/pipelines", json!({ "name": "web", "repository": "git@h:a/b.git" })).await.is(201);
    let update = json!({ "repository": "ssh://-oProxyCommand=x/a" });
    bench.call(&bench.admin, "PATCH", "/api/v1/pipelines/web", update.to_string()).await.is(422);
}

#[tokio::test]
async fn a_repository_with_a_password_in_its_url_is_refused_and_the_password_not_repeated() {
    let bench = Bench::new().await;
    let submit = async |repository: &str| {
        let origin = json!({ "repository": repository, "commit": "HEAD", "branch": "main" });
        let body = json!({ "pipeline": "web", "definition": ONE_STEP, "origin": origin });
        bench.post("/api/v1/builds", body).await
    };
    for url in ["https://ci:hunter2@git.example.org/a.git", "ssh://ci:hunter2@git.example.org/a.git"] {
        let refused = submit(url).await;
        assert_eq!(refused.status, 422, "{url}");
        assert!(!String::from_utf8_lossy(&refused.body).contains("hunter2"), "{url}");
    }
    for url in
        ["https://ci@git.example.org/a:b@c.git", "git@git.example.org:a.git", "ssh://git@h:22/a.git", "/srv/a:b@c"]
    {
        assert_eq!(submit(url).await.status, 201, "{url}");
    }
}

/// The steps' labels say what interpolation knew of the build.
const SAYS_ITSELF: &str = "steps:\n  - command: a\n    label: number $BUILDKITE_BUILD_NUMBER\n  - command: b\n    \
                           label: id ${BUILDKITE_BUILD_ID} $WINDLASS_BUILD_ID\n";

#[track_caller]
fn says_itself(build: &serde_json::Value) {
    assert_eq!(text(&build["jobs"][0]["label"]), format!("number {}", build["number"]));
    assert_eq!(text(&build["jobs"][1]["label"]), format!("id {0} {0}", text(&build["id"])));
}

#[tokio::test]
async fn a_pipeline_knows_its_builds_number_and_id_when_it_is_compiled() {
    let bench = Bench::new().await;
    let body = json!({ "pipeline": "web", "definition": SAYS_ITSELF });
    bench.build().await;
    let second = bench.post("/api/v1/builds", body.clone()).await.is(201).json();
    assert_eq!(second["number"], 2);
    says_itself(&second);
    let again = bench.post(&format!("/api/v1/builds/{}/rebuild", text(&second["id"])), json!({})).await.is(201).json();
    assert_eq!(again["number"], 3);
    says_itself(&again);
    let refused =
        json!({ "pipeline": "web", "definition": "steps:\n  - command: ${BUILDKITE_BUILD_NUMBER?} ${NOPE?}\n" });
    bench.post("/api/v1/builds", refused).await.is(422);
    let fourth = bench.post("/api/v1/builds", body).await.is(201).json();
    assert_eq!(fourth["number"], 4, "one that is refused leaves no gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_submits_at_once_each_is_compiled_with_the_number_that_it_gets() {
    let bench = Bench::new().await;
    let body = json!({ "pipeline": "web", "definition": SAYS_ITSELF });
    let submits = (0..24).map(|_| bench.post("/api/v1/builds", body.clone()));
    let mut numbers = Vec::new();
    for answer in futures_util::future::join_all(submits).await {
        let build = answer.is(201).json();
        says_itself(&build);
        numbers.push(build["number"].as_u64().unwrap());
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=24).collect::<Vec<_>>());
}

/// A repository with one commit, which has a pipeline.
pub(super) fn repository(dir: &std::path::Path, text: &str) -> (String, String) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("buildkite.yml"), text).unwrap();
    let script = "git init -q -b main && git add . && git commit -q -m 'the first' && git rev-parse HEAD";
    let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", script]).current_dir(dir).envs(identity.map(|name| (name, "t@example.invalid")));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (dir.display().to_string(), String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[tokio::test]
async fn steps_for_files_that_did_not_change_are_skipped_where_the_coordinator_reads_the_repository() {
    let text =
        "steps: [{ command: a, key: src, if_changed: 'src/**' }, { command: b, key: docs, if_changed: 'docs/**' }]\n";
    let bench = Bench::new().await;
    let dir = tempfile::tempdir().unwrap();
    let (repository, first) = repository(&dir.path().join("web.git"), text);
    bench.post("/api/v1/pipelines", json!({ "name": "web", "repository": repository })).await.is(201);
    let states = |build: &serde_json::Value| {
        ["src", "docs"].map(|key| {
            let jobs = build["jobs"].as_array().unwrap();
            jobs.iter().find(|job| job["step_key"] == key).unwrap()["state"].as_str().unwrap().to_owned()
        })
    };
    let (runs, skipped) = ("scheduled", "skipped");
    let all = bench.post("/api/v1/builds", json!({ "pipeline": "web", "commit": first })).await.is(201).json();
    assert_eq!(states(&all), [skipped, skipped], "its own commit changed neither");
    let script = "mkdir src && echo 1 >src/a && git add -A && git commit -q -m src && git rev-parse HEAD";
    let second = sh(&dir.path().join("web.git"), script);
    let build = bench.post("/api/v1/builds", json!({ "pipeline": "web", "branch": "main" })).await.is(201).json();
    assert_eq!((&build["commit"], states(&build)), (&json!(second), [runs, skipped].map(str::to_owned)));
    let again = format!("/api/v1/builds/{}/rebuild", build["id"].as_str().unwrap());
    assert_eq!(states(&bench.post(&again, json!({})).await.is(201).json()), [runs, skipped], "and so it is made again");
    // Where nobody knows, every step runs.
    let base = json!({ "BUILDKITE_GIT_DIFF_BASE": "origin/gone" });
    let unknown = bench.post("/api/v1/builds", json!({ "pipeline": "web", "branch": "main", "env": base })).await;
    assert_eq!(states(&unknown.is(201).json()), [runs, runs]);
    let sent = bench.post("/api/v1/builds", json!({ "pipeline": "other", "definition": text })).await.is(201).json();
    assert_eq!(states(&sent), [runs, runs]);
}

fn sh(dir: &std::path::Path, script: &str) -> String {
    let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
    let mut command = std::process::Command::new("sh");
    command.args(["-ec", script]).current_dir(dir).envs(identity.map(|name| (name, "t@example.invalid")));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_pipeline_is_read_from_the_commit_and_the_build_is_pinned_to_it() {
    let bench = Bench::new().await;
    let dir = tempfile::tempdir().unwrap();
    let (repository, commit) = repository(&dir.path().join("web.git"), ONE_STEP);
    for asked in ["HEAD", &commit] {
        let origin = json!({ "repository": repository, "commit": asked, "branch": "main" });
        let build = bench.post("/api/v1/builds", json!({ "origin": origin })).await.is(201).json();
        assert_eq!((&build["pipeline"], &build["commit"]), (&json!("web"), &json!(commit)));
        assert_eq!((&build["origin"]["commit"], &build["message"]), (&json!(commit), &json!("the first")));
        assert_eq!(build["jobs"][0]["step_key"], "one");
    }
    let absent = "0123456789".repeat(4);
    for (commit, branch, status, kind) in [
        (&*absent, "main", 422, "commit-missing"),
        ("HEAD", "gone", 422, "commit-missing"),
        ("HEAD", "a..b", 422, "invalid"),
    ] {
        let origin = json!({ "repository": repository, "commit": commit, "branch": branch });
        let refused = bench.post("/api/v1/builds", json!({ "origin": origin })).await.is(status).json();
        assert_eq!(refused["type"], format!("/problems/{kind}"), "{refused}");
    }
    let nowhere = dir.path().join("nowhere").display().to_string();
    let origin = json!({ "repository": nowhere, "commit": "HEAD", "branch": "main" });
    bench.post("/api/v1/builds", json!({ "origin": origin })).await.is(502);
    let origin = json!({ "repository": "https://git.example.invalid/a.git", "commit": "HEAD", "branch": "main" });
    let refused = bench.post("/api/v1/builds", json!({ "origin": origin })).await.is(422).json();
    assert!(text(&refused["detail"]).contains("the operator allows file"), "{refused}");
}
