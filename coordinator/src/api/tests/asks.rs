//! What jobs ask, by the desk that answers them: of their own build, by their right, and of no other namespace.

use serde_json::json;
use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;
use windlass_protocol::message::{Ask, AskRefused, Asked, Told};

use super::{Bench, text};

pub(super) async fn asked(bench: &Bench, by: (AttemptId, Epoch), what: Asked, body: &str) -> Told {
    let body = body.as_bytes().to_vec();
    let body_bytes = u32::try_from(body.len()).unwrap();
    let ask = Ask { attempt: by.0, epoch: by.1, call: [7; 16], what, body_bytes };
    bench.ground.fleet.jobs.ask(ask, body).await
}

pub(super) fn code(told: &Told) -> Option<AskRefused> {
    match told {
        Told::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

#[tokio::test]
async fn a_job_sets_and_reads_its_own_build_s_meta_data_by_its_right_alone() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let body = json!({ "pipeline": "web", "definition": "steps: [{ command: make, key: one }]" });
    let build = bench.post("/api/v1/builds", body.clone()).await.is(201).json();
    let (epoch, spec) = bench.offer().await;
    let by = (spec.attempt, epoch);
    let set = || Asked::SetMetaData { values: vec![("a".to_owned(), "1".to_owned())] };
    assert_eq!(asked(&bench, by, set(), "").await, Told::Done);
    let stale = (spec.attempt, Epoch(epoch.0 + 1));
    assert_eq!(code(&asked(&bench, stale, set(), "").await), Some(AskRefused::NotHeld));
    let get = |build| Asked::GetMetaData { build, key: "a".to_owned() };
    assert_eq!(asked(&bench, by, get(None), "").await, Told::Value(Some("1".to_owned())));
    // Another pipeline's build is not there for it.
    let body =
        json!({ "pipeline": "other", "definition": "steps: [{ command: make }]", "meta_data": { "a": "secret" } });
    let other = bench.post("/api/v1/builds", body).await.is(201).json();
    let other = text(&other["id"]).parse().unwrap();
    assert_eq!(code(&asked(&bench, by, get(Some(other)), "").await), Some(AskRefused::NotFound));
    let own = text(&build["id"]).parse().unwrap();
    assert_eq!(asked(&bench, by, get(Some(own)), "").await, Told::Value(Some("1".to_owned())));
    let step = |attribute: &str| Asked::GetStep {
        build: None,
        step: String::new(),
        attribute: attribute.to_owned(),
        json: false,
    };
    assert_eq!(asked(&bench, by, step("command"), "").await, Told::Text("make".to_owned()));
    assert_eq!(code(&asked(&bench, by, step("agents"), "").await), Some(AskRefused::Invalid), "a list needs JSON");
    let secrets = Asked::GetSecrets { keys: vec!["k".to_owned()] };
    assert_eq!(code(&asked(&bench, by, secrets, "").await), Some(AskRefused::NotFound));
}

#[tokio::test]
async fn an_upload_that_comes_again_is_the_same_and_one_that_is_wrong_adds_nothing() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let body = json!({ "pipeline": "web", "definition": "steps: [{ command: make, key: one }]" });
    let build = bench.post("/api/v1/builds", body).await.is(201).json();
    let (epoch, spec) = bench.offer().await;
    let by = (spec.attempt, epoch);
    let upload = || {
        let variables = vec![("NAME".to_owned(), "two".to_owned())];
        Asked::UploadPipeline { replace: false, variables, file: "gen.yml".to_owned() }
    };
    let wrong = asked(&bench, by, upload(), "steps:\n- command: a\n  depends_on: [\n").await;
    assert!(
        matches!(&wrong, Told::Refused { code: AskRefused::Invalid, detail } if detail.starts_with("gen.yml:")),
        "{wrong:?}"
    );
    let good = "steps: [{ command: \"echo $NAME\", key: two }]";
    for _ in 0..2 {
        assert_eq!(asked(&bench, by, upload(), good).await, Told::Done);
    }
    let shown = bench.get(&format!("/api/v1/builds/{}", text(&build["id"]))).await.is(200).json();
    let keys: Vec<_> = shown["jobs"].as_array().unwrap().iter().map(|job| job["step_key"].clone()).collect();
    assert_eq!(keys, [json!("one"), json!("two")]);
}
