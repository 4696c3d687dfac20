//! Who did what: the audit trail.

use serde::{Deserialize, Serialize};
use windlass_protocol::WallMs;

/// Who asked for something, as written in rows and in the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// What it is.
    pub kind: ActorKind,
    /// Its name: a token's note or id, a user, a pipeline and number.
    pub name: String,
}

/// What kind of actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActorKind {
    /// An API token.
    Token,
    /// A person.
    User,
    /// A webhook.
    Webhook,
    /// Another build.
    Build,
    /// The coordinator itself.
    System,
}

/// One line of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// When.
    pub at: WallMs,
    /// Who.
    pub actor: Actor,
    /// What, as `build.submit` or `token.revoke`.
    pub action: String,
    /// To what: an id or a name.
    pub target: String,
    /// For people.
    pub detail: String,
}
