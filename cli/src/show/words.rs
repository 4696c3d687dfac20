//! A job's end and a build's, in words and as a table.

use console::Style;

use crate::client::shape::{Build, Cause, Job};
use crate::ui::table::Table;
use crate::ui::{Ui, text};

/// How a job ended, in a few words.
pub(crate) fn outcome(job: &Job) -> String {
    let mut words = match job.state.as_str() {
        "waiting_failed" | "blocked_failed" => "not run".to_owned(),
        "timed_out" => "timed out".to_owned(),
        state => state.replace('_', " "),
    };
    if job.state == "failed" || job.state == "timed_out" {
        match (&job.cause, &job.signal, job.exit_status) {
            (Some(cause), ..) if job.state == "failed" => words.push_str(&format!(" ({})", cause.kind)),
            (_, Some(signal), _) if !signal.is_null() => words.push_str(&format!(" (signal {})", bare(signal))),
            (_, _, Some(status)) => words.push_str(&format!(" (exit {status})")),
            _ => {}
        }
    }
    if job.soft_failed {
        words.push_str(", allowed");
    }
    if let Some(from) = &job.reused_from {
        words.push_str(&format!(", reused from #{}", from.number));
        if let Some(fleet) = &from.fleet {
            words.push_str(&format!(" of {}", text::shown(fleet)));
        }
    } else if job.attempts.len() > 1 {
        words.push_str(&format!(", attempt {}", job.attempts.len()));
    }
    words
}

fn bare(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A cause for people.
pub(crate) fn cause(cause: &Cause) -> String {
    match cause.detail.as_deref() {
        Some(detail) if !detail.is_empty() => format!("{}: {}", cause.kind, text::shown(detail)),
        _ => cause.kind.clone(),
    }
}

/// The mark and colour of a state.
pub(crate) fn mark(state: &str, soft_failed: bool) -> (&'static str, Style) {
    match state {
        _ if soft_failed => ("!", Style::new().yellow()),
        "passed" => ("✓", Style::new().green()),
        "failed" | "timed_out" | "expired" | "broken" => ("✗", Style::new().red()),
        "canceled" | "canceling" => ("✗", Style::new().yellow()),
        "running" | "failing" => ("●", Style::new().cyan()),
        _ => ("-", Style::new().dim()),
    }
}

/// Mark, colour and words of a build's state. One that waits at a gate says so first: the state that it shows meanwhile is
/// what its `blocked_state` wants, and would be taken for its end.
pub(crate) fn build_state(build: &Build) -> (&'static str, Style, String) {
    let state = build.state.replace('_', " ");
    if build.blocked {
        return ("◦", Style::new().yellow(), format!("blocked ({state} so far)"));
    }
    let (mark, style) = mark(&build.state, false);
    (mark, style, state)
}

/// Which paint a text goes through: stdout's or stderr's.
pub(crate) type Paint<'a> = &'a dyn Fn(Style, &str) -> String;

/// The steps of a build: state, duration, where each ran.
pub(crate) fn table(build: &Build, paint: Paint<'_>) -> String {
    let mut table = Table::new(&["STEP", "STATE", "TIME", "WHERE"]);
    for job in build.jobs.iter().filter(|job| job.is_work()) {
        let (mark, style) = mark(&job.state, job.soft_failed);
        let last = job.attempts.last();
        let ran = last.filter(|attempt| attempt.started_at.is_some());
        let took = ran.and_then(|attempt| text::between(attempt.started_at.as_deref(), attempt.finished_at.as_deref()));
        let whole = || text::between(job.started_at.as_deref(), job.finished_at.as_deref());
        let took = took.or_else(|| job.triggered_build.as_ref().and_then(|_| whole()));
        let place = last.and_then(|attempt| attempt.agent.as_ref());
        let place = place.map(|agent| format!("{} ({})", agent.name, agent.zone));
        let made = job.triggered_build.as_ref().map(|made| format!("build {}/{}", made.pipeline, made.number));
        table.row(vec![
            format!("{} {}", paint(style.clone(), mark), short(&job.title())),
            paint(style, &outcome(job)),
            took.map(text::duration).unwrap_or_default(),
            made.or(place).unwrap_or_default(),
        ]);
    }
    table.render()
}

/// The build's end in one line.
pub(crate) fn ending(build: &Build, ui: &Ui) -> String {
    let (mark, style) = mark(&build.state, false);
    let since = build.started_at.as_deref().or(build.created_at.as_deref());
    let took = text::between(since, build.finished_at.as_deref());
    let took = took.map(|took| format!(" in {}", text::duration(took))).unwrap_or_default();
    let why = build.cause.as_ref().map(|found| format!(" ({})", cause(found))).unwrap_or_default();
    let state = build.state.replace('_', " ");
    ui.paint(style, &format!("{mark} build {} {state}{took}{why}", build.name()))
}

/// A name that leaves room for the rest of its line.
pub(crate) fn short(name: &str) -> String {
    const CHARS_MAX: usize = 40;
    if name.chars().count() <= CHARS_MAX {
        return name.to_owned();
    }
    let cut: String = name.chars().take(CHARS_MAX - 1).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_waits_at_a_gate_is_not_shown_as_one_that_has_ended() {
        let shown = |state: &str, blocked| {
            let build = Build { state: state.to_owned(), blocked, ..Build::default() };
            let (mark, _, words) = build_state(&build);
            format!("{mark} {words}")
        };
        assert_eq!(shown("passed", false), "✓ passed");
        assert_eq!(shown("passed", true), "◦ blocked (passed so far)");
        assert_eq!(shown("failed", true), "◦ blocked (failed so far)");
        assert_eq!(shown("not_run", false), "- not run");
    }
}
