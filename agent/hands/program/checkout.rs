//! The ordinary checkout (reference 18.3), of objects that the agent has fetched: as the job's user, with the job's
//! variables and no credentials of the agent's, for filters, submodules and whatever else a tree brings into play run here.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bootstrap::{Job, comment, fail, is_on, prompt, say, split, split_words};
use crate::child;
use crate::hook::Changes;
use crate::limits::{CHECKOUT_TRIES_MAX, CHECKOUT_WAIT_MS};
use crate::phases::Ended;
use crate::plan::Files;

/// What decides which commit is wanted.
const WANTED: [&str; 4] = ["BUILDKITE_REPO", "BUILDKITE_COMMIT", "BUILDKITE_REFSPEC", "BUILDKITE_BRANCH"];

/// Checks out; nothing of it is left undone where it passes.
pub(crate) fn check_out(job: &mut Job) -> Ended {
    say("~~~ Preparing working directory\n");
    let ended = prepare(job);
    if ended.status != 0 { ended } else { resolve(job) }
}

fn prepare(job: &Job) -> Ended {
    let checkout = job.checkout();
    if let Err(error) = std::fs::create_dir_all(&checkout) {
        fail(&format!("{} cannot be made: {error}", checkout.display()));
        return Ended::with(1);
    }
    let is_wanted = !WANTED.iter().any(|name| job.is_changed(name)) && checkout.join(".git").exists();
    let target = match &job.plan.files {
        Files::CheckedOut if is_wanted => {
            comment("The commit is checked out already");
            return Ended::with(0);
        }
        Files::Fetched(target) if is_wanted => String::from_utf8_lossy(target).into_owned(),
        Files::None | Files::Laid | Files::CheckedOut | Files::Fetched(_) => match fetch(job) {
            Ok(target) => target,
            Err(ended) => return ended,
        },
    };
    steps(job, &target)
}

/// Fetches what a hook asks for instead, with what the job may reach.
fn fetch(job: &Job) -> Result<String, Ended> {
    comment("A hook has changed what is to be checked out, so it is fetched anew, without the agent's credentials");
    let value = |name: &str| job.variable(name);
    let (repository, commit, refspec, branch) =
        (value("BUILDKITE_REPO"), value("BUILDKITE_COMMIT"), value("BUILDKITE_REFSPEC"), value("BUILDKITE_BRANCH"));
    if !job.checkout().join(".git").exists() {
        passed(git(job, &["init", "--quiet", "--template="]))?;
    }
    // There may be one already, of the repository that was fetched.
    let _ = quiet(job, &["remote", "remove", "origin"]);
    passed(git(job, &["remote", "add", "--", "origin", &repository]))?;
    let reference = reference(&branch, &value("BUILDKITE_TAG"));
    let is_commit = commit.len() >= 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    let wanted: Vec<&str> = match (refspec.is_empty(), is_commit) {
        (false, _) => refspec.split_whitespace().collect(),
        (true, true) => vec![&commit],
        (true, false) => vec![&reference],
    };
    let words = [&["fetch", "--", "origin"], &wanted[..]].concat();
    passed(again(|| git(job, &words)))?;
    Ok(if is_commit { commit } else { "FETCH_HEAD".to_owned() })
}

/// A branch by its whole name, so that no tag of its name is taken for it; the repository's HEAD where there is none.
fn reference(branch: &str, tag: &str) -> String {
    match branch {
        "" | "HEAD" => "HEAD".to_owned(),
        whole if whole.starts_with("refs/") => whole.to_owned(),
        name if name == tag => format!("refs/tags/{name}"),
        name => format!("refs/heads/{name}"),
    }
}

