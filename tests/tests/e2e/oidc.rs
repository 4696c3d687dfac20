//! Who a job is, proven to others: a token that OpenSSL verifies by the keys that the coordinator publishes.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::process::Command;
use windlass_tests::kit::pipeline::{pipeline, step};
use windlass_tests::kit::world::run;
use windlass_tests::kit::{Client, DEADLINE, Fleet, Submit, World, test};

/// A public key of P-256 in DER, up to its point (RFC 5480).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

fn decoded(text: &str) -> Result<Vec<u8>> {
    Ok(URL_SAFE_NO_PAD.decode(text)?)
}

/// Half a signature as a DER integer, which has a sign.
fn integer(half: &[u8]) -> Result<Vec<u8>> {
    let first = half.iter().position(|byte| *byte != 0).unwrap_or(half.len() - 1);
    let half = half.get(first..).context("a number")?;
    let mut number = if half.first().is_some_and(|byte| *byte >= 0x80) { vec![0] } else { Vec::new() };
    number.extend_from_slice(half);
    let mut out = vec![0x02, u8::try_from(number.len())?];
    out.extend(number);
    Ok(out)
}

/// The claims of a token whose signature OpenSSL finds good, by the key of its id.
async fn verified(world: &World, jwks: &Value, token: &str) -> Result<Value> {
    let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else { bail!("{token}") };
    let read = |part| Ok::<_, anyhow::Error>(serde_json::from_slice::<Value>(&decoded(part)?)?);
    let kid = read(header)?["kid"].clone();
    let key = jwks["keys"].as_array().context("keys")?.iter().find(|key| key["kid"] == kid).context("its key")?;
    let point = |name: &str| decoded(key[name].as_str().unwrap_or_default());
    let key = [&P256[..], &[4], &point("x")?, &point("y")?].concat();
    let signature = decoded(signature)?;
    ensure!(signature.len() == 64, "{} bytes", signature.len());
    let (r, s) = (integer(&signature[..32])?, integer(&signature[32..])?);
    let signature = [&[0x30, u8::try_from(r.len() + s.len())?][..], &r, &s].concat();
    let path = |name: &str| world.path(name);
    fs::write(path("key.der"), key)?;
    fs::write(path("signature.der"), signature)?;
    fs::write(path("signed"), format!("{header}.{claims}"))?;
    let mut openssl = Command::new("openssl");
    openssl.args(["dgst", "-sha256", "-keyform", "DER", "-verify"]).arg(path("key.der"));
    openssl.arg("-signature").arg(path("signature.der")).arg(path("signed"));
    let said = run("openssl", openssl, DEADLINE).await?.code(0)?.stdout;
    ensure!(said.contains("Verified OK"), "{said}");
    read(claims)
}

#[test]
fn a_job_proves_who_it_is_by_a_token_that_others_verify() -> Result<()> {
    test(async |world| {
        let mut fleet = Fleet::start(world).await?;
        let kept = world.shared_file("token")?;
        let script = format!(
            "set -e; t=$(buildkite-agent oidc request-token --audience sts.amazonaws.com --lifetime 600 --claim zone \
             --aws-session-tag pipeline_slug); echo \"$t\"; echo \"$t\" > {0}; \
             windlass oidc request-token --format gcp --subject-claim build_branch >> {0}; \
             windlass oidc request-token --claim no_such && exit 9; \
             windlass oidc request-token --lifetime 86400 && exit 9; exit 0",
            kept.display()
        );
        let submit = Submit::text(pipeline([step("prove", &script)])).with("branch", json!("feature:x"));
        let build = fleet.client.submit(&submit).await?;
        let build = fleet.client.ends(build.id(), "passed", DEADLINE).await?;
        let log = fleet.log_of(&build, "prove").await?;
        ensure!(log.starts_with("[REDACTED]\n") && log.contains("is no claim"), "{log}");
        let text = fs::read_to_string(&kept)?;
        let (token, gcp) = text.split_once('\n').context("two lines")?;
        let gcp: Value = serde_json::from_str(gcp)?;

        let url = fleet.coordinator.url();
        let open = Client::new(&url, None)?;
        let configuration = open.get("/.well-known/openid-configuration").await?.status(200)?.json()?;
        ensure!(configuration["issuer"] == json!(url), "{configuration}");
        let keys = configuration["jwks_uri"].as_str().context("jwks_uri")?.strip_prefix(&url).context("its own")?;
        let jwks = open.get(keys).await?.status(200)?.json()?;
        ensure!(!jwks.to_string().contains("\"d\""), "a private part: {jwks}");
        let claims = verified(world, &jwks, token).await?;
        let attempt = build.attempt("prove")?;
        for (name, expected) in [
            ("iss", json!(url)),
            ("aud", json!("sts.amazonaws.com")),
            ("build_branch", json!("feature:x")),
            ("build_number", build.0["number"].clone()),
            ("pipeline_slug", build.0["pipeline"].clone()),
            ("step_key", json!("prove")),
            ("job_id", json!(attempt.id())),
            ("agent_id", attempt.0["agent"]["id"].clone()),
            ("zone", attempt.0["agent"]["zone"].clone()),
        ] {
            ensure!(claims[name] == expected, "{name}: {claims}");
        }
        let subject = claims["sub"].as_str().context("sub")?;
        ensure!(subject.contains(":ref:refs/heads/feature%3Ax:commit:"), "{subject}");
        let seconds = |name: &str| claims[name].as_u64().context("a time");
        ensure!(seconds("exp")? - seconds("iat")? == 600, "{claims}");
        ensure!(claims["https://aws.amazon.com/tags"]["principal_tags"]["pipeline_slug"].is_array(), "{claims}");
        let second = verified(world, &jwks, gcp["id_token"].as_str().context("a token")?).await?;
        ensure!(second["sub"] == json!("feature:x") && second["exp"] == gcp["expiration_time"], "{second}");
        let (before, signature) = token.rsplit_once('.').context("a signature")?;
        let forged = format!("{before}A.{signature}");
        ensure!(verified(world, &jwks, &forged).await.is_err(), "a changed token is good");

        let audit = fleet.client.get("/audit?limit=100").await?.status(200)?.json()?;
        let lines = audit["items"].as_array().context("lines")?;
        let told: Vec<_> = lines.iter().filter(|line| line["action"] == json!("token.oidc")).collect();
        ensure!(told.len() == 2 && told[1].to_string().contains("sts.amazonaws.com"), "{told:?}");
        ensure!(!audit.to_string().contains(token), "the audit trail holds a token");

        // What is known stays known: tokens outlive the coordinator that signed them.
        fleet.coordinator.kill9().await?;
        fleet.coordinator.restart().await?;
        let again = Client::new(&fleet.coordinator.url(), None)?.get("/.well-known/jwks").await?.json()?;
        ensure!(again == jwks, "{again}");
        Ok(())
    })
}
