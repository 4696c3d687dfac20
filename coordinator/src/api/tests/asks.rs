//! What jobs ask, by the desk that answers them: of their own build, by their right, and of no other namespace.

use serde_json::json;
use windlass_coordinator_core::row::Scope as TokenScope;
use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;
use windlass_protocol::message::{Ask, AskRefused, Asked, Scope, Style, Told};

use super::{Bench, Events, text};

pub(super) async fn asked(bench: &Bench, by: (AttemptId, Epoch), what: Asked, body: &str) -> Told {
    called(bench, by, 7, what, body).await
}

/// [`asked`] by a call of its own.
async fn called(bench: &Bench, by: (AttemptId, Epoch), call: u8, what: Asked, body: &str) -> Told {
    let body = body.as_bytes().to_vec();
    let body_bytes = u32::try_from(body.len()).unwrap();
    let ask = Ask { attempt: by.0, epoch: by.1, call: [call; 16], what, body_bytes };
    bench.ground.fleet.jobs.ask(ask, body).await
}

/// A build of this text whose first job was offered.
async fn begun(bench: &mut Bench, definition: &str) -> (String, (AttemptId, Epoch)) {
    bench.agent().await;
    let body = json!({ "pipeline": "web", "definition": definition });
    let build = bench.post("/api/v1/builds", body).await.is(201).json();
    let (epoch, spec) = bench.offer().await;
    (text(&build["id"]).to_owned(), (spec.attempt, epoch))
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
    assert_eq!(asked(&bench, by, step("state"), "").await, Told::Text("ready".to_owned()));
    assert_eq!(asked(&bench, by, step("outcome"), "").await, Told::Text(String::new()), "empty before the end");
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
    let upload = || Asked::UploadPipeline { replace: false, file: "gen.yml".to_owned() };
    let wrong = asked(&bench, by, upload(), "steps:\n- command: a\n  depends_on: [\n").await;
    assert!(
        matches!(&wrong, Told::Refused { code: AskRefused::Invalid, detail } if detail.starts_with("gen.yml:")),
        "{wrong:?}"
    );
    // Variables were put in where the job runs: what is left is its shell's.
    let good = "steps: [{ command: \"echo $NAME\", key: two, branches: main }]";
    for _ in 0..2 {
        assert_eq!(asked(&bench, by, upload(), good).await, Told::Done);
    }
    let shown = bench.get(&format!("/api/v1/builds/{}", text(&build["id"]))).await.is(200).json();
    let keys: Vec<_> = shown["jobs"].as_array().unwrap().iter().map(|job| job["step_key"].clone()).collect();
    assert_eq!(keys, [json!("one"), json!("two")]);
    let step = Asked::GetStep { build: None, step: "two".to_owned(), attribute: "command".to_owned(), json: false };
    assert_eq!(asked(&bench, by, step, "").await, Told::Text("echo $NAME".to_owned()));
}

#[tokio::test]
async fn what_a_job_writes_beside_its_build_is_listed_counted_and_told_to_watchers() {
    let mut bench = Bench::new().await;
    let (build, by) = begun(&mut bench, "steps: [{ command: make, key: one }]").await;
    let path = format!("/api/v1/builds/{build}");
    let mut events = Events::open(&bench, &format!("{path}/events"), None).await;
    let note = |context: &str, style, append, scope| Asked::Annotate {
        context: context.to_owned(),
        style,
        append,
        priority: None,
        scope,
    };
    let first = note("default", Some(Style::Warning), true, Scope::Build);
    for _ in 0..2 {
        assert_eq!(called(&bench, by, 1, first.clone(), "once").await, Told::Done);
    }
    let own = Asked::Annotate {
        context: "default".to_owned(),
        style: None,
        append: false,
        priority: Some(10),
        scope: Scope::Job,
    };
    assert_eq!(called(&bench, by, 2, own, "of the job").await, Told::Done);
    let style = note("absent", Some(Style::Error), false, Scope::Build);
    assert_eq!(code(&called(&bench, by, 3, style, "").await), Some(AskRefused::Invalid));
    let listed = bench.get(&format!("{path}/annotations")).await.is(200).json();
    let items = listed["items"].as_array().unwrap();
    let shown: Vec<_> = items.iter().map(|it| [&it["body"], &it["scope"], &it["style"], &it["priority"]]).collect();
    assert_eq!(shown[0], [&json!("of the job"), &json!("job"), &json!(null), &json!(10)]);
    assert_eq!(shown[1], [&json!("once"), &json!("build"), &json!("warning"), &json!(3)]);
    assert_eq!((shown.len(), &listed["next_cursor"]), (2, &json!(null)));
    let whole = bench.get(&path).await.is(200).json();
    assert_eq!((&whole["annotations_count"], &items[0]["job_id"]), (&json!(2), &whole["jobs"][0]["id"]));
    let gone = Asked::RemoveAnnotation { context: "default".to_owned(), scope: Scope::Build };
    assert_eq!(called(&bench, by, 4, gone, "").await, Told::Done);
    let told = events.until("annotation_removed").await;
    let changed: Vec<_> = told.iter().filter(|sent| sent.event == "annotation_changed").collect();
    assert_eq!(changed.len(), 2, "{told:?}");
    let removed = told.last().unwrap();
    assert_eq!((&removed.data["annotation"]["id"], removed.id.is_some()), (&items[1]["id"], true));
    // Who may not see the build sees nothing of it.
    let other = bench.token(&[TokenScope::BuildsRead], Some("other"), None).await;
    bench.call(&other, "GET", &format!("{path}/annotations"), "").await.is(404);
}

