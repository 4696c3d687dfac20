//! A registry that says what it is told to, over real connections.

use std::collections::BTreeMap;
use std::sync::Mutex;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use serde_json::json;

use super::*;

/// What it has, by path, and what it was asked for.
#[derive(Debug, Default)]
struct Registry {
    manifests: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: Mutex<Vec<String>>,
    /// Who is let in: by a token of its own service, or by name and password.
    guard: Option<&'static str>,
    host: Mutex<String>,
}

async fn answer(State(registry): State<Arc<Registry>>, uri: Uri, headers: HeaderMap) -> Response {
    let given = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    registry.asked.lock().unwrap().push(format!("{uri} {given}").trim_end().to_owned());
    if uri.path() == "/token" {
        let token = if given.is_empty() { "anonymous" } else { "known" };
        return axum::Json(json!({ "token": token })).into_response();
    }
    let host = registry.host.lock().unwrap().clone();
    match registry.guard {
        Some("basic") if given != format!("Basic {}", auth_of("user:hunter22")) => {
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"r\"".to_owned())]).into_response();
        }
        Some("bearer") if given != "Bearer known" && given != "Bearer anonymous" => {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
        }
        Some("private") if given != "Bearer known" => {
            let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"s\"");
            let status = if given.is_empty() { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
            return (status, [("www-authenticate", challenge)]).into_response();
        }
        Some(_) | None => {}
    }
    match registry.manifests.lock().unwrap().get(uri.path()) {
        Some(manifest) => Bytes::from(manifest.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn auth_of(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::to(digest(&SHA256, bytes).as_ref()))
}

struct Bench {
    registry: Arc<Registry>,
    images: Images,
    host: String,
}

impl Bench {
    async fn new(guard: Option<&'static str>) -> Self {
        let registry = Arc::new(Registry { guard, ..Registry::default() });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        registry.host.lock().unwrap().clone_from(&host);
        let router = Router::new().fallback(answer).with_state(Arc::clone(&registry));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let auths = json!({ "auths": { &host: { "auth": auth_of("user:hunter22") } } }).to_string();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, auths).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let credentials = RegistryCredentials::read(&file).unwrap();
        let config = RegistryConfig { allow: vec![], insecure: vec![host.clone()], credentials };
        Self { registry, images: Images::new(config), host }
    }

    /// A manifest under a tag and its digest; answers the digest.
    fn put(&self, tag: &str, manifest: &serde_json::Value) -> String {
        let bytes = manifest.to_string().into_bytes();
        let digest = sha256(&bytes);
        let mut manifests = self.registry.manifests.lock().unwrap();
        for version in [tag, &digest] {
            manifests.insert(format!("/v2/team/app/manifests/{version}"), bytes.clone());
        }
        digest
    }

    async fn find(&self, version: &str) -> Result<Image, String> {
        self.find_as(version, Trust::Trusted).await
    }

    async fn find_as(&self, version: &str, trust: Trust) -> Result<Image, String> {
        self.images.find(&format!("{}/team/app{version}", self.host), "linux/amd64", trust).await
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.registry.asked.lock().unwrap())
    }
}

fn image(config: &str) -> serde_json::Value {
    json!({ "schemaVersion": 2, "config": { "digest": sha256(config.as_bytes()) }, "layers": [] })
}

#[tokio::test]
async fn a_tag_is_the_image_that_it_names_now() {
    let bench = Bench::new(None).await;
    let digest = bench.put("1", &image("one"));
    let found = bench.find(":1").await.unwrap();
    assert_eq!(found.pinned, format!("{}/team/app@{digest}", bench.host));
    assert_eq!(found.config, Some(sha256(b"one")));
    assert_eq!(bench.find(":1").await.unwrap(), found);
    assert_eq!(bench.asked().len(), 1, "steps that start together ask once");
    // As it is some seconds later.
    bench.images.0.known.lock().unwrap().forget(&Asked {
        reference: Reference::parse(&format!("{}/team/app:1", bench.host)).unwrap(),
        platform: "linux/amd64".to_owned(),
        trusted: true,
    });
    bench.put("1", &image("two"));
    assert_eq!(bench.find(":1").await.unwrap().config, Some(sha256(b"two")));
    assert_eq!(bench.find(&format!("@{digest}")).await.unwrap().config, Some(sha256(b"one")));
    let told = bench.find(":none").await.unwrap_err();
    assert!(told.ends_with("one that only an engine has is pinned by its digest"), "{told}");
}

