//! Following builds: what comes of events, in whatever order they come.

use serde_json::json;

use super::*;

/// Writes down what it is told.
#[derive(Debug, Default)]
struct Told(Vec<String>);

impl Show for Told {
    fn changed(&mut self, _: &mut dyn Iterator<Item = &Job>) {}

    fn started(&mut self, job: &Job, _: &Value, attempt: &Attempt) {
        self.0.push(format!("{} {} started", job.name(), attempt.number));
    }

    fn log(&mut self, job: &Job, attempt: &Attempt, wrote: Wrote<'_>) {
        let text = String::from_utf8_lossy(wrote.bytes);
        self.0.push(format!("{} {} @{} {text}", job.name(), attempt.number, wrote.offset));
    }

    fn log_ended(&mut self, job: &Job, attempt: &Attempt) {
        self.0.push(format!("{} {} log ended", job.name(), attempt.number));
    }

    fn finished(&mut self, job: &Job, _: &Value) {
        self.0.push(format!("{} {}", job.name(), job.state));
    }
}

fn job(state: &str, attempts: &[(&str, &str)]) -> Value {
    let attempts: Vec<Value> = attempts
        .iter()
        .zip(1..)
        .map(|((id, state), number)| json!({"id": id, "number": number, "state": state}))
        .collect();
    json!({"id": "j", "step_key": "test", "type": "command", "state": state, "attempts": attempts})
}

fn piece(offset: u64, text: &str) -> Piece {
    Piece { offset, length: text.len() as u64, text: Some(text.to_owned()), ..Piece::default() }
}

#[test]
fn a_job_is_told_in_order_although_its_events_overtake_its_log() {
    let (mut follow, mut told) = (Follow::default(), Told::default());
    let build = json!({"jobs": [job("assigned", &[("a1", "assigned")])]});
    assert_eq!(follow.build(&build, &mut told).unwrap(), ["a1"]);
    // The log is faster than the progress, the result faster than the log.
    follow.log("a1", &piece(0, "one "), &mut told);
    assert!(follow.job(&job("passed", &[("a1", "finished")]), &mut told).unwrap().is_empty());
    follow.end();
    assert!(!follow.is_over());
    follow.log("a1", &piece(0, "one two"), &mut told);
    follow.log_ended("a1", &mut told);
    assert!(follow.is_over());
    assert_eq!(told.0, ["test 1 started", "test 1 @0 one ", "test 1 @4 two", "test 1 log ended", "test passed"]);
}

#[test]
fn each_attempt_of_a_retried_job_has_its_start_and_log_and_the_job_ends_once() {
    let (mut follow, mut told) = (Follow::default(), Told::default());
    assert_eq!(follow.job(&job("running", &[("a1", "running")]), &mut told).unwrap(), ["a1"]);
    assert_eq!(follow.job(&job("scheduled", &[("a1", "lost")]), &mut told).unwrap(), [""; 0]);
    follow.log_ended("a1", &mut told);
    assert_eq!(follow.job(&job("running", &[("a1", "lost"), ("a2", "running")]), &mut told).unwrap(), ["a2"]);
    follow.log_ended("a2", &mut told);
    follow.job(&job("passed", &[("a1", "lost"), ("a2", "finished")]), &mut told).unwrap();
    follow.job(&job("passed", &[("a1", "lost"), ("a2", "finished")]), &mut told).unwrap();
    assert_eq!(told.0, ["test 1 started", "test 1 log ended", "test 2 started", "test 2 log ended", "test passed"]);
}

#[test]
fn nothing_is_told_of_a_job_before_the_end_of_what_it_waited_for() {
    let (mut follow, mut told) = (Follow::default(), Told::default());
    let of = |id: &str, kind: &str, state: &str, on: &[&str], attempts: &[&str]| {
        let attempts: Vec<Value> =
            attempts.iter().map(|id| json!({"id": id, "number": 1, "state": "running"})).collect();
        json!({"id": id, "step_key": id, "type": kind, "state": state, "depends_on": on, "attempts": attempts})
    };
    let build = |jobs: &[Value]| json!({ "jobs": jobs });
    let all = [of("a", "command", "running", &[], &["a1"]), of("w", "wait", "waiting", &["a"], &[])];
    assert_eq!(follow.build(&build(&all), &mut told).unwrap(), ["a1"]);
    follow.job(&of("a", "command", "passed", &[], &["a1"]), &mut told).unwrap();
    // The gate opened and the next one runs, has even ended, while the first one's log is on its way.
    assert_eq!(follow.job(&of("w", "wait", "passed", &["a"], &[]), &mut told).unwrap(), [""; 0]);
    assert_eq!(follow.job(&of("b", "command", "passed", &["w"], &["b1"]), &mut told).unwrap(), [""; 0]);
    follow.end();
    assert!(!follow.is_over());
    follow.log("a1", &piece(0, "late"), &mut told);
    assert_eq!(follow.log_ended("a1", &mut told), ["b1"], "its log is followed now");
    assert!(!follow.is_over());
    follow.log("b1", &piece(0, "next"), &mut told);
    assert_eq!(follow.log_ended("b1", &mut told), [""; 0]);
    assert!(follow.is_over());
    let rest = ["a passed", "w passed", "b 1 started", "b 1 @0 next", "b 1 log ended", "b passed"];
    assert_eq!(told.0[..3], ["a 1 started", "a 1 @0 late", "a 1 log ended"]);
    assert_eq!(told.0[3..], rest);
}

#[test]
fn events_are_read_whether_a_job_is_their_data_or_within_it() {
    let job = job("running", &[]);
    assert!(matches!(sort(job.clone()), Some(News::Job(_))));
    assert!(matches!(sort(json!({"job": job, "seq": 3})), Some(News::Job(_))));
    assert!(matches!(sort(json!({"jobs": [], "id": "b"})), Some(News::Build(_))));
    assert!(matches!(sort(json!({"build": {"jobs": []}})), Some(News::Build(_))));
    assert!(sort(json!({"kind": "something new"})).is_none());
}

#[test]
fn a_build_stands_still_where_all_that_could_run_waits_for_an_agent() {
    let stands = |states: &[&str]| {
        let (mut follow, mut told) = (Follow::default(), Told::default());
        let jobs: Vec<Value> = states
            .iter()
            .map(|state| json!({"id": state, "step_key": state, "type": "command", "state": state, "attempts": []}))
            .collect();
        follow.build(&json!({ "jobs": jobs }), &mut told).unwrap();
        follow.waits_for_an_agent().map(Job::name)
    };
    assert_eq!(stands(&["passed", "waiting", "scheduled"]).as_deref(), Some("scheduled"));
    assert_eq!(stands(&["scheduled", "assigned"]), None, "something is with an agent");
    assert_eq!(stands(&["scheduled", "running"]), None);
    assert_eq!(stands(&["waiting", "blocked"]), None, "that is a gate's");
    assert_eq!(stands(&["failed"]), None);
}
