//! `oidc request-token`: a signed token that says who the job is (reference 19.10). No log ever shows one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use windlass_protocol::message::{Asked, Told};

use super::{Call, Fail, fatal, untold};

pub(super) async fn request(call: &mut Call<'_>) -> Result<(), Fail> {
    call.own_job()?;
    let lifetime_s = u32::try_from(call.line.number("lifetime")).map_err(|_| fatal("lifetime must not be negative"))?;
    let gcp = match call.line.text("format") {
        "jwt" => false,
        "gcp" => true,
        other => return Err(fatal(format!("invalid format {other:?}: it is jwt or gcp"))),
    };
    let what = Asked::IssueToken {
        audience: call.line.text("audience").to_owned(),
        lifetime_s,
        subject: call.line.text("subject-claim").to_owned(),
        claims: names(call, "claim"),
        aws_tags: names(call, "aws-session-tag"),
    };
    let token = match call.ask(what, &[]).await? {
        Told::Text(token) => token,
        other => return Err(untold("failed to request a token", other)),
    };
    // Both forms: in JSON it stands between quotes, as it is.
    call.party.masking.add(&token).await.map_err(|error| fatal(format!("failed to redact the token: {error}")))?;
    if !gcp {
        return call.print(&format!("{token}\n")).await;
    }
    let expires = expiry(&token).ok_or_else(|| fatal("the token does not say how long it is good"))?;
    let shown = json!({
        "version": 1,
        "success": true,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": token,
        "expiration_time": expires,
    });
    call.print(&format!("{shown}\n")).await
}

/// Names that a flag gives, each alone or several between commas.
fn names(call: &Call<'_>, flag: &str) -> Vec<String> {
    let parts = call.line.texts(flag).iter().flat_map(|text| text.split(','));
    parts.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// The second at which a token is over, by its own word.
fn expiry(token: &str) -> Option<i64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?.get("exp")?.as_i64()
}
