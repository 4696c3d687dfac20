//! Who asks, and what they may do: bearer tokens, their scopes, and their restriction to a pipeline and a branch.

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use windlass_coordinator_core::row::{Actor, ActorKind, BuildRow, Scope, TokenGrant, TokenRow};
use windlass_protocol::host::now;
use windlass_protocol::identity::{ApiToken, secret_matches};
use windlass_protocol::{Namespace, TokenId, Trust, WallMs};

use super::Ground;
use super::problem::{Kind, Problem};

/// A client whose token counts.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Its token.
    pub(crate) token: TokenId,
    note: String,
    scopes: Vec<Scope>,
    /// Only this pipeline.
    pub(crate) pipeline: Option<String>,
    /// Only this branch.
    pub(crate) branch: Option<String>,
}

impl FromRequestParts<Ground> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, ground: &Ground) -> Result<Self, Problem> {
        let refuse = |detail: String| Problem::new(Kind::Unauthorized, detail);
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let text = header.and_then(|value| value.split_once(' '));
        let Some((_, text)) = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            return Err(refuse("send `Authorization: Bearer wla_…`; `windlass token create` makes a token".to_owned()));
        };
        let token: ApiToken = text.trim().parse().map_err(|bad| refuse(format!("{bad}")))?;
        let row = ground.fleet.views.token(token.id);
        let known = row.filter(|row| secret_matches(&token.secret, &row.secret_hash));
        let Some(row) = known else { return Err(refuse("there is no such token".to_owned())) };
        let at = now().wall;
        let caller = Self::of(row, at).map_err(|why| refuse(why.to_owned()))?;
        ground.last_use.note(caller.token, at);
        Ok(caller)
    }
}

impl Caller {
    /// Who a token stands for, if it counts at this time.
    pub(crate) fn of(row: TokenRow, at: WallMs) -> Result<Self, &'static str> {
        if row.revoked_at.is_some() {
            return Err("the token was revoked");
        }
        if row.expires_at.is_some_and(|end| end <= at) {
            return Err("the token's time is over");
        }
        let TokenGrant::Api { scopes, pipeline, branch } = row.grant else {
            return Err("this token lets agents join; the API needs one that `windlass token create --scope` makes");
        };
        Ok(Self { token: row.id, note: row.note, scopes, pipeline, branch })
    }

    /// Whether one of the scopes is held, directly or through a wider one.
    pub(crate) fn has(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| *held == scope || implies(*held, scope))
    }

    /// Refuses a token that has none of these scopes.
    pub(crate) fn need(&self, any_of: &[Scope]) -> Result<(), Problem> {
        if any_of.iter().any(|scope| self.has(*scope)) {
            return Ok(());
        }
        let names: Vec<_> = any_of.iter().map(|scope| format!("`{}`", scope_name(*scope))).collect();
        Err(Problem::new(Kind::Forbidden, format!("the token lacks the scope {}", names.join(" or "))))
    }

    /// As [`Caller::need`], for what concerns more than one pipeline: restricted tokens may not.
    pub(crate) fn need_everywhere(&self, any_of: &[Scope]) -> Result<(), Problem> {
        self.need(any_of)?;
        if self.pipeline.is_some() || self.branch.is_some() {
            let detail = "the token is restricted to one pipeline or branch, and this concerns all of them";
            return Err(Problem::new(Kind::Forbidden, detail));
        }
        Ok(())
    }

    /// Whether it may know what all namespaces' content comes to together. Whoever writes into an overlay of its own would
    /// see by that whether somebody has the same already (I12).
    pub(crate) fn sees_sums(&self) -> bool {
        let everywhere = self.pipeline.is_none() && self.branch.is_none();
        let writes = self.has(Scope::CacheWrite) || self.has(Scope::BuildsWrite);
        everywhere && self.has(Scope::CacheRead) && (self.is_trusted() || !writes)
    }

    /// Whether the token's restrictions let it see a build.
    pub(crate) fn sees(&self, build: &BuildRow) -> bool {
        self.sees_place(&build.pipeline, &build.branch)
    }

    /// Whether the token's restrictions let it see builds of a pipeline and a branch.
    pub(crate) fn sees_place(&self, pipeline: &str, branch: &str) -> bool {
        self.pipeline.as_ref().is_none_or(|only| *only == pipeline)
            && self.branch.as_ref().is_none_or(|only| *only == branch)
    }

    /// Refuses a pipeline or branch that the token is not for.
    pub(crate) fn need_place(&self, pipeline: &str, branch: Option<&str>) -> Result<(), Problem> {
        if let Some(only) = self.pipeline.as_deref().filter(|only| *only != pipeline) {
            return Err(Problem::new(Kind::Forbidden, format!("the token is only for pipeline `{only}`")));
        }
        match (self.branch.as_deref(), branch) {
            (Some(only), Some(asked)) if only != asked => {
                Err(Problem::new(Kind::Forbidden, format!("the token is only for branch `{only}`")))
            }
            _ => Ok(()),
        }
    }

    /// Whether what it submits and uploads is trusted.
    pub(crate) fn is_trusted(&self) -> bool {
        self.has(Scope::BuildsTrusted)
    }

    /// Refuses to let a token that is not trusted say what a trusted build runs or knows.
    pub(crate) fn need_trust_of(&self, build: &BuildRow) -> Result<(), Problem> {
        if self.is_trusted() || build.namespace.trust() == Trust::Untrusted {
            return Ok(());
        }
        Err(Problem::new(Kind::Forbidden, "the build is trusted: this needs a token with the scope `builds:trusted`"))
    }

    /// Where its lookups in the cache happen: the project's trusted content, or an overlay of its own (I12).
    pub(crate) fn namespace(&self, project: &str) -> Namespace {
        if self.is_trusted() {
            return Namespace::trusted(project);
        }
        Namespace::overlay(project, &format!("token:{}", self.token))
    }

    /// As rows and the audit trail name it.
    pub(crate) fn actor(&self) -> Actor {
        let name = if self.note.is_empty() { self.token.to_string() } else { self.note.clone() };
        Actor { kind: ActorKind::Token, name }
    }
}

/// Which scopes are part of wider ones.
const fn implies(held: Scope, wanted: Scope) -> bool {
    matches!(
        (held, wanted),
        (Scope::Admin, _)
            | (Scope::BuildsWrite | Scope::BuildsTrusted, Scope::BuildsRead)
            | (Scope::BuildsTrusted, Scope::BuildsWrite)
            | (Scope::AgentsWrite | Scope::PoolsWrite, Scope::AgentsRead)
    )
}

/// A scope's name in the interface.
pub(crate) fn scope_name(scope: Scope) -> String {
    match serde_json::to_value(scope) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(_) | Err(_) => String::new(),
    }
}
