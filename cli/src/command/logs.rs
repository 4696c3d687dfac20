//! `windlass logs`: what the steps of a build wrote.

use clap::Args;

use super::{find_build, find_job, reach};
use crate::client::shape::{Attempt, Build, Job, Piece};
use crate::client::{Client, ServerArguments};
use crate::error::{Code, Failure};
use crate::follow::{Show as _, Watch, Wrote, log_stream, next_piece};
use crate::lines::Lines;
use crate::show::{Human, Json};
use crate::ui::Ui;

/// Without STEP: every step's log, lines with the step's name where there are several.
#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// The build's id, PIPELINE/NUMBER, or `latest`.
    #[arg(default_value = "latest")]
    build: String,
    /// A step by key, label or id.
    step: Option<String>,
    /// Go on until the log, or the build, has ended.
    #[arg(short, long)]
    follow: bool,
    /// Of this attempt, from 1; the last one by default.
    #[arg(long, value_name = "N", requires = "step")]
    attempt: Option<u64>,
    /// The bytes as they are, even on a terminal.
    #[arg(long, requires = "step")]
    raw: bool,
    /// When each line was written.
    #[arg(long, conflicts_with = "raw")]
    timestamps: bool,
    /// From this byte on.
    #[arg(long, value_name = "BYTES", requires = "step", default_value = "0")]
    offset: u64,
    /// Print pieces, one JSON object a line.
    #[arg(long, conflicts_with_all = ["raw", "timestamps"])]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Prints logs.
pub(crate) async fn run(arguments: LogsArguments, ui: &Ui) -> Result<Code, Failure> {
    super::serve::trace("warn", ui);
    let reached = reach::to_read(&arguments.server).await?;
    let printed = show(&arguments, reached.client(), ui).await;
    reached.end().await;
    printed.map(|()| Code::Done)
}

async fn show(arguments: &LogsArguments, client: &Client, ui: &Ui) -> Result<(), Failure> {
    let (build, _) = find_build(client, &arguments.build).await?;
    let Some(step) = &arguments.step else { return whole(arguments, client, &build, ui).await };
    let job = find_job(&build, step)?;
    let attempt = attempt_of(&build, job, arguments.attempt)?;
    let mut printer = Printer::new(arguments, ui, &build, job, attempt);
    print(arguments, client, attempt, &mut printer).await
}

fn attempt_of<'a>(build: &Build, job: &'a Job, number: Option<u64>) -> Result<&'a Attempt, Failure> {
    let found = match number {
        Some(number) => job.attempts.iter().find(|attempt| attempt.number == number),
        None => job.attempts.last(),
    };
    found.ok_or_else(|| match number {
        Some(number) => Failure::usage(format!("{} has no attempt {number}", job.name()))
            .hint(format!("it has {}", job.attempts.len())),
        None => Failure::usage(format!("{} has not started: it is {}", job.name(), job.state.replace('_', " "))).hint(
            format!("`windlass build why {} {}` says what it waits for", build.name(), super::quote(&job.name())),
        ),
    })
}

/// Every step's log: one after the other, or as they come.
async fn whole(arguments: &LogsArguments, client: &Client, build: &Build, ui: &Ui) -> Result<(), Failure> {
    if arguments.follow && !arguments.timestamps {
        let mut watch = Watch::new(client, &build.id);
        if arguments.json {
            let mut show = Json::new(ui);
            while watch.step(&mut show).await? {}
        } else {
            let mut show = Human::logs_only(ui, build);
            while watch.step(&mut show).await? {}
        }
        return Ok(());
    }
    for job in build.jobs.iter().filter(|job| job.is_command()) {
        let Some(attempt) = job.attempts.last() else { continue };
        let mut printer = Printer::new(arguments, ui, build, job, attempt);
        print(arguments, client, attempt, &mut printer).await?;
    }
    Ok(())
}

