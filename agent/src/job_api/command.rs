//! Every command of a job: which there are, how each is called, what its help says, and who carries it out.
//!
//! Results go to its output, what is said about it to its errors; the status is 0, or 1 where nothing else is said
//! (reference 19).

mod env;
mod locks;
mod redact;
mod table;

use std::collections::BTreeMap;

use tokio::net::UnixStream;

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

    /// Shows how the command is called, where it was called otherwise.
    async fn misused(&mut self) -> Fail {
        match self.hands.complain(&format!("{}\n", about(self.command, program(self.hands)))).await {
            Ok(()) => Fail::Silent(1),
            Err(error) => error.into(),
        }
    }
}

/// Answers one connection of a job.
pub(super) async fn answer(stream: UnixStream, party: &Party, shared: &Shared) {
    let attempt = party.spec.attempt;
    let mut hands = match Hands::greet(stream).await {
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
    let words: Vec<String> = hands.words.iter().skip(1).cloned().collect();
    let name = program(hands).to_owned();
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
            hands.complain(&format!("{name}: unknown subcommand {:?}\n", format!("{group} {word}"))).await?
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
