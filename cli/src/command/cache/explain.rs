//! `windlass cache explain`: why a step's result was there, or was not.

use clap::Args;
use serde_json::Value;

use super::super::{find_build, find_job, reach};
use crate::client::shape::{self, Explained};
use crate::client::{Client, ServerArguments};
use crate::error::{Code, Failure};
use crate::ui::Ui;
use crate::ui::text::shown;

/// A step of a build.
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The build's id, PIPELINE/NUMBER, or `latest`.
    build: String,
    /// The step by key, label or id.
    step: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArguments,
}

/// Tells it.
pub(super) async fn run(arguments: &ExplainArguments, ui: &Ui) -> Result<Code, Failure> {
    let reached = reach::to_read(&arguments.server).await?;
    let found = find(reached.client(), arguments).await;
    reached.end().await;
    let (name, raw) = found?;
    if arguments.json {
        ui.data(&raw.to_string());
    } else {
        show(&name, &shape::read(&raw)?, ui);
    }
    Ok(Code::Done)
}

async fn find(client: &Client, arguments: &ExplainArguments) -> Result<(String, Value), Failure> {
    let (build, _) = find_build(client, &arguments.build).await?;
    let job = find_job(&build, &arguments.step)?;
    let raw = client.get(&format!("/jobs/{}/reuse", job.id)).await?;
    Ok((job.name(), raw))
}

fn show(name: &str, explained: &Explained, ui: &Ui) {
    for line in lines(name, explained) {
        ui.data(&line);
    }
}

/// What is told, line by line. Labels, variables and paths are others' texts: a terminal obeys none of them.
fn lines(name: &str, explained: &Explained) -> Vec<String> {
    let mut lines = vec![
        format!("{}: {}", shown(name), shown(&explained.outcome.replace('_', " "))),
        format!("  {}", one_line(&explained.text)),
    ];
    if let Some(key) = &explained.key {
        lines.push(format!("  key   {}", shown(key)));
    }
    lines.extend(explained.notes.iter().map(|note| format!("  note  {}", one_line(note))));
    if let Some(gone) = &explained.gone {
        lines.push(format!("  was here until {}", shown(&gone.at)));
    }
    let Some(nearest) = &explained.nearest else { return lines };
    let (number, at, key) = (nearest.from.number, shown(&nearest.from.at), shown(&nearest.key));
    lines.push(format!("  nearest: build #{number} ({at}), key {key}"));
    for difference in &nearest.differences {
        lines.push(format!("    {}", one_line(&difference.component)));
        for (mark, value) in [("-", &difference.before), ("+", &difference.after)] {
            lines.extend(value.as_ref().map(|value| format!("      {mark} {}", one_line(value))));
        }
    }
    if nearest.cut {
        lines.push("    … and more".to_owned());
    }
    lines
}

/// A text of several lines as one of a list's.
fn one_line(text: &str) -> String {
    shown(&text.replace('\n', "\\n").replace('\r', "\\r"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_that_a_step_or_a_file_is_called_steers_the_terminal() {
        let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}x\r\n\u{8}y";
        let from = json!({ "number": 7, "at": evil });
        let difference = json!({ "component": format!("file {evil}"), "before": evil, "after": evil });
        let raw = json!({
            "outcome": evil, "text": evil, "key": evil, "notes": [evil], "gone": { "at": evil },
            "nearest": { "from": from, "key": evil, "differences": [difference], "cut": true },
        });
        let told = lines(evil, &shape::read(&raw).unwrap());
        let bad: Vec<_> = told.iter().filter(|line| line.chars().any(char::is_control)).collect();
        assert!(bad.is_empty(), "{bad:?}");
        assert!(told.contains(&"    file x\\r\\ny".to_owned()), "{told:?}");
        assert!(told.contains(&"      - x\\r\\ny".to_owned()), "{told:?}");
    }
}
