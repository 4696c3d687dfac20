//! `windlass build why`: why a step does not run, or why it runs where it does.

use indicatif::HumanBytes;
use serde::Deserialize;
use serde_json::Value;

use crate::client::{ClientError, shape};
use crate::ui::text;

/// What the server says of a job.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Why {
    text: String,
    state: String,
    obstacles: Vec<Obstacle>,
    weighed: Option<Weighed>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Obstacle {
    reason: String,
    agents: u64,
}

/// What placement weighed for its last attempt.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Weighed {
    attempt: u32,
    input_bytes: u64,
    waited_ms: u64,
    candidates: Vec<Candidate>,
    others: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Candidate {
    name: String,
    zone: String,
    chosen: bool,
    free: bool,
    jobs: u32,
    missing_bytes: u64,
    zone_bytes_per_second: u64,
    missing_ms: u64,
}

/// In lines for people.
pub(super) fn lines(step: &str, raw: &Value) -> Result<Vec<String>, ClientError> {
    let why: Why = shape::read(raw)?;
    let mut lines =
        vec![format!("{} is {}: {}", text::shown(step), why.state.replace('_', " "), text::shown(&why.text))];
    for Obstacle { reason, agents } in &why.obstacles {
        lines.push(format!("  {}: {}", counted(*agents, "agent"), text::shown(reason)));
    }
    let Some(weighed) = &why.weighed else { return Ok(lines) };
    let inputs = HumanBytes(weighed.input_bytes);
    lines.push(format!("  attempt {} needed {inputs} that agents have; weighed were:", weighed.attempt));
    lines.extend(weighed.candidates.iter().map(|candidate| format!("    {}", shown(candidate))));
    if weighed.others > 0 {
        lines.push(format!("    and {}", counted(weighed.others.into(), "other")));
    }
    if weighed.waited_ms > 0 {
        lines.push(format!("  it had waited {} for an agent that has more of it", seconds(weighed.waited_ms)));
    }
    Ok(lines)
}

fn shown(candidate: &Candidate) -> String {
    let what = match (candidate.chosen, candidate.free) {
        (true, _) => "got it",
        (false, true) => "could have had it",
        (false, false) => "was busy",
    };
    let lacked = if candidate.missing_bytes == 0 {
        "lacked nothing".to_owned()
    } else {
        let rate = HumanBytes(candidate.zone_bytes_per_second);
        format!("lacked {}, {} at {rate}/s", HumanBytes(candidate.missing_bytes), seconds(candidate.missing_ms))
    };
    let (name, zone) = (text::shown(&candidate.name), text::shown(&candidate.zone));
    format!("{name} (zone {zone}, {}) {what}: {lacked}", counted(candidate.jobs.into(), "job"))
}

fn counted(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn candidate(name: &str, (chosen, free): (bool, bool), jobs: u32, missing_bytes: u64) -> Value {
        json!({
            "name": name, "zone": "east", "chosen": chosen, "free": free, "jobs": jobs, "missing_bytes": missing_bytes,
            "zone_bytes_per_second": 100_000_000, "missing_ms": missing_bytes / 100_000,
        })
    }

    #[test]
    fn a_step_that_runs_says_what_was_weighed_for_it() {
        let raw = json!({
            "state": "running", "text": "it runs", "kind": "not_waiting", "obstacles": [],
            "weighed": { "attempt": 2, "input_bytes": 2_u64 << 30, "waited_ms": 5_368, "others": 3, "candidates": [
                candidate("a-1", (true, true), 0, 0),
                candidate("a-2", (false, true), 1, 2 << 30),
                candidate("a-3", (false, false), 2, 0),
            ] },
        });
        insta::assert_snapshot!(lines("build", &raw).unwrap().join("\n"), @r"
        build is running: it runs
          attempt 2 needed 2.00 GiB that agents have; weighed were:
            a-1 (zone east, 0 jobs) got it: lacked nothing
            a-2 (zone east, 1 job) could have had it: lacked 2.00 GiB, 21.4 s at 95.37 MiB/s
            a-3 (zone east, 2 jobs) was busy: lacked nothing
            and 3 others
          it had waited 5.3 s for an agent that has more of it
        ");
        let waits = json!({
            "state": "scheduled", "text": "of the agents that serve its queue 1 is busy",
            "obstacles": [{ "reason": "busy", "agents": 1 }, { "reason": "draining", "agents": 2 }], "weighed": null,
        });
        insta::assert_snapshot!(lines("build", &waits).unwrap().join("\n"), @r"
        build is scheduled: of the agents that serve its queue 1 is busy
          1 agent: busy
          2 agents: draining
        ");
    }

    #[test]
    fn no_text_of_others_steers_the_terminal() {
        let clear = "x\x1b[2Jy";
        let raw = json!({
            "state": "scheduled", "text": clear, "obstacles": [{ "reason": clear, "agents": 1 }],
            "weighed": { "attempt": 1, "candidates": [candidate(clear, (true, true), 0, 0)] },
        });
        let lines = lines(clear, &raw).unwrap();
        assert!(lines.iter().all(|line| !line.contains('\x1b')) && lines[0] == "xy is scheduled: xy", "{lines:?}");
    }
}
