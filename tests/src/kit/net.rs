//! Networks of a test's own: a namespace behind a link of two addresses, from which nothing else can be reached.

use std::net::Ipv4Addr;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::skip::is_root;
use super::wait::DEADLINE;
use super::world::{Ran, World, run};

/// A network of two addresses: ours and the zone's. Nothing forwards between networks, and the zone has no other route.
#[derive(Debug)]
pub struct Zone {
    /// The namespace.
    pub name: String,
    /// Our end of the link.
    pub link: String,
    /// Our address on it.
    pub ours: Ipv4Addr,
    /// The zone's address.
    pub theirs: Ipv4Addr,
}

/// Why there can be no zones here, if so.
///
/// # Errors
/// `ip` cannot be run.
pub fn no_zones() -> Result<Option<String>> {
    if !is_root() {
        return Ok(Some("only root can make network namespaces".to_owned()));
    }
    let name = format!("wl-probe-{}", std::process::id());
    let probe = std::process::Command::new("ip").args(["netns", "add", &name]).output()?;
    std::process::Command::new("ip").args(["netns", "del", &name]).output()?;
    let said = String::from_utf8_lossy(&probe.stderr).trim().to_owned();
    Ok((!probe.status.success()).then(|| format!("no network namespaces here: {said}")))
}

impl Zone {
    /// A zone that is not there yet; `number` is its network's, which no other test uses.
    #[must_use]
    pub fn new(tag: &str, number: u8) -> Self {
        let id = std::process::id() % 10_000;
        Self {
            name: format!("wl{id}-{tag}"),
            link: format!("wl{id}{tag}"),
            ours: Ipv4Addr::new(198, 18, number, 1),
            theirs: Ipv4Addr::new(198, 18, number, 2),
        }
    }

    /// Makes it.
    ///
    /// # Errors
    /// `ip` refuses.
    pub async fn make(&self) -> Result<()> {
        let (name, link) = (self.name.as_str(), self.link.as_str());
        let (ours, theirs) = (format!("{}/30", self.ours), format!("{}/30", self.theirs));
        for arguments in [
            vec!["netns", "add", name],
            vec!["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name],
            vec!["addr", "add", &ours, "dev", link],
            vec!["link", "set", link, "up"],
            vec!["-n", name, "addr", "add", &theirs, "dev", "eth0"],
            vec!["-n", name, "link", "set", "eth0", "up"],
            vec!["-n", name, "link", "set", "lo", "up"],
        ] {
            ip(&arguments).await?.code(0).with_context(|| arguments.join(" "))?;
        }
        Ok(())
    }

    /// Runs a program within the zone, with a world's environment.
    ///
    /// # Errors
    /// It cannot be run, or runs beyond the deadline.
    pub async fn run(&self, world: &World, program: &str, arguments: &[&str]) -> Result<Ran> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(arguments);
        world.dress(&mut command);
        run(program, command, DEADLINE).await
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        // The link ends with its namespace; what was never made cannot be removed.
        let _ = std::process::Command::new("ip").args(["netns", "del", &self.name]).status();
        let _ = std::process::Command::new("ip").args(["link", "del", &self.link]).stderr(Stdio::null()).status();
    }
}

/// Runs `ip`.
///
/// # Errors
/// It cannot be run.
pub async fn ip(arguments: &[&str]) -> Result<Ran> {
    let mut ip = Command::new("ip");
    ip.args(arguments);
    run("ip", ip, DEADLINE).await
}
