//! The agent's key and certificate: made at the first start, kept in its data directory, renewed in time.

use std::net::SocketAddr;
use std::path::PathBuf;

use quinn::Endpoint;
use rustls::pki_types::CertificateDer;
use windlass_protocol::host::{now, read_private, write_private};
use windlass_protocol::identity::tls::{agent_client_config, enrol_client_config};
use windlass_protocol::identity::{AgentIdentity, AgentKey, IdentityError, JoinToken, Standing, fingerprint};
use windlass_protocol::link::transport::client_config;
use windlass_protocol::link::{Protocol, ask, connect};
use windlass_protocol::message::{Enrol, EnrolAnswer, Evidence};
use windlass_protocol::{Digest, WallMs};

use crate::config::Config;
use crate::error::Fault;
use crate::home::Home;

/// Two thirds of a certificate's life, less up to a tenth so that a fleet does not renew at once (F4).
const RENEW_AT_PERCENT: u64 = 66;

/// Who this agent is.
#[derive(Debug)]
pub struct Identity {
    key: AgentKey,
    chain: Vec<Vec<u8>>,
    ca: CertificateDer<'static>,
    named: AgentIdentity,
    dir: PathBuf,
}

impl Identity {
    /// What the data directory holds, if this agent has joined before.
    ///
    /// # Errors
    /// [`Fault`] where the files cannot be read, are open to others, or are not what they should be.
    pub fn load(home: &Home) -> Result<Option<Self>, Fault> {
        let dir = home.identity();
        let read = |name: &str| {
            let path = dir.join(name);
            read_private(&path).map_err(|source| Fault::File { doing: "cannot read", path, source })
        };
        let (Some(key), Some(chain)) = (read("key.pem")?, read("chain.der")?) else { return Ok(None) };
        let key = AgentKey::from_pem(&String::from_utf8_lossy(&key))?;
        let chain = split_chain(&chain)
            .ok_or(IdentityError::Certificate { rule: "chain.der holds two certificates".to_owned() })?;
        Self::new(key, chain, dir).map(Some)
    }

    fn new(key: AgentKey, chain: Vec<Vec<u8>>, dir: PathBuf) -> Result<Self, Fault> {
        let rule = |rule: &str| IdentityError::Certificate { rule: rule.to_owned() };
        let [leaf, ca] = chain.as_slice() else { return Err(rule("a chain is a certificate and its CA's").into()) };
        let named = AgentIdentity::from_certificate(leaf)?;
        if named.public_key_digest != key.public_key_digest() {
            return Err(rule("it is for this agent's key").into());
        }
        let ca = CertificateDer::from(ca.clone());
        Ok(Self { key, chain, ca, named, dir })
    }

    /// Joins a fleet: makes a key (or takes the one of an earlier try), asks, and keeps the answer.
    ///
    /// # Errors
    /// [`Fault::Refused`] with the coordinator's reason; [`Fault::Unreachable`] is worth another try.
    pub async fn join(home: &Home, config: &Config, endpoint: &Endpoint, machine_id: &str) -> Result<Self, Fault> {
        let text = config.join_token.as_ref().ok_or(Fault::NoToken)?;
        let token: JoinToken = text.expose().trim().parse().map_err(|error| Fault::Refused {
            code: windlass_protocol::message::RefuseCode::Malformed,
            detail: format!("the join token cannot be read: {error}"),
        })?;
        let key = own_key(home)?;
        let enrol = Enrol {
            token: token.id,
            secret: *token.secret.expose(),
            csr: key.csr()?,
            name: config.name.clone(),
            machine_id: machine_id.to_owned(),
            tags: config.tags.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            evidence: Evidence::None,
        };
        match ask_to_join(config, endpoint, token.ca, &enrol).await? {
            EnrolAnswer::Refused { code, detail } => Err(Fault::Refused { code, detail }),
            EnrolAnswer::Enrolled { agent, chain, pool, zone } => {
                let identity = Self::new(key, chain, home.identity())?;
                if fingerprint(&identity.ca) != token.ca {
                    let rule = "the chain ends at the CA that the token names".to_owned();
                    return Err(IdentityError::Certificate { rule }.into());
                }
                identity.save()?;
                tracing::info!(%agent, pool, zone, "agent_joined");
                Ok(identity)
            }
        }
    }

