//! A job's bootstrap: runs the phases of its plan in order, as the job (docs/design/020). Which comes next the machine of
//! phases says; what hooks changed is carried to the agent, which says what the next phase has.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::child::{self, run};
use crate::phases::{Act, Ended, Failure, Phases, Scope, World, uploaded};
use crate::plan::{CARRY, FAILED, Fault, Files, Plan, Surroundings};
use crate::{agent, checkout, hook, path_of};

/// Variables by their names.
pub(crate) type Variables = BTreeMap<Vec<u8>, Vec<u8>>;

/// A job on its way.
pub(crate) struct Job {
    pub(crate) plan: Plan,
    /// As the job began.
    first: Variables,
    /// As the next phase has them.
    pub(crate) variables: Variables,
    /// Where the next phase begins.
    pub(crate) directory: PathBuf,
    /// Where the agent said last that it begins; empty where it did not.
    told_directory: Vec<u8>,
}

/// Runs a job by the plan in a file; the status that it ends with.
pub(crate) fn bootstrap(plan: &Path) -> u8 {
    child::listen();
    let read = std::fs::read(plan).map_err(|error| error.to_string());
    let plan = match read.and_then(|bytes| Plan::decode(&bytes).map_err(|error| error.to_string())) {
        Ok(plan) => plan,
        Err(error) => {
            fail(&format!("the job's plan cannot be read: {error}"));
            return 1;
        }
    };
    let variables: Variables = std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    let directory = path_of(plan.checkout.clone());
    let first = variables.clone();
    let mut job = Job { plan: plan.clone(), first, variables, directory, told_directory: Vec::new() };
    let ended = job.go(&plan);
    match ended.signal {
        Some(signal) => child::die_of(signal, ended.status),
        None => ended.status,
    }
}

impl Job {
    fn go(&mut self, plan: &Plan) -> Ended {
        let mut phases = Phases::new(plan);
        self.warn_of_ignored();
        loop {
            if child::hears_of_cancel() {
                phases.cancel();
                self.set("BUILDKITE_JOB_CANCELLED", b"true");
            }
            let Some(act) = phases.next(self) else { break };
            let is_artifact = act == Act::Upload;
            let ended = self.act(&act);
            phases.ended(ended);
            if let Some(command) = phases.command()
                && !is_artifact
            {
                self.set("BUILDKITE_COMMAND_EXIT_STATUS", command.status.to_string().as_bytes());
            }
        }
        let (ended, failure) = phases.verdict();
        if let Some(failure) = failure {
            self.tell(failure);
        }
        ended
    }

    /// Says which variables of its pipeline the job does not have as they were set.
    fn warn_of_ignored(&self) {
        let ignored = self.variable("BUILDKITE_IGNORED_ENV");
        if !ignored.is_empty() {
            say("~~~ Detected protected environment variables\n");
            comment("Only the agent's configuration sets these; what the pipeline gave them is ignored:");
            ignored.split(',').for_each(comment);
        }
    }

    fn act(&mut self, act: &Act) -> Ended {
        let ended = match act {
            Act::Hook { name, scope, path } => self.hook(name, *scope, path),
            Act::Checkout => checkout::check_out(self),
            Act::Command => self.command(),
            Act::Restore => self.restore(),
            Act::Save => self.cache("save", "~~~ Saving cache\n"),
            Act::Upload => self.upload(),
        };
        if ended.status != 0 && matches!(act, Act::Restore | Act::Save) {
            comment("The job goes on without its cache");
        } else if ended.status != 0 {
            let what = match act {
                Act::Hook { name, scope, .. } => format!("The {} hook", self.called(name, *scope)),
                Act::Checkout => "The checkout".to_owned(),
                Act::Command => "The command".to_owned(),
                Act::Upload => "The upload of artifacts".to_owned(),
                Act::Restore | Act::Save => "The cache".to_owned(),
            };
            say("^^^ +++\n");
            match ended.signal {
                Some(signal) => fail(&format!("{what} was interrupted by signal {signal}")),
                None => fail(&format!("{what} exited with status {}", ended.status)),
            }
        }
        ended
    }

    /// A hook as people call it: `agent environment`, `plugin docker command`.
    fn called(&self, name: &str, scope: Scope) -> String {
        match scope {
            Scope::Agent => format!("agent {name}"),
            Scope::Repository => format!("repository {name}"),
            Scope::Plugin(at) => {
                let plugin = self.plan.plugins.get(at).map(|plugin| String::from_utf8_lossy(&plugin.name));
                format!("plugin {} {name}", plugin.unwrap_or_default())
            }
        }
    }

