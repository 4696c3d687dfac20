//! Which addresses a URL out of a pipeline may reach: public ones, and what the operator allows. What a name resolves to
//! is looked at once, and the connection is made to what was looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Allowed;

/// The operator's rules.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    allow: Vec<Allowed>,
}

impl Guard {
    pub(crate) const fn new(allow: Vec<Allowed>) -> Self {
        Self { allow }
    }

    /// Those of a host's addresses that may be reached.
    pub(super) fn among(&self, host: &str, found: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let named = self.allow.iter().any(|allowed| match allowed {
            Allowed::Host(name) => *name == host,
            Allowed::Below(domain) => host.ends_with(domain.as_str()),
            Allowed::Net(_) => false,
        });
        found.filter(|address| named || self.allows(address.ip())).collect()
    }

    fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let in_net = |allowed: &Allowed| matches!(allowed, Allowed::Net(net) if net.contains(&address));
        is_public(address) || self.allow.iter().any(in_net)
    }
}

/// Whether an address is one of the public Internet's, for one receiver (IANA's registries of special addresses).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    // A cloud's own services, which every machine in it reaches.
    if v4 == Ipv4Addr::new(168, 63, 129, 16) {
        return false;
    }
    let [a, b, c, _] = v4.octets();
    let special = v4.is_private()
        || v4.is_loopback()
        || v4.is_link_local()
        || v4.is_documentation()
        || matches!(
            (a, b, c),
            (0, ..) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18..=19, _) | (224.., ..)
        );
    !special
}

/// 2000::/3 but for protocols' own, documentation, and those that have an IPv4 address in them: what they reach is
/// another's to decide.
fn is_public_v6(v6: Ipv6Addr) -> bool {
    let [a, b, ..] = v6.segments();
    let special = (a == 0x2001 && (b < 0x200 || b == 0xdb8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
    (0x2000..=0x3fff).contains(&a) && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(allow: &[&str], host: &str, address: &str) -> bool {
        let guard = Guard::new(allow.iter().map(|text| text.parse().unwrap()).collect());
        let address = SocketAddr::new(address.parse().unwrap(), 443);
        !guard.among(host, [address].into_iter()).is_empty()
    }

    #[test]
    fn only_public_addresses_are_reached_unless_the_operator_allows_more() {
        for inside in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "168.63.129.16",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "2002:7f00:1::",
            "3fff::1",
            "fec0::1",
            "100::1",
        ] {
            assert!(!reached(&[], "h", inside), "{inside}");
        }
        for outside in ["1.1.1.1", "140.82.121.4", "192.0.1.1", "198.20.0.1", "2606:4700::1111", "2a00:1450::1"] {
            assert!(reached(&[], "h", outside), "{outside}");
        }
        assert!(reached(&["10.1.0.0/16"], "h", "10.1.2.3") && !reached(&["10.1.0.0/16"], "h", "10.2.0.1"));
        assert!(reached(&["127.0.0.0/8"], "h", "::ffff:127.0.0.1"), "the same machine by its other name");
        assert!(reached(&["hooks.corp"], "Hooks.Corp.", "10.1.2.3") && !reached(&["hooks.corp"], "x.corp", "10.1.2.3"));
        assert!(reached(&["*.corp"], "a.b.corp", "10.1.2.3") && !reached(&["*.corp"], "corp", "10.1.2.3"));
        assert!(!reached(&["*.corp"], "evilcorp", "10.1.2.3"));
    }
}
