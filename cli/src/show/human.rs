//! A build for people: on a terminal the running steps at the bottom and the logs above, elsewhere plain lines.

use std::collections::{BTreeMap, BTreeSet};

use console::{Style, measure_text_width};
use serde_json::Value;

use super::words;
use crate::client::shape::{Attempt, Build, Job};
use crate::follow::{Show, Wrote};
use crate::lines::Lines;
use crate::ui::{Bars, Ui, text};

/// The widest name before a line of a log.
const NAME_MAX_WIDTH: usize = 24;

/// Shows states on stderr and logs on stdout.
#[derive(Debug)]
pub(crate) struct Human<'a> {
    ui: &'a Ui,
    bars: Option<Bars>,
    /// Whether lines say whose they are: a build of one step needs no names.
    named: bool,
    width: usize,
    order: BTreeMap<String, usize>,
    lines: BTreeMap<String, Lines>,
    running: BTreeSet<String>,
    /// Logs and nothing else.
    quiet: bool,
}

impl<'a> Human<'a> {
    /// For a build as it was made.
    pub(crate) fn new(ui: &'a Ui, build: &Build) -> Self {
        let bars = ui.is_live().then(|| ui.bars());
        Self { bars, quiet: false, ..Self::logs_only(ui, build) }
    }

    /// For logs alone, without states.
    pub(crate) fn logs_only(ui: &'a Ui, build: &Build) -> Self {
        let mut shown = Self {
            ui,
            bars: None,
            named: false,
            width: 0,
            order: BTreeMap::new(),
            lines: BTreeMap::new(),
            running: BTreeSet::new(),
            quiet: true,
        };
        shown.learn(&mut build.jobs.iter());
        shown
    }

    fn learn(&mut self, jobs: &mut dyn Iterator<Item = &Job>) {
        for job in jobs.filter(|job| job.is_command()) {
            let next = self.order.len();
            self.order.entry(job.id.clone()).or_insert(next);
            self.width = self.width.max(measure_text_width(&job.name()).min(NAME_MAX_WIDTH));
        }
        self.named = self.order.len() > 1;
    }

    fn prefix(&self, job: &Job) -> String {
        if !self.named {
            return String::new();
        }
        let name = console::truncate_str(&job.name(), NAME_MAX_WIDTH, "…").into_owned();
        let padded = format!("{name}{}", " ".repeat(self.width.saturating_sub(measure_text_width(&name))));
        let colours = [Style::new().cyan(), Style::new().magenta(), Style::new().blue(), Style::new().green()];
        let style = self.order.get(&job.id).and_then(|place| colours.get(place % colours.len()));
        let prefix = format!("{padded} | ");
        style.map_or(prefix.clone(), |style| self.ui.paint_out(style.clone(), &prefix))
    }

    /// Whether bytes go out as they are: one step, and no terminal that they could disturb.
    const fn is_exact(&self) -> bool {
        !self.named && !self.ui.out_is_terminal()
    }

    fn line(&self, prefix: &str, line: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(prefix.as_bytes());
        if self.ui.out_is_terminal() {
            out.extend_from_slice(&text::line(line));
        } else {
            out.extend_from_slice(line);
        }
        out.push(b'\n');
    }
}

