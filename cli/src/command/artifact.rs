//! `windlass artifact`: the files that jobs of a build left, for people. Jobs have the same commands by their own program.

mod upload;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use futures_util::StreamExt as _;
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::Value;
use windlass_cache::tree::new_mode_of;
use windlass_pipeline::destination::target;
use windlass_protocol::Digest;

use super::{find_build, list, reach};
use crate::client::{Client, ClientError, ServerArguments, segment, shape};
use crate::error::{Code, Failure};
use crate::ui::{Ui, text};

/// Artifacts of one build that are looked through.
const SEARCHED_MAX: usize = windlass_protocol::limits::ARTIFACTS_PER_BUILD_MAX;

/// Times that a file is asked for, where the connection breaks.
const TRIES: u32 = 5;

/// What to do with artifacts.
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactCommand {
    /// List a build's artifacts.
    Ls(LsArguments),
    /// Download artifacts into a directory that exists.
    Download(DownloadArguments),
    /// Print the digest of one artifact.
    Shasum(ShasumArguments),
    /// Add files to what a job of a build left.
    Upload(upload::UploadArguments),
}

/// Which artifacts.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The build's id, PIPELINE/NUMBER, or `latest`.
    #[arg(long, default_value = "latest")]
    build: String,
    /// Only of this step: its key, its label, or the id of one of its jobs.
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Those of earlier attempts too.
    #[arg(long)]
    include_retried_jobs: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Which to list.
#[derive(Debug, Args)]
pub(crate) struct LsArguments {
    /// Their path; `*` is any run of characters, `/` too.
    #[arg(default_value = "*")]
    query: String,
    #[command(flatten)]
    listing: list::Listing,
    #[command(flatten)]
    which: Which,
}

/// Which to download, and where to.
#[derive(Debug, Args)]
pub(crate) struct DownloadArguments {
    /// Their path; `*` is any run of characters, `/` too. Quote it.
    query: String,
    /// The directory; each file keeps its path below it.
    #[arg(default_value = ".")]
    destination: PathBuf,
    #[command(flatten)]
    which: Which,
}

/// Which to print the digest of.
#[derive(Debug, Args)]
pub(crate) struct ShasumArguments {
    /// Its path; `*` is any run of characters, `/` too.
    query: String,
    /// SHA-256 in place of SHA-1.
    #[arg(long)]
    sha256: bool,
    #[command(flatten)]
    which: Which,
}

/// An artifact, as far as commands look into it.
#[derive(Debug, Clone, Deserialize)]
struct Artifact {
    id: String,
    path: String,
    bytes: u64,
    digest: String,
    sha1: String,
    sha256: String,
    created_at: String,
    /// Fleets of before do not say.
    #[serde(default)]
    executable: bool,
}

/// Runs one of them.
pub(crate) async fn run(command: ArtifactCommand, ui: &Ui) -> Result<Code, Failure> {
    super::serve::trace("warn", ui);
    match command {
        ArtifactCommand::Ls(arguments) => ls(&arguments, ui).await,
        ArtifactCommand::Download(arguments) => download(&arguments, ui).await,
        ArtifactCommand::Shasum(arguments) => shasum(&arguments, ui).await,
        ArtifactCommand::Upload(arguments) => upload::upload(&arguments, ui).await,
    }
}

/// What a query finds, newest first, and whether there is more.
async fn find(client: &Client, which: &Which, query: &str, limit: usize) -> Result<(Vec<Value>, bool), Failure> {
    let (build, _) = find_build(client, &which.build).await?;
    let mut path = format!("/builds/{}/artifacts?path={}", segment(&build.id), segment(query));
    if let Some(step) = &which.step {
        path.push_str(&format!("&step={}", segment(step)));
    }
    if which.include_retried_jobs {
        path.push_str("&retried=true");
    }
    list(client, &path, limit).await
}

async fn ls(arguments: &LsArguments, ui: &Ui) -> Result<Code, Failure> {
    let reached = reach::to_read(&arguments.which.server).await?;
    let found = find(reached.client(), &arguments.which, &arguments.query, arguments.listing.limit()).await;
    reached.end().await;
    let row = |item: &Value| {
        let Artifact { path, bytes, created_at, id, .. } = shape::read(item)?;
        Ok(vec![path, bytes.to_string(), text::ago(Some(&created_at)), id])
    };
    arguments.listing.show(found?, "artifacts", &["PATH", "BYTES", "CREATED", "ID"], row, ui)?;
    Ok(Code::Done)
}

/// Of what a query finds, the newest one of each path, in the order of their paths.
async fn latest(client: &Client, which: &Which, query: &str) -> Result<Vec<Artifact>, Failure> {
    let (items, cut) = find(client, which, query, SEARCHED_MAX).await?;
    if cut {
        return Err(Failure::usage(format!("more than {SEARCHED_MAX} artifacts match `{query}`")).hint("ask for fewer"));
    }
    let mut seen = BTreeSet::new();
    let mut latest = Vec::new();
    for item in &items {
        let artifact: Artifact = shape::read(item)?;
        if seen.insert(artifact.path.clone()) {
            latest.push(artifact);
        }
    }
    latest.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(latest)
}

