//! A developer's own machine beside a fleet: logging in, and what of the fleet's is used without a server of one's own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use windlass_protocol::identity::Ca;
use windlass_tests::kit::engine::{IMAGE, answers, docker, import};
use windlass_tests::kit::pipeline::{pipeline, step, with};
use windlass_tests::kit::registry::ImageRegistry;
use windlass_tests::kit::repository::{git, repository};
use windlass_tests::kit::skip::skip;
use windlass_tests::kit::world::run;
use windlass_tests::kit::{
    Client, Coordinator, CoordinatorOptions, DEADLINE, Fleet, JoinToken, Ran, Submit, World, test,
};

/// A user of another machine: a home and servers of his own.
struct Laptop<'a> {
    world: &'a World,
    home: PathBuf,
}

impl<'a> Laptop<'a> {
    fn new(world: &'a World, name: &str) -> Result<Self> {
        let home = world.path(name);
        fs::create_dir_all(home.join("run"))?;
        // The jobs' users pass it.
        fs::set_permissions(&home, fs::Permissions::from_mode(0o711))?;
        fs::set_permissions(home.join("run"), fs::Permissions::from_mode(0o700))?;
        Ok(Self { world, home })
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.world.windlass(arguments)?;
        command.env("HOME", &self.home).env("XDG_RUNTIME_DIR", self.home.join("run")).env("WINDLASS_LOG", "warn");
        Ok(command)
    }

    async fn run(&self, arguments: &[&str]) -> Result<Ran> {
        run("windlass", self.command(arguments)?, DEADLINE).await
    }

