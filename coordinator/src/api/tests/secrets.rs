//! Secrets over HTTP and by the desk of jobs: in, never out, and in nobody's answer.

use serde_json::json;
use windlass_coordinator_core::row::Scope;
use windlass_protocol::message::{AskRefused, Asked, Told};

use super::asks::{asked, code};
use super::{Bench, ONE_STEP, text};

const VALUE: &str = "hunter22-of-the-test";

fn get(keys: &[&str]) -> Asked {
    Asked::GetSecrets { keys: keys.iter().map(|key| (*key).to_owned()).collect() }
}

#[tokio::test]
async fn a_value_goes_in_and_comes_out_to_jobs_alone() {
    let mut bench = Bench::new().await;
    let secret = json!({ "key": "deploy_key", "value": VALUE, "pipeline": "web", "branch": "main" });
    let shown = bench.post("/api/v1/secrets", secret).await.is(200);
    assert!(!String::from_utf8_lossy(&shown.body).contains("hunter"));
    assert_eq!((&shown.json()["key"], &shown.json()["pipeline"]), (&json!("DEPLOY_KEY"), &json!("web")));
    let listed = bench.get("/api/v1/secrets").await.is(200);
    assert!(!String::from_utf8_lossy(&listed.body).contains("hunter"));
    assert_eq!(listed.json()["items"][0], shown.json());
    bench.agent().await;
    let body = json!({ "pipeline": "web", "branch": "main", "definition": ONE_STEP });
    bench.post("/api/v1/builds", body.clone()).await.is(201);
    let (epoch, spec) = bench.offer().await;
    let by = (spec.attempt, epoch);
    let Told::Secrets(values) = asked(&bench, by, get(&["DEPLOY_KEY"]), "").await else { panic!("no secrets") };
    assert_eq!(values.iter().map(|value| value.expose()).collect::<Vec<_>>(), [VALUE]);
    assert!(!format!("{values:?}").contains("hunter"));
    assert_eq!(code(&asked(&bench, by, get(&["other"]), "").await), Some(AskRefused::NotFound));
    let audit = bench.get("/api/v1/audit").await.is(200);
    let audit = String::from_utf8_lossy(&audit.body).into_owned();
    assert!(audit.contains("secret.set") && audit.contains("secret.get") && !audit.contains("hunter"), "{audit}");
    let path = "/api/v1/secrets/deploy_key?pipeline=web&branch=main";
    bench.call(&bench.admin, "DELETE", "/api/v1/secrets/deploy_key", "").await.is(404);
    bench.call(&bench.admin, "DELETE", path, "").await.is(204);
    assert_eq!(code(&asked(&bench, by, get(&["DEPLOY_KEY"]), "").await), Some(AskRefused::NotFound));
    assert_eq!(bench.get("/api/v1/secrets").await.is(200).json()["items"], json!([]));
}

#[tokio::test]
async fn what_is_refused_does_not_repeat_the_value() {
    let bench = Bench::new().await;
    for (body, status) in [
        (json!({ "key": "A", "value": 12_345_678 }), 422),
        (json!({ "key": "A", "value": [VALUE] }), 422),
        (json!({ "key": "A", "value": { VALUE: VALUE } }), 422),
        (json!({ "key": "A", "value": "short" }), 422),
        (json!({ "key": "A", "value": "     x     " }), 422),
        (json!({ "key": "A", "value": format!("{VALUE}\0") }), 422),
        (json!({ "key": "A", "value": VALUE.repeat(4_000) }), 422),
        (json!({ "key": "A B", "value": VALUE }), 422),
        (json!({ "key": "A", "value": VALUE, "zone": "" }), 422),
        (json!({ "key": "A", "valeu": VALUE }), 422),
    ] {
        let refused = bench.post("/api/v1/secrets", body.clone()).await.is(status);
        let words = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(!words.contains("hunter") && !words.contains("12345678"), "{body}: {words}");
    }
    assert_eq!(bench.get("/api/v1/secrets").await.is(200).json()["items"], json!([]));
}

#[tokio::test]
async fn a_restricted_token_has_to_do_with_its_own_secrets_alone() {
    let bench = Bench::new().await;
    bench.post("/api/v1/secrets", json!({ "key": "A", "value": VALUE })).await.is(200);
    let token = bench.token(&[Scope::SecretsWrite], Some("web"), None).await;
    let own = json!({ "key": "A", "value": VALUE, "pipeline": "web" }).to_string();
    let all = json!({ "key": "A", "value": VALUE }).to_string();
    bench.call(&token, "POST", "/api/v1/secrets", own).await.is(200);
    bench.call(&token, "POST", "/api/v1/secrets", all).await.is(403);
    bench.call(&token, "DELETE", "/api/v1/secrets/a", "").await.is(403);
    let listed = bench.call(&token, "GET", "/api/v1/secrets", "").await.is(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    let reader = bench.token(&[Scope::BuildsTrusted], None, None).await;
    bench.call(&reader, "GET", "/api/v1/secrets", "").await.is(403);
}

#[tokio::test]
async fn what_a_trusted_build_runs_and_knows_is_said_by_trusted_tokens_alone() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let build = bench.build().await;
    let (attempt, _) = bench.start().await;
    let stranger = bench.token(&[Scope::BuildsWrite], None, None).await;
    let steps = json!({ "id": "u", "definition": "steps: [{ command: evil }]" }).to_string();
    let upload = format!("/api/v1/attempts/{attempt}/pipeline");
    bench.call(&stranger, "POST", &upload, steps.clone()).await.is(403);
    let meta_data = format!("/api/v1/builds/{}/meta-data", text(&build["id"]));
    bench.call(&stranger, "PUT", &meta_data, json!({ "k": "v" }).to_string()).await.is(403);
    let trusted = bench.token(&[Scope::BuildsTrusted], None, None).await;
    bench.call(&trusted, "PUT", &meta_data, json!({ "k": "v" }).to_string()).await.is(200);
    bench.call(&trusted, "POST", &upload, steps).await.is(200);
}