fn nothing(which: &Which, query: &str) -> Failure {
    Failure::new(Code::Failed, format!("no artifact of build {} matches `{query}`", which.build))
        .hint("`windlass artifact ls` lists them; `*` is any run of characters, `/` too")
}

async fn shasum(arguments: &ShasumArguments, ui: &Ui) -> Result<Code, Failure> {
    let reached = reach::to_read(&arguments.which.server).await?;
    let found = latest(reached.client(), &arguments.which, &arguments.query).await;
    reached.end().await;
    match found?.as_slice() {
        [] => Err(nothing(&arguments.which, &arguments.query)),
        [one] => {
            ui.data(if arguments.sha256 { &one.sha256 } else { &one.sha1 });
            Ok(Code::Done)
        }
        several => {
            Err(Failure::new(Code::Failed, format!("`{}` matches {} artifacts", arguments.query, several.len()))
                .hint("be more specific, or name a step with --step"))
        }
    }
}

async fn download(arguments: &DownloadArguments, ui: &Ui) -> Result<Code, Failure> {
    let destination = fs::canonicalize(&arguments.destination)
        .map_err(|e| Failure::system(format!("there is no directory {}", arguments.destination.display()), &e))?;
    if !destination.is_dir() {
        return Err(Failure::usage(format!("{} is not a directory", destination.display())));
    }
    let reached = reach::to_read(&arguments.which.server).await?;
    let brought = bring(reached.client(), arguments, &destination, ui).await;
    reached.end().await;
    brought.map(|()| Code::Done)
}

async fn bring(client: &Client, arguments: &DownloadArguments, destination: &Path, ui: &Ui) -> Result<(), Failure> {
    let found = latest(client, &arguments.which, &arguments.query).await?;
    if found.is_empty() {
        return Err(nothing(&arguments.which, &arguments.query));
    }
    let Some(below) = destination.to_str() else {
        return Err(Failure::usage(format!("{} is no text in UTF-8", destination.display())));
    };
    let bar = ui.byte_bar("downloading", found.iter().map(|artifact| artifact.bytes).sum());
    for artifact in &found {
        let path = PathBuf::from(target(below, &artifact.path));
        let got = one(client, artifact, &path, &bar).await;
        got.inspect_err(|_| bar.finish_and_clear())?;
    }
    bar.finish_and_clear();
    ui.say(&format!("{} artifacts are in {}", found.len(), destination.display()));
    Ok(())
}

/// Why a file did not come.
enum Failed {
    /// The connection broke.
    Broken(ClientError),
    Other(Failure),
}

/// Brings one file, as often as the connection breaks.
async fn one(client: &Client, artifact: &Artifact, path: &Path, bar: &ProgressBar) -> Result<(), Failure> {
    let before = bar.position();
    let mut tries = 1;
    loop {
        match try_one(client, artifact, path, bar).await {
            Ok(()) => return Ok(()),
            Err(Failed::Broken(_)) if tries < TRIES => {
                bar.set_position(before);
                tries += 1;
            }
            Err(Failed::Broken(error)) => return Err(error.into()),
            Err(Failed::Other(failure)) => return Err(failure),
        }
    }
}

/// Writes a file under another name beside its own, checks it, and gives it its name.
async fn try_one(client: &Client, artifact: &Artifact, path: &Path, bar: &ProgressBar) -> Result<(), Failed> {
    let unwritable = |e: io::Error| Failed::Other(Failure::system(format!("{} cannot be written", path.display()), &e));
    let response = client.open(&format!("/artifacts/{}", segment(&artifact.id)), None).await;
    let response = response.map_err(|error| Failed::Other(error.into()))?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(unwritable)?;
    let fresh = Fresh { path: folder.join(format!(".windlass-{}-{}", std::process::id(), artifact.id)) };
    let mode = new_mode_of(artifact.executable);
    let made = File::options().write(true).create(true).truncate(true).mode(mode).open(&fresh.path);
    let mut file = made.map_err(unwritable)?;
    let (mut hasher, mut pieces) = (blake3::Hasher::new(), response.bytes_stream());
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|source| Failed::Broken(client.broken(source)))?;
        hasher.update(&piece);
        file.write_all(&piece).map_err(unwritable)?;
        bar.inc(piece.len() as u64);
    }
    if Digest::from_hasher(&hasher).to_string() != artifact.digest {
        let what = format!("the bytes of {} are not those that were uploaded", text::shown(&artifact.path));
        return Err(Failed::Other(
            Failure::new(Code::Failed, what).hint("try again; if it stays so, they are damaged where they are kept"),
        ));
    }
    drop(file);
    fs::rename(&fresh.path, path).map_err(unwritable)
}

/// A file that goes with this, unless it was given another name.
struct Fresh {
    path: PathBuf,
}

impl Drop for Fresh {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "temporary_left_behind");
            }
            Ok(()) | Err(_) => {}
        }
    }
}
