//! Who hears of builds: signed webhooks and commit statuses, over receivers that fail and a coordinator that is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::process::Command;
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::world::run;
use windlass_tests::kit::{
    Coordinator, CoordinatorOptions, DEADLINE, Fleet, JoinToken, Received, Receiver, Submit, World, test, until,
};

const KEY: &str = "a-signing-key-for-end-to-end-tests";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A file that nobody else reads.
fn private(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(std::io::Write::write_all(&mut file, text.as_bytes())?)
}

/// A fleet whose coordinator has this table `notify`.
async fn fleet<'a>(world: &'a World, notify: &str) -> Result<Fleet<'a>> {
    let (key, config) = (world.path("notify-key"), world.path("coordinator.toml"));
    private(&key, KEY)?;
    fs::write(&config, format!("[notify]\nkey_file = \"{}\"\n{notify}", key.display()))?;
    let more = vec!["--config".to_owned(), config.display().to_string()];
    let coordinator = Coordinator::start_with(world, CoordinatorOptions { more, ..CoordinatorOptions::default() });
    Fleet::around(world, coordinator.await?, &JoinToken::pool("local", &["default"]), 1).await
}

/// A pipeline with a `notify` of its own.
fn notifying(steps: impl IntoIterator<Item = Value>, notify: &Value) -> Result<String> {
    let mut whole: Value = serde_json::from_str(&pipeline(steps))?;
    whole["notify"] = notify.clone();
    Ok(whole.to_string())
}

/// HMAC-SHA256 as OpenSSL makes it.
async fn hmac(world: &World, signed: &[u8]) -> Result<Vec<u8>> {
    let (input, output) = (world.path("signed"), world.path("mac"));
    fs::write(&input, signed)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-hmac", KEY, "-binary", "-out"]).arg(&output).arg(&input);
    run("openssl", openssl, DEADLINE).await?.code(0)?;
    Ok(fs::read(output)?)
}

/// Whether a webhook is signed in both forms, just now.
async fn signed(world: &World, received: &Received) -> Result<()> {
    let (id, time) = (received.header("webhook-id"), received.header("webhook-timestamp"));
    let mac = hmac(world, &[format!("{id}.{time}.").as_bytes(), &received.body].concat()).await?;
    ensure!(received.header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac)), "{received:?}");
    let mac = hmac(world, &[format!("{time}.").as_bytes(), &received.body].concat()).await?;
    let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let wanted = format!("timestamp={time},signature={hex}");
    ensure!(received.header("x-buildkite-signature") == wanted, "{received:?}");
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    ensure!(at.abs_diff(time.parse()?) < 300, "signed at {time}, and it is {at}");
    ensure!(received.header("x-buildkite-event") == received.json()?["event"], "{received:?}");
    Ok(())
}

fn items(listed: &Value) -> Vec<Value> {
    listed["items"].as_array().cloned().unwrap_or_default()
}

