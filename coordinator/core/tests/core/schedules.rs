//! Schedules: one build for each of their times, whatever the clock and the process do.

use windlass_coordinator_core::effect::Effect;
use windlass_coordinator_core::input::{Input, Request};
use windlass_coordinator_core::order::{Obtained, Order};
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::{Rejected, Reply};
use windlass_protocol::job::Source;
use windlass_protocol::{BuildId, Cause, CauseKind, Namespace, PipelineId, ScheduleId, WallMs, limits};

use crate::kit::{START, Shell, graph, step};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn id(n: u8) -> ScheduleId {
    ScheduleId::from_bytes([n; 16])
}

fn new(n: u8, cron: &str) -> NewSchedule {
    NewSchedule {
        id: id(n),
        pipeline: "nightly".to_owned(),
        cron: cron.to_owned(),
        timezone: "UTC".to_owned(),
        branch: None,
        commit: "HEAD".to_owned(),
        message: "good morning".to_owned(),
        env: vec![("WHY".to_owned(), "time".to_owned())],
        trusted: true,
        confined: None,
    }
}

fn add(shell: &mut Shell, new: NewSchedule) -> Result<Reply, Rejected> {
    shell.request(Request::AddSchedule(Box::new(new)))
}

/// A shell in which `nightly` is registered; it begins at 08:00 UTC.
fn shell() -> Shell {
    assert_eq!(START % (24 * HOUR), 8 * HOUR);
    let mut shell = Shell::new();
    let change = Box::new(PipelineChange { default_branch: Some("trunk".to_owned()), ..PipelineChange::default() });
    let request = Request::CreatePipeline { id: PipelineId::from_bytes([1; 16]), name: "nightly".to_owned(), change };
    assert_eq!(shell.request(request), Ok(Reply::Done));
    shell
}

fn orders(shell: &mut Shell) -> Vec<Order> {
    let effects = shell.take_effects().into_iter();
    effects.filter_map(|effect| if let Effect::Obtain(order) = effect { Some(*order) } else { None }).collect()
}

fn order(shell: &mut Shell) -> Order {
    let mut orders = orders(shell);
    assert_eq!(orders.len(), 1, "{orders:?}");
    orders.remove(0)
}

fn obtained(order: &Order) -> Obtained {
    Obtained {
        number: None,
        definition: "steps: nightly".to_owned(),
        graph: graph(vec![step("a")]),
        origin: Source::Empty,
        branch: order.branch.clone(),
        commit: order.commit.clone(),
        verified: true,
        registration: Box::new(order.pipeline.clone()),
    }
}

fn answer(shell: &mut Shell, build: BuildId, obtained: Result<Obtained, Cause>) -> Result<(), Rejected> {
    shell.input(Input::Obtained { build, obtained: obtained.map(Box::new) })
}

fn fill(shell: &mut Shell) -> BuildId {
    let order = order(shell);
    answer(shell, order.build, Ok(obtained(&order))).unwrap();
    order.build
}

fn row(shell: &Shell, n: u8) -> &ScheduleRow {
    &shell.rows.schedules[&id(n)]
}

fn wall(ms: u64) -> Option<WallMs> {
    Some(WallMs(START + ms))
}

/// The clock that people set jumps; the other one does not.
fn jump(shell: &mut Shell, ms: i64) {
    shell.now.wall = WallMs(shell.now.wall.0.checked_add_signed(ms).unwrap());
}

#[test]
fn a_schedule_makes_a_build_at_each_of_its_times() {
    let mut shell = shell();
    add(&mut shell, new(1, "30 * * * *")).unwrap();
    assert_eq!(row(&shell, 1).next_at, wall(HOUR / 2));
    shell.pass(HOUR / 2 - 1);
    assert!(orders(&mut shell).is_empty());
    shell.pass(1);
    let asked = order(&mut shell);
    assert_eq!((asked.branch.as_str(), asked.commit.as_str(), asked.source), ("trunk", "HEAD", BuildSource::Schedule));
    assert_eq!(row(&shell, 1).firing, Some(Firing { build: asked.build, at: wall(HOUR / 2).unwrap() }));
    answer(&mut shell, asked.build, Ok(obtained(&asked))).unwrap();
    let build = shell.build(asked.build);
    assert_eq!((build.pipeline.as_str(), build.number, build.source), ("nightly", 1, BuildSource::Schedule));
    assert_eq!((build.message.as_str(), &build.env[0].1), ("good morning", &"time".to_owned()));
    assert_eq!((build.creator.name.as_str(), &build.namespace), ("ada", &Namespace::trusted("nightly")));
    let last = row(&shell, 1).last.clone().unwrap();
    assert_eq!((last.at, last.build, last.number), (wall(HOUR / 2).unwrap(), asked.build, Some(1)));
    assert_eq!((row(&shell, 1).next_at, row(&shell, 1).firing.is_none()), (wall(HOUR + HOUR / 2), true));
    shell.pass(HOUR);
    let second = fill(&mut shell);
    assert_eq!(shell.build(second).number, 2);
}

