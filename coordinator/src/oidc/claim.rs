//! What a token says of a job (reference 19.10; names as Buildkite's tokens have them).
//!
//! Everything is what the coordinator knows of the attempt that asks, and nothing what the job says of itself.

use serde_json::{Map, Value, json};
use windlass_coordinator_core::row::{AttemptRow, BuildRow, JobRow};
use windlass_pipeline::graph::NodeKind;
use windlass_protocol::limits::{OIDC_LIFETIME_DEFAULT_S, OIDC_LIFETIME_MAX_S};
use windlass_protocol::{Trust, WallMs};

/// The one organization that there is; whose coordinator it is the issuer says.
const ORGANIZATION: &str = "windlass";

/// Where session tags stand that AWS understands.
const AWS_TAGS: &str = "https://aws.amazon.com/tags";

/// In every token.
pub(super) const ALWAYS: &[&str] = &[
    "iss",
    "sub",
    "aud",
    "iat",
    "nbf",
    "exp",
    "jti",
    "organization_slug",
    "pipeline_slug",
    "build_number",
    "build_branch",
    "build_tag",
    "build_commit",
    "build_source",
    "step_key",
    "job_id",
    "agent_id",
    "runner_environment",
];

/// Those that a job may ask for beside them; `agent_tag:NAME` is one for each tag of its agent.
pub(super) const ASKED: &[&str] =
    &["agent_tag", "build_id", "pipeline_id", "pool", "queue_key", "windlass_job_id", "zone"];

/// What a job asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asking<'a> {
    /// For whom the token is; empty: for the issuer itself.
    pub(crate) audience: &'a str,
    /// 0 is the default.
    pub(crate) lifetime_s: u32,
    /// The claim whose value is its subject; empty: the whole sentence.
    pub(crate) subject: &'a str,
    /// Claims beside those of every token.
    pub(crate) claims: &'a [String],
    /// Claims that become session tags of AWS.
    pub(crate) aws_tags: &'a [String],
}

/// Whom a token is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) build: &'a BuildRow,
    pub(crate) job: &'a JobRow,
    pub(crate) attempt: &'a AttemptRow,
    /// Of the attempt's agent.
    pub(crate) tags: &'a [(String, String)],
}

/// How long a token is good, if it may be so long.
fn lifetime(asked_s: u32) -> Result<u32, String> {
    match asked_s {
        0 => Ok(OIDC_LIFETIME_DEFAULT_S),
        asked if asked > OIDC_LIFETIME_MAX_S => {
            Err(format!("a token is good for {OIDC_LIFETIME_MAX_S} seconds at most, not {asked}"))
        }
        asked => Ok(asked),
    }
}

/// The claims of a token, or what of the request makes no sense.
pub(crate) fn claims(
    issuer: &str,
    id: &str,
    at: WallMs,
    asking: &Asking<'_>,
    about: &About<'_>,
) -> Result<Value, String> {
    if about.build.namespace.trust() != Trust::Trusted {
        let why =
            "only jobs of trusted builds get tokens: what an untrusted one says of its branch nobody has verified";
        return Err(why.to_owned());
    }
    let lifetime_s = lifetime(asking.lifetime_s)?;
    let from = at.0 / 1_000;
    let mut all = known(about);
    let sub = match asking.subject {
        "" => subject(about),
        name => match named(about, &all, name)? {
            Value::String(text) => text,
            other => other.to_string(),
        },
    };
    let mut tags = Map::new();
    for name in asking.aws_tags {
        let value = match named(about, &all, name)? {
            Value::String(text) => text,
            other => other.to_string(),
        };
        tags.insert(name.clone(), json!([value]));
    }
    for name in asking.claims {
        let value = named(about, &all, name)?;
        all.insert(name.clone(), value);
    }
    if !tags.is_empty() {
        all.insert(AWS_TAGS.to_owned(), json!({ "principal_tags": tags }));
    }
    let audience = if asking.audience.is_empty() { issuer } else { asking.audience };
    for (name, value) in [
        ("iss", json!(issuer)),
        ("sub", json!(sub)),
        ("aud", json!(audience)),
        ("iat", json!(from)),
        ("nbf", json!(from)),
        ("exp", json!(from + u64::from(lifetime_s))),
        ("jti", json!(id)),
    ] {
        all.insert(name.to_owned(), value);
    }
    Ok(Value::Object(all))
}

