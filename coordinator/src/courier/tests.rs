//! What is sent, where to, and what its answer means, over real connections.

use axum::http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use windlass_coordinator_core::row::{
    Actor, ActorKind, BuildFacts, BuildNews, BuildSource, CommitState, NotificationState,
};
use windlass_protocol::host::write_private;
use windlass_protocol::{BuildId, NotificationId};

use super::*;
use crate::config::Allowed;

fn row(message: Message) -> NotificationRow {
    NotificationRow {
        id: NotificationId::from_bytes([3; 16]),
        project: "web".to_owned(),
        untrusted: false,
        order: 0,
        build: BuildId::from_bytes([4; 16]),
        message,
        state: NotificationState::Pending,
        attempts: 0,
        status: None,
        detail: String::new(),
        created_at: WallMs(1_700_000_000_000),
        due_at: WallMs(1_700_000_000_000),
        finished_at: None,
    }
}

fn facts() -> BuildFacts {
    BuildFacts {
        number: 12,
        pipeline: "web".to_owned(),
        pipeline_id: None,
        repository: Some("git@github.com:acme/web.git".to_owned()),
        state: "passed".to_owned(),
        blocked: false,
        branch: "main".to_owned(),
        commit: "0123".to_owned(),
        tag: None,
        message: "a change".to_owned(),
        source: BuildSource::Api,
        creator: Actor { kind: ActorKind::Token, name: "ci".to_owned() },
        rebuilt_from: None,
        created_at: WallMs(1_700_000_000_000),
        started_at: Some(WallMs(1_700_000_001_000)),
        finished_at: None,
    }
}

fn webhook(url: &str) -> NotificationRow {
    row(Message::Webhook { url: url.to_owned(), event: BuildNews::Finished, facts: Box::new(facts()) })
}

fn status() -> NotificationRow {
    row(Message::GithubCommitStatus {
        repository: "git@github.com:acme/web.git".to_owned(),
        commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        context: "ci".to_owned(),
        state: CommitState::Success,
        description: "Build #12 passed".to_owned(),
    })
}

/// A sender that may reach this machine, if `allow` says so, and GitHub's stand-in at this place.
fn sender(dir: &Path, allow: &[&str], api: &str) -> Sender {
    let token_file = dir.join("token");
    write_private(&token_file, b"ghp_secret\n").unwrap();
    let github = GithubConfig {
        host: "github.com".to_owned(),
        owner: "acme".to_owned(),
        name: None,
        api: api.to_owned(),
        token_file,
    };
    let allow = allow.iter().map(|text| text.parse::<Allowed>().unwrap()).collect();
    let config = NotifyConfig { allow, github: vec![github], ..NotifyConfig::default() };
    Sender::open(dir, &config, "https://ci.example").unwrap()
}

/// Answers one connection with these bytes, and gives what it was sent.
async fn answering(answer: &'static [u8]) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        let is_whole = |read: &[u8]| {
            let text = String::from_utf8_lossy(read).to_ascii_lowercase();
            let (head, body) = text.split_once("\r\n\r\n")?;
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
            (body.len() >= length.parse().ok()?).then_some(())
        };
        while is_whole(&read).is_none() {
            let mut piece = [0; 4_096];
            let count = stream.read(&mut piece).await.unwrap();
            assert_ne!(count, 0, "the request ended early");
            read.extend_from_slice(&piece[..count]);
        }
        // The other side may go once it has enough.
        let _gone = stream.write_all(answer).await;
        String::from_utf8(read).unwrap()
    });
    (place, served)
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let head = request.split("\r\n\r\n").next().unwrap();
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

#[tokio::test]
async fn a_webhook_is_a_signed_event_in_buildkites_shape() {
    let dir = tempfile::tempdir().unwrap();
    let (place, served) = answering(b"HTTP/1.1 204 No Content\r\n\r\n").await;
    let sender = sender(dir.path(), &["127.0.0.0/8"], "https://unused");
    let row = webhook(&format!("{place}/hook?token=x"));
    assert_eq!(sender.send(&row).await, Delivery::Done { status: 204 });
    let request = served.await.unwrap();
    assert!(request.starts_with("POST /hook?token=x HTTP/1.1\r\n"), "{request}");
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let seconds: u64 = header(&request, "webhook-timestamp").unwrap().parse().unwrap();
    let signed = (header(&request, "webhook-signature"), header(&request, "x-buildkite-signature"));
    let standard = sender.keys.standard(row.id, seconds, body.as_bytes());
    assert_eq!(signed.0, Some(standard.as_str()));
    assert_eq!(signed.1, Some(sender.keys.buildkite(seconds, body.as_bytes()).as_str()));
    assert_eq!(header(&request, "webhook-id"), Some(row.id.to_string().as_str()));
    assert_eq!(header(&request, "x-buildkite-event"), Some("build.finished"));
    insta::assert_snapshot!(serde_json::to_string_pretty(&serde_json::from_str::<Value>(body).unwrap()).unwrap());
}

#[tokio::test]
async fn what_is_not_public_is_not_called_unless_the_operator_allows_it() {
    let dir = tempfile::tempdir().unwrap();
    let (place, served) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let strict = sender(dir.path(), &[], "https://unused");
    let port = place.rsplit(':').next().unwrap();
    for url in [place.clone(), format!("http://localhost:{port}/"), format!("http://0x7f.1:{port}/")] {
        let delivery = strict.send(&webhook(&url)).await;
        assert!(
            matches!(&delivery, Delivery::Never { status: None, .. } | Delivery::Later { .. }),
            "{url} {delivery:?}"
        );
    }
    assert!(!served.is_finished(), "it was called");
    let named = sender(dir.path(), &["localhost"], "https://unused");
    let delivery = named.send(&webhook(&format!("http://localhost:{port}/"))).await;
    assert_eq!(delivery, Delivery::Done { status: 200 });
    served.await.unwrap();
}