#[test]
fn what_was_missed_is_made_up_once() {
    let mut shell = shell();
    add(&mut shell, new(1, "*/10 * * * *")).unwrap();
    // Nobody was there for three hours and five minutes.
    let gone = 3 * HOUR + 5 * MINUTE;
    shell.now.mono = shell.now.mono.plus_ms(gone);
    shell.now.wall = shell.now.wall.plus_ms(gone);
    shell.restart();
    shell.pass(0);
    let build = fill(&mut shell);
    assert_eq!(row(&shell, 1).last.as_ref().unwrap().at, wall(10 * MINUTE).unwrap(), "the first that was missed");
    assert_eq!(row(&shell, 1).next_at, wall(3 * HOUR + 10 * MINUTE), "and the next that was not");
    assert_eq!(shell.build(build).number, 1);
    shell.pass(4 * MINUTE);
    assert!(orders(&mut shell).is_empty());
    shell.pass(MINUTE);
    fill(&mut shell);
    assert_eq!(shell.rows.pipeline_numbers["nightly"], 2);
}

#[test]
fn a_clock_that_jumps_makes_nothing_twice_and_leaves_nothing_out() {
    let mut shell = shell();
    add(&mut shell, new(1, "0 * * * *")).unwrap();
    // Forward over three of its times: one build, soon.
    jump(&mut shell, 3 * 3_600_000 + 60_000);
    shell.pass(limits::SCHEDULE_CHECK_MS);
    fill(&mut shell);
    assert_eq!(row(&shell, 1).next_at, wall(4 * HOUR));
    // Back: its times come again, and it has fired for them.
    jump(&mut shell, -(2 * 3_600_000));
    shell.pass(2 * HOUR);
    assert!(orders(&mut shell).is_empty(), "those times were made up already");
    shell.pass(HOUR);
    fill(&mut shell);
    assert_eq!(shell.rows.pipeline_numbers["nightly"], 2);
}

#[test]
fn a_build_that_was_ordered_before_a_restart_is_made_once_after_it() {
    let mut shell = shell();
    add(&mut shell, new(1, "0 * * * *")).unwrap();
    shell.pass(HOUR);
    let first = order(&mut shell);
    shell.restart();
    let second = order(&mut shell);
    assert_eq!(first, second);
    answer(&mut shell, first.build, Ok(obtained(&first))).unwrap();
    shell.restart();
    assert!(orders(&mut shell).is_empty());
    assert_eq!(answer(&mut shell, first.build, Ok(obtained(&first))), Err(Rejected::NoOrder(first.build)));
    assert_eq!(shell.rows.pipeline_numbers["nightly"], 1);
}

#[test]
fn a_build_that_cannot_be_made_is_told_of_and_the_next_time_comes() {
    let mut shell = shell();
    add(&mut shell, new(1, "0 * * * *")).unwrap();
    shell.pass(HOUR);
    let asked = order(&mut shell);
    let cause = Cause::new(CauseKind::CheckoutFailed, "no route");
    answer(&mut shell, asked.build, Err(cause.clone())).unwrap();
    let last = row(&shell, 1).last.clone().unwrap();
    assert_eq!((last.number, last.cause), (None, Some(cause)));
    shell.pass(HOUR);
    // Nobody answers; the times that pass meanwhile are made up once.
    assert_eq!(orders(&mut shell).len(), 1);
    shell.pass(limits::ORDER_MS);
    assert_eq!(row(&shell, 1).last.as_ref().unwrap().cause.as_ref().unwrap().kind, CauseKind::CheckoutFailed);
    shell.pass(HOUR - limits::ORDER_MS);
    fill(&mut shell);
    assert_eq!(shell.rows.pipeline_numbers["nightly"], 1);
}

