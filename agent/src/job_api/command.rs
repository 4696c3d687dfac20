//! Every command of a job: which there are, how each is called, what its help says, and who carries it out.
//!
//! Results go to its output, what is said about it to its errors; the status is 0, or 1 where nothing else is said
//! (reference 19).

mod annotate;
mod artifact;
mod cache;
mod changed;
mod env;
mod incoming;
mod locks;
mod meta_data;
mod outgoing;
mod phase;
mod pipeline;
mod redact;
mod secret;
mod step;
mod table;
mod token;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::net::UnixStream;
use windlass_agent_runner::mask::{MaskError, Masker, secrets_of};
use windlass_hands::BOOTSTRAP;
use windlass_protocol::BuildId;
use windlass_protocol::message::{Asked, Told};

use self::table::{COMMANDS, Command, GLOBAL, GROUPS};
use super::Shared;
use super::door::Party;
use super::flags::{Line, describe};
use super::hands::{Hands, HandsError};

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
enum Fail {
    /// Its program cannot be asked any more; nobody hears of it.
    #[error(transparent)]
    Hands(#[from] HandsError),
    /// This, and status 1.
    #[error("{0}")]
    Fatal(String),
    /// Everything has been said.
    #[error("it ends with status {0}")]
    Silent(u8),
}

impl From<windlass_cache::manifest::BadManifest> for Fail {
    fn from(bad: windlass_cache::manifest::BadManifest) -> Self {
        fatal(bad)
    }
}

/// A failure that is told.
fn fatal(error: impl ToString) -> Fail {
    Fail::Fatal(error.to_string())
}

/// One call of a command.
struct Call<'a> {
    hands: &'a mut Hands,
    party: &'a Party,
    shared: &'a Shared,
    line: Line,
    command: &'static Command,
}

impl Call<'_> {
    fn argument(&self, index: usize) -> Option<&str> {
        self.line.arguments.get(index).map(String::as_str)
    }

    /// Says something beside the result.
    async fn note(&mut self, level: &str, text: &str) -> Result<(), Fail> {
        Ok(self.hands.complain(&format!("{level}: {text}\n")).await?)
    }

    async fn print(&mut self, text: &str) -> Result<(), Fail> {
        Ok(self.hands.print(text).await?)
    }

    /// Asks the coordinator. While it is away the command waits and says so; who is gone waits for nothing.
    async fn ask(&mut self, what: Asked, body: &[u8]) -> Result<Told, Fail> {
        let call = self.hands.call;
        self.ask_as(call, what, body).await
    }

    /// [`Self::ask`] by another number than the call's.
    async fn ask_as(&mut self, number: [u8; 16], what: Asked, body: &[u8]) -> Result<Told, Fail> {
        // It is copied for each try.
        self.hands.share.grow(body.len()).await?;
        let asking = self.shared.coordinator.ask(self.party.spec.attempt, &self.party.right, number, what, body);
        tokio::pin!(asking);
        let mut noted = false;
        loop {
            tokio::select! {
                biased;
                told = &mut asking => return Ok(told),
                gone = self.hands.gone() => return Err(gone.into()),
                () = tokio::time::sleep(NOTE_AFTER), if !noted => {}
            }
            noted = true;
            self.hands.complain("warning: the coordinator does not answer; waiting for it\n").await?;
        }
    }

    /// Asks for something that is only done.
    async fn have(&mut self, doing: &str, what: Asked, body: &[u8]) -> Result<(), Fail> {
        match self.ask(what, body).await? {
            Told::Done => Ok(()),
            other => Err(untold(doing, other)),
        }
    }

    /// The build that a flag names.
    fn build(&self) -> Result<Option<BuildId>, Fail> {
        let text = self.line.text("build");
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| fatal(format!("{text:?} is not the id of a build")))
    }

    /// That the job acts for itself: its attempt, or its own id.
    fn own_job(&self) -> Result<(), Fail> {
        let (spec, text) = (&self.party.spec, self.line.text("job"));
        let own = text.is_empty() || text == spec.attempt.to_string() || text == spec.job.to_string();
        if own { Ok(()) } else { Err(fatal("a job acts for itself only: --job names another one")) }
    }

    /// A text without the job's secrets, and whether there were any in it.
    async fn redacted(&mut self, text: &str) -> Result<(String, bool), Fail> {
        let one = self.redacted_each(vec![text.to_owned()]).await?;
        one.into_iter().next().ok_or_else(|| fatal("the text cannot be redacted"))
    }

    /// [`Self::redacted`], for many.
    async fn redacted_each(&mut self, texts: Vec<String>) -> Result<Vec<(String, bool)>, Fail> {
        let changed = self.party.changes.variables();
        let all = self.hands.environment.iter().chain(&changed);
        let (secrets, _) = secrets_of(all.map(|(name, value)| (name.as_str(), value.as_str())));
        let given = self.party.secrets.values();
        let secrets: Vec<String> =
            secrets.into_iter().chain(given.iter().map(String::as_str)).map(str::to_owned).collect();
        let bytes = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
        // The secrets, the texts, and the texts as they become.
        let held = bytes(&secrets) + 3 * bytes(&texts);
        self.hands.share.grow(held).await?;
        let redacted = self.party.account.work(move || redact_each(&secrets, texts)).await?;
        self.hands.share.shrink(held);
        redacted.map_err(fatal)
    }

    /// The argument at this place, or else the whole input.
    async fn text_at(&mut self, index: usize, max: usize) -> Result<String, Fail> {
        if let Some(text) = self.argument(index) {
            return Ok(text.to_owned());
        }
        String::from_utf8(self.hands.read_input(max).await?).map_err(|_| fatal("the input is no text"))
    }

    /// Shows how the command is called, where it was called otherwise.
    async fn misused(&mut self) -> Fail {
        match self.hands.complain(&format!("{}\n", about(self.command, program(self.hands)))).await {
            Ok(()) => Fail::Silent(1),
            Err(error) => error.into(),
        }
    }
}

