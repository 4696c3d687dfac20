//! A registry of images: Debian's docker-registry with a data directory of its own, in plain HTTP.

use std::path::Path;

use anyhow::{Result, ensure};
use tokio::process::Command;

use super::process::Process;
use super::wait::{DEADLINE, until};
use super::world::World;

/// A registry. It ends with the value.
#[derive(Debug)]
pub struct ImageRegistry {
    process: Process,
    port: u16,
}

impl ImageRegistry {
    /// Starts one on every address of this machine, on a port that the system chooses: engines take a registry without TLS
    /// on loopback alone, and zones reach it by their link.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start(world: &World) -> Result<Self> {
        let (config, data) = (world.path("registry.yml"), world.path("registry"));
        std::fs::create_dir(&data)?;
        std::fs::write(&config, configuration(&data))?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config);
        let mut process = Process::start(command, &world.logs(), "registry")?;
        let port = until("the registry", DEADLINE, async || {
            ensure!(process.runs()?, "it ended: {}", process.stderr()?);
            Ok(port(&process.stderr()?))
        })
        .await?;
        Ok(Self { process, port })
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The requests that it has answered with success, a line each, with who asked.
    ///
    /// # Errors
    /// Its log cannot be read.
    pub fn answered(&self) -> Result<Vec<String>> {
        let log = self.process.stdout()?;
        Ok(log.lines().filter(|line| line.contains("\" 200 ")).map(str::to_owned).collect())
    }
}

fn configuration(data: &Path) -> String {
    format!(
        "version: 0.1\nlog: {{level: info, formatter: text}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
         http:\n  addr: 0.0.0.0:0\n",
        data.display()
    )
}

/// `msg="listening on [::]:41235"`.
fn port(log: &str) -> Option<u16> {
    let (_, after) = log.split_once("listening on ")?;
    after.split_once('"')?.0.rsplit_once(':')?.1.parse().ok()
}