/// Prints one log, as far as it goes now or to its end.
async fn print(
    arguments: &LogsArguments,
    client: &Client,
    attempt: &Attempt,
    printer: &mut Printer<'_>,
) -> Result<(), Failure> {
    if arguments.follow {
        let mut stream = log_stream(client, &attempt.id, arguments.offset);
        while let Some(piece) = next_piece(&mut stream).await? {
            printer.piece(&piece);
        }
        printer.end();
        return Ok(());
    }
    let header = (arguments.offset > 0).then(|| ("range", format!("bytes={}-", arguments.offset)));
    let response = client.open(&format!("/attempts/{}/log?format=ndjson", attempt.id), header).await;
    let mut response = match response {
        Ok(response) => response,
        // Past the end there is nothing, and an attempt that wrote nothing has no log.
        Err(crate::client::ClientError::Problem(problem)) if matches!(problem.status, 404 | 416) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut lines = Lines::of_json();
    let mut unread = None;
    loop {
        let chunk = response.chunk().await.map_err(|e| Failure::system("the log broke off", &e))?;
        let mut on = |line: &[u8]| match serde_json::from_slice::<Piece>(line) {
            Ok(piece) => printer.piece(&piece),
            Err(error) => unread = Some(error),
        };
        match &chunk {
            Some(chunk) => lines.push(chunk, &mut on),
            None => lines.finish(&mut on),
        }
        if let Some(error) = unread {
            return Err(Failure::system("the server's answer cannot be read", &error));
        }
        if chunk.is_none() {
            printer.end();
            return Ok(());
        }
    }
}

/// One log on its way out.
struct Printer<'a> {
    ui: &'a Ui,
    how: How<'a>,
    job: &'a Job,
    attempt: &'a Attempt,
    lines: Lines,
    seen: Lines,
}

enum How<'a> {
    Raw,
    Json(Json<'a>),
    Named(Human<'a>),
    Times { at: String, named: bool },
}

impl<'a> Printer<'a> {
    fn new(arguments: &LogsArguments, ui: &'a Ui, build: &Build, job: &'a Job, attempt: &'a Attempt) -> Self {
        let one = arguments.step.is_some();
        let how = match arguments {
            LogsArguments { raw: true, .. } => How::Raw,
            LogsArguments { json: true, .. } => How::Json(Json::new(ui)),
            LogsArguments { timestamps: true, .. } => How::Times { at: String::new(), named: !one },
            _ if one => How::Named(Human::logs_only(ui, &Build { jobs: vec![job.clone()], ..Build::default() })),
            _ => How::Named(Human::logs_only(ui, build)),
        };
        let (lines, seen) = (Lines::default(), Lines::from(arguments.offset));
        Self { ui, how, job, attempt, lines, seen }
    }

    fn piece(&mut self, piece: &Piece) {
        let bytes = piece.bytes();
        let fresh = self.seen.fresh(piece.offset, &bytes);
        if fresh.is_empty() {
            return;
        }
        let wrote = Wrote { offset: self.seen.next_offset() - fresh.len() as u64, at: &piece.at, bytes: fresh };
        match &mut self.how {
            How::Raw => self.ui.raw(fresh),
            How::Json(json) => json.log(self.job, self.attempt, wrote),
            How::Named(human) => human.log(self.job, self.attempt, wrote),
            How::Times { at, named } => {
                // A line has the time of its first byte.
                if self.lines.unfinished().is_empty() {
                    piece.at.clone_into(at);
                }
                let name = if *named { format!("{} | ", self.job.name()) } else { String::new() };
                let mut out = Vec::new();
                self.lines.push(fresh, &mut |line| {
                    stamp(at, &name, line, &mut out);
                    piece.at.clone_into(at);
                });
                self.ui.raw(&out);
            }
        }
    }

    fn end(&mut self) {
        match &mut self.how {
            How::Raw => {}
            How::Json(json) => json.log_ended(self.job, self.attempt),
            How::Named(human) => human.log_ended(self.job, self.attempt),
            How::Times { at, named } => {
                let name = if *named { format!("{} | ", self.job.name()) } else { String::new() };
                let mut out = Vec::new();
                self.lines.finish(&mut |line| stamp(at, &name, line, &mut out));
                self.ui.raw(&out);
            }
        }
    }
}

fn stamp(at: &str, name: &str, line: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("{at} {name}").as_bytes());
    out.extend_from_slice(line);
    out.push(b'\n');
}