fn redact_each(secrets: &[String], texts: Vec<String>) -> Result<Vec<(String, bool)>, MaskError> {
    let mut masker = Masker::new(secrets)?;
    let redacted = texts.into_iter().map(|text| {
        let mut masked = Vec::with_capacity(text.len());
        masker.push(text.as_bytes(), &mut masked);
        masker.finish(&mut masked);
        let is_other = masked != text.as_bytes();
        // A secret may end within a character of the text.
        let masked = String::from_utf8(masked);
        (masked.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()), is_other)
    });
    Ok(redacted.collect())
}

/// How long a command waits in silence.
const NOTE_AFTER: Duration = Duration::from_secs(2);

/// What is said of an answer that is none.
fn untold(doing: &str, told: Told) -> Fail {
    match told {
        Told::Refused { code: _, detail } => fatal(format!("{doing}: {detail}")),
        Told::Done
        | Told::Value(_)
        | Told::Keys(_)
        | Told::Text(_)
        | Told::Artifacts(_)
        | Told::Files(_)
        | Told::Secrets(_)
        | Told::Cache(_) => fatal(format!("{doing}: the coordinator answered something else")),
    }
}

/// Answers one connection of a job.
pub(super) async fn answer(stream: UnixStream, party: &Party, shared: &Shared) {
    let attempt = party.spec.attempt;
    let mut hands = match Hands::greet(stream, &party.account).await {
        Ok(hands) => hands,
        Err(error) => return tracing::debug!(%attempt, %error, "job_call_not_understood"),
    };
    let status = match obey(&mut hands, party, shared).await {
        Ok(()) => 0,
        Err(Fail::Silent(status)) => status,
        Err(Fail::Fatal(words)) => match hands.complain(&format!("fatal: {words}\n")).await {
            Ok(()) => 1,
            Err(error) => return tracing::debug!(%attempt, %error, "job_call_cut_short"),
        },
        // The system refused the command something, or it was too much: it hears of it. It may be gone as well.
        Err(Fail::Hands(error)) => match hands.complain(&format!("fatal: {error}\n")).await {
            Ok(()) => 1,
            Err(_) => return tracing::debug!(%attempt, %error, "job_call_cut_short"),
        },
    };
    if let Err(error) = hands.exit(status).await {
        tracing::debug!(%attempt, %error, "job_call_cut_short");
    }
}

/// Finds the command and carries it out.
async fn obey(hands: &mut Hands, party: &Party, shared: &Shared) -> Result<(), Fail> {
    // A place's door is one attempt's after another. No process of an attempt outlives it; this is for the one that did.
    let attempt = party.spec.attempt.to_string();
    if let Some(other) = hands.environment.get("WINDLASS_ATTEMPT_ID").filter(|other| **other != attempt) {
        return Err(fatal(format!("this process is of attempt {other}, which is over")));
    }
    let words: Vec<String> = hands.words.iter().skip(1).cloned().collect();
    let name = program(hands).to_owned();
    if name == BOOTSTRAP {
        return phase::answer(hands, party).await;
    }
    let word = |index: usize| words.get(index).map(String::as_str);
    match word(0) {
        None => {
            hands.print(&all_help(&name)).await?;
            return Err(Fail::Silent(1));
        }
        Some("help" | "h" | "--help" | "-h" | "-help") => return Ok(hands.print(&all_help(&name)).await?),
        Some("--version" | "-v" | "-version") => {
            return Ok(hands.print(&format!("{name} version {}\n", env!("CARGO_PKG_VERSION"))).await?);
        }
        Some(_) => {}
    }
    let alone = word(0).map(|one| vec![one]).unwrap_or_default();
    let pair: Vec<&str> = words.iter().take(2).map(String::as_str).collect();
    let Some(command) = [&pair, &alone].into_iter().find_map(|path| COMMANDS.iter().find(|it| it.path == &path[..]))
    else {
        return unknown(hands, &name, word(0).unwrap_or_default(), word(1)).await;
    };
    let rest = words.get(command.path.len()..).unwrap_or_default();
    let flags = [command.flags, GLOBAL];
    let line = match Line::read(&flags, rest, &hands.environment) {
        Ok(line) => line,
        Err(error) => {
            let help = help(command, &name);
            hands.print(&format!("Incorrect Usage: {error}\n\n{help}\n")).await?;
            return Err(fatal(error));
        }
    };
    if line.help {
        return Ok(hands.print(&help(command, &name)).await?);
    }
    carry_out(&mut Call { hands, party, shared, line, command }).await
}

