//! `windlass pipeline schedule`: builds at set times.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::client::shape::{self, Schedule};
use crate::client::{ServerArguments, segment};
use crate::command::{agent, list};
use crate::error::{Code, Failure};
use crate::ui::Ui;

/// What to do with schedules.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Make builds of a pipeline at set times; the schedule's id alone is printed on stdout.
    Add(AddArguments),
    /// List a pipeline's schedules.
    List(ListArguments),
    /// Take a schedule away; builds that it made go on.
    Rm(RmArguments),
}

/// Where a clock goes forward over a fixed time of day, the build is made right after; where it goes back, once.
#[derive(Debug, Args)]
pub(crate) struct AddArguments {
    /// The pipeline.
    pipeline: String,
    /// When: minute, hour, day of month, month and day of week, such as '30 2 * * MON-FRI'; or @hourly, @daily, @weekly,
    /// @monthly, @yearly.
    #[arg(long, value_name = "EXPR")]
    cron: String,
    /// The time zone that it is meant in, such as Europe/Berlin.
    #[arg(long, value_name = "TZ", default_value = "UTC")]
    timezone: String,
    /// Of the builds. [default: the pipeline's default branch]
    #[arg(long)]
    branch: Option<String>,
    /// A full commit id, where it is not to be the branch's newest.
    #[arg(long)]
    commit: Option<String>,
    /// Of the builds.
    #[arg(long)]
    message: Option<String>,
    /// A variable of the builds.
    #[arg(long, value_name = "K=V")]
    env: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Whose schedules.
#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// The pipeline.
    pipeline: String,
    #[command(flatten)]
    list: list::ServerList,
}

/// Which schedule.
#[derive(Debug, Args)]
pub(crate) struct RmArguments {
    /// The pipeline.
    pipeline: String,
    /// The schedule's id.
    schedule: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

fn path(pipeline: &str) -> String {
    format!("/pipelines/{}/schedules", segment(pipeline))
}

fn body(arguments: &AddArguments) -> Result<Value, Failure> {
    let mut body = Map::new();
    let mut env = Map::new();
    for pair in &arguments.env {
        let (name, value) = agent::key_value(pair)?;
        env.insert(name, Value::from(value));
    }
    body.insert("cron".to_owned(), Value::from(arguments.cron.clone()));
    body.insert("timezone".to_owned(), Value::from(arguments.timezone.clone()));
    body.insert("env".to_owned(), Value::Object(env));
    for (name, said) in [("branch", &arguments.branch), ("commit", &arguments.commit), ("message", &arguments.message)]
    {
        if let Some(said) = said {
            body.insert(name.to_owned(), Value::from(said.clone()));
        }
    }
    Ok(Value::Object(body))
}

/// Runs one of them.
pub(super) async fn run(command: &ScheduleCommand, ui: &Ui) -> Result<Code, Failure> {
    match command {
        ScheduleCommand::Add(arguments) => {
            let client = arguments.server.target()?.client;
            let raw = client.post(&path(&arguments.pipeline), Some(&body(arguments)?)).await?;
            if arguments.json {
                ui.data(&raw.to_string());
            } else {
                let schedule: Schedule = shape::read(&raw)?;
                ui.data(&schedule.id);
                let next = schedule.next_at.unwrap_or_else(|| "never".to_owned());
                ui.say(&format!("the next build of {} is made at {next}", arguments.pipeline));
            }
        }
        ScheduleCommand::List(arguments) => list_all(arguments, ui).await?,
        ScheduleCommand::Rm(arguments) => {
            let client = arguments.server.target()?.client;
            let path = format!("{}/{}", path(&arguments.pipeline), segment(&arguments.schedule));
            client.delete(&path).await?;
            if arguments.json {
                let gone = json!({ "id": arguments.schedule, "pipeline": arguments.pipeline, "removed": true });
                ui.data(&gone.to_string());
            } else {
                ui.say(&format!("schedule {} is taken away", arguments.schedule));
            }
        }
    }
    Ok(Code::Done)
}

async fn list_all(arguments: &ListArguments, ui: &Ui) -> Result<(), Failure> {
    let client = arguments.list.server.target()?.client;
    let found = list(&client, &path(&arguments.pipeline), arguments.list.listing.limit()).await?;
    let columns = ["ID", "CRON", "ZONE", "BRANCH", "NEXT", "LAST"];
    let row = |item: &Value| {
        let schedule: Schedule = shape::read(item)?;
        let last = schedule.last.map(|last| match (last.number, last.cause) {
            (Some(number), _) => format!("#{number}"),
            (None, Some(cause)) => format!("not made: {}", cause.detail.unwrap_or(cause.kind)),
            (None, None) => "not made".to_owned(),
        });
        Ok(vec![
            schedule.id,
            schedule.cron,
            schedule.timezone,
            schedule.branch.unwrap_or_default(),
            schedule.next_at.unwrap_or_else(|| "never".to_owned()),
            last.unwrap_or_default(),
        ])
    };
    arguments.list.listing.show(found, "schedules", &columns, row, ui)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Add {
        #[command(flatten)]
        arguments: AddArguments,
    }

    #[test]
    fn what_is_said_of_a_schedule_is_sent_and_its_zone_is_utc_by_default() {
        let parse = |words: &[&str]| Add::try_parse_from(["add", "web"].iter().chain(words)).map(|add| add.arguments);
        let arguments = parse(&["--cron", "30 2 * * *"]).unwrap();
        assert_eq!(body(&arguments).unwrap(), json!({"cron": "30 2 * * *", "timezone": "UTC", "env": {}}));
        let words =
            ["--cron", "@daily", "--timezone", "Europe/Berlin", "--branch", "b", "--message", "m", "--env", "A=1=2"];
        assert_eq!(
            body(&parse(&words).unwrap()).unwrap(),
            json!({"cron": "@daily", "timezone": "Europe/Berlin", "branch": "b", "message": "m", "env": {"A": "1=2"}})
        );
        assert!(parse(&[]).is_err());
        assert!(body(&parse(&["--cron", "@daily", "--env", "A"]).unwrap()).is_err());
    }
}
