//! What verifiers of jobs' tokens read, without a token of their own: who the issuer is, and its keys.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderName;
use axum::http::header::CACHE_CONTROL;

use super::Ground;
use crate::oidc::{Configuration, Jwks};

/// Long enough to spare both sides, and short beside how long a key is published before it signs.
const KEPT: [(HeaderName, &str); 1] = [(CACHE_CONTROL, "public, max-age=3600")];

/// The issuer of jobs' tokens (OpenID Connect Discovery).
#[utoipa::path(
    get,
    path = "/.well-known/openid-configuration",
    tag = "tokens",
    operation_id = "oidc_configuration",
    security(()),
    responses((status = 200, description = "For whoever verifies tokens of jobs", body = Configuration)),
)]
pub(crate) async fn configuration(
    State(ground): State<Ground>,
) -> ([(HeaderName, &'static str); 1], Json<Configuration>) {
    (KEPT, Json(ground.issuer.configuration()))
}

/// The keys that sign jobs' tokens (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks",
    tag = "tokens",
    operation_id = "oidc_jwks",
    security(()),
    responses((status = 200, description = "Public keys", body = Jwks)),
)]
pub(crate) async fn jwks(State(ground): State<Ground>) -> ([(HeaderName, &'static str); 1], Json<Jwks>) {
    (KEPT, Json(ground.issuer.jwks()))
}