async fn carry_out(call: &mut Call<'_>) -> Result<(), Fail> {
    match call.command.path {
        ["env", "get"] => env::get(call).await,
        ["env", "set"] => env::set(call).await,
        ["env", "unset"] => env::unset(call).await,
        ["env", "dump"] => env::dump(call).await,
        ["workdir", "set"] => env::set_directory(call).await,
        ["redactor", "add"] => redact::add(call).await,
        ["lock", "acquire"] => locks::acquire(call).await,
        ["lock", "release"] => locks::release(call).await,
        ["lock", "do"] => locks::begin(call).await,
        ["lock", "done"] => locks::done(call).await,
        ["lock", "get"] => locks::get(call).await,
        ["meta-data", "set"] => meta_data::set(call).await,
        ["meta-data", "set-batch"] => meta_data::set_batch(call).await,
        ["meta-data", "get"] => meta_data::get(call).await,
        ["meta-data", "exists"] => meta_data::exists(call).await,
        ["meta-data", "keys"] => meta_data::keys(call).await,
        ["annotate"] => annotate::annotate(call).await,
        ["annotation", "remove"] => annotate::remove(call).await,
        ["pipeline", "upload"] => pipeline::upload(call).await,
        ["step", "get"] => step::get(call).await,
        ["step", "update"] => step::update(call).await,
        ["step", "cancel"] => step::cancel(call).await,
        ["artifact", "upload"] => artifact::upload(call).await,
        ["artifact", "download"] => artifact::download(call).await,
        ["artifact", "search"] => artifact::search(call).await,
        ["artifact", "shasum"] => artifact::shasum(call).await,
        ["cache", "save"] => cache::save(call).await,
        ["cache", "restore"] => cache::restore(call).await,
        ["secret", "get"] => secret::get(call).await,
        ["oidc", "request-token"] => token::request(call).await,
        ["build", "cancel"] => step::cancel_build(call).await,
        path => Err(fatal(format!("{} is not served yet by this version of Windlass", path.join(" ")))),
    }
}

/// The name by which the command was called.
fn program(hands: &Hands) -> &str {
    hands.words.first().map_or("windlass", String::as_str)
}

/// A command that is not there: which there are, and status 1.
async fn unknown(hands: &mut Hands, name: &str, group: &str, word: Option<&str>) -> Result<(), Fail> {
    let in_group = GROUPS.iter().any(|(known, _)| *known == group);
    let help = if in_group { group_help(name, group) } else { all_help(name) };
    if in_group && word.is_some_and(|word| matches!(word, "help" | "h" | "--help" | "-h" | "-help")) {
        return Ok(hands.print(&help).await?);
    }
    hands.print(&help).await?;
    match (in_group, word) {
        (true, None) => {}
        (true, Some(word)) => {
            let path = format!("{group} {word}");
            hands.complain(&format!("{name}: unknown subcommand {path:?}\n")).await?;
        }
        (false, _) => hands.complain(&format!("{name}: unknown subcommand {group:?}\n")).await?,
    }
    Err(Fail::Silent(1))
}

fn all_help(name: &str) -> String {
    let alone = COMMANDS.iter().filter(|command| command.path.len() == 1).map(|it| (it.path[0], it.summary));
    let listed: BTreeMap<&str, &str> = alone.chain(GROUPS.iter().copied()).collect();
    let list = columns(listed.into_iter().map(|(word, summary)| (word.to_owned(), summary)));
    format!(
        "Usage:\n\n  {name} <command> [options...]\n\nAvailable commands are:\n\n{list}\nUse \"{name} <command> --help\" for \
         more information about a command.\n"
    )
}

fn group_help(name: &str, group: &str) -> String {
    let members = COMMANDS.iter().filter(|command| command.path.len() == 2 && command.path[0] == group);
    let list = columns(members.map(|command| (command.path[1].to_owned(), command.summary)));
    format!("Usage:\n\n  {name} {group} <command> [options...]\n\nAvailable commands are:\n\n{list}")
}

fn columns<'a>(rows: impl Iterator<Item = (String, &'a str)>) -> String {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    rows.into_iter().map(|(left, right)| format!("  {left:width$}  {right}\n")).collect()
}

fn about(command: &Command, name: &str) -> String {
    format!("Usage:\n\n    {name} {} {}\n\nDescription:\n\n{}\n", command.path.join(" "), command.form, command.about)
}

fn help(command: &Command, name: &str) -> String {
    format!("{}\nOptions:\n\n{}", about(command, name), describe(&[command.flags, GLOBAL]))
}