impl Show for Human<'_> {
    fn changed(&mut self, jobs: &mut dyn Iterator<Item = &Job>) {
        let Some(bars) = &mut self.bars else { return };
        let (mut running, mut done, mut failed, mut all) = (0, 0, 0, 0);
        for job in jobs.filter(|job| job.is_command()) {
            all += 1;
            if job.is_final() {
                done += 1;
                failed += usize::from(job.state == "failed" && !job.soft_failed);
            }
            if job.attempts.last().is_some_and(|attempt| attempt.started_at.is_some()) && !job.is_final() {
                running += 1;
                bars.begin(&job.id, &words::short(&job.name()));
            } else {
                bars.end(&job.id);
            }
        }
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        bars.build(format!("{done} of {all} steps done, {running} running{failed}"));
    }

    fn started(&mut self, job: &Job, _: &Value, attempt: &Attempt) {
        if !job.is_command() || self.quiet {
            return;
        }
        self.running.insert(job.id.clone());
        let again = if attempt.number > 1 { format!(", attempt {}", attempt.number) } else { String::new() };
        match &mut self.bars {
            Some(bars) if attempt.number <= 1 => bars.begin(&job.id, &words::short(&job.name())),
            _ => {
                let place = attempt.agent.as_ref().map(|agent| format!(" on {}", agent.name)).unwrap_or_default();
                self.ui.say(&format!("● {} started{place}{again}", job.name()));
            }
        }
    }

    fn log(&mut self, job: &Job, attempt: &Attempt, wrote: Wrote<'_>) {
        if self.is_exact() {
            self.ui.raw(wrote.bytes);
            return;
        }
        let prefix = self.prefix(job);
        let mut lines = self.lines.remove(&attempt.id).unwrap_or_default();
        let mut out = Vec::new();
        lines.push(wrote.bytes, &mut |line| self.line(&prefix, line, &mut out));
        if !out.is_empty() {
            self.ui.raw(&out);
        }
        if let Some(bars) = &self.bars {
            let unfinished = text::line(lines.unfinished());
            bars.show(&job.id, console::strip_ansi_codes(&String::from_utf8_lossy(&unfinished)).into_owned());
        }
        self.lines.insert(attempt.id.clone(), lines);
    }

    fn log_ended(&mut self, job: &Job, attempt: &Attempt) {
        let Some(mut lines) = self.lines.remove(&attempt.id) else { return };
        let prefix = self.prefix(job);
        let mut out = Vec::new();
        lines.finish(&mut |line| self.line(&prefix, line, &mut out));
        if !out.is_empty() {
            self.ui.raw(&out);
        }
    }

    fn finished(&mut self, job: &Job, _: &Value) {
        if let Some(bars) = &mut self.bars {
            bars.end(&job.id);
        }
        // What never ran and has no cause of its own stands in the table.
        if !job.is_work() || self.quiet || (job.is_command() && job.attempts.is_empty() && job.cause.is_none()) {
            return;
        }
        let (mark, style) = words::mark(&job.state, job.soft_failed);
        let ran = job.attempts.last().filter(|attempt| attempt.started_at.is_some());
        let took = ran
            .and_then(|attempt| text::between(attempt.started_at.as_deref(), attempt.finished_at.as_deref()))
            .map(|took| format!(" in {}", text::duration(took)))
            .unwrap_or_default();
        let why = match &job.cause {
            Some(cause) => format!(": {}", words::cause(cause)),
            None => String::new(),
        };
        let said = format!("{mark} {} {}{took}{why}", job.name(), words::outcome(job));
        self.ui.say(&self.ui.paint(style, &said));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::client::shape;

    fn build() -> Build {
        let job = |id: &str, key: &str, state: &str, more: Value| {
            let mut job = json!({
                "id": id, "step_key": key, "label": format!("the {key}"), "type": "command", "state": state,
                "attempts": [{"id": format!("{id}-1"), "number": 1, "state": "finished",
                    "agent": {"name": "box", "zone": "local"},
                    "started_at": "2026-01-01T00:00:00.000Z", "finished_at": "2026-01-01T00:00:01.250Z"}],
            });
            for (name, value) in more.as_object().unwrap() {
                job[name] = value.clone();
            }
            job
        };
        let jobs = json!([
            job("a", "count", "passed", json!({})),
            {"id": "w", "type": "wait", "state": "passed"},
            job("b", "lint", "failed", json!({"exit_status": 3, "soft_failed": true})),
            job("c", "long-name-of-a-step-that-goes-on", "failed", json!({"cause": {"kind": "agent_lost"}})),
            job("d", "index", "waiting_failed", json!({"attempts": []})),
        ]);
        shape::read(&json!({"id": "x", "pipeline": "hello", "number": 3, "state": "failed", "jobs": jobs,
            "started_at": "2026-01-01T00:00:00.000Z", "finished_at": "2026-01-01T00:01:15.000Z"}))
        .unwrap()
    }

    #[test]
    fn the_table_says_how_each_step_ended_how_long_it_took_and_where_it_ran() {
        let build = build();
        insta::assert_snapshot!(words::table(&build, &|_, text| text.to_owned()));
        insta::assert_snapshot!(words::ending(&build, &Ui::plain()), @"✗ build hello/3 failed in 1m15s");
    }

    #[test]
    fn lines_of_steps_side_by_side_say_whose_they_are() {
        let (build, ui) = (build(), Ui::plain());
        let human = Human::logs_only(&ui, &build);
        let mut out = Vec::new();
        for (job, line) in [(&build.jobs[0], "one"), (&build.jobs[3], "two"), (&build.jobs[0], "")] {
            human.line(&human.prefix(job), line.as_bytes(), &mut out);
        }
        insta::assert_snapshot!(String::from_utf8(out).unwrap().replace(" \n", " ·\n"), @r"
        count                    | one
        long-name-of-a-step-tha… | two
        count                    | ·
        ");
        let mut one = build.clone();
        one.jobs.truncate(1);
        let human = Human::logs_only(&ui, &one);
        assert!(human.prefix(&one.jobs[0]).is_empty() && human.is_exact());
    }
}
