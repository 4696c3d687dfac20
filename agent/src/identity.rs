//! The agent's key and certificate: made at the first start, kept in its data directory or in memory alone, renewed in
//! time.

use std::net::SocketAddr;
use std::path::PathBuf;

use quinn::Endpoint;
use rustls::pki_types::CertificateDer;
use windlass_protocol::host::{now, read_private, write_private};
use windlass_protocol::identity::tls::{
    agent_client_config, enrol_client_config, peer_client_config, peer_server_config,
};
use windlass_protocol::identity::{AgentIdentity, AgentKey, IdentityError, JoinToken, Standing, fingerprint};
use windlass_protocol::link::error::ALERT_CERTIFICATE_EXPIRED;
use windlass_protocol::link::transport::{client_config, server_config};
use windlass_protocol::link::{LinkError, Protocol, ask, connect};
use windlass_protocol::message::{Enrol, EnrolAnswer, Evidence, RefuseCode};
use windlass_protocol::{Digest, Secret, WallMs};

use crate::config::Config;
use crate::error::Fault;
use crate::home::Home;
use crate::peer::Shown;

/// Where within a certificate's life it is renewed: at two thirds, a tenth of that more or less, so that agents that
/// joined together do not renew together (F4). Thousandths of two thirds.
const RENEW_SPREAD: std::ops::RangeInclusive<u64> = 900..=1_100;

/// Between two requests for the same certificate: a tenth of its life, within these.
const ASK_AGAIN_MS: (u64, u64) = (1_000, 60_000);

/// Who this agent is.
#[derive(Debug)]
pub struct Identity {
    key: AgentKey,
    chain: Vec<Vec<u8>>,
    ca: CertificateDer<'static>,
    named: AgentIdentity,
    /// Where it is kept; `None` is in memory alone.
    dir: Option<PathBuf>,
}

/// The key that an agent joins with. It is there before it is used and the same at every try, so that an answer that
/// was lost takes no second use of the token.
#[derive(Debug)]
pub struct JoinKey {
    pem: Secret<String>,
    dir: Option<PathBuf>,
}

impl JoinKey {
    /// The key of the data directory, made if there is none; with `ephemeral` a new one in memory alone.
    ///
    /// # Errors
    /// [`Fault`] where the system gives no randomness, or the file cannot be read or written.
    pub fn of(home: &Home, ephemeral: bool) -> Result<Self, Fault> {
        if ephemeral {
            return Ok(Self { pem: AgentKey::generate()?.to_pem(), dir: None });
        }
        Ok(Self { pem: own_key(home)?.to_pem(), dir: Some(home.identity()) })
    }
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
        Self::new(key, chain, Some(dir)).map(Some)
    }

    fn new(key: AgentKey, chain: Vec<Vec<u8>>, dir: Option<PathBuf>) -> Result<Self, Fault> {
        let rule = |rule: &str| IdentityError::Certificate { rule: rule.to_owned() };
        let [leaf, ca] = chain.as_slice() else { return Err(rule("a chain is a certificate and its CA's").into()) };
        let named = AgentIdentity::from_certificate(leaf)?;
        if named.public_key_digest != key.public_key_digest() {
            return Err(rule("it is for this agent's key").into());
        }
        let ca = CertificateDer::from(ca.clone());
        Ok(Self { key, chain, ca, named, dir })
    }

    /// Joins a fleet: asks with a key, and keeps the answer where the key is kept.
    ///
    /// # Errors
    /// [`Fault::Refused`] with the coordinator's reason; [`Fault::Unreachable`] is worth another try.
    pub async fn join(key: &JoinKey, config: &Config, endpoint: &Endpoint, machine_id: &str) -> Result<Self, Fault> {
        let text = config.join_token.as_ref().ok_or(Fault::NoToken)?;
        let token: JoinToken =
            text.expose().trim().parse().map_err(|error| Fault::TokenUnreadable { detail: format!("{error}") })?;
        let dir = key.dir.clone();
        let key = AgentKey::from_pem(key.pem.expose())?;
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
                let identity = Self::new(key, chain, dir)?;
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
        let Some(dir) = &self.dir else { return Ok(()) };
        let path = dir.join("chain.der");
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
        renew_at(&self.named)
    }

    /// How long to wait for an answer before asking again.
    #[must_use]
    pub fn ask_again_ms(&self) -> u64 {
        let life_ms = self.named.not_after.0.saturating_sub(self.named.not_before.0);
        (life_ms / 10).clamp(ASK_AGAIN_MS.0, ASK_AGAIN_MS.1)
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

    /// As whom this agent speaks to others of its zone.
    ///
    /// # Errors
    /// Where TLS cannot be set up.
    pub(crate) fn shown(&self) -> Result<Shown, IdentityError> {
        let client = client_config(peer_client_config(&self.ca, &self.chain, &self.key)?)?;
        let server = server_config(peer_server_config(&self.ca, &self.chain, &self.key)?)?;
        Ok(Shown { named: self.named.clone(), client, server })
    }
}

