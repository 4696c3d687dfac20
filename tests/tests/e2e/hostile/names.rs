//! By a blob's name: what others have is as absent as what nobody has.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use windlass_protocol::Digest;
use windlass_tests::kit::chaos::Dice;
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::{Answer, DEADLINE, Submit, test};

use super::ground::{Ground, LARGE, WILD, put};

/// An answer without what is of the moment, and with the digest's place for the digest.
fn shape(answer: &Answer, digest: &Digest) -> (u16, Vec<(String, String)>, String) {
    let plain = |text: &str| text.replace(&digest.to_string(), "DIGEST").replace(&digest.to_hex(), "DIGEST");
    let moment = ["date", "location"];
    let headers = answer.headers.iter().filter(|(name, _)| !moment.contains(&name.as_str()));
    let mut headers: Vec<_> =
        headers.map(|(name, value)| (name.to_string(), plain(&String::from_utf8_lossy(value.as_bytes())))).collect();
    headers.sort();
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    // Of an upload that is begun: its name, and when it ends.
    let body = match serde_json::from_str::<Value>(&body) {
        Ok(Value::Object(mut fields)) => {
            for name in ["id", "expires_at"] {
                fields.entry(name).and_modify(|value| *value = json!("its own"));
            }
            Value::Object(fields).to_string()
        }
        Ok(_) | Err(_) => body,
    };
    (answer.status, headers, plain(&body))
}

/// All that can be asked of a digest by its name.
fn questions(digest: &Digest) -> Vec<(&'static str, String, Vec<u8>)> {
    let (hex, other) = (digest.to_hex(), Digest::of(b"another"));
    let json = |value: Value| value.to_string().into_bytes();
    vec![
        ("GET", format!("/blobs/b3/{hex}?project=web"), vec![]),
        ("HEAD", format!("/blobs/b3/{hex}?project=web"), vec![]),
        ("POST", "/blobs/missing?project=web".to_owned(), json(json!({ "digests": [digest] }))),
        ("POST", "/blobs/missing?project=web".to_owned(), json(json!({ "digests": [digest, other, digest] }))),
        ("POST", "/uploads?project=web".to_owned(), json(json!({ "digest": digest, "bytes": LARGE }))),
        // Other bytes under its name.
        ("PUT", format!("/blobs/b3/{hex}?project=web"), b"other bytes".to_vec()),
        ("GET", format!("/blobs/b3/{hex}?project=vault"), vec![]),
        ("HEAD", format!("/blobs/b3/{hex}?project=vault"), vec![]),
        ("POST", "/blobs/missing?project=vault".to_owned(), json(json!({ "digests": [digest] }))),
        ("POST", "/uploads?project=vault".to_owned(), json(json!({ "digest": digest, "bytes": LARGE }))),
    ]
}

#[test]
fn a_blob_that_others_have_is_answered_for_as_one_that_nobody_has() -> Result<()> {
    test(async |world| {
        let ground = Ground::start(world).await?;
        let mut dice = Dice::new(7);
        let (small, large) = (dice.bytes(900), dice.bytes(LARGE));
        let neighbour =
            ground.fleet.client.api_token(&["cache:read", "cache:write"], &json!({ "pipeline": "web" })).await?;
        let neighbour = ground.fleet.client.token(neighbour["token"].as_str());
        let theirs = [
            ground.put("vault", &small).await?,
            ground.put("vault", &large).await?,
            put(&neighbour, "web", b"a neighbour's overlay").await?,
        ];
        let nobodys = Digest::of(b"nobody has it");
        // Asked of what may be seen, each of them says something else.
        let seen = ground.put("web", b"trusted of the same project").await?;
        let mut differ = 0;
        for (nth, (method, path, body)) in questions(&nobodys).into_iter().enumerate() {
            let absent = ground.stranger.call(method, &path, body).await?;
            for digest in &theirs {
                let (method, path, body) = questions(digest).swap_remove(nth);
                let answer = ground.stranger.call(method, &path, body).await?;
                let (there, nowhere) = (shape(&answer, digest), shape(&absent, &nobodys));
                ensure!(there == nowhere, "{method} {path}: {there:?}\nand of what nobody has: {nowhere:?}");
            }
            let (method, path, body) = questions(&seen).swap_remove(nth);
            let answer = ground.stranger.call(method, &path, body).await?;
            differ += usize::from(shape(&answer, &seen) != shape(&absent, &nobodys));
        }
        ensure!(differ == 5, "only {differ} questions tell anything of anything");
        for (digest, bytes) in [(theirs[0], &small), (theirs[1], &large)] {
            let path = format!("/blobs/b3/{}?project=vault", digest.to_hex());
            ensure!(ground.fleet.client.get(&path).await?.status(200)?.body == *bytes, "{digest} is another");
        }
        Ok(())
    })
}

/// A directory with one file (`cache/src/tree.rs`).
fn directory(file: &Digest, bytes: u64) -> Vec<u8> {
    let mut out = b"WLDIR\x01\0\0".to_vec();
    out.extend_from_slice(&1_u32.to_le_bytes());
    out.push(1);
    out.extend_from_slice(&1_u16.to_le_bytes());
    out.push(b'f');
    out.extend_from_slice(&0o644_u16.to_le_bytes());
    out.extend_from_slice(&bytes.to_le_bytes());
    out.extend_from_slice(file.as_bytes());
    out
}

#[test]
fn a_tree_that_names_what_others_have_brings_none_of_it() -> Result<()> {
    test(async |world| {
        let ground = Ground::start(world).await?;
        let before = ground.trusted().await?;
        let (small, large) = (b"of the vault".to_vec(), Dice::new(8).bytes(LARGE));
        let vault =
            [(ground.put("vault", &small).await?, small.len()), (ground.put("vault", &large).await?, large.len())];
        let nobodys = (Digest::of(b"nobody has it"), 12);
        let own = (put(&ground.stranger, "web", b"its own file\n").await?, 13);
        let mut said = Vec::new();
        for (file, bytes) in [nobodys, vault[0], vault[1], own] {
            let tree = put(&ground.stranger, "web", &directory(&file, bytes as u64)).await?;
            let submit = Submit::text(pipeline([step("look", "cat f")])).with("pipeline", json!("web"));
            let build = ground.stranger.submit(&submit.origin(json!({ "tree": tree }))).await?;
            let build = ground.fleet.client.finished(build.id(), DEADLINE).await?;
            ground.ran_on(&build, WILD)?;
            let log = ground.fleet.log_of(&build, "look").await?;
            let cause = build.job("look")?.0["cause"].to_string().replace(&file.to_string(), "DIGEST");
            said.push((build.state().to_owned(), cause, log));
        }
        ensure!(said[1] == said[0] && said[2] == said[0], "it tells what others have: {said:?}");
        ensure!(said[0].0 == "failed" && said[0].1.contains("source_missing"), "{said:?}");
        ensure!(said[3].0 == "passed" && said[3].2 == "its own file\n", "its own tree: {said:?}");
        ensure!(ground.trusted().await? == before, "main is built of something else");
        Ok(())
    })
}