    fn hook(&mut self, name: &str, scope: Scope, path: &[u8]) -> Ended {
        say(&format!("~~~ Running {} hook\n", self.called(name, scope)));
        let path = self.below_checkout(path);
        prompt(&path.strip_prefix(&self.directory).unwrap_or(&path).to_string_lossy());
        let mut variables = self.variables.clone();
        let plugin = match scope {
            Scope::Plugin(at) => self.plan.plugins.get(at),
            Scope::Agent | Scope::Repository => None,
        };
        for variable in plugin.into_iter().flat_map(|plugin| &plugin.environment) {
            if let Some((name, value)) = split(variable) {
                variables.insert(name, value);
            }
        }
        let scope = match scope {
            Scope::Agent => "agent",
            Scope::Repository => "repository",
            Scope::Plugin(_) => "plugin",
        };
        let left = hook::run(&path, name, scope, &variables, &self.directory);
        self.variables.insert(b"BUILDKITE_LAST_HOOK_EXIT_STATUS".to_vec(), left.ended.status.to_string().into_bytes());
        let changes = left.changes.unwrap_or_default();
        match self.carry(changes) {
            Ok(()) => left.ended,
            Err(error) => {
                fail(&format!("what the hook changed cannot be carried on: {error}"));
                if left.ended.status == 0 { Ended::with(1) } else { left.ended }
            }
        }
    }

    /// Tells the agent what a phase changed, and takes over what the next one has.
    pub(crate) fn carry(&mut self, changes: hook::Changes) -> io::Result<()> {
        for name in changes.set.keys() {
            let word = if self.variables.contains_key(name) { "changed" } else { "added" };
            comment(&format!("{} {word}", String::from_utf8_lossy(name)));
        }
        for name in &changes.gone {
            comment(&format!("{} removed", String::from_utf8_lossy(name)));
        }
        let mut set = changes.set;
        for name in OWN {
            // What the bootstrap itself says of the job.
            if let Some(value) = self.variables.get(name.as_bytes()) {
                set.insert(name.as_bytes().to_vec(), value.clone());
            }
        }
        let environment = set.into_iter().map(|(name, value)| [name, b"=".to_vec(), value].concat()).collect();
        let directory = changes.directory.unwrap_or_default();
        let words = [vec![CARRY.as_bytes().to_vec()], changes.gone].concat();
        let answer = agent::tell(&self.variables, words, directory, environment)?;
        let (next, _) = Surroundings::decode(&answer).map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
        let checkout = self.checkout();
        self.variables = self.first.clone();
        for variable in next.environment {
            match split(&variable) {
                Some((name, value)) => self.variables.insert(name, value),
                None => self.variables.remove(&variable),
            };
        }
        if next.directory != self.told_directory {
            self.directory = path_of(next.directory.clone());
            self.told_directory = next.directory;
        } else if self.checkout() != checkout {
            // A hook that moves the checkout moves the job (reference 18.3).
            self.directory = self.checkout();
        }
        Ok(())
    }

    /// Sets a variable of [`OWN`]: the next phase has it at once, the agent hears of it with what a hook changes.
    fn set(&mut self, name: &str, value: &[u8]) {
        self.variables.insert(name.as_bytes().to_vec(), value.to_vec());
    }

    fn command(&mut self) -> Ended {
        let text = String::from_utf8_lossy(&self.plan.command).into_owned();
        if text.trim().is_empty() {
            say("~~~ Running commands\n");
            fail(
                "There is no command to run: give the step a `command`, or a `command` hook by a plugin, in the \
                 repository's .buildkite/hooks or in the agent's hooks path",
            );
            return Ended::with(1);
        }
        let script = self.script(&text);
        say(if script.is_some() { "~~~ Running script\n" } else { "~~~ Running commands\n" });
        let text = script.unwrap_or(text);
        text.lines().for_each(prompt);
        let shell = shell();
        let mut command = Command::new(shell);
        command.args(["-e", "-c", &text]);
        run(self.around(&mut command)).unwrap_or_else(|error| child::not_started(Path::new(shell), &error))
    }

