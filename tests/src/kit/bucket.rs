//! An S3 server: moto's, with everything in its memory.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use tokio::process::Command;

use super::process::Process;
use super::skip::skip;
use super::wait::{DEADLINE, until};
use super::world::World;

/// An S3 server with one bucket. It ends with the value.
#[derive(Debug)]
pub struct BucketServer {
    process: Process,
    port: u16,
}

/// The bucket that it has.
pub const BUCKET: &str = "windlass-test";

impl BucketServer {
    /// Starts one on loopback, on a port that the system chooses. `None`, and a record of it, where there is no moto.
    ///
    /// # Errors
    /// It does not come up.
    pub async fn start(world: &World, test: &str) -> Result<Option<Self>> {
        let program = std::env::var_os("WINDLASS_MOTO").map_or_else(|| PathBuf::from("moto_server"), PathBuf::from);
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).env("PYTHONUNBUFFERED", "1");
        let started = Process::start(command, &world.logs(), "moto");
        let Ok(mut process) = started else {
            skip(test, &format!("{} cannot be run; ./test installs it", program.display()))?;
            return Ok(None);
        };
        let port = until("the S3 server", DEADLINE, async || {
            ensure!(process.runs()?, "it ended: {}", process.stderr()?);
            Ok(port(&process.stderr()?).or(port(&process.stdout()?)))
        })
        .await?;
        let server = Self { process, port };
        let answer = reqwest::Client::new().put(format!("{}/{BUCKET}", server.url())).send().await?;
        ensure!(answer.status().is_success(), "the bucket was not made: {}", answer.status());
        Ok(Some(server))
    }

    /// Where it is reached.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a coordinator's configuration says of it.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn config(&self, world: &World, disk: &str) -> Result<PathBuf> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let (config, keys) = (world.path("bucket.toml"), world.path("bucket-keys"));
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&keys)?;
        let text = "[default]\naws_access_key_id = test\naws_secret_access_key = not-to-be-seen\n";
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        let text = format!(
            "[bucket]\nname = \"{BUCKET}\"\nprefix = \"ci/cache\"\nregion = \"us-east-1\"\nendpoint = \"{}\"\n\
             insecure_http = true\npath_style = true\ndisk = \"{disk}\"\ncredentials_file = \"{}\"\n",
            self.url(),
            keys.display()
        );
        std::fs::write(&config, text)?;
        Ok(config)
    }

    /// SIGSTOP: it takes connections and answers nothing.
    ///
    /// # Errors
    /// It is gone.
    pub fn hang(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It is gone.
    pub fn go_on(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// SIGKILL: with it goes all that it held.
    ///
    /// # Errors
    /// It does not go.
    pub async fn kill9(&mut self) -> Result<()> {
        self.process.kill9().await
    }

    /// The names of all objects.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn keys(&self) -> Result<Vec<String>> {
        let url = format!("{}/{BUCKET}?list-type=2&max-keys=1000", self.url());
        let text = reqwest::get(url).await?.error_for_status()?.text().await.context("a listing")?;
        let key = |part: &str| part.split_once("</Key>").map(|(key, _)| key.to_owned());
        Ok(text.split("<Key>").skip(1).filter_map(key).collect())
    }
}

/// `Running on http://127.0.0.1:41235`.
fn port(log: &str) -> Option<u16> {
    let (_, after) = log.split_once("Running on http://127.0.0.1:")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
