//! Who signs grants, and who believes them.

use std::fmt;

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::{AgentIdentity, IdentityError};
use crate::digest::Digest;
use crate::limits::{GRANT_LIFE_MS, GRANT_SKEW_MS};
use crate::message::{Grant, SignedGrant};
use crate::secret::Secret;
use crate::time::WallMs;

/// Signs grants. It is derived from the CA's key: a coordinator that starts again has the same one, and nothing else that the CA
/// signs is signed with it. It changes whenever an agent is revoked, so that no grant outlives its bearer.
pub struct GrantKey(Ed25519KeyPair);

/// Why a grant is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadGrant {
    /// It has no signature of the coordinator's.
    #[error("the grant is not signed by this fleet's coordinator")]
    Signature,
    /// Its time is over.
    #[error("the grant has expired")]
    Expired,
    /// It ends later than any that is made now: one of both clocks was wrong then, or is.
    #[error("the grant is good for longer than one can be; look at the clocks")]
    Ahead,
    /// It is for another zone, or for agents of another trust.
    #[error("the grant is for another zone or another trust")]
    Place,
    /// It is for another agent.
    #[error("the grant is for another agent")]
    Bearer,
}

impl GrantKey {
    /// The key of the coordinator with this secret, while those agents that the digest stands for are revoked.
    ///
    /// # Errors
    /// [`IdentityError::Key`] where no key can be made of it.
    pub fn derive(secret: &Secret<String>, revoked: &Digest) -> Result<Self, IdentityError> {
        let mut hasher = blake3::Hasher::new_derive_key("windlass 2026-12-01 grant key v2");
        hasher.update(revoked.as_bytes()).update(secret.expose().as_bytes());
        let seed = *hasher.finalize().as_bytes();
        let refused = |error: ring::error::KeyRejected| IdentityError::Key { rule: error.to_string() };
        Ed25519KeyPair::from_seed_unchecked(&seed).map(Self).map_err(refused)
    }

    /// What agents believe grants by.
    ///
    /// # Errors
    /// [`IdentityError::Key`], never: such a key has 32 bytes.
    pub fn public(&self) -> Result<[u8; 32], IdentityError> {
        let sized = <[u8; 32]>::try_from(self.0.public_key().as_ref());
        sized.map_err(|_| IdentityError::Key { rule: "an Ed25519 key has 32 bytes".to_owned() })
    }

    /// Signs a grant.
    ///
    /// # Errors
    /// [`IdentityError::Key`], never: such a signature has 64 bytes.
    pub fn sign(&self, grant: Grant) -> Result<SignedGrant, IdentityError> {
        let signed = self.0.sign(&grant.statement());
        let sized = <[u8; 64]>::try_from(signed.as_ref());
        let signature = sized.map_err(|_| IdentityError::Key { rule: "a signature has 64 bytes".to_owned() })?;
        Ok(SignedGrant { grant, signature })
    }
}

impl fmt::Debug for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GrantKey(***)")
    }
}

impl SignedGrant {
    /// Whether the coordinator with this key says so, at this time, of agents that are where `own` is. Who shows it is another
    /// question: see [`Self::borne_by`].
    ///
    /// # Errors
    /// [`BadGrant`].
    pub fn verify(&self, key: &[u8; 32], own: &AgentIdentity, now: WallMs) -> Result<(), BadGrant> {
        if self.grant.cache_zone() != own.cache_zone() {
            return Err(BadGrant::Place);
        }
        if now.0 > self.grant.expires_at.plus_ms(GRANT_SKEW_MS).0 {
            return Err(BadGrant::Expired);
        }
        // Made while the coordinator's clock stood ahead, it would be good for as long as that was.
        if self.grant.expires_at.0 > now.plus_ms(GRANT_LIFE_MS + GRANT_SKEW_MS).0 {
            return Err(BadGrant::Ahead);
        }
        let key = UnparsedPublicKey::new(&ED25519, key);
        key.verify(&self.grant.statement(), &self.signature).map_err(|_| BadGrant::Signature)
    }