    /// Logs in with a token on the input.
    async fn login(&self, token: &str, arguments: &[&str]) -> Result<Ran> {
        let mut command = self.command(&[&["login"], arguments].concat())?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("an input")?;
        stdin.write_all(format!("{token}\n").as_bytes()).await?;
        drop(stdin);
        let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await??;
        Ok(Ran {
            exit: windlass_tests::kit::Exit::of(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    fn logins(&self) -> PathBuf {
        self.home.join(".config/windlass/fleets.toml")
    }
}

async fn token(client: &Client, scopes: &[&str]) -> Result<String> {
    let made = client.api_token(scopes, &json!({ "note": "my laptop", "expires_in_s": 3_600 })).await?;
    Ok(made["token"].as_str().context("a token")?.to_owned())
}

fn mode(path: &Path) -> Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

#[test]
fn a_login_is_checked_kept_in_private_used_by_every_command_and_forgotten() -> Result<()> {
    test(async |world| {
        // HTTPS by a CA that nobody here knows.
        let at = windlass_protocol::host::now().wall;
        let authority = Ca::create_p256(at)?;
        let shown = authority.issue_web_server(&[], &["127.0.0.1".parse()?], at, 3_600_000)?;
        let (certificate, key, ca) = (world.path("tls.crt"), world.path("tls.key"), world.path("ca.pem"));
        fs::write(&certificate, shown.chain_pem())?;
        fs::write(&key, shown.key_pem().expose())?;
        fs::write(&ca, authority.certificate_pem())?;
        let [certificate, key, ca] = [certificate, key, ca].map(|path| path.display().to_string());
        let more = ["--tls-cert", &certificate, "--tls-key", &key].map(str::to_owned).to_vec();
        let options = CoordinatorOptions { more, ..CoordinatorOptions::default() };
        let mut coordinator = Coordinator::start_with(world, options).await?;
        let url = coordinator.url();
        let client = Client::with_ca(&url, Some(coordinator.token()?), authority.certificate_pem().as_bytes())?;
        let built = client.submit(&Submit::text(pipeline([step("one", "true")]))).await?;
        let token = token(&client, &["builds:read", "cache:read"]).await?;
        let laptop = Laptop::new(world, "laptop")?;
        laptop.run(&["login", "--status"]).await?.code(4)?;
        laptop.run(&["build", "list"]).await?.code(3)?;

        // Nobody vouches for its CA: the token is not sent, and whom to ask is told.
        let refused = laptop.login(&token, &[&url]).await?.code(4)?;
        let fingerprint = refused.stderr.split_whitespace().find(|word| word.starts_with("b3:"));
        let fingerprint = fingerprint.context("a fingerprint")?.trim_end_matches(';').to_owned();
        ensure!(!laptop.logins().exists(), "a refused login is kept");
        let other = format!("b3:{}", "0".repeat(64));
        let refused = laptop.login(&token, &[&url, "--fingerprint", &other]).await?.code(4)?;
        ensure!(refused.stderr.contains(&fingerprint), "{}", refused.stderr);
        let wrong = client.api_token(&["builds:read"], &json!({})).await?;
        let (wrong, id) = (wrong["token"].as_str().context("a token")?, wrong["id"].as_str().context("an id")?);
        client.post(&format!("/tokens/{id}/revoke"), &json!({})).await?.status(200)?;
        laptop.login(wrong, &[&url, "--ca", &ca]).await?.code(4)?;
        laptop.login("nonsense", &[&url, "--ca", &ca]).await?.code(2)?;
        ensure!(!laptop.logins().exists(), "a refused login is kept");

        let took = laptop.login(&token, &[&url, "--fingerprint", &fingerprint]).await?.code(0)?;
        ensure!(took.stderr.contains("logged in to") && took.stderr.contains("my laptop"), "{}", took.stderr);
        ensure!(took.stderr.contains("ends in 59m"), "{}", took.stderr);
        let said = format!("{}{}", took.stdout, took.stderr);
        ensure!(!said.contains(&token), "the token is shown");
        ensure!(mode(&laptop.logins())? == 0o600, "{:o}", mode(&laptop.logins())?);
        let list = laptop.run(&["build", "list", "--json"]).await?.code(0)?;
        ensure!(list.stdout.contains(built.id()), "{}", list.stdout);
        laptop.run(&["build", "show", built.id(), "--server", &url]).await?.code(0)?;
        // It may not do more than its token.
        laptop.run(&["build", "cancel", built.id()]).await?.code(4)?;
        let status: Value = serde_json::from_str(&laptop.run(&["login", "--status", "--json"]).await?.code(0)?.stdout)?;
        ensure!(status["items"][0]["state"] == json!("good") && !status.to_string().contains(&token), "{status}");

        // A token that is taken back is told, and so is a server that is gone.
        let id = &status["items"][0]["token_id"].as_str().context("an id")?;
        client.post(&format!("/tokens/{id}/revoke"), &json!({})).await?.status(200)?;
        let status = laptop.run(&["login", "--status"]).await?.code(4)?;
        ensure!(status.stdout.contains("revoked"), "{}", status.stdout);
        coordinator.kill9().await?;
        laptop.run(&["login", "--status"]).await?.code(3)?;
        laptop.run(&["logout", "https://elsewhere"]).await?.code(2)?;
        laptop.run(&["logout"]).await?.code(0)?;
        ensure!(!laptop.logins().exists(), "a login is left");
        laptop.run(&["build", "list"]).await?.code(3)?;
        Ok(())
    })
}

/// Builds an image out of busybox, and gives it to the registry.
async fn push(tag: &str) -> Result<()> {
    let dockerfile = format!("FROM {IMAGE}\\nRUN echo tool > /etc/tool\\nLABEL windlass-test=laptop\\n");
    let mut build = Command::new("sh");
    build.args(["-c", &format!("printf '{dockerfile}' | docker build -q -t {tag} - && docker push -q {tag}")]);
    run("docker push", build, DEADLINE).await?.code(0).map(drop)
}

/// A pipeline whose one step with an image is worth reusing, and one that takes what it made.
fn definition(tag: &str) -> String {
    let make = with(step("make", "echo making; cat src/a /etc/tool > out"), "image", json!(tag));
    let make = with(make, "reuse", json!({ "inputs": ["src/**"], "outputs": ["out"] }));
    // The fleet's agent may clone nothing: what it needs comes out of the cache.
    let take = step("take", "mkdir got && buildkite-agent artifact download out got/ && cat got/out");
    let take = with(take, "checkout", json!({ "skip": true }));
    pipeline([make, json!("wait"), take])
}

/// What a run on a laptop came to: the step `make`, all logs, and what was said.
async fn ran(laptop: &Laptop<'_>, dir: &Path, more: &[&str]) -> Result<(Value, String, String)> {
    let dir = dir.display().to_string();
    let line = [&["run", &dir, "--json"], more].concat();
    let ran = laptop.run(&line).await?.code(0)?;
    let (mut log, mut make) = (String::new(), Value::Null);
    for line in ran.stdout.lines() {
        let event: Value = serde_json::from_str(line)?;
        log.push_str(event["text"].as_str().unwrap_or_default());
        if event["event"] == json!("build_finished") {
            make = event["build"]["jobs"][0].clone();
        }
    }
    Ok((make, log, ran.stderr))
}

#[test]
fn a_clone_elsewhere_uses_what_the_fleet_made_of_an_image_and_uses_it_again_without_a_network() -> Result<()> {
    if !answers() {
        return skip("docker", "no Docker engine answers");
    }
    test(async |world| {
        import(world).await?;
        let registry = ImageRegistry::start(world).await?;
        let host = format!("127.0.0.1:{}", registry.port());
        let tag = format!("{host}/team/tool:1");
        push(&tag).await?;
        let text = definition(&tag);
        let files = [("src/a", "a\n"), ("README", "r\n"), (".windlass/pipeline.yml", text.as_str())];
        let origin = repository(world, "origin", &files).await?.display().to_string();
        let commit = git(Path::new(&origin), "git rev-parse HEAD").await?.trim().to_owned();
        let config = world.path("coordinator.toml");
        fs::write(&config, format!("cache_epoch = 7\n[reuse]\ninsecure_registries = [\"{host}\"]\n"))?;
        let more = ["--config", &config.display().to_string(), "--git-protocol", "file"].map(str::to_owned).to_vec();
        let coordinator = Coordinator::start_with(world, CoordinatorOptions { more, ..Default::default() }).await?;
        let mut fleet = Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 1).await?;
        let new = json!({ "name": "web", "repository": origin, "default_branch": "main" });
        fleet.client.post("/pipelines", &new).await?.status(201)?;
        let source = json!({ "repository": origin, "commit": commit, "branch": "main" });
        let submit = Submit::text(text).with("pipeline", json!("web")).origin(source);
        let built = fleet.client.submit(&submit).await?;
        let built = fleet.client.ends(built.id(), "passed", DEADLINE).await?;

        // Another user, another place, other modes, an empty directory; of the registry he knows nothing.
        let laptop = Laptop::new(world, "laptop")?;
        let url = fleet.coordinator.url();
        laptop.login(&token(&fleet.client, &["builds:read", "cache:read"]).await?, &[&url]).await?.code(0)?;
        let clone = laptop.home.join("elsewhere");
        git(&laptop.home, &format!("umask 002; git clone -q '{origin}' elsewhere; mkdir elsewhere/src/none")).await?;
        let (make, log, said) = ran(&laptop, &clone, &[]).await?;
        ensure!(make["reused_from"]["fleet"] == json!(url), "it ran: {make}\n{said}");
        ensure!(make["reused_from"]["build_id"] == json!(built.id()), "{make}");
        ensure!(log.contains("~~~ reused from build #1, step make, ") && log.contains(&format!("({url})")), "{log}");
        ensure!(log.contains("making\n") && log.contains("a\ntool\n"), "its log and its file are here: {log}");

        // What is not the same runs here, and what is different is named.
        fs::write(clone.join("src/a"), "b\n")?;
        let (make, log, said) = ran(&laptop, &clone, &[]).await?;
        ensure!(make["reused_from"].is_null() && log.contains("b\ntool\n"), "{make}\n{log}\n{said}");
        let told = laptop.run(&["cache", "explain", "latest", "make"]).await?.code(0)?.stdout;
        ensure!(told.contains("file src/a") && told.contains("was asked, and has no result"), "{told}");

        // Without the fleet what it gave is used again, and the run says so.
        fs::write(clone.join("src/a"), "a\n")?;
        fleet.coordinator.kill9().await?;
        drop(registry);
        let (make, log, said) = ran(&laptop, &clone, &[]).await?;
        ensure!(make["reused_from"]["fleet"] == json!(url) && log.contains("making\n"), "{make}\n{said}");
        ensure!(said.contains("is not asked for results"), "{said}");
        let (make, _, said) = ran(&laptop, &clone, &["--offline"]).await?;
        ensure!(make["reused_from"]["fleet"] == json!(url), "{make}\n{said}");
        ensure!(!said.contains("is not asked for results"), "nobody was to be asked: {make} {said}");
        docker(&["rmi", "--force", &tag]).await?;
        Ok(())
    })
}
