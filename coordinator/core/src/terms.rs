//! What a join token asks of an agent beside its secret (F2): from when, from where, by what name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};
use wildmatch::WildMatch;
use windlass_protocol::message::RefuseCode;
use windlass_protocol::{WallMs, limits};

use crate::row::JoinRefused;

/// The terms of a join token. They are asked once, when an agent joins: after that the agent's own key counts (F4), but
/// for the name, which may change with each hello.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct JoinTerms {
    /// It admits nobody before this.
    pub not_before: Option<WallMs>,
    /// Networks that agents may join from, as the coordinator sees their addresses; none is any.
    pub allowed_cidrs: Vec<IpNet>,
    /// How the agents may be called.
    pub name_pattern: Option<NamePattern>,
}

impl JoinTerms {
    /// Whether an agent of this name at this address may join now.
    pub(crate) fn admit(&self, wall: WallMs, address: Option<IpAddr>, name: &str) -> Result<(), JoinRefused> {
        if self.not_before.is_some_and(|begin| wall < begin) {
            let detail = "the token's time has not come yet: the agent waits for it".to_owned();
            return Err(JoinRefused { code: RefuseCode::TokenNotYetValid, detail });
        }
        if !self.allowed_cidrs.is_empty() && !address.is_some_and(|address| self.allows(address)) {
            let from =
                address.map_or_else(|| "an unknown address".to_owned(), |address| address.to_canonical().to_string());
            let detail =
                format!("the token does not admit {from}: join from one of its networks, or ask for another token");
            return Err(JoinRefused { code: RefuseCode::Cidr, detail });
        }
        self.admit_name(name)
    }

    /// Whether an agent may be called so.
    pub(crate) fn admit_name(&self, name: &str) -> Result<(), JoinRefused> {
        match &self.name_pattern {
            Some(pattern) if !pattern.matches(name) => {
                let detail = format!("the token admits names like `{pattern}`, not `{name}`: give another with --name");
                Err(JoinRefused { code: RefuseCode::NameNotAllowed, detail })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn allows(&self, address: IpAddr) -> bool {
        // A socket for both families shows IPv4 as `::ffff:…`.
        let address = address.to_canonical();
        self.allowed_cidrs.iter().any(|net| net.contains(&address))
    }
}

/// A network, or one address: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`.
///
/// # Errors
/// What is wrong with it.
pub fn cidr(text: &str) -> Result<IpNet, String> {
    let whole = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let net = text
        .parse::<IpNet>()
        .ok()
        .or_else(whole)
        .ok_or_else(|| format!("`{text}` is no network such as 10.0.0.0/8"))?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!("`{text}` has bits beyond its prefix: did you mean {}?", net.trunc()))
    }
}

/// How an agent may be called: `*` stands for any characters, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NamePattern(String);

impl NamePattern {
    /// Whether a name is like this.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        WildMatch::new(&self.0).matches(name)
    }
}

impl FromStr for NamePattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > limits::NAME_MAX_BYTES || text.chars().any(char::is_control) {
            return Err(format!(
                "a name pattern has 1 to {} bytes, without control characters",
                limits::NAME_MAX_BYTES
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for NamePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_one_way_and_an_address_is_a_network_of_its_own() {
        for (text, shown) in
            [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("2001:db8::/32", "2001:db8::/32")]
        {
            assert_eq!(cidr(text).map(|net| net.to_string()), Ok(shown.to_owned()));
        }
        assert!(cidr("10.1.2.3/8").unwrap_err().contains("10.0.0.0/8"));
        for text in ["", "10.0.0.0/33", "example.org", "10.0.0.0/8 "] {
            assert!(cidr(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_address_is_held_against_the_networks_however_its_socket_shows_it() {
        let terms = JoinTerms { allowed_cidrs: vec![cidr("192.0.2.0/24").unwrap()], ..JoinTerms::default() };
        let code = |address: Option<&str>| {
            terms.admit(WallMs(1), address.map(|text| text.parse().unwrap()), "n").map_err(|refused| refused.code)
        };
        assert_eq!(code(Some("192.0.2.9")), Ok(()));
        assert_eq!(code(Some("::ffff:192.0.2.9")), Ok(()));
        assert_eq!(code(Some("192.0.3.9")), Err(RefuseCode::Cidr));
        assert_eq!(code(Some("2001:db8::1")), Err(RefuseCode::Cidr));
        assert_eq!(code(None), Err(RefuseCode::Cidr), "an address that nobody knows is not an allowed one");
    }

    #[test]
    fn a_pattern_covers_the_whole_name() {
        let pattern: NamePattern = "ci-?*".parse().unwrap();
        for (name, fits) in [("ci-1", true), ("ci-big", true), ("ci-", false), ("xci-1", false), ("CI-1", false)] {
            assert_eq!(pattern.matches(name), fits, "{name}");
        }
        assert!("".parse::<NamePattern>().is_err());
    }
}
