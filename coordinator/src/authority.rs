//! The coordinator's CA and what it signs: made at the first start, kept in `DATA/identity`, mode 0600.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use windlass_protocol::host::{now, read_private, write_private};
use windlass_protocol::identity::tls::{https_config, quic_server_config};
use windlass_protocol::identity::{AgentName, Ca, Chain, IdentityError, ServerCertificate};
use windlass_protocol::limits::{CERT_LIFE_MS, CERT_SKEW_MS, SERVER_CERT_LIFE_MS};
use windlass_protocol::link::transport;
use windlass_protocol::{Digest, Secret};

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

/// Signs agents' certificates, and shows the coordinator's own.
#[derive(Debug)]
pub struct Authority {
    ca: Ca,
    server: ServerCertificate,
}

impl Authority {
    /// The authority of a data directory, made if there is none. `names` and `addresses` are where clients reach the
    /// coordinator; they stand in its HTTPS certificate.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn open(data: &Path, names: &[String], addresses: &[IpAddr]) -> Result<Self, AuthorityError> {
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
        let ca = match (read(&certificate_path)?, read(&key_path)?) {
            (Some(certificate), Some(key)) => {
                let key = Secret::new(String::from_utf8_lossy(&key).into_owned());
                Ca::from_pem(&String::from_utf8_lossy(&certificate), &key)?
            }
            (Some(_), None) => return Err(AuthorityError::Half(key_path)),
            // The key is written first: alone it has signed nothing.
            (None, _) => {
                let ca = Ca::create(now().wall)?;
                write_private(&key_path, ca.key_pem().expose().as_bytes())
                    .map_err(failed("cannot write", &key_path))?;
                write_private(&certificate_path, ca.certificate_pem().as_bytes())
                    .map_err(failed("cannot write", &certificate_path))?;
                ca
            }
        };
        let from = windlass_protocol::WallMs(now().wall.0.saturating_sub(CERT_SKEW_MS));
        let server = ca.issue_server(names, addresses, from, SERVER_CERT_LIFE_MS)?;
        Ok(Self { ca, server })
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
        transport::server_config(quic_server_config(&self.server, self.ca.certificate_der())?)
    }

    /// HTTPS's configuration, by the own CA.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn https(&self) -> Result<rustls::ServerConfig, IdentityError> {
        https_config(&self.server)
    }

    /// A certificate for an agent's key.
    ///
    /// # Errors
    /// Where the request is not to be believed.
    pub fn issue(&self, csr: &[u8], name: &AgentName) -> Result<Chain, IdentityError> {
        let at = now().wall;
        let from = windlass_protocol::WallMs(at.0.saturating_sub(CERT_SKEW_MS));
        self.ca.issue_agent(csr, name, from, CERT_LIFE_MS + CERT_SKEW_MS)
    }
}
