//! Debian's docker-compose, run by a job's plugin and cleaned up after by the plugin's last hook, however the job ends.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;
use windlass_tests::kit::engine::found;
use windlass_tests::kit::{DEADLINE, until};

use crate::line::{BUILD, Line, with_engine};

/// The plugin's `command` and `pre-exit` hooks; its settings are `file` and `run`, the service whose status is the job's.
pub(crate) const UP: &str = "docker-compose --project-name \"wl-$BUILDKITE_BUILD_ID\" \
     --file \"$BUILDKITE_PLUGIN_COMPOSE_FILE\" up --no-color --exit-code-from \"$BUILDKITE_PLUGIN_COMPOSE_RUN\"\n";
pub(crate) const DOWN: &str = "docker-compose --project-name \"wl-$BUILDKITE_BUILD_ID\" \
     --file \"$BUILDKITE_PLUGIN_COMPOSE_FILE\" down --volumes --remove-orphans --timeout 0\n";

/// A server with a volume, and a client that finds it by its name and then does as it is told.
pub(crate) const SERVICES: &str = r#"
services:
  store:
    image: windlass-test/busybox:e2e
    command: [sh, -c, "echo served >/data/page; exec httpd -f -p 8080 -h /data"]
    stop_signal: SIGKILL
    volumes: ["pages:/data"]
  client:
    image: windlass-test/busybox:e2e
    depends_on: [store]
    stop_signal: SIGKILL
    command:
      - sh
      - -c
      - |
        for i in $$(seq 100); do page=$$(wget -q -O - http://store:8080/page) && break; sleep 0.1; done
        echo "the page is $$page"
        case ${MODE} in pass) [ "$$page" = served ];; fail) exit 7;; *) sleep 600;; esac
volumes:
  pages: {}
"#;

/// The step that uses it.
const STEP: &str = "
steps:
  - key: integration
    command: the services
    plugins:
      - ./.buildkite/plugins/compose: {file: ci/compose.yml, run: client}
";

/// What is there of a build's services: two containers, a network, a volume.
async fn services(build: &str) -> Result<Vec<String>> {
    found(&format!("label=com.docker.compose.project=wl-{build}")).await
}

#[test]
fn what_docker_compose_starts_is_gone_after_a_pass_a_failure_and_a_cancel() -> Result<()> {
    with_engine(async |world| {
        let files = [
            (".buildkite/pipeline.yml", STEP),
            (".buildkite/plugins/compose/hooks/command", UP),
            (".buildkite/plugins/compose/hooks/pre-exit", DOWN),
            ("ci/compose.yml", SERVICES),
        ];
        let line = Line::start(world, &files, 1, json!({})).await?;
        let client = &line.fleet.client;
        for (mode, state, status) in [("pass", "passed", 0), ("fail", "failed", 7)] {
            let build = line.build(json!({ "MODE": mode })).await?;
            let build = client.ends(build.id(), state, BUILD).await?;
            let log = line.fleet.log_of(&build, "integration").await?;
            ensure!(build.job("integration")?.exit_status() == Some(status), "{}\n{log}", build.brief());
            ensure!(log.contains("the page is served"), "{log}");
            let left = services(build.id()).await?;
            ensure!(left.is_empty(), "after {mode} are left {left:?}\n{log}");
        }
        let build = line.build(json!({ "MODE": "wait" })).await?;
        until("its services", DEADLINE, async || Ok((services(build.id()).await?.len() == 4).then_some(()))).await?;
        let seen = client.wait(build.id(), "its job", DEADLINE, |it| it.job_is("integration", "running")).await?;
        client.log_holds(seen.attempt("integration")?.id(), "the page is served", DEADLINE).await?;
        let begun = Instant::now();
        line.cli(&["build", "cancel", build.id()]).await?;
        let build = client.ends(build.id(), "canceled", BUILD).await?;
        let left = services(build.id()).await?;
        println!("docker-compose is cleaned up {:?} after a cancel", begun.elapsed());
        ensure!(
            left.is_empty(),
            "after a cancel are left {left:?}\n{}",
            line.fleet.log_of(&build, "integration").await?
        );
        Ok(())
    })
}