#[tokio::test]
async fn of_an_index_the_platform_s_own_manifest_is_meant() {
    let bench = Bench::new(None).await;
    let (arm, amd) = (bench.put("arm", &image("arm")), bench.put("amd", &image("amd")));
    let of = |digest: &str, architecture: &str| json!({ "digest": digest, "platform": { "os": "linux", "architecture": architecture } });
    bench.put("1", &json!({ "manifests": [of(&arm, "arm64"), of(&amd, "amd64"), { "digest": arm }] }));
    let found = bench.find(":1").await.unwrap();
    assert_eq!((found.pinned.ends_with(&amd), found.config), (true, Some(sha256(b"amd"))));
    bench.put("2", &json!({ "manifests": [of(&arm, "arm64")] }));
    assert!(bench.find(":2").await.unwrap_err().ends_with("it has none for linux/amd64"));
}

#[tokio::test]
async fn a_registry_that_lies_is_not_believed() {
    let bench = Bench::new(None).await;
    let digest = bench.put("1", &image("one"));
    let other = image("other").to_string().into_bytes();
    let put = |version: &str, bytes: Vec<u8>| {
        bench.registry.manifests.lock().unwrap().insert(format!("/v2/team/app/manifests/{version}"), bytes);
    };
    put(&digest, other);
    let found = bench.find(&format!("@{digest}")).await.unwrap();
    assert_eq!(found.config, None, "it is known by its name alone");
    for (tag, bytes) in [
        ("text", b"no json".to_vec()),
        ("none", b"{}".to_vec()),
        ("odd", json!({ "config": { "digest": "../../x" } }).to_string().into_bytes()),
        ("large", vec![b' '; REGISTRY_MANIFEST_MAX_BYTES + 1]),
    ] {
        put(tag, bytes);
        assert!(bench.find(&format!(":{tag}")).await.is_err(), "{tag}");
    }
}

#[tokio::test]
async fn a_token_is_got_with_the_operator_s_credentials_for_trusted_builds_alone() {
    let bench = Bench::new(Some("private")).await;
    bench.put("1", &image("one"));
    let told = bench.find_as(":1", Trust::Untrusted).await.unwrap_err();
    assert!(told.ends_with("does not let the coordinator read it"), "{told}");
    assert!(bench.asked().iter().all(|asked| !asked.contains("Basic")), "nobody is told the password");
    assert!(bench.find(":1").await.is_ok());
    assert!(bench.find_as(":1", Trust::Untrusted).await.is_err(), "what trusted builds were told is theirs");
    let asked = bench.asked();
    let token = format!("/token?scope=repository%3Ateam%2Fapp%3Apull&service=s Basic {}", auth_of("user:hunter22"));
    assert_eq!(asked[1], token, "{asked:?}");
    assert_eq!(asked[2], "/v2/team/app/manifests/1 Bearer known");
    let open = Bench::new(Some("bearer")).await;
    open.put("1", &image("one"));
    assert!(open.find_as(":1", Trust::Untrusted).await.is_ok(), "anybody may have a token there");
    let basic = Bench::new(Some("basic")).await;
    basic.put("1", &image("one"));
    assert!(basic.find(":1").await.is_ok() && basic.find_as(":1", Trust::Untrusted).await.is_err());
}

#[tokio::test]
async fn only_public_registries_are_asked_and_those_that_the_operator_names() {
    let bench = Bench::new(None).await;
    bench.put("1", &image("one"));
    let (host, images) = (bench.host.clone(), Images::new(RegistryConfig::default()));
    for name in [format!("{host}/team/app:1"), "10.0.0.1/a:1".to_owned(), "169.254.169.254/a:1".to_owned()] {
        let told = images.find(&name, "linux/amd64", Trust::Trusted).await.unwrap_err();
        assert!(told.contains("has no public address"), "{told}");
    }
    assert!(bench.asked().is_empty());
}