    /// Whether it is for the agent that shows it, and that one is where the grant says.
    ///
    /// # Errors
    /// [`BadGrant`].
    pub fn borne_by(&self, bearer: &AgentIdentity) -> Result<(), BadGrant> {
        if bearer.agent != self.grant.agent {
            return Err(BadGrant::Bearer);
        }
        if bearer.cache_zone() != self.grant.cache_zone() {
            return Err(BadGrant::Place);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::AgentId;
    use crate::namespace::{Namespace, Trust};

    fn agent(id: u8, zone: &str, trust: Trust) -> AgentIdentity {
        AgentIdentity {
            agent: AgentId::from_bytes([id; 16]),
            pool: "p".to_owned(),
            zone: zone.to_owned(),
            trust,
            trust_domain: String::new(),
            serial: String::new(),
            public_key_digest: Digest::of(b"key"),
            not_before: WallMs(0),
            not_after: WallMs(u64::MAX),
        }
    }

    fn grant() -> Grant {
        Grant {
            agent: AgentId::from_bytes([1; 16]),
            zone: "eu".to_owned(),
            trust: Trust::Trusted,
            namespace: Namespace::overlay("app", "pr:17"),
            expires_at: WallMs(1_000_000),
        }
    }

    #[test]
    fn a_grant_is_believed_in_its_time_its_zone_and_its_trust_and_of_its_bearer_alone() {
        let key = GrantKey::derive(&Secret::new("ca".to_owned()), &Digest::of(b"")).unwrap();
        let public = key.public().unwrap();
        let signed = key.sign(grant()).unwrap();
        let verdict = |zone, trust, ms| signed.verify(&public, &agent(2, zone, trust), WallMs(ms));
        assert_eq!(verdict("eu", Trust::Trusted, 1_000_000), Ok(()));
        assert_eq!(verdict("eu", Trust::Trusted, 1_000_001 + GRANT_SKEW_MS), Err(BadGrant::Expired));
        // The coordinator's clock, or this one, jumps either way.
        let first = 1_000_000 - GRANT_LIFE_MS - GRANT_SKEW_MS;
        assert_eq!(verdict("eu", Trust::Trusted, first), Ok(()));
        assert_eq!(verdict("eu", Trust::Trusted, first - 1), Err(BadGrant::Ahead));
        assert_eq!(verdict("eu", Trust::Trusted, 0), Err(BadGrant::Ahead), "back to 1970");
        assert_eq!(verdict("eu", Trust::Trusted, u64::MAX), Err(BadGrant::Expired), "to the end of time");
        assert_eq!(verdict("us", Trust::Trusted, 0), Err(BadGrant::Place));
        assert_eq!(verdict("eu", Trust::Untrusted, 0), Err(BadGrant::Place));
        let bearer = |id, zone, trust| signed.borne_by(&agent(id, zone, trust));
        assert_eq!(bearer(1, "eu", Trust::Trusted), Ok(()));
        assert_eq!(bearer(2, "eu", Trust::Trusted), Err(BadGrant::Bearer));
        assert_eq!(bearer(1, "us", Trust::Trusted), Err(BadGrant::Place));
        assert_eq!(bearer(1, "eu", Trust::Untrusted), Err(BadGrant::Place));
    }

    #[test]
    fn a_grant_that_was_changed_or_that_another_signed_is_not_believed() {
        let key = GrantKey::derive(&Secret::new("ca".to_owned()), &Digest::of(b"")).unwrap();
        let own = agent(2, "eu", Trust::Trusted);
        let verdict = |signed: &SignedGrant| signed.verify(&key.public().unwrap(), &own, WallMs(900_000));
        let changes: [fn(&mut Grant); 5] = [
            |grant| grant.agent = AgentId::from_bytes([3; 16]),
            |grant| grant.namespace.project = "other".to_owned(),
            |grant| grant.namespace.overlay = None,
            |grant| grant.namespace.overlay = Some(String::new()),
            |grant| grant.expires_at = WallMs(1_000_001),
        ];
        for change in changes {
            let mut signed = key.sign(grant()).unwrap();
            assert_eq!(verdict(&signed), Ok(()));
            change(&mut signed.grant);
            assert_eq!(verdict(&signed), Err(BadGrant::Signature), "{:?}", signed.grant);
        }
        let other = GrantKey::derive(&Secret::new("another ca".to_owned()), &Digest::of(b"")).unwrap();
        assert_eq!(verdict(&other.sign(grant()).unwrap()), Err(BadGrant::Signature));
        let again = GrantKey::derive(&Secret::new("ca".to_owned()), &Digest::of(b"")).unwrap();
        assert_eq!(verdict(&again.sign(grant()).unwrap()), Ok(()), "the same coordinator, started again");
    }
}
