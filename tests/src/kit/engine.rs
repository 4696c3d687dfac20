//! The machine's container engine as tests use it: an image of what Debian ships, a door for jobs, what is left in it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tokio::io::copy_bidirectional;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::task::JoinHandle;

use super::process::{Exit, Process};
use super::wait::{DEADLINE, until};
use super::world::{Ran, World, run};

/// The image of these tests: busybox and nothing else.
pub const IMAGE: &str = "windlass-test/busybox:e2e";

/// Where the machine's engine listens.
const SOCKET: &str = "/var/run/docker.sock";

/// Whether an engine answers.
#[must_use]
pub fn answers() -> bool {
    std::process::Command::new("docker").arg("version").output().is_ok_and(|output| output.status.success())
}

/// Runs `docker`.
///
/// # Errors
/// It cannot be run, or runs beyond the deadline.
pub async fn docker(arguments: &[&str]) -> Result<Ran> {
    let mut docker = Command::new("docker");
    docker.args(arguments);
    run("docker", docker, DEADLINE).await
}

/// Makes the image of what Debian ships, and takes away those that earlier tests made.
///
/// # Errors
/// There is no busybox, or the engine refuses.
pub async fn import(world: &World) -> Result<()> {
    let script = "set -e; mkdir -p img/bin img/tmp img/etc; cp \"$(command -v busybox)\" img/bin/busybox; \
                  for a in sh cat echo ls id env pwd test touch sleep uname true false grep wc seq hostname httpd wget; \
                  do ln -sf busybox img/bin/$a; done; \
                  echo 'root:x:0:0:root:/:/bin/sh' > img/etc/passwd; \
                  tar -C img -c . | docker import --change 'LABEL windlass-test=base' - \"$0\"; \
                  docker image prune --force --filter label=windlass-test=base";
    let mut bash = Command::new("bash");
    bash.args(["-c", script, IMAGE]).current_dir(world.root());
    run("docker import", bash, DEADLINE).await?.code(0)?;
    Ok(())
}

/// Containers, networks and volumes that a filter such as `label=a=b` finds, each a line.
///
/// # Errors
/// The engine refuses.
pub async fn found(filter: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for (kind, list, format) in [
        ("container", &["ps", "-a"][..], "{{.Names}}"),
        ("network", &["network", "ls"][..], "{{.Name}}"),
        ("volume", &["volume", "ls"][..], "{{.Name}}"),
    ] {
        let ran = docker(&[list, &["--filter", filter, "--format", format]].concat()).await?.code(0)?;
        all.extend(ran.stdout.lines().map(|name| format!("{kind} {name}")));
    }
    Ok(all)
}

/// A socket by which every user reaches the machine's engine, as an operator may give it to jobs. It ends with the value.
#[derive(Debug)]
pub struct Door {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Door {
    /// Opens it in a world.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn open(world: &World) -> Result<Self> {
        let path = world.path("engine.sock");
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that goes away is no failure of the door.
                tokio::spawn(through(stream));
            }
        });
        Ok(Self { path, serving })
    }

    /// As `DOCKER_HOST` has it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn through(mut client: UnixStream) -> Result<()> {
    let mut engine = UnixStream::connect(SOCKET).await?;
    copy_bidirectional(&mut client, &mut engine).await?;
    Ok(())
}

/// Takes an image's name away from the machine's engine when it goes.
#[derive(Debug)]
pub struct Named(pub String);

impl Drop for Named {
    fn drop(&mut self) {
        // What was never made cannot be removed.
        let _ = std::process::Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

/// An engine in a network namespace, with data of its own: what another engine has, it has to pull.
#[derive(Debug)]
pub struct ZoneEngine {
    dir: PathBuf,
    process: Process,
}

impl ZoneEngine {
    /// Starts one that pulls from a registry without TLS, and waits until it answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn start(world: &World, netns: &str, registry: &str) -> Result<Self> {
        let dir = world.path("zone-engine");
        std::fs::create_dir(&dir)?;
        let at = |name: &str| dir.join(name).display().to_string();
        // Of all namespaces only this one: its mounts are seen by whoever takes them away.
        let mut dockerd = Command::new("nsenter");
        dockerd.arg(format!("--net=/run/netns/{netns}")).arg("dockerd");
        dockerd.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
        dockerd.args(["-H", &format!("unix://{}", at("sock")), "--iptables=false", "--ip-forward=false"]);
        // Where a containerd of the machine serves both engines, each has names of its own.
        dockerd.args(["--containerd-namespace", netns, "--containerd-plugins-namespace", &format!("{netns}-p")]);
        dockerd.args(["--insecure-registry", registry]);
        let process = Process::start(dockerd, &world.logs(), "zone-engine")?;
        let mut engine = Self { dir, process };
        until("the zone's engine", DEADLINE, async || {
            ensure!(engine.process.runs()?, "it ended: {}", engine.process.stderr()?);
            Ok((engine.docker(&["version"]).await?.exit == Exit::Code(0)).then_some(()))
        })
        .await?;
        Ok(engine)
    }

    /// As `DOCKER_HOST` has it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.join("sock").display())
    }

    /// Runs `docker` with it.
    ///
    /// # Errors
    /// It cannot be run, or runs beyond the deadline.
    pub async fn docker(&self, arguments: &[&str]) -> Result<Ran> {
        docker(&[&["-H", &self.host()][..], arguments].concat()).await
    }

    /// Ends it, and everything of it.
    ///
    /// # Errors
    /// It does not end.
    pub async fn end(mut self) -> Result<()> {
        let left = self.docker(&["ps", "-aq"]).await?.code(0)?.stdout;
        for id in left.lines() {
            self.docker(&["rm", "-f", id]).await?;
        }
        self.process.signal(rustix::process::Signal::TERM)?;
        self.process.ended(DEADLINE).await?;
        Ok(())
    }
}

impl Drop for ZoneEngine {
    /// Its processes end with their world; its mounts have to go before the world's directory can.
    fn drop(&mut self) {
        unmount(&self.dir);
    }
}

fn unmount(dir: &Path) {
    let root = dir.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&root)) {
        let _ = std::process::Command::new("umount").args(["-l", mount]).status();
    }
}