#[test]
fn webhooks_come_signed_and_in_order_over_failures_and_a_kill_whoever_else_is_down() -> Result<()> {
    test(async |world| {
        let living = Receiver::answering(|n| if n < 2 { 500 } else { 200 }).await?;
        let silent = Receiver::silent().await?;
        let mut fleet = fleet(world, "allow = [\"127.0.0.0/8\"]\n").await?;
        let hook = format!("{}/hook", living.url());
        let notify = json!([{ "webhook": silent.url() }, { "webhook": hook }, { "slack": "#builds" }]);
        let build = fleet.client.submit(&Submit::text(notifying([step("one", "true")], &notify)?)).await?;
        living.until(2, DEADLINE).await?;
        fleet.coordinator.kill9().await?;
        fleet.coordinator.restart().await?;
        fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let wanted = ["build.scheduled", "build.running", "build.finished"];
        let taken = until("all events at the living receiver", DEADLINE, async || {
            let taken = living.received().into_iter().filter(|received| received.status == 200);
            let taken: Vec<Received> = taken.collect();
            Ok(taken.iter().any(|received| received.header("x-buildkite-event") == "build.finished").then_some(taken))
        })
        .await?;
        let mut events = Vec::new();
        for received in living.received() {
            ensure!(received.line == "POST /hook", "{received:?}");
            signed(world, &received).await?;
            ensure!(received.json()?["build"]["id"] == json!(build.id()), "{received:?}");
        }
        // What is told twice has the same id.
        let mut seen = BTreeSet::new();
        for received in taken {
            if seen.insert(received.header("webhook-id").to_owned()) {
                events.push(received.header("x-buildkite-event").to_owned());
            }
        }
        ensure!(events == wanted, "{events:?}");
        let first: BTreeSet<_> =
            living.received().iter().take(3).map(|it| it.header("webhook-id").to_owned()).collect();
        ensure!(first.len() == 1, "the first event came thrice, and others before it: {first:?}");
        let of = async |path: String| fleet.client.get(&path).await?.status(200)?.json();
        let listed = until("the deliveries in the list", DEADLINE, async || {
            let listed = items(&of(format!("/builds/{}/notifications?limit=100", build.id())).await?);
            let delivered = listed.iter().filter(|it| it["state"] == "delivered").count();
            Ok((delivered == 3).then_some(listed))
        })
        .await?;
        ensure!(listed.len() == 7, "{listed:#?}");
        let slack = listed.iter().find(|it| it["service"] == "slack");
        ensure!(slack.is_some_and(|it| it["state"] == "refused"), "{slack:?}");
        let waiting: Vec<_> = listed.iter().filter(|it| it["target"] == silent.url()).collect();
        ensure!(waiting.len() == 3 && waiting.iter().all(|it| it["state"] == "pending"), "{waiting:#?}");
        let metrics = String::from_utf8(fleet.client.get("/metrics").await?.status(200)?.body)?;
        ensure!(metrics.contains("windlass_notifications_waiting 3"), "{metrics}");
        Ok(())
    })
}

/// What GitHub's REST API says of `POST /repos/{owner}/{repo}/statuses/{sha}`: context to its states, in order.
fn statuses(all: &[Received], url: &str, build: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let mut states = BTreeMap::<String, Vec<String>>::new();
    for received in all {
        ensure!(received.line == format!("POST /repos/acme/web/statuses/{COMMIT}"), "{received:?}");
        ensure!(received.header("authorization") == "Bearer ghp_a-token", "{received:?}");
        ensure!(received.header("accept") == "application/vnd.github+json", "{received:?}");
        ensure!(received.header("content-type") == "application/json", "{received:?}");
        ensure!(!received.header("user-agent").is_empty(), "GitHub refuses who has no name: {received:?}");
        let body = received.json()?;
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        ensure!(["error", "failure", "pending", "success"].contains(&text("state").as_str()), "{body}");
        ensure!(text("target_url") == format!("{url}/builds/{build}"), "{body}");
        ensure!(text("description").chars().count() <= 140 && !text("description").is_empty(), "{body}");
        ensure!(body.as_object().is_some_and(|fields| fields.len() == 4), "{body}");
        if received.status == 201 {
            states.entry(text("context")).or_default().push(text("state"));
        }
    }
    Ok(states)
}

/// A tree of the pipeline `web` in the coordinator's cache, as an origin.
async fn tree(world: &World, fleet: &Fleet<'_>) -> Result<Value> {
    let dir = world.path("web");
    fs::create_dir_all(dir.join(".windlass"))?;
    fs::write(dir.join(".windlass/pipeline.yml"), pipeline([step("one", "true")]))?;
    let (dir, url) = (dir.display().to_string(), fleet.coordinator.url());
    let token = fleet.coordinator.data().join("api-token").display().to_string();
    let arguments = ["run", &dir, "--server", &url, "--token-file", &token];
    world.run(arguments, DEADLINE).await?.code(0)?;
    Ok(fleet.client.build("latest").await?.0["origin"].clone())
}