    /// The command as a file of the job's, if it names one, made executable (reference 18.6).
    fn script(&self, text: &str) -> Option<String> {
        let name = text.replace('\n', "");
        let name = name.trim_start_matches('/');
        let path = self.directory.join(name);
        let found = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        let mode = found.permissions().mode();
        if mode & 0o111 == 0 {
            // One that may not be changed is refused by the shell, in its own words.
            let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode | 0o111));
        }
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/+@".contains(&byte));
        Some(if plain { format!("./{name}") } else { format!("./'{}'", name.replace('\'', "'\\''")) })
    }

    fn upload(&mut self) -> Ended {
        say("~~~ Uploading artifacts\n");
        let paths = self.artifact_paths();
        prompt(&format!("buildkite-agent artifact upload {paths}"));
        let program = child::this_program().with_file_name("buildkite-agent");
        let mut command = Command::new(&program);
        command.args(["artifact", "upload", &paths]);
        let destination = self.variables.get(b"BUILDKITE_ARTIFACT_UPLOAD_DESTINATION".as_slice());
        if let Some(destination) = destination.filter(|destination| !destination.is_empty()) {
            command.arg(std::ffi::OsStr::from_bytes(destination));
        }
        run(self.around(&mut command)).unwrap_or_else(|error| child::not_started(&program, &error))
    }

    /// Which files are uploaded, after what the command came to.
    fn artifact_paths(&self) -> String {
        let passed = self.variable("BUILDKITE_COMMAND_EXIT_STATUS") == "0";
        uploaded(&self.variable(ARTIFACT_PATHS), &self.variable(OUTPUT_PATHS), passed)
    }

    /// Has the step's cache restored; the next phases know its key.
    fn restore(&mut self) -> Ended {
        let ended = self.cache("restore", "~~~ Restoring cache\n");
        match self.carry(hook::Changes::default()) {
            Ok(()) => ended,
            Err(error) => {
                comment(&format!("The next phases do not have what the cache changed: {error}"));
                Ended::with(1)
            }
        }
    }

    /// Has the step's cache restored or saved, whose paths and files are those of the checkout.
    fn cache(&mut self, what: &str, header: &str) -> Ended {
        say(header);
        let program = child::this_program().with_file_name("buildkite-agent");
        let mut command = Command::new(&program);
        command.args(["cache", what, "--of-step"]);
        let checkout = self.checkout();
        run(child::with(&mut command, &self.variables, &checkout))
            .unwrap_or_else(|error| child::not_started(&program, &error))
    }

    /// Gives a command the job's variables and directory.
    pub(crate) fn around<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        child::with(command, &self.variables, &self.directory)
    }

    /// A path of the checkout, wherever hooks moved it.
    fn below_checkout(&self, path: &[u8]) -> PathBuf {
        self.checkout().join(path_of(path.to_vec()))
    }

    /// Where the job's files are.
    pub(crate) fn checkout(&self) -> PathBuf {
        let moved = self.variables.get(b"BUILDKITE_BUILD_CHECKOUT_PATH".as_slice());
        path_of(moved.filter(|path| !path.is_empty()).unwrap_or(&self.plan.checkout).clone())
    }

    /// Whether hooks have changed a variable since the job began.
    pub(crate) fn is_changed(&self, name: &str) -> bool {
        self.variables.get(name.as_bytes()) != self.first.get(name.as_bytes())
    }

    /// A variable as text; empty where it is not set.
    pub(crate) fn variable(&self, name: &str) -> String {
        let value = self.variables.get(name.as_bytes());
        value.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    fn tell(&self, failure: &Failure) {
        let Some(fault) = failure.fault else { return };
        let what = match fault {
            Fault::Hook => self.called(failure.name, failure.scope),
            Fault::Plugin | Fault::Checkout => String::new(),
        };
        let words = [FAILED, fault.word(), &what, &failure.ended.status.to_string()];
        let words = words.map(|word| word.as_bytes().to_vec()).to_vec();
        if let Err(error) = agent::tell(&self.variables, words, Vec::new(), Vec::new()) {
            fail(&format!("the agent was not told what failed: {error}"));
        }
    }
}

/// What a bootstrap itself sets.
const OWN: [&str; 3] = ["BUILDKITE_LAST_HOOK_EXIT_STATUS", "BUILDKITE_COMMAND_EXIT_STATUS", "BUILDKITE_JOB_CANCELLED"];

const ARTIFACT_PATHS: &str = "BUILDKITE_ARTIFACT_PATHS";

/// Those of them that are uploaded of a command that passed alone.
const OUTPUT_PATHS: &str = "WINDLASS_OUTPUT_PATHS";

impl World for Job {
    fn is_hook(&self, path: &[u8]) -> bool {
        std::fs::metadata(self.below_checkout(path)).is_ok_and(|found| found.is_file())
    }

    fn has_artifact_paths(&self) -> bool {
        !self.artifact_paths().trim().is_empty()
    }

    fn has_cache(&self) -> bool {
        !self.variable("WINDLASS_CACHE").is_empty()
    }

    fn skips_checkout(&self) -> bool {
        let skips = is_on(&self.variable("BUILDKITE_SKIP_CHECKOUT"));
        if skips && self.plan.files != Files::Laid {
            comment("Skipping checkout, BUILDKITE_SKIP_CHECKOUT is set");
        }
        skips
    }
}

/// Whether a switch is on.
pub(crate) fn is_on(value: &str) -> bool {
    matches!(value, "true" | "1")
}

/// The shell of commands, and of hooks that name none.
pub(crate) fn shell() -> &'static str {
    if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" }
}

/// Name and value of `NAME=value`.
pub(crate) fn split(variable: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    // A name may begin with an equals sign, as far as the kernel cares.
    let at = variable.iter().skip(1).position(|byte| *byte == b'=')? + 1;
    Some((variable.get(..at)?.to_vec(), variable.get(at + 1..)?.to_vec()))
}

/// The words of a line, by the shell's rules for quotes and nothing else of it.
pub(crate) fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(letters.next()),
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Writes to the job's log.
pub(crate) fn say(text: &str) {
    let mut output = io::stdout().lock();
    // A log that nobody reads any more is the supervisor's end, and so ours.
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}

/// A line that shows what is run.
pub(crate) fn prompt(line: &str) {
    say(&format!("\x1b[90m$\x1b[0m {line}\n"));
}

/// A line that says something about the job.
pub(crate) fn comment(line: &str) {
    say(&format!("\x1b[90m# {line}\x1b[0m\n"));
}

/// A line that says what went wrong.
pub(crate) fn fail(line: &str) {
    say(&format!("\x1b[31m\u{1f6a8} Error: {line}\x1b[0m\n"));
}
