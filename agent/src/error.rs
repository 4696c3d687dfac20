//! Why an agent cannot start or go on.

use std::io;
use std::path::PathBuf;

use windlass_protocol::identity::IdentityError;
use windlass_protocol::link::LinkError;
use windlass_protocol::message::RefuseCode;

/// Why an agent cannot start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A file or directory of the agent.
    #[error("{doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another agent uses the data directory.
    #[error("another agent uses {} (process {holder})", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// Its process id, as it wrote it down.
        holder: String,
    },
    /// It has not joined yet, and was given no token.
    #[error("this agent has not joined a fleet yet, and no join token was given")]
    NoToken,
    /// The token that it was given is none, or was cut short on its way.
    #[error("the join token cannot be read: {detail}")]
    TokenUnreadable {
        /// What is wrong with it.
        detail: String,
    },
    /// The coordinator will not have it.
    #[error("the coordinator refuses this agent: {detail}")]
    Refused {
        /// For programs.
        code: RefuseCode,
        /// For people.
        detail: String,
    },
    /// Key or certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No coordinator at any of the addresses.
    #[error("no coordinator at {address}")]
    Unreachable {
        /// The last address that was tried.
        address: String,
        /// Why.
        source: LinkError,
    },
    /// A name that leads nowhere.
    #[error("`{server}` is no address: {detail}")]
    Address {
        /// As given.
        server: String,
        /// What the resolver said.
        detail: String,
    },
    /// The machine refuses something that every agent needs.
    #[error("{doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The cache on the agent's disk.
    #[error("the agent's cache cannot be opened")]
    Cache(#[source] windlass_cache::Fault),
}

impl Fault {
    /// One sentence on what to do; `None` where we would only be guessing.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoToken => Some(
                "make one at the coordinator with `windlass token create --pool P --zone Z --queue Q`, and give it with \
                 --join-token-file"
                    .to_owned(),
            ),
            Self::TokenUnreadable { .. } => {
                Some("give all of it, as `windlass token create` printed it, or make another one".to_owned())
            }
            Self::Locked { .. } => Some("give each agent of a machine a --data directory of its own".to_owned()),
            Self::Refused { code, .. } => Some(code.advice().to_owned()),
            Self::File { .. }
            | Self::Identity(_)
            | Self::Unreachable { .. }
            | Self::Address { .. }
            | Self::System { .. }
            | Self::Cache(_) => None,
        }
    }
}