fn renew_at(named: &AgentIdentity) -> WallMs {
    let life_ms = named.not_after.0.saturating_sub(named.not_before.0);
    // Serial numbers are random: each certificate has a spread of its own.
    let [a, b, c, d, e, f, g, h, ..] = *Digest::of(named.serial.as_bytes()).as_bytes();
    let steps = RENEW_SPREAD.end() - RENEW_SPREAD.start() + 1;
    let spread = RENEW_SPREAD.start() + u64::from_le_bytes([a, b, c, d, e, f, g, h]) % steps;
    WallMs(named.not_before.0.saturating_add(life_ms / 3_000 * 2 * spread))
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
                Err(source) if refused_by_tls(&source).is_some() => last = typed(&source),
                Err(source) => last = Fault::Unreachable { address: server.clone(), source },
            }
        }
    }
    Err(last)
}

/// What a failed handshake says that a coordinator could not say in words, because there was no connection yet.
const fn refused_by_tls(error: &LinkError) -> Option<RefuseCode> {
    match error {
        // This is the oldest version that there is: who does not speak it is newer.
        LinkError::NoCommonVersion => Some(RefuseCode::VersionTooOld),
        LinkError::Handshake { by_peer: false, alert: ALERT_CERTIFICATE_EXPIRED, .. } => Some(RefuseCode::ClockSkew),
        _ => None,
    }
}

fn typed(error: &LinkError) -> Fault {
    let code = refused_by_tls(error).unwrap_or(RefuseCode::Unavailable);
    Fault::Refused { code, detail: format!("{error}: {}", code.advice()) }
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

#[cfg(test)]
mod tests {
    use windlass_protocol::identity::{AgentName, Ca};
    use windlass_protocol::{AgentId, Trust};

    use super::*;

    #[test]
    fn a_certificate_is_renewed_about_two_thirds_into_its_life_and_each_at_a_time_of_its_own() {
        let begin = WallMs(1_790_000_000_000);
        let ca = Ca::create(begin).unwrap();
        let name = AgentName {
            agent: AgentId::from_bytes([1; 16]),
            pool: "p".to_owned(),
            zone: "z".to_owned(),
            trust: Trust::Trusted,
        };
        let csr = AgentKey::generate().unwrap().csr().unwrap();
        let parts = (0..200).map(|_| {
            let chain = ca.issue_agent(&csr, &name, begin, 90_000).unwrap();
            renew_at(&AgentIdentity::from_certificate(&chain[0]).unwrap()).0 - begin.0
        });
        let parts: Vec<u64> = parts.collect();
        assert!(parts.iter().all(|ms| (54_000..=66_000).contains(ms)), "{parts:?}");
        assert!(parts.iter().any(|ms| *ms < 57_000) && parts.iter().any(|ms| *ms > 63_000), "{parts:?}");
    }

    #[test]
    fn a_key_in_memory_leaves_nothing_on_the_disk_and_is_another_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        let made = [JoinKey::of(&home, true).unwrap(), JoinKey::of(&home, true).unwrap()];
        assert_ne!(made[0].pem.expose(), made[1].pem.expose());
        assert_eq!(std::fs::read_dir(home.identity()).unwrap().count(), 0);
        let kept = [JoinKey::of(&home, false).unwrap(), JoinKey::of(&home, false).unwrap()];
        assert_eq!(kept[0].pem.expose(), kept[1].pem.expose());
    }

    #[test]
    fn what_a_handshake_cannot_say_in_words_is_typed_all_the_same() {
        let expired =
            |by_peer| LinkError::Handshake { by_peer, alert: ALERT_CERTIFICATE_EXPIRED, detail: String::new() };
        assert_eq!(refused_by_tls(&expired(false)), Some(RefuseCode::ClockSkew));
        assert_eq!(refused_by_tls(&expired(true)), None);
        assert_eq!(refused_by_tls(&LinkError::NoCommonVersion), Some(RefuseCode::VersionTooOld));
        assert_eq!(refused_by_tls(&LinkError::TimedOut), None);
    }
}
