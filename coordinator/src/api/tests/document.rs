//! The document that describes the API is checked in, and describes every path.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Bench, scopes};

/// Rewrites the checked-in copy where it is set.
const UPDATE: &str = "WINDLASS_UPDATE_OPENAPI";

#[test]
fn the_checked_in_document_is_the_one_that_is_served() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let mut text = serde_json::to_string_pretty(&super::super::openapi::build()).unwrap();
    text.push('\n');
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(held == text, "the API has changed: look at it, then run this test with {UPDATE}=1");
}

#[tokio::test]
async fn the_document_describes_every_path_that_is_tried_and_no_other() {
    let document = Bench::new().await.call("", "GET", "/openapi.json", "").await.is(200).json();
    let mut described = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(operation["responses"]["default"].is_object(), "{method} {path}");
            if path.starts_with("/api/v1") {
                described.insert((method.clone(), path.clone()));
            } else {
                assert_eq!(operation["security"], serde_json::json!([{}]), "{path} asks for no token");
            }
        }
    }
    assert_eq!(described, scopes::described());
}

#[tokio::test]
async fn every_path_of_the_document_is_routed_with_its_methods() {
    let bench = Bench::new().await;
    for (method, path) in scopes::described() {
        let path = path.replace(['{', '}'], "");
        let status = bench.call("", &method.to_uppercase(), &path, "").await.status.as_u16();
        assert_eq!(status, 401, "{method} {path}");
    }
}
