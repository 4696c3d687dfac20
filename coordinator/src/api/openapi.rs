//! The document that describes the API (OpenAPI 3.1); a copy is checked in, so that a review sees what changes.

use axum::Json;

/// The document.
pub(super) async fn document() -> Json<serde_json::Value> {
    Json(serde_json::Value::Null)
}
