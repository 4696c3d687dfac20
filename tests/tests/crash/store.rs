//! The blob store of a coordinator that is killed while blobs are put, read and checked: what was acknowledged is there and
//! right, every time; and a bit that flips on its disk is named, dropped, and never served.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use windlass_protocol::Digest;
use windlass_tests::kit::chaos::Dice;
use windlass_tests::kit::{Client, Coordinator, DEADLINE, Exit, World, test};

/// How often it is killed; `STORE_ROUNDS` makes it hundreds.
const ROUNDS: u64 = 4;

/// Blobs of one pack: small ones, and one in chunks that shares its first half with the one before.
fn blobs(dice: &mut Dice, half: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let mut blobs: Vec<Vec<u8>> = (0..4).map(|n| dice.bytes(500 + n * 3_000)).collect();
    let other = dice.bytes(150_000);
    blobs.push([half.as_slice(), &other].concat());
    *half = other;
    blobs
}

fn pack(blobs: &[Vec<u8>]) -> Vec<u8> {
    let mut pack = b"WLPACK\x01\0".to_vec();
    for blob in blobs {
        pack.push(1);
        pack.extend_from_slice(Digest::of(blob).as_bytes());
        pack.extend_from_slice(&(blob.len() as u64).to_le_bytes());
        pack.extend_from_slice(blob);
    }
    pack.push(0);
    pack
}

/// Puts, reads and has everything checked until nobody answers; what was acknowledged.
async fn work(client: Client, seed: u64) -> Result<Vec<Digest>> {
    let (mut dice, mut half, mut stored) = (Dice::new(seed), Vec::new(), Vec::new());
    for nth in 0_usize.. {
        let blobs = blobs(&mut dice, &mut half);
        let put = client.post_bytes("/blobs/pack?project=p", "application/octet-stream", pack(&blobs)).await;
        match put {
            Ok(answer) if answer.status == 201 => stored.extend(blobs.iter().map(|blob| Digest::of(blob))),
            Ok(answer) => anyhow::bail!("status {}: {:?}", answer.status, answer.json()),
            // Killed.
            Err(_) => return Ok(stored),
        }
        let digest = stored[dice.bytes(1)[0] as usize % stored.len()];
        let looked = async {
            if nth % 5 == 0 {
                client.post("/cache/verify", &json!(null)).await?;
            }
            read(&client, &digest).await
        };
        match looked.await {
            Ok(right) => ensure!(right, "{digest} is not what it was"),
            Err(_) => return Ok(stored),
        }
    }
    Ok(stored)
}

/// Whether a blob is there and right.
async fn read(client: &Client, digest: &Digest) -> Result<bool> {
    let answer = client.get(&format!("/blobs/b3/{}?project=p", digest.to_hex())).await?;
    Ok(answer.status == 200 && Digest::of(&answer.body) == *digest)
}

#[test]
fn blobs_that_were_acknowledged_survive_a_kill_at_any_moment_of_puts_gets_and_checks() -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (rounds, seed) = (number("STORE_ROUNDS").unwrap_or(ROUNDS), number("STORE_SEED").unwrap_or(31));
    test(async |world| {
        let mut coordinator = Coordinator::start(world).await?;
        let (mut dice, mut all) = (Dice::new(seed), Vec::new());
        for round in 0..rounds {
            let working = tokio::spawn(work(coordinator.client()?, seed * 1_000 + round));
            tokio::time::sleep(dice.millis(100, 800)).await;
            coordinator.kill9().await?;
            all.extend(working.await??);
            coordinator.restart().await?;
            let client = coordinator.client()?;
            for digest in all.iter().rev().take(200) {
                ensure!(read(&client, digest).await?, "round {round} of seed {seed}: {digest} was acknowledged");
            }
        }
        ensure!(all.len() > 30, "only {} blobs: too few to lose one", all.len());
        let client = coordinator.client()?;
        for digest in &all {
            ensure!(read(&client, digest).await?, "seed {seed}: {digest} was acknowledged");
        }
        coordinator.kill9().await?;
        let (code, shown) = verify(world, coordinator.data(), &[]).await?;
        ensure!(
            code == Exit::Code(0) && shown["damaged_blobs"] == 0 && shown["blobs"].as_u64() >= Some(all.len() as u64),
            "{shown}"
        );
        Ok(())
    })
}

