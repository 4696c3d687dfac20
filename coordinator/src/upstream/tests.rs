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
}