    fn save(&self) -> Result<(), Fault> {
        let path = self.dir.join("chain.der");
        write_private(&path, &join_chain(&self.chain)).map_err(|source| Fault::File {
            doing: "cannot write",
            path,
            source,
        })
    }

    /// Takes a newer certificate for the same key.
    ///
    /// # Errors
    /// [`Fault`] where it is not for this key, or cannot be kept.
    pub fn install(&mut self, chain: Vec<Vec<u8>>) -> Result<(), Fault> {
        let key = AgentKey::from_pem(self.key.to_pem().expose())?;
        let newer = Self::new(key, chain, self.dir.clone())?;
        if newer.named.agent != self.named.agent || newer.ca != self.ca {
            let rule = "it is for the same agent, by the same CA".to_owned();
            return Err(IdentityError::Certificate { rule }.into());
        }
        *self = newer;
        // It counts even where it cannot be kept (a full disk): only a restart would have to do without it.
        self.save()
    }

    /// What the certificate says.
    #[must_use]
    pub const fn named(&self) -> &AgentIdentity {
        &self.named
    }

    /// What the certificate is good for now.
    #[must_use]
    pub fn standing(&self, at: WallMs) -> Standing {
        self.named.standing(at)
    }

    /// When to ask for the next certificate.
    #[must_use]
    pub fn renew_at(&self) -> WallMs {
        let life = self.named.not_after.0.saturating_sub(self.named.not_before.0);
        let spread = u64::from(self.named.agent.as_bytes()[15]) % 10;
        WallMs(self.named.not_before.0 + life / 100 * (RENEW_AT_PERCENT - spread))
    }

    /// A request for the next certificate.
    ///
    /// # Errors
    /// Where the key cannot sign.
    pub fn csr(&self) -> Result<Vec<u8>, IdentityError> {
        self.key.csr()
    }

    /// QUIC's configuration for a protocol, with this identity.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub fn client_config(&self, protocol: Protocol) -> Result<quinn::ClientConfig, IdentityError> {
        client_config(agent_client_config(&self.ca, &self.chain, &self.key, protocol.alpn())?)
    }
}

fn own_key(home: &Home) -> Result<AgentKey, Fault> {
    let path = home.identity().join("key.pem");
    let failed = |doing| {
        let path = path.clone();
        move |source| Fault::File { doing, path, source }
    };
    if let Some(pem) = read_private(&path).map_err(failed("cannot read"))? {
        return Ok(AgentKey::from_pem(&String::from_utf8_lossy(&pem))?);
    }
    let key = AgentKey::generate()?;
    write_private(&path, key.to_pem().expose().as_bytes()).map_err(failed("cannot write"))?;
    Ok(key)
}

async fn ask_to_join(config: &Config, endpoint: &Endpoint, ca: Digest, enrol: &Enrol) -> Result<EnrolAnswer, Fault> {
    let mut last = Fault::Address { server: String::new(), detail: "no server was given".to_owned() };
    for server in &config.servers {
        for address in resolve(server).await? {
            let tls = client_config(enrol_client_config(ca)?)?;
            let answer = match connect(endpoint, address, Protocol::Enrol, tls).await {
                Ok(connection) => ask::<Enrol, EnrolAnswer>(&connection, enrol).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(answer) => return Ok(answer),
                Err(source) => last = Fault::Unreachable { address: server.clone(), source },
            }
        }
    }
    Err(last)
}

/// All addresses of `HOST:PORT`.
///
/// # Errors
/// [`Fault::Address`] where the name leads nowhere.
pub async fn resolve(server: &str) -> Result<Vec<SocketAddr>, Fault> {
    let refuse = |detail: String| Fault::Address { server: server.to_owned(), detail };
    let found: Vec<_> = tokio::net::lookup_host(server).await.map_err(|e| refuse(e.to_string()))?.collect();
    if found.is_empty() { Err(refuse("it has no address".to_owned())) } else { Ok(found) }
}

/// Whether the certificate allows more than renewing itself.
#[must_use]
pub fn usable(identity: &Identity) -> bool {
    identity.standing(now().wall) == Standing::Valid
}

fn join_chain(chain: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for certificate in chain {
        bytes.extend_from_slice(&u32::try_from(certificate.len()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(certificate);
    }
    bytes
}

fn split_chain(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut chain = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let (certificate, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        chain.push(certificate.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(chain)
}