/// `windlass cache verify --data`: how it ended, and what it said.
async fn verify(world: &World, data: &Path, more: &[&str]) -> Result<(Exit, Value)> {
    let data = data.to_string_lossy().into_owned();
    let line = [&["cache", "verify", "--json", "--data", &data], more].concat();
    let ran = world.run(&line, DEADLINE).await?;
    Ok((ran.exit, serde_json::from_str(&ran.stdout).unwrap_or(Value::Null)))
}

/// The largest file of a directory.
fn largest(dir: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort_by_key(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
    files.pop().context("a file")
}

#[test]
fn a_flipped_bit_is_named_by_a_check_dropped_by_a_repair_and_comes_again() -> Result<()> {
    test(async |world| {
        let mut coordinator = Coordinator::start(world).await?;
        let (mut dice, mut half) = (Dice::new(5), Vec::new());
        let blobs = [blobs(&mut dice, &mut half), blobs(&mut dice, &mut half)].concat();
        let put = async |client: Client| {
            let kind = "application/octet-stream";
            client.post_bytes("/blobs/pack?project=p", kind, pack(&blobs)).await?.status(201).map(drop)
        };
        put(coordinator.client()?).await?;
        let data = coordinator.data().to_owned();
        ensure!(verify(world, &data, &[]).await?.0 == Exit::Code(4), "a store that is in use is refused");
        coordinator.kill9().await?;
        let chunks = largest(&data.join("cache/chunks"))?;
        let mut bytes = fs::read(&chunks)?;
        bytes[1_000] ^= 1;
        fs::write(&chunks, &bytes)?;
        let (code, shown) = verify(world, &data, &[]).await?;
        ensure!(code == Exit::Code(1) && shown["damaged_blobs"].as_u64() >= Some(1), "{code:?}: {shown}");
        ensure!(verify(world, &data, &[]).await? == (code, shown.clone()), "a check changes nothing");
        ensure!(verify(world, &data, &["--repair"]).await? == (code, shown.clone()), "what it said it would drop");
        let (code, mended) = verify(world, &data, &[]).await?;
        ensure!(code == Exit::Code(0) && mended["damaged_blobs"] == 0, "{code:?}: {mended}");
        coordinator.restart().await?;
        let client = coordinator.client()?;
        let damaged: Vec<&str> = shown["damaged"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for blob in &blobs {
            let digest = Digest::of(blob);
            let answer = client.get(&format!("/blobs/b3/{}?project=p", digest.to_hex())).await?;
            let expected = if damaged.contains(&digest.to_string().as_str()) { 404 } else { 200 };
            ensure!(
                answer.status == expected && (expected == 404 || answer.body == *blob),
                "{digest}: {}",
                answer.status
            );
        }
        put(client.clone()).await?;
        for blob in &blobs {
            ensure!(read(&client, &Digest::of(blob)).await?, "it came again");
        }
        // Of one that serves the same command asks the coordinator.
        let token = data.join("api-token").to_string_lossy().into_owned();
        let line = ["cache", "verify", "--server", &coordinator.url(), "--token-file", &token];
        let ran = world.run(line, DEADLINE).await?.code(0)?;
        ensure!(ran.stderr.contains("everything is what it should be"), "{}", ran.stderr);
        ensure!(world.run(["cache", "verify", "--data", "/nowhere"], DEADLINE).await?.exit == Exit::Code(2), "usage");
        Ok(())
    })
}
