//! A fleet that answers, refuses, or is not there.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Says one thing, or nothing at all.
#[derive(Debug)]
struct Says {
    answer: Result<String, NotAnswered>,
    asked: Arc<AtomicUsize>,
}

impl Transport for Says {
    fn url(&self) -> &str {
        "https://ci"
    }

    fn ask(&self, _: String, _: Option<Value>, _: usize) -> BoxFuture<'static, Result<Vec<u8>, NotAnswered>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = self.answer.clone().map(String::into_bytes);
        Box::pin(async { answer })
    }

    fn open(&self, _: String) -> BoxFuture<'static, Result<Pieces, NotAnswered>> {
        Box::pin(async { Err(NotAnswered::Refused("no".to_owned())) })
    }
}

fn fleet(data: &std::path::Path, answer: Result<&str, NotAnswered>) -> (Upstream, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let says = Says { answer: answer.map(str::to_owned), asked: Arc::clone(&asked) };
    (Upstream::new(Box::new(says), data), asked)
}

#[tokio::test]
async fn what_a_fleet_said_is_known_when_it_is_gone_and_it_is_asked_once() {
    let data = tempfile::tempdir().unwrap();
    let gone = || Err(NotAnswered::NotReached("no route".to_owned()));
    let (down, asked) = fleet(data.path(), gone());
    assert!(down.begin("web", None).await.is_err());
    assert_eq!(down.terms("web").await, None);
    assert_eq!(down.image("web", "a", "linux/amd64").await, None);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it is not asked with every step");

    let (up, _) = fleet(data.path(), Ok(r#"{"project":"app","epoch":3,"hooks":[]}"#));
    up.begin("web", Some("https://h/app.git")).await.unwrap();
    let terms = up.terms("web").await.unwrap();
    assert_eq!((terms.project.as_str(), terms.epoch), ("app", 3));
    up.remember("a", "linux/amd64", &Known { digest: "sha256:1".to_owned(), config: "sha256:2".to_owned() });

    let (down, _) = fleet(data.path(), gone());
    assert!(down.begin("web", None).await.is_err());
    assert_eq!(down.terms("web").await, Some(terms));
    assert_eq!(down.remembered("a", "linux/amd64").unwrap().config, "sha256:2");
    assert_eq!(down.remembered("a", "linux/arm64"), None);
}

#[tokio::test]
async fn nonsense_is_no_answer_and_names_are_of_one_fleet_and_one_project() {
    let data = tempfile::tempdir().unwrap();
    for answer in ["", "[]", r#"{"project":"","epoch":0,"hooks":[]}"#, r#"{"project":"a","epoch":0,"hooks":["x"]}"#] {
        let (fleet, _) = fleet(data.path(), Ok(answer));
        assert!(matches!(fleet.begin("web", None).await, Err(NotAnswered::Senseless(_))), "{answer}");
    }
    let (fleet, _) = fleet(data.path(), Ok(""));
    let keys = [Digest::of(b"1"), Digest::of(b"2")];
    let names = fleet.names("a", &keys);
    assert_eq!(names.len(), 2);
    assert!(!names.contains(&keys[0]) && names[0] != names[1]);
    assert_ne!(names, fleet.names("b", &keys));
    let elsewhere = Upstream::new(Box::new(Elsewhere), data.path());
    assert_ne!(names, elsewhere.names("a", &keys));
}

#[test]
fn a_text_is_one_part_of_a_query_whatever_it_has() {
    for (text, expected) in [
        ("plain-1.0_x~", "plain-1.0_x~"),
        ("a/b c", "a%2Fb%20c"),
        ("a&project=b#?=+%", "a%26project%3Db%23%3F%3D%2B%25"),
        ("ü", "%C3%BC"),
    ] {
        assert_eq!(query(text), expected);
    }
}

#[tokio::test]
async fn a_fleet_that_is_to_rest_is_asked_nothing() {
    let data = tempfile::tempdir().unwrap();
    let (fleet, asked) = fleet(data.path(), Ok(r#"{"project":"app","epoch":3,"hooks":[]}"#));
    fleet.rest();
    assert!(matches!(fleet.begin("web", None).await, Err(NotAnswered::NotReached(_))));
    assert_eq!((fleet.terms("web").await, asked.load(Ordering::Relaxed)), (None, 0));
}

/// Another fleet, which refuses.
#[derive(Debug)]
struct Elsewhere;

impl Transport for Elsewhere {
    fn url(&self) -> &str {
        "https://other"
    }

    fn ask(&self, _: String, _: Option<Value>, _: usize) -> BoxFuture<'static, Result<Vec<u8>, NotAnswered>> {
        Box::pin(async { Err(NotAnswered::Refused("no".to_owned())) })
    }

    fn open(&self, _: String) -> BoxFuture<'static, Result<Pieces, NotAnswered>> {
        Box::pin(async { Err(NotAnswered::Refused("no".to_owned())) })
    }
}

/// Never answers.
#[derive(Debug)]
struct Silent;

impl Transport for Silent {
    fn url(&self) -> &str {
        "https://ci"
    }

    fn ask(&self, _: String, _: Option<Value>, _: usize) -> BoxFuture<'static, Result<Vec<u8>, NotAnswered>> {
        Box::pin(std::future::pending())
    }

    fn open(&self, _: String) -> BoxFuture<'static, Result<Pieces, NotAnswered>> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_says_nothing_is_waited_for_once_and_not_for_long() {
    let data = tempfile::tempdir().unwrap();
    let (silent, begun) = (Upstream::new(Box::new(Silent), data.path()), tokio::time::Instant::now());
    assert!(matches!(silent.begin("web", None).await, Err(NotAnswered::NotReached(_))));
    let waited = begun.elapsed().as_millis();
    assert!((FLEET_WAIT_MS.into()..=u128::from(FLEET_WAIT_MS) + 50).contains(&waited), "{waited} ms");
    assert_eq!(silent.image("web", "a", "linux/amd64").await, None);
    assert_eq!(begun.elapsed().as_millis(), waited, "nor with the next question");
}

#[tokio::test]
async fn of_what_a_fleet_says_no_more_is_kept_than_is_bounded() {
    let data = tempfile::tempdir().unwrap();
    let hooks: Vec<Digest> = (0..FLEET_HOOKS_MAX + 5).map(|n| Digest::of(&n.to_le_bytes())).collect();
    let (many, _) = fleet(data.path(), Ok(&json!({ "project": "app", "epoch": 0, "hooks": hooks }).to_string()));
    many.begin("web", None).await.unwrap();
    assert_eq!(many.terms("web").await.unwrap().hooks, hooks[..FLEET_HOOKS_MAX]);
    let long = json!({ "project": "x".repeat(NAME_MAX_BYTES + 1), "epoch": 0, "hooks": [] }).to_string();
    assert!(matches!(fleet(data.path(), Ok(&long)).0.begin("web", None).await, Err(NotAnswered::Senseless(_))));
    let elsewhere = tempfile::tempdir().unwrap();
    let (fresh, _) = fleet(&elsewhere.path().join("none"), Ok(""));
    let known = Known { digest: "sha256:1".to_owned(), config: "sha256:2".to_owned() };
    let remember = |n: usize| fresh.remember(&format!("i{n}"), "linux/amd64", &known);
    (0..=FLEET_IMAGES_MAX).for_each(remember);
    let there = |n: usize| fresh.remembered(&format!("i{n}"), "linux/amd64").is_some();
    assert_eq!((there(0), there(FLEET_IMAGES_MAX)), (false, true), "it begins anew");
}

#[tokio::test]
async fn a_memory_that_is_larger_than_any_is_not_read() {
    let data = tempfile::tempdir().unwrap();
    let (up, _) = fleet(data.path(), Ok(r#"{"project":"app","epoch":3,"hooks":[]}"#));
    up.begin("web", None).await.unwrap();
    assert!(up.terms("web").await.is_some());
    let gone = || fleet(data.path(), Err(NotAnswered::NotReached("no route".to_owned()))).0;
    assert!(gone().terms("web").await.is_some());
    let file = std::fs::read_dir(data.path().join("fleets")).unwrap().next().unwrap().unwrap().path();
    let mut text = std::fs::read(&file).unwrap();
    text.resize(usize::try_from(FLEET_REMEMBERED_MAX_BYTES).unwrap() + 1, b' ');
    write_private(&file, &text).unwrap();
    assert_eq!(gone().terms("web").await, None);
}
