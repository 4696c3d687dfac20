//! A bucket behind the coordinator's cache, with a real S3 server: what is away is served right, kills lose nothing, and builds
//! run green while the bucket is down.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use windlass_protocol::Digest;
use windlass_tests::kit::bucket::BucketServer;
use windlass_tests::kit::chaos::Dice;
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::{Client, Coordinator, CoordinatorOptions, DEADLINE, Fleet, JoinToken, World, test, until};

const NAME: &str = "a_bucket_behind_the_cache";

async fn start<'a>(world: &'a World, server: &BucketServer) -> Result<Coordinator<'a>> {
    let config = server.config(world, "1MiB")?.to_string_lossy().into_owned();
    let more = vec!["--config".to_owned(), config];
    Coordinator::start_with(world, CoordinatorOptions { more, ..CoordinatorOptions::default() }).await
}

async fn put(client: &Client, bytes: Vec<u8>) -> Result<()> {
    let path = format!("/blobs/b3/{}?project=p", Digest::of(&bytes).to_hex());
    let put = client.put_bytes(&path, "application/octet-stream", bytes).await?;
    ensure!(put.status == 201 || put.status == 200, "status {}", put.status);
    Ok(())
}

async fn status(client: &Client, bytes: &[u8]) -> Result<u16> {
    let digest = Digest::of(bytes);
    let answer = client.get(&format!("/blobs/b3/{}?project=p", digest.to_hex())).await?;
    ensure!(answer.status != 200 || answer.body == *bytes, "{digest} is not what it was");
    Ok(answer.status)
}

fn chunk_files(data: &Path) -> Result<usize> {
    Ok(fs::read_dir(data.join("cache/chunks"))?.count())
}

#[test]
fn what_is_away_is_served_kills_lose_nothing_and_builds_pass_while_the_bucket_is_down() -> Result<()> {
    test(async |world| {
        let Some(mut server) = BucketServer::start(world, NAME).await? else { return Ok(()) };
        let coordinator = start(world, &server).await?;
        let mut fleet = Fleet::around(world, coordinator, &JoinToken::pool("local", &["default"]), 1).await?;
        let (data, mut dice) = (fleet.coordinator.data().to_owned(), Dice::new(39));
        let mut blobs = vec![dice.bytes(20 << 20), dice.bytes(3 << 20)];
        for blob in &blobs {
            put(&fleet.client, blob.clone()).await?;
        }
        // Killed at any moment of copying and dropping.
        for _ in 0..3 {
            tokio::time::sleep(dice.millis(0, 400)).await;
            fleet.coordinator.restart().await?;
            fleet.client = fleet.coordinator.client()?;
            let more = dice.bytes(2 << 20);
            put(&fleet.client, more.clone()).await?;
            blobs.push(more);
        }
        let moved = async || Ok((chunk_files(&data)? == 0).then_some(()));
        until("all to be in the bucket", DEADLINE, moved).await?;
        for blob in &blobs {
            ensure!(status(&fleet.client, blob).await? == 200, "a blob of {} bytes", blob.len());
        }
        ensure!(fleet.client.metric("windlass_cache_bytes").await? > 29e6, "what is away is told");
        let keys = server.keys().await?;
        ensure!(keys.iter().all(|key| key.starts_with("ci/cache/")) && keys.len() == blobs.len() + 1, "{keys:?}");
        artifact(world, &fleet, &data).await?;
        server.hang()?;
        let (green, hung) = tokio::join!(fleet.run_to("passed", hello()), status(&fleet.client, &blobs[1]));
        green?;
        server.go_on()?;
        let hung = hung?;
        ensure!(hung == 200 || hung == 503, "never that it is absent: {hung}");
        until("the bucket to be asked again", DEADLINE, async || {
            Ok((status(&fleet.client, &blobs[0]).await? == 200).then_some(()))
        })
        .await?;
        // Gone for good: builds pass, what is here is here, and nobody says that the rest is not.
        server.kill9().await?;
        fleet.run_to("passed", hello()).await?;
        put(&fleet.client, dice.bytes(2 << 20)).await?;
        fleet.coordinator.restart().await?;
        let client = fleet.coordinator.client()?;
        ensure!(status(&client, &blobs[2]).await? == 503, "not now, and not never");
        ensure!(fleet.coordinator.process().runs()?, "it serves");
        let shown =
            fs::read_dir(world.logs())?.map(|entry| Ok(fs::read(entry?.path())?)).collect::<Result<Vec<_>>>()?;
        let shown = shown.iter().any(|log| log.windows(14).any(|bytes| bytes == b"not-to-be-seen"));
        ensure!(!shown, "no key is in a log");
        Ok(())
    })
}

fn hello() -> String {
    pipeline([step("hello", "echo hello")])
}

/// An artifact that is in the bucket alone is what it was.
async fn artifact(world: &World, fleet: &Fleet<'_>, data: &Path) -> Result<()> {
    let make = "head -c 9000000 /dev/urandom > big; sha256sum big > sum; windlass artifact upload big; windlass artifact upload sum";
    let build = fleet.run_to("passed", pipeline([step("make", make)])).await?;
    until("the artifact to be in the bucket", DEADLINE, async || Ok((chunk_files(data)? == 0).then_some(()))).await?;
    let there = world.path("artifacts");
    fs::create_dir(&there)?;
    let (url, token) = (fleet.coordinator.url(), fleet.coordinator.data().join("api-token"));
    let (there_text, token) = (there.to_string_lossy().into_owned(), token.to_string_lossy().into_owned());
    let line =
        ["artifact", "download", "*", &there_text, "--build", build.id(), "--server", &url, "--token-file", &token];
    world.run(line, Duration::from_secs(60)).await?.code(0)?;
    let mut check = tokio::process::Command::new("sha256sum");
    check.args(["-c", "sum"]).current_dir(&there);
    ensure!(check.status().await?.success(), "it is what was uploaded");
    Ok(())
}