#[tokio::test]
async fn attributes_of_steps_are_changed_by_their_words_and_others_are_refused_with_a_reason() {
    let mut bench = Bench::new().await;
    let definition = "steps: [{ command: make, key: one }, { command: test, key: two, label: Tests }]";
    let (build, by) = begun(&mut bench, definition).await;
    let update =
        |attribute: &str, append| Asked::UpdateStep { step: "two".to_owned(), attribute: attribute.to_owned(), append };
    let good = [
        ("label", true, " (slow)"),
        ("priority", false, "7\n"),
        ("notify", false, r#"["github_check"]"#),
        ("notify", true, r#"[{"slack": "team#room", "if": "build.state == 'failed'"}]"#),
        ("parallelism", false, "2"),
    ];
    for (call, (attribute, append, value)) in (1..).zip(good) {
        assert_eq!(called(&bench, by, call, update(attribute, append), value).await, Told::Done, "{attribute}");
    }
    let step = |attribute: &str, json| Asked::GetStep {
        build: None,
        step: "two".to_owned(),
        attribute: attribute.to_owned(),
        json,
    };
    for (attribute, json, expected) in [
        ("label", false, "Tests (slow)"),
        ("priority", false, "7"),
        ("parallelism", false, "2"),
        (
            "notify",
            true,
            r#"[{"service":"github_check","config":null,"if":null},{"service":"slack","config":"team#room","if":"build.state == 'failed'"}]"#,
        ),
    ] {
        assert_eq!(asked(&bench, by, step(attribute, json), "").await, Told::Text(expected.to_owned()));
    }
    let whole = bench.get(&format!("/api/v1/builds/{build}")).await.is(200).json();
    assert_eq!(whole["jobs"].as_array().unwrap().len(), 3);
    let bad = [
        ("label", false, "  ", "empty"),
        ("priority", false, "high", "integer"),
        ("priority", true, "1", "--append"),
        ("parallelism", false, "1", "raised"),
        ("parallelism", false, "-1", "1 or more"),
        ("notify", false, "[{]", ""),
        ("notify", false, "7", "list"),
        ("command", false, "rm", "label, notify, parallelism and priority"),
    ];
    for (call, (attribute, append, value, why)) in (100..).zip(bad) {
        let told = called(&bench, by, call, update(attribute, append), value).await;
        let Told::Refused { code: AskRefused::Invalid, detail } = &told else { panic!("{attribute}: {told:?}") };
        assert!(detail.contains(why), "{attribute}: {detail}");
    }
    let absent = Asked::UpdateStep { step: "three".to_owned(), attribute: "label".to_owned(), append: false };
    assert_eq!(code(&asked(&bench, by, absent, "x").await), Some(AskRefused::NotFound));
}

#[tokio::test]
async fn a_step_is_found_by_key_and_id_with_what_it_waits_for_whatever_else_is_in_the_build() {
    let mut bench = Bench::new().await;
    let definition = "steps:\n- { command: a, key: a }\n- { command: b, key: b }\n- { command: c, key: c }\n\
                      - { command: d, key: d, depends_on: [c, a], parallelism: 2 }\n";
    let (build, by) = begun(&mut bench, definition).await;
    let whole = bench.get(&format!("/api/v1/builds/{build}")).await.is(200).json();
    let job = |index: usize| text(&whole["jobs"][index]["id"]).to_owned();
    let get = |step: &str, attribute: &str| Asked::GetStep {
        build: Some(build.parse().unwrap()),
        step: step.to_owned(),
        attribute: attribute.to_owned(),
        json: true,
    };
    for step in ["d".to_owned(), job(3), job(4)] {
        let told = asked(&bench, by, get(&step, "depends_on"), "").await;
        assert_eq!(told, Told::Text(r#"["c","a"]"#.to_owned()), "{step}");
        assert_eq!(asked(&bench, by, get(&step, "key"), "").await, Told::Text("\"d\"".to_owned()), "{step}");
    }
    let own = asked(&bench, by, get("", "key"), "").await;
    assert_eq!(asked(&bench, by, get(&by.0.to_string(), "key"), "").await, own, "by its attempt, and by no name");
    assert_eq!(code(&asked(&bench, by, get("e", "key"), "").await), Some(AskRefused::NotFound));
    let cancel = Asked::CancelStep { step: "d".to_owned(), grace_ms: None };
    assert_eq!(called(&bench, by, 8, cancel, "").await, Told::Done);
    let states = bench.get(&format!("/api/v1/builds/{build}")).await.is(200).json();
    let states: Vec<_> = states["jobs"].as_array().unwrap().iter().map(|job| text(&job["state"]).to_owned()).collect();
    assert_eq!(states[3..], ["canceled", "canceled"], "{states:?}");
    assert!(states[..3].iter().all(|state| state != "canceled"), "and nothing else: {states:?}");
    let stale = (by.0, Epoch(by.1.0 + 1));
    let refused = called(&bench, stale, 9, Asked::CancelBuild, "").await;
    assert_eq!(code(&refused), Some(AskRefused::NotHeld), "who holds it no more cancels nothing");
}

fn token(claims: &[&str], lifetime_s: u32) -> Asked {
    Asked::IssueToken {
        audience: "vault".to_owned(),
        lifetime_s,
        subject: String::new(),
        claims: claims.iter().map(|claim| (*claim).to_owned()).collect(),
        aws_tags: Vec::new(),
    }
}

#[tokio::test]
async fn a_token_is_signed_for_who_holds_a_job_of_a_trusted_build_and_noted_before() {
    use base64::Engine as _;
    let mut bench = Bench::new().await;
    let (build, by) = begun(&mut bench, "steps: [{ command: make, key: one }]").await;
    let Told::Text(signed) = asked(&bench, by, token(&["build_id", "agent_tag:none"][..1], 60), "").await else {
        panic!("no token");
    };
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signed.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(
        (&claims["iss"], &claims["aud"], &claims["build_id"]),
        (&json!("http://w"), &json!("vault"), &json!(build))
    );
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
    for wrong in [token(&["no_such"], 0), token(&["agent_tag:none"], 0), token(&[], 3_601)] {
        assert_eq!(code(&asked(&bench, by, wrong, "").await), Some(AskRefused::Invalid));
    }
    let stale = (by.0, Epoch(by.1.0 + 1));
    assert_eq!(code(&called(&bench, stale, 9, token(&[], 0), "").await), Some(AskRefused::NotHeld));
    let lines = bench.get("/api/v1/audit?limit=100").await.is(200).json();
    let noted = lines["items"].as_array().unwrap().iter().filter(|line| line["action"] == "token.oidc").count();
    assert_eq!(noted, 1, "{lines}");
    let open = bench.call("", "GET", "/.well-known/jwks", "").await.is(200);
    assert_eq!(open.header("cache-control"), "public, max-age=3600");
    let keys = open.json();
    assert_eq!((&keys["keys"][0]["kty"], &keys["keys"][0]["d"]), (&json!("EC"), &json!(null)));
    let configuration = bench.call("", "GET", "/.well-known/openid-configuration", "").await.is(200).json();
    assert_eq!(configuration["jwks_uri"], "http://w/.well-known/jwks");
}