#[test]
fn a_time_that_comes_while_the_build_of_the_last_one_is_being_made_waits_for_it() {
    let mut shell = shell();
    add(&mut shell, new(1, "* * * * *")).unwrap();
    shell.pass(MINUTE);
    let first = order(&mut shell);
    shell.pass(3 * MINUTE);
    assert!(orders(&mut shell).is_empty());
    answer(&mut shell, first.build, Ok(obtained(&first))).unwrap();
    shell.pass(0);
    let second = order(&mut shell);
    assert_ne!(first.build, second.build);
    assert_eq!(row(&shell, 1).firing.as_ref().unwrap().at, wall(2 * MINUTE).unwrap());
    assert_eq!(row(&shell, 1).next_at, wall(5 * MINUTE));
}

#[test]
fn a_schedule_that_is_taken_away_makes_nothing_more() {
    let mut shell = shell();
    add(&mut shell, new(1, "0 * * * *")).unwrap();
    add(&mut shell, new(2, "0 * * * *")).unwrap();
    shell.pass(HOUR);
    let asked = orders(&mut shell);
    assert_eq!(asked.len(), 2);
    let remove = |schedule| Request::RemoveSchedule { schedule };
    assert_eq!(shell.request(remove(id(1))), Ok(Reply::Done));
    assert_eq!(answer(&mut shell, asked[0].build, Ok(obtained(&asked[0]))), Err(Rejected::NoOrder(asked[0].build)));
    answer(&mut shell, asked[1].build, Ok(obtained(&asked[1]))).unwrap();
    assert_eq!(shell.request(remove(id(2))), Ok(Reply::Done));
    assert_eq!(shell.request(remove(id(2))), Err(Rejected::NoSuchSchedule(id(2))));
    shell.take_effects();
    shell.pass(5 * HOUR);
    assert!(orders(&mut shell).is_empty() && shell.rows.schedules.is_empty());
    assert_eq!(shell.rows.builds.len(), 1, "what it made goes on");
}

#[test]
fn what_is_no_schedule_is_refused() {
    let mut shell = shell();
    let refused = |shell: &mut Shell, new| add(shell, new).unwrap_err();
    let nowhere = NewSchedule { pipeline: "nowhere".to_owned(), ..new(1, "@daily") };
    assert_eq!(refused(&mut shell, nowhere), Rejected::NoSuchPipeline("nowhere".to_owned()));
    for (cron, timezone) in [("* * * *", "UTC"), ("@daily", "Mars/Olympus"), ("0 0 31 2 *", "UTC")] {
        let wrong = NewSchedule { timezone: timezone.to_owned(), ..new(1, cron) };
        assert!(matches!(refused(&mut shell, wrong), Rejected::Setting { .. }), "{cron} {timezone}");
    }
    let long = NewSchedule { message: "m".repeat(limits::MESSAGE_MAX_BYTES + 1), ..new(1, "@daily") };
    assert!(matches!(refused(&mut shell, long), Rejected::Limit { .. }));
    for n in 0..limits::SCHEDULES_PER_PIPELINE_MAX {
        add(&mut shell, new(u8::try_from(n).unwrap(), "@daily")).unwrap();
    }
    assert!(matches!(refused(&mut shell, new(255, "@daily")), Rejected::Limit { .. }));
}

#[test]
fn a_scheduled_build_is_trusted_where_its_maker_and_its_source_are() {
    for (trusted, verified, namespace) in [
        (true, true, Namespace::trusted("nightly")),
        (true, false, Namespace::overlay("nightly", "branch:trunk")),
        (false, true, Namespace::overlay("nightly", &format!("schedule:{}", id(1)))),
    ] {
        let mut shell = shell();
        add(&mut shell, NewSchedule { trusted, ..new(1, "0 * * * *") }).unwrap();
        shell.pass(HOUR);
        let asked = order(&mut shell);
        answer(&mut shell, asked.build, Ok(Obtained { verified, ..obtained(&asked) })).unwrap();
        assert_eq!(shell.build(asked.build).namespace, namespace);
    }
}