fn steps(job: &Job, target: &str) -> Ended {
    let result = (|| {
        let sparse = job.variable("BUILDKITE_GIT_SPARSE_CHECKOUT_PATHS");
        let sparse: Vec<&str> = sparse.split([',', '\n']).map(str::trim).filter(|path| !path.is_empty()).collect();
        if !sparse.is_empty() {
            passed(git(job, &[&["sparse-checkout", "set", "--no-cone", "--"], &sparse[..]].concat()))?;
        }
        let lfs = is_on(&job.variable("BUILDKITE_GIT_LFS_ENABLED"));
        if lfs {
            passed(git(job, &["lfs", "install", "--local", "--skip-smudge"]))?;
        }
        let flags = flags(job, "BUILDKITE_GIT_CHECKOUT_FLAGS", "-f");
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        passed(git(job, &[&["checkout", "--detach"], &flags[..], &[target]].concat()))?;
        let submodules = !matches!(job.variable("BUILDKITE_GIT_SUBMODULES").as_str(), "false" | "0");
        if submodules && sparse.is_empty() && job.checkout().join(".gitmodules").exists() {
            passed(git(job, &["submodule", "sync", "--recursive"]))?;
            passed(again(|| git(job, &["submodule", "update", "--init", "--recursive", "--force"])))?;
        }
        if lfs {
            passed(again(|| git(job, &["lfs", "pull"])))?;
        }
        let flags = self::flags(job, "BUILDKITE_GIT_CLEAN_FLAGS", "-ffxdq");
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        passed(git(job, &[&["clean"], &flags[..]].concat()))
    })();
    result.err().unwrap_or_default()
}

fn flags(job: &Job, name: &str, default: &str) -> Vec<String> {
    let given = job.variable(name);
    split_words(if given.trim().is_empty() { default } else { &given })
}

/// Notes which commit it is, for whatever comes after.
fn resolve(job: &mut Job) -> Ended {
    let commit = quiet(job, &["rev-parse", "HEAD"]).unwrap_or_default();
    let commit = commit.trim().to_owned();
    if commit.is_empty() {
        return Ended::with(0);
    }
    let mut changes = Changes::default();
    for (name, value) in [("BUILDKITE_COMMIT", commit.as_str()), ("BUILDKITE_COMMIT_RESOLVED", "true")] {
        if job.variable(name) != value {
            changes.set.insert(name.as_bytes().to_vec(), value.as_bytes().to_vec());
        }
    }
    if changes.set.is_empty() {
        return Ended::with(0);
    }
    match job.carry(changes) {
        Ok(()) => Ended::with(0),
        Err(error) => {
            fail(&format!("the commit cannot be carried on: {error}"));
            Ended::with(1)
        }
    }
}

fn passed(ended: Ended) -> Result<(), Ended> {
    if ended.status == 0 { Ok(()) } else { Err(ended) }
}

/// Tries what may be a network's fault some more times, with longer and longer pauses.
fn again(mut what: impl FnMut() -> Ended) -> Ended {
    let mut wait_ms = CHECKOUT_WAIT_MS;
    let mut ended = what();
    for _ in 1..CHECKOUT_TRIES_MAX {
        if ended.status == 0 || child::is_canceled() {
            return ended;
        }
        comment(&format!("Trying again in {} s", wait_ms / 1_000));
        child::pause(wait_ms);
        wait_ms *= 2;
        ended = what();
    }
    ended
}

fn git(job: &Job, words: &[&str]) -> Ended {
    prompt(&format!("git {}", words.join(" ")));
    let mut command = command(job, words);
    child::run(command.stdin(Stdio::null())).unwrap_or_else(|error| child::not_started(Path::new("git"), &error))
}

/// What git says, where it is no news.
fn quiet(job: &Job, words: &[&str]) -> io::Result<String> {
    let said = command(job, words).stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    Ok(if said.status.success() {
        OsString::from_vec(said.stdout).to_string_lossy().into_owned()
    } else {
        String::new()
    })
}

fn command(job: &Job, words: &[&str]) -> Command {
    let mut command = Command::new("git");
    job.around(&mut command).current_dir(job.checkout());
    let set = &job.plan.git;
    for (name, value) in set.defaults.iter().filter_map(|variable| split(variable)) {
        if !job.variables.contains_key(&name) {
            command.env(OsString::from_vec(name), OsString::from_vec(value));
        }
    }
    // What a tree names is never a path of this machine, whatever the build may name.
    let of_tree = words.first() != Some(&"fetch");
    let protocols = if of_tree { &set.tree_protocols } else { &set.protocols };
    command.env("GIT_ALLOW_PROTOCOL", OsString::from_vec(protocols.clone()));
    // Whoever made them, hooks of git are no part of a checkout.
    command.args(["-c", "core.hooksPath=/dev/null"]).args(words);
    command
}