#[tokio::test]
async fn a_commit_status_has_githubs_shape_and_its_token_goes_to_the_operators_api_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (place, served) = answering(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n{}").await;
    let sender = sender(dir.path(), &[], &place);
    assert_eq!(sender.send(&status()).await, Delivery::Done { status: 201 });
    let request = served.await.unwrap();
    let path = "POST /repos/acme/web/statuses/0123456789abcdef0123456789abcdef01234567 HTTP/1.1\r\n";
    assert!(request.starts_with(path), "{request}");
    assert_eq!(header(&request, "authorization"), Some("Bearer ghp_secret"));
    assert_eq!(header(&request, "accept"), Some("application/vnd.github+json"));
    assert_eq!(header(&request, "x-github-api-version"), Some("2022-11-28"));
    assert_eq!(header(&request, "webhook-signature"), None);
    let body: Value = serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap();
    let target_url = format!("https://ci.example/builds/{}", BuildId::from_bytes([4; 16]));
    let whole = json!({
        "state": "success", "target_url": target_url, "description": "Build #12 passed", "context": "ci",
    });
    assert_eq!(body, whole);
}

#[tokio::test]
async fn answers_say_whether_it_is_worth_to_come_again() {
    let dir = tempfile::tempdir().unwrap();
    for (answer, wanted) in [
        (&b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"[..], (Some(500), true, None)),
        (b"HTTP/1.1 429 No\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n", (Some(429), true, Some(9_000))),
        (b"HTTP/1.1 403 No\r\nretry-after: 9\r\ncontent-length: 0\r\n\r\n", (Some(403), true, Some(9_000))),
        (b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", (Some(403), false, None)),
        (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", (Some(404), false, None)),
        (b"HTTP/1.1 302 No\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", (Some(302), false, None)),
        (b"nonsense\r\n\r\n", (None, true, None)),
        (b"", (None, true, None)),
    ] {
        let (place, served) = answering(answer).await;
        let sender = sender(dir.path(), &["127.0.0.1"], "https://unused");
        let found = match sender.send(&webhook(&place)).await {
            Delivery::Done { status } => panic!("{status}"),
            Delivery::Later { status, after_ms, .. } => (status, true, after_ms),
            Delivery::Never { status, .. } => (status, false, None),
        };
        assert_eq!(found, wanted, "{}", String::from_utf8_lossy(answer));
        served.await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_without_end_is_cut_and_a_receivers_words_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut long = b"HTTP/1.1 400 No\r\ncontent-length: 100000000\r\n\r\n{\"message\": \"inside\"}".to_vec();
    long.resize(64 << 10, b' ');
    let long: &'static [u8] = Box::leak(long.into_boxed_slice());
    let (place, _served) = answering(long).await;
    let sender = sender(dir.path(), &["127.0.0.1"], &place);
    let delivery = sender.send(&webhook(&place)).await;
    assert_eq!(delivery, Delivery::Never { status: Some(400), detail: "it answered 400".to_owned() });
    let (place, _served) =
        answering(b"HTTP/1.1 422 No\r\ncontent-length: 26\r\n\r\n{\"message\":\"No commit it\"}").await;
    let sender = self::sender(dir.path(), &[], &place);
    let Delivery::Never { detail, .. } = sender.send(&status()).await else { panic!("it was taken") };
    assert_eq!(detail, "it answered 422: No commit it");
}

#[tokio::test]
async fn a_repository_without_a_token_is_told_so_and_one_whose_file_is_away_waits() {
    let dir = tempfile::tempdir().unwrap();
    let sender = sender(dir.path(), &[], "http://127.0.0.1:9");
    let mut other = status();
    if let Message::GithubCommitStatus { repository, .. } = &mut other.message {
        *repository = "git@github.com:other/web.git".to_owned();
    }
    assert!(matches!(sender.send(&other).await, Delivery::Never { status: None, .. }));
    std::fs::remove_file(dir.path().join("token")).unwrap();
    assert!(matches!(sender.send(&status()).await, Delivery::Later { status: None, .. }));
}

#[test]
fn a_limit_of_githubs_is_no_refusal() {
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("x-ratelimit-remaining"), HeaderValue::from_static("0"));
    headers.insert(HeaderName::from_static("x-ratelimit-reset"), HeaderValue::from_static("1700000060"));
    let answer = Answer { status: 403, headers, body: Vec::new() };
    let delivery = judge(&answer, WallMs(1_700_000_000_000), true);
    assert!(matches!(delivery, Delivery::Later { after_ms: Some(60_000), .. }), "{delivery:?}");
}

#[tokio::test]
async fn the_status_decides_even_if_the_rest_of_the_answer_never_comes() {
    let dir = tempfile::tempdir().unwrap();
    for (head, wanted) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"[..], Delivery::Done { status: 200 }),
        (
            b"HTTP/1.1 410 Gone\r\ncontent-length: 9\r\n\r\n",
            Delivery::Never { status: Some(410), detail: "it answered 410".to_owned() },
        ),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = format!("http://{}", listener.local_addr().unwrap());
        let hanging = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = [0; 4_096];
            assert_ne!(stream.read(&mut read).await.unwrap(), 0);
            stream.write_all(head).await.unwrap();
            std::future::pending::<()>().await;
        });
        let sender = sender(dir.path(), &["127.0.0.1"], "https://unused");
        assert_eq!(sender.send(&webhook(&place)).await, wanted);
        hanging.abort();
    }
}
