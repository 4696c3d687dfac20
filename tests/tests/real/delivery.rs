//! A team's whole way: tests beside each other, services, an image, a person's word, production.

use anyhow::{Result, ensure};
use serde_json::json;
use windlass_tests::kit::engine::{Named, ZoneEngine};
use windlass_tests::kit::net::{Zone, no_zones};
use windlass_tests::kit::registry::ImageRegistry;
use windlass_tests::kit::skip::skip;
use windlass_tests::kit::{Agent, AgentOptions, Build, JoinToken, World};

use crate::compose::{DOWN, SERVICES, UP};
use crate::line::{BUILD, Line, NAME, with_engine};

const PIPELINE: &str = r#"
env:
  MODE: pass
steps:
  - label: "test {{matrix.suite}} {{matrix.shard}}"
    key: test
    command: ./ci/test {{matrix.suite}}-{{matrix.shard}}
    matrix:
      setup:
        suite: [unit, api]
        shard: [1, 2]
  - key: integration
    command: the services
    plugins:
      - ./.buildkite/plugins/compose: {file: ci/compose.yml, run: client}
  - wait
  - key: image
    command: ./ci/image
  - block: Deploy to production?
    key: gate
    fields:
      - {text: Release, key: release}
  - key: plan
    command: ./ci/deploy | buildkite-agent pipeline upload
"#;

/// Passes only beside its three brothers.
const TEST: &str = r#"#!/bin/sh
touch "$MEETING/$1"
for i in $(seq 1500); do [ "$(ls "$MEETING" | wc -l)" = 4 ] && exit 0; sleep 0.02; done
exit 1
"#;

const IMAGE: &str = r#"#!/bin/bash
set -euo pipefail
export DOCKER_BUILDKIT=0
name="$REGISTRY/shop:$BUILDKITE_BUILD_NUMBER"
echo "$BUILDKITE_BUILD_NUMBER" >built
docker build --tag "$name" .
docker push "$name"
named=$(docker inspect --format '{{index .RepoDigests 0}}' "$name")
buildkite-agent meta-data set image "${named#*@}"
"#;

const DOCKERFILE: &str =
    "FROM windlass-test/busybox:e2e\nCOPY app /bin/app\nCOPY built /etc/built\nRUN /bin/app check\n";

const APP: &str = "#!/bin/sh\necho \"shop $(cat /etc/built) is out as $1\"\n";

/// The step in production, whose image is known by now.
const DEPLOY: &str = r#"#!/bin/bash
set -euo pipefail
digest=$(buildkite-agent meta-data get image)
cat <<STEPS
steps:
  - key: deploy
    agents: {queue: "prod-corp:default"}
    image: "$PROD_REGISTRY/shop@$digest"
    checkout: {skip: true}
    command: /bin/app "\$\$(buildkite-agent meta-data get release)"
STEPS
"#;

const FILES: [(&str, &str); 9] = [
    (".buildkite/pipeline.yml", PIPELINE),
    (".buildkite/plugins/compose/hooks/command", UP),
    (".buildkite/plugins/compose/hooks/pre-exit", DOWN),
    ("ci/compose.yml", SERVICES),
    ("ci/test", TEST),
    ("ci/image", IMAGE),
    ("ci/deploy", DEPLOY),
    ("Dockerfile", DOCKERFILE),
    ("app", APP),
];

/// An agent in the zone, with the zone's engine.
async fn in_production<'a>(world: &'a World, line: &Line<'_>, zone: &Zone, engine: &ZoneEngine) -> Result<Agent<'a>> {
    let client = &line.fleet.client;
    let token = client.join_token(&JoinToken::pool("prod-corp", &["prod-corp:default"])).await?;
    let server = (zone.ours, line.fleet.coordinator.address().port()).into();
    let mut options = AgentOptions::new("prod", server, &token);
    options.netns = Some(zone.name.clone());
    options.env = vec![("DOCKER_HOST".to_owned(), engine.host())];
    let agent = Agent::start(world, options)?;
    agent.in_state(client, "online").await?;
    Ok(agent)
}

#[test]
fn a_commit_is_tested_built_into_an_image_and_after_a_person_s_word_runs_in_production() -> Result<()> {
    if let Some(why) = no_zones()? {
        return skip("zones", &why);
    }
    with_engine(async |world| {
        let zone = Zone::new("d", 13);
        zone.make().await?;
        let registry = ImageRegistry::start(world).await?;
        let (here, there) = (format!("127.0.0.1:{}", registry.port()), format!("{}:{}", zone.ours, registry.port()));
        let meeting = world.shared_dir("meeting")?.display().to_string();
        let env = json!({ "REGISTRY": here, "PROD_REGISTRY": there, "MEETING": meeting });
        let line = Line::start(world, &FILES, 5, env).await?;
        let engine = ZoneEngine::start(world, &zone.name, &there).await?;
        let agent = in_production(world, &line, &zone, &engine).await?;
        let client = &line.fleet.client;

        let build = line.build(json!({})).await?;
        let image = Named(format!("{here}/{NAME}:{}", build.0["number"]));
        let gate = |it: &Build| it.is_final() || it.job_is("gate", "blocked");
        let build = client.wait(build.id(), "the gate", BUILD, gate).await?;
        ensure!(build.job_is("gate", "blocked"), "{}", build.brief());
        let tests = build.jobs().iter().filter(|job| job.key() == "test" && job.state() == "passed").count();
        ensure!(tests == 4 && build.job_is("integration", "passed"), "{}", build.brief());
        ensure!(line.fleet.log_of(&build, "image").await?.contains("shop 1 is out as check"), "{}", build.brief());
        let from_production = || -> Result<Vec<String>> {
            let all = registry.answered()?;
            Ok(all.into_iter().filter(|line| line.starts_with(&zone.theirs.to_string())).collect())
        };
        ensure!(build.job("deploy").is_err() && from_production()?.is_empty(), "production before its word");

        line.cli(&["build", "unblock", build.id(), "gate", "--field", "release=blue"]).await?;
        let build = client.ends(build.id(), "passed", BUILD).await?;
        let deploy = build.job("deploy")?;
        ensure!(deploy.0["zone"] == json!("prod-corp"), "{}", deploy.0);
        let log = line.fleet.log_of(&build, "deploy").await?;
        ensure!(log.contains("shop 1 is out as blue\n"), "{log}");
        let digest = build.0["meta_data"]["image"].as_str().unwrap_or_default();
        let asked = from_production()?.into_iter().filter(|line| line.contains("/v2/shop/manifests/"));
        let asked: Vec<String> = asked.collect();
        ensure!(!asked.is_empty() && asked.iter().all(|line| line.contains(digest)), "{asked:?} of {digest}");
        let left = engine.docker(&["ps", "-aq"]).await?.code(0)?.stdout;
        ensure!(left.is_empty(), "containers are left in production: {left}");
        drop((agent, image));
        engine.end().await
    })
}
