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
use windlass_protocol::identity::{AgentIdentity, AgentName, BadGrant, Ca, Chain, GrantKey, IdentityError, Shown};
use windlass_protocol::limits::{CERT_LIFE_MS, CERT_SKEW_MS, SERVER_CERT_LIFE_MS};
use windlass_protocol::link::transport;
use windlass_protocol::message::{Grant, SignedGrant};
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
    /// The key is there, and the certificate that agents believe is not.
    #[error("the CA's certificate {} is missing, and its key is not", .0.display())]
    CertificateLost(PathBuf),
    /// The certificate is there, and the key that signs is not.
    #[error("the CA's key {} is missing, and its certificate is not", .0.display())]
    KeyLost(PathBuf),
    /// What is in them.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl AuthorityError {
    /// One sentence on what to do; `None` where we would only be guessing.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::CertificateLost(_) => Some(
                "put it back from a backup, or from wherever it was imported (it is no secret; a new one over the same key \
                 would be believed by no agent); only if no agent has ever joined, remove ca-key.pem, and a new CA is made",
            ),
            Self::KeyLost(_) => Some(
                "put it back from a backup; without it no certificate can be renewed: move both files away to begin with a \
                 new CA, and let every agent join again",
            ),
            Self::File { .. } | Self::Identity(_) => None,
        }
    }
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
    secret: Secret<String>,
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
        let secret = ca.key_pem();
        Ok(Self { ca, names, addresses, lives, link, web, secret })
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

    /// What agents believe grants by while those agents are revoked.
    ///
    /// # Errors
    /// Never, with keys of the length that there is.
    pub fn grant_key(&self, revoked: &Digest) -> Result<[u8; 32], IdentityError> {
        GrantKey::derive(&self.secret, revoked)?.public()
    }

    /// Signs what an agent may read, until another one is revoked.
    ///
    /// # Errors
    /// Never, with keys of the length that there is.
    pub fn grant(&self, grant: Grant, revoked: &Digest) -> Result<SignedGrant, IdentityError> {
        GrantKey::derive(&self.secret, revoked)?.sign(grant)
    }

    /// Whether a grant was signed here, is good at this time, and is for the zone and the trust of who shows it.
    ///
    /// # Errors
    /// [`BadGrant`].
    pub fn verify_grant(
        &self,
        grant: &SignedGrant,
        revoked: &Digest,
        shown_by: &AgentIdentity,
        at: WallMs,
    ) -> Result<(), BadGrant> {
        let key = self.grant_key(revoked).map_err(|_| BadGrant::Signature)?;
        grant.verify(&key, shown_by, at)
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

/// The CA of a data directory, made if there is none. Half of one is an error, and nothing of it is written over: agents
/// believe the certificate by its fingerprint, and no other one can be made that has it.
fn own_ca(data: &Path) -> Result<Ca, AuthorityError> {
    let dir = data.join("identity");
    match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("cannot make", &dir)(error));
        }
        _ => {}
    }
    let (certificate_path, key_path, first) = (dir.join("ca.pem"), dir.join("ca-key.pem"), dir.join(FIRST_KEY));
    let read = |path: &Path| read_private(path).map_err(failed("cannot read", path));
    match (read(&certificate_path)?, read(&key_path)?) {
        (Some(certificate), Some(key)) => ca_of(&certificate, key),
        (Some(certificate), None) => match read(&first)? {
            // The first start ended before the last step of making it.
            Some(key) => {
                let ca = ca_of(&certificate, key)?;
                rename(&first, &key_path).map_err(failed("cannot write", &key_path))?;
                Ok(ca)
            }
            None => Err(AuthorityError::KeyLost(key_path)),
        },
        (None, Some(_)) => Err(AuthorityError::CertificateLost(certificate_path)),
        (None, None) => {
            let ca = Ca::create_p256(now().wall)?;
            // By its own name only once there is a certificate: a key without one is never the rest of a first start.
            write_private(&first, ca.key_pem().expose().as_bytes()).map_err(failed("cannot write", &first))?;
            write_private(&certificate_path, ca.certificate_pem().as_bytes())
                .map_err(failed("cannot write", &certificate_path))?;
            rename(&first, &key_path).map_err(failed("cannot write", &key_path))?;
            Ok(ca)
        }
    }
}

/// The key's name until its certificate is durable.
const FIRST_KEY: &str = "ca-key.first";

fn failed(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> AuthorityError {
    let path = path.to_owned();
    move |source| AuthorityError::File { doing, path: path.clone(), source }
}

fn ca_of(certificate: &[u8], key: Vec<u8>) -> Result<Ca, AuthorityError> {
    let key = Secret::new(String::from_utf8_lossy(&key).into_owned());
    Ok(Ca::from_pem(&String::from_utf8_lossy(certificate), &key)?)
}

/// Moves a file within its directory, durably.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(data: &Path) -> Result<Digest, AuthorityError> {
        let names = ["localhost".to_owned()];
        Authority::open(data, &names, &[], Lives::default()).map(|authority| authority.fingerprint())
    }

    #[test]
    fn a_ca_stays_the_same_and_half_of_one_is_an_error_that_changes_nothing() {
        let data = tempfile::tempdir().unwrap();
        let first = open(data.path()).unwrap();
        assert_eq!(open(data.path()).unwrap(), first);
        let (certificate, key) = (data.path().join("identity/ca.pem"), data.path().join("identity/ca-key.pem"));
        let (certificate_was, key_was) = (fs::read(&certificate).unwrap(), fs::read(&key).unwrap());
        fs::remove_file(&certificate).unwrap();
        let lost = open(data.path()).unwrap_err();
        assert!(matches!(&lost, AuthorityError::CertificateLost(path) if *path == certificate), "{lost}");
        assert!(lost.hint().is_some());
        assert_eq!((fs::read(&key).unwrap(), certificate.exists()), (key_was.clone(), false));
        write_private(&certificate, &certificate_was).unwrap();
        fs::remove_file(&key).unwrap();
        let lost = open(data.path()).unwrap_err();
        assert!(matches!(&lost, AuthorityError::KeyLost(path) if *path == key) && lost.hint().is_some(), "{lost}");
        assert!(!key.exists());
        write_private(&key, &key_was).unwrap();
        assert_eq!(open(data.path()).unwrap(), first, "what was put back counts");
    }

    #[test]
    fn a_first_start_that_was_cut_short_anywhere_is_gone_on_with() {
        let model = tempfile::tempdir().unwrap();
        let made = open(model.path()).unwrap();
        let read = |name: &str| fs::read(model.path().join("identity").join(name)).unwrap();
        // Only the key, under its first name: it has signed nothing.
        let data = tempfile::tempdir().unwrap();
        fs::DirBuilder::new().mode(0o700).create(data.path().join("identity")).unwrap();
        write_private(&data.path().join("identity").join(FIRST_KEY), &read("ca-key.pem")).unwrap();
        open(data.path()).unwrap();
        // Both, and the key still under that name.
        let data = tempfile::tempdir().unwrap();
        fs::DirBuilder::new().mode(0o700).create(data.path().join("identity")).unwrap();
        write_private(&data.path().join("identity").join(FIRST_KEY), &read("ca-key.pem")).unwrap();
        write_private(&data.path().join("identity/ca.pem"), &read("ca.pem")).unwrap();
        assert_eq!(open(data.path()).unwrap(), made);
        assert!(!data.path().join("identity").join(FIRST_KEY).exists());
        assert_eq!(open(data.path()).unwrap(), made);
    }
}
