//! Which plugins the operator's credentials are for (docs/design/027).

use windlass_git::policy::Owner;
use windlass_protocol::Trust;

/// What the operator says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PluginCredentials {
    /// Whatever a trusted build's step names: somebody trusted wrote it.
    #[default]
    TrustedBuilds,
    /// These repositories, whoever's step names them: every job of this agent may read them. No others.
    Owners(Vec<Owner>),
}

impl PluginCredentials {
    /// Whether they are for this repository, named by a build of this trust.
    pub(crate) fn are_for(&self, repository: &str, trust: Trust) -> bool {
        match self {
            Self::TrustedBuilds => trust == Trust::Trusted,
            Self::Owners(owners) => owners.iter().any(|owner| owner.owns(repository)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_for_trusted_builds_or_for_what_the_operator_names() {
        let (own, other) = ("https://github.com/acme/a", "https://github.com/evil/a");
        let trusted = PluginCredentials::default();
        assert!(trusted.are_for(other, Trust::Trusted) && !trusted.are_for(own, Trust::Untrusted));
        let owners = PluginCredentials::Owners(vec!["github.com/acme".parse().unwrap()]);
        for trust in [Trust::Trusted, Trust::Untrusted] {
            assert!(owners.are_for(own, trust) && !owners.are_for(other, trust), "{trust:?}");
        }
        assert!(!PluginCredentials::Owners(Vec::new()).are_for(own, Trust::Trusted), "no list is none");
    }
}
