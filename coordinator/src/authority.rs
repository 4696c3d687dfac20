//! The coordinator's CA and what it signs: made at the first start, kept in `DATA/identity`, mode 0600.
//!
//! The coordinator's own servers show certificates that are made at each start and again at two thirds of their life,
//! while they serve: one of Ed25519 on the link, one of ECDSA P-256 for HTTPS, which browsers can verify.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use windlass_protocol::host::{now, read_private, write_private};
use windlass_protocol::identity::tls::quic_server_config_of;
use windlass_protocol::identity::{AgentName, Ca, Chain, IdentityError, Shown};
use windlass_protocol::limits::{CERT_LIFE_MS, CERT_SKEW_MS, SERVER_CERT_LIFE_MS};
use windlass_protocol::link::transport;
use windlass_protocol::{Digest, Secret, WallMs};

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// Its files.
    #[error("{doing} {}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of two files is there.
    #[error("{} is missing: put it back from a backup, or every agent has to join again", .0.display())]
    Half(PathBuf),
    /// What is in them.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// How long certificates last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lives {
    /// An agent's.
    pub agent_ms: u64,
    /// That of the coordinator's own servers.
    pub server_ms: u64,
}

impl Default for Lives {
    fn default() -> Self {
        Self { agent_ms: CERT_LIFE_MS, server_ms: SERVER_CERT_LIFE_MS }
    }
}

impl Lives {
    /// When certificates made now begin: a little earlier, for clocks that stand behind. Of a short life it is a tenth,
    /// so that two thirds of it are still to come.
    fn begin(now: WallMs, life_ms: u64) -> WallMs {
        WallMs(now.0.saturating_sub(CERT_SKEW_MS.min(life_ms / 10)))
    }
}

/// Signs agents' certificates, and shows the coordinator's own.
#[derive(Debug)]
pub struct Authority {
    ca: Ca,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    lives: Lives,
    link: Arc<Shown>,
    web: Arc<Shown>,
}

impl Authority {
    /// The authority of a data directory, made if there is none. `names` and `addresses` are where clients reach the
    /// coordinator; they stand in its own certificates.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(data: &Path, names: &[String], addresses: &[IpAddr], lives: Lives) -> Result<Self, AuthorityError> {
        let ca = own_ca(data)?;
        let (names, addresses) = (names.to_vec(), addresses.to_vec());
        let at = now().wall;
        let begin = Lives::begin(at, lives.server_ms);
        let link = Shown::new(&ca.issue_server(&names, &addresses, begin, lives.server_ms)?)?;
        let web = Shown::new(&ca.issue_web_server(&names, &addresses, begin, lives.server_ms)?)?;
        Ok(Self { ca, names, addresses, lives, link, web })
    }

    /// The CA's fingerprint, which join tokens carry.
    #[must_use]
    pub const fn fingerprint(&self) -> Digest {
        self.ca.fingerprint()
    }

    /// The CA's certificate, for clients of HTTPS.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        self.ca.certificate_pem().to_owned()
    }

    /// What the link's endpoint is known by after a restart.
    #[must_use]
    pub fn link_secret(&self) -> Secret<String> {
        self.ca.key_pem()
    }

    /// QUIC's configuration.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn quic(&self) -> Result<quinn::ServerConfig, IdentityError> {
        transport::server_config(quic_server_config_of(Arc::clone(&self.link), self.ca.certificate_der())?)
    }

    /// What HTTPS shows where the own CA speaks for it.
    #[must_use]
    pub fn web(&self) -> Arc<Shown> {
        Arc::clone(&self.web)
    }

    /// When the servers' certificates are to be made anew, if they were made at `made`.
    #[must_use]
    pub const fn renew_servers_at(&self, made: WallMs) -> WallMs {
        made.plus_ms(self.lives.server_ms / 3 * 2)
    }

    /// Makes new certificates for the coordinator's own servers; every handshake from now on shows them.
    ///
    /// # Errors
    /// Where the system gives no randomness; the earlier ones are shown further.
    pub fn renew_servers(&self, at: WallMs) -> Result<(), IdentityError> {
        let (names, addresses, life_ms) = (&self.names, &self.addresses, self.lives.server_ms);
        let begin = Lives::begin(at, life_ms);
        self.link.replace(&self.ca.issue_server(names, addresses, begin, life_ms)?)?;
        self.web.replace(&self.ca.issue_web_server(names, addresses, begin, life_ms)?)
    }

    /// A certificate for an agent's key.
    ///
    /// # Errors
    /// Where the request is not to be believed.
    pub fn issue(&self, csr: &[u8], name: &AgentName) -> Result<Chain, IdentityError> {
        let (at, life_ms) = (now().wall, self.lives.agent_ms);
        let begin = Lives::begin(at, life_ms);
        self.ca.issue_agent(csr, name, begin, life_ms.saturating_add(at.0.saturating_sub(begin.0)))
    }
}

/// The CA of a data directory, made if there is none.
fn own_ca(data: &Path) -> Result<Ca, AuthorityError> {
    let dir = data.join("identity");
    let failed = |doing, path: &Path| {
        let path = path.to_owned();
        move |source| AuthorityError::File { doing, path, source }
    };
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("cannot make", &dir)(error));
        }
        _ => {}
    }
    let (certificate_path, key_path) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
    let read = |path: &Path| read_private(path).map_err(failed("cannot read", path));
    match (read(&certificate_path)?, read(&key_path)?) {
        (Some(certificate), Some(key)) => {
            let key = Secret::new(String::from_utf8_lossy(&key).into_owned());
            Ok(Ca::from_pem(&String::from_utf8_lossy(&certificate), &key)?)
        }
        (Some(_), None) => Err(AuthorityError::Half(key_path)),
        // The key is written first: alone it has signed nothing.
        (None, _) => {
            let ca = Ca::create_p256(now().wall)?;
            write_private(&key_path, ca.key_pem().expose().as_bytes()).map_err(failed("cannot write", &key_path))?;
            write_private(&certificate_path, ca.certificate_pem().as_bytes())
                .map_err(failed("cannot write", &certificate_path))?;
            Ok(ca)
        }
    }
}