#[test]
fn commits_get_statuses_of_the_build_and_of_its_steps_with_the_operators_token() -> Result<()> {
    test(async |world| {
        let github = Receiver::answering(|n| if n == 0 { 502 } else { 201 }).await?;
        let file = world.path("github-token");
        private(&file, "ghp_a-token\n")?;
        let config = format!(
            "[[notify.github]]\nrepository = \"acme/web\"\ntoken_file = \"{}\"\napi = \"{}\"\n",
            file.display(),
            github.url()
        );
        let fleet = fleet(world, &config).await?;
        let body = json!({ "name": "web", "repository": "git@github.com:Acme/web.git" });
        fleet.client.post("/pipelines", &body).await?.status(201)?;
        let unit =
            with(step("unit", "env; exit 3"), "notify", json!([{ "github_commit_status": { "context": "tests" } }]));
        let lint = with(step("lint", "true"), "notify", json!(["github_commit_status"]));
        let definition = notifying([unit, lint], &json!(["github_commit_status"]))?;
        // Files of its own, so that no agent looks for the repository.
        let submit = Submit::text(definition).with("pipeline", json!("web")).with("commit", json!(COMMIT));
        let build = fleet.client.submit(&submit.origin(tree(world, &fleet).await?)).await?;
        fleet.client.ends(build.id(), "failed", DEADLINE).await?;
        let url = fleet.coordinator.url();
        let wanted: BTreeMap<String, Vec<String>> = [
            ("buildkite/web", ["pending", "failure"]),
            ("buildkite/web/lint", ["pending", "success"]),
            ("tests", ["pending", "failure"]),
        ]
        .map(|(context, states)| (context.to_owned(), states.map(str::to_owned).to_vec()))
        .into();
        let states = until("all statuses", DEADLINE, async || {
            let states = statuses(&github.received(), &url, build.id())?;
            Ok((states.values().map(Vec::len).sum::<usize>() >= 6).then_some(states))
        })
        .await?;
        ensure!(states == wanted, "{states:?}");
        let build = fleet.client.build(build.id()).await?;
        let log = fleet.log_of(&build, "unit").await?;
        ensure!(!log.contains("ghp_") && !log.contains(KEY), "{log}");
        Ok(())
    })
}

#[test]
fn what_may_not_be_told_or_reached_is_shown_with_its_reason() -> Result<()> {
    test(async |world| {
        let inside = Receiver::answering(|_| 200).await?;
        let fleet = fleet(world, "").await?;
        let notify = json!([{ "webhook": inside.url() }, "github_commit_status"]);
        let definition = notifying([step("one", "true")], &notify)?;
        let build = fleet.run_to("passed", definition).await?;
        let token = fleet.coordinator.data().join("api-token").display().to_string();
        let url = fleet.coordinator.url();
        let arguments = ["build", "notifications", build.id(), "--json", "--server", &url, "--token-file", &token];
        let listed = until("the refusals", DEADLINE, async || {
            let ran = world.run(arguments, DEADLINE).await?.code(0)?;
            let listed = items(&serde_json::from_str(&ran.stdout)?);
            let waits = listed.is_empty() || listed.iter().any(|it| it["state"] == "pending");
            Ok((!waits).then_some(listed))
        })
        .await?;
        let reasons: BTreeSet<_> = listed
            .iter()
            .map(|it| {
                (it["service"].to_string(), it["state"].to_string(), it["detail"].as_str().unwrap_or("").to_owned())
            })
            .collect();
        let host = "its host has no public address, and is not one that the operator allows";
        let wanted = [
            ("\"github_commit_status\"", "\"refused\"", "the pipeline is registered with no repository"),
            ("\"webhook\"", "\"failed\"", host),
        ];
        let wanted = wanted.map(|(one, two, three)| (one.to_owned(), two.to_owned(), three.to_owned())).into();
        ensure!(reasons == wanted && listed.len() == 4, "{listed:#?}");
        ensure!(inside.received().is_empty(), "the network inside was reached");
        Ok(())
    })
}