/// What every token says of its job.
fn known(about: &About<'_>) -> Map<String, Value> {
    let About { build, job, attempt, .. } = about;
    let all = [
        ("organization_slug", json!(ORGANIZATION)),
        ("pipeline_slug", json!(build.pipeline)),
        ("build_number", json!(build.number)),
        ("build_branch", json!(build.branch)),
        ("build_tag", json!(build.tag)),
        ("build_commit", json!(build.commit)),
        ("build_source", json!(build.source.word())),
        ("step_key", json!(job.node.key)),
        // What the job knows as BUILDKITE_JOB_ID.
        ("job_id", json!(attempt.id)),
        ("agent_id", json!(attempt.agent)),
        ("runner_environment", json!("self-hosted")),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The claim of a name, of those that may be asked for.
fn named(about: &About<'_>, known: &Map<String, Value>, name: &str) -> Result<Value, String> {
    let About { build, job, attempt, tags } = about;
    if let Some(value) = known.get(name) {
        return Ok(value.clone());
    }
    if let Some(tag) = name.strip_prefix("agent_tag:") {
        let found = tags.iter().find(|(known, _)| known == tag);
        return found.map(|(_, value)| json!(value)).ok_or_else(|| format!("the job's agent has no tag {tag:?}"));
    }
    let queue = match &job.node.kind {
        NodeKind::Command(command) => Some(&command.queue),
        NodeKind::Wait { .. } | NodeKind::Block(_) | NodeKind::Input(_) | NodeKind::Trigger(_) => None,
    };
    match name {
        "build_id" => Ok(json!(build.id)),
        "pipeline_id" => match &build.registered {
            Some(registered) => Ok(json!(registered.id)),
            None => Err("the build's pipeline is not registered, and has no id".to_owned()),
        },
        "pool" => Ok(json!(attempt.pool)),
        "queue_key" => Ok(json!(queue)),
        "windlass_job_id" => Ok(json!(job.id)),
        "zone" => Ok(json!(attempt.zone)),
        other => {
            let mut names: Vec<&str> = known.keys().map(String::as_str).collect();
            names.extend(["agent_tag:NAME", "build_id", "pipeline_id", "pool", "queue_key", "windlass_job_id", "zone"]);
            Err(format!("{other:?} is no claim: there are {}", names.join(", ")))
        }
    }
}

/// One sentence that policies match against.
fn subject(about: &About<'_>) -> String {
    let build = about.build;
    let reference = match &build.tag {
        Some(tag) => format!("refs/tags/{}", part(tag)),
        None => format!("refs/heads/{}", part(&build.branch)),
    };
    let (pipeline, commit) = (part(&build.pipeline), part(&build.commit));
    let step = part(about.job.node.key.as_deref().unwrap_or_default());
    format!("organization:{ORGANIZATION}:pipeline:{pipeline}:ref:{reference}:commit:{commit}:step:{step}")
}

/// A part of a sentence whose parts are parted by colons: a branch of a strange name says nothing of the parts that follow.
fn part(text: &str) -> String {
    text.replace('%', "%25").replace(':', "%3A")
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    const ID: &str = "0190c1f0-7a3b-7c1d-8e2f-0123456789ab";

    fn build(more: &Value) -> BuildRow {
        let mut row = json!({
            "id": ID, "number": 7, "pipeline": "web", "state": "running", "branch": "main", "commit": "c0ffee",
            "message": "", "origin": "empty", "source": "webhook", "creator": { "kind": "user", "name": "alice" },
            "namespace": { "project": "web", "overlay": null }, "env": [], "meta_data": {}, "supersede": "never",
            "created_at": 1, "definition": windlass_protocol::Digest::of(b""),
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            row[name] = value.clone();
        }
        from_value(row).unwrap()
    }

    fn job(key: Option<&str>) -> JobRow {
        let command = json!({ "command": "make", "queue": "builders" });
        let node = json!({ "key": key, "label": "l", "depends_on": [], "kind": { "command": command } });
        from_value(json!({
            "id": ID, "build": ID, "index": 0, "node": node, "state": "assigned", "attempts": [ID], "created_at": 1,
        }))
        .unwrap()
    }

    fn attempt() -> AttemptRow {
        from_value(json!({
            "id": ID, "job": ID, "build": ID, "number": 1, "state": "assigned", "epoch": 3, "agent": ID,
            "agent_name": "a", "zone": "east", "pool": "fast", "assigned_at": 1,
        }))
        .unwrap()
    }

    fn of(build: &BuildRow, key: Option<&str>, asking: &Asking<'_>) -> Result<Value, String> {
        let tags = [("os".to_owned(), "linux".to_owned())];
        let (job, attempt) = (job(key), attempt());
        let about = About { build, job: &job, attempt: &attempt, tags: &tags };
        claims("https://ci.example.org", "n-1", WallMs(1_700_000_000_999), asking, &about)
    }

    const NOTHING: Asking<'static> = Asking { audience: "", lifetime_s: 0, subject: "", claims: &[], aws_tags: &[] };

    #[test]
    fn a_token_says_what_the_coordinator_knows() {
        let all = of(&build(&json!({})), Some("deploy"), &NOTHING).unwrap();
        let expected = json!({
            "iss": "https://ci.example.org", "aud": "https://ci.example.org", "jti": "n-1",
            "iat": 1_700_000_000, "nbf": 1_700_000_000, "exp": 1_700_000_300,
            "sub": "organization:windlass:pipeline:web:ref:refs/heads/main:commit:c0ffee:step:deploy",
            "organization_slug": "windlass", "pipeline_slug": "web", "build_number": 7, "build_branch": "main",
            "build_tag": null, "build_commit": "c0ffee", "build_source": "webhook", "step_key": "deploy",
            "job_id": ID, "agent_id": ID, "runner_environment": "self-hosted",
        });
        assert_eq!(all, expected);
        let names: Vec<&str> = all.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(ALWAYS.iter().all(|name| names.contains(name)) && names.len() == ALWAYS.len(), "{names:?}");
    }

    #[test]
    fn what_a_branch_or_a_step_is_called_says_nothing_of_the_rest_of_the_subject() {
        for (more, key, end) in [
            (
                json!({ "branch": "main:commit:x:step:deploy" }),
                None,
                "refs/heads/main%3Acommit%3Ax%3Astep%3Adeploy:commit:c0ffee:step:",
            ),
            (json!({ "branch": "a%3Ab" }), Some("k"), "refs/heads/a%253Ab:commit:c0ffee:step:k"),
            (json!({ "tag": "v1", "branch": "v1" }), Some("k:ey"), "refs/tags/v1:commit:c0ffee:step:k%3Aey"),
        ] {
            let all = of(&build(&more), key, &NOTHING).unwrap();
            assert!(all["sub"].as_str().unwrap().ends_with(end), "{}", all["sub"]);
        }
    }

    #[test]
    fn claims_subjects_and_session_tags_are_asked_for_by_name() {
        let build = build(&json!({}));
        let words = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (extra, tags) =
            (words(&["zone", "pool", "queue_key", "build_id", "agent_tag:os"]), words(&["build_number"]));
        let asking =
            Asking { subject: "pipeline_slug", claims: &extra, aws_tags: &tags, audience: "aws", lifetime_s: 3_600 };
        let all = of(&build, None, &asking).unwrap();
        for (name, expected) in [
            ("sub", json!("web")),
            ("aud", json!("aws")),
            ("zone", json!("east")),
            ("pool", json!("fast")),
            ("queue_key", json!("builders")),
            ("build_id", json!(ID)),
            ("agent_tag:os", json!("linux")),
            ("exp", json!(1_700_003_600)),
            (AWS_TAGS, json!({ "principal_tags": { "build_number": ["7"] } })),
        ] {
            assert_eq!(all[name], expected, "{name}");
        }
        let (unknown, no_tag, own) = (words(&["secret"]), words(&["agent_tag:gpu"]), words(&["iss"]));
        for wrong in [
            Asking { claims: &unknown, ..NOTHING },
            Asking { claims: &no_tag, ..NOTHING },
            Asking { aws_tags: &unknown, ..NOTHING },
            Asking { claims: &own, ..NOTHING },
            Asking { subject: "exp", ..NOTHING },
            Asking { lifetime_s: 3_601, ..NOTHING },
        ] {
            assert!(of(&build, None, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn only_jobs_of_trusted_builds_get_tokens() {
        let untrusted = json!({ "namespace": { "project": "web", "overlay": "pr:17" } });
        assert!(of(&build(&untrusted), None, &NOTHING).is_err());
    }
}
