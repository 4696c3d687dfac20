//! The core simulation: thousands of seeds, what they reach, and the deliberate bugs that they catch.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use windlass_agent_core::Bugs as AgentBugs;
use windlass_coordinator_core::Bugs as CoreBugs;
use windlass_tests::sim::coverage::{self, Coverage};
use windlass_tests::sim::{Report, Setup, Violation, World};

/// Seeds of a usual run; `WINDLASS_SIM_SEEDS` asks for others.
const SEEDS: u64 = 2_000;

/// What cannot occur so far, one name a line. An entry that is reached fails the run: the list only shrinks.
const UNREACHED: &str = include_str!("../sim-unreached.txt");

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs one seed; a panic of a core is a violation like another.
fn run(setup: Setup) -> Report {
    catch_unwind(AssertUnwindSafe(|| World::new(setup).run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Report {
            coverage: Coverage::default(),
            events: 0,
            virtual_ms: 0,
            builds: 0,
            fingerprint: 0,
            violation: Some(Violation {
                invariant: "panic",
                detail: text.unwrap_or_else(|| "a panic without words".to_owned()),
                at_ms: 0,
            }),
            trace: Vec::new(),
        }
    })
}

/// Runs seeds on both processors until they are done or one of them fails as `stop` wants it.
fn run_seeds(seeds: u64, setup: Setup, each: impl Fn(u64, Report) -> bool + Sync) {
    let next = AtomicU64::new(0);
    let stop = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    if each(seed, run(Setup { seed, ..setup })) {
                        stop.store(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

fn replay(seed: u64) -> String {
    format!("WINDLASS_SIM_SEED={seed} cargo test -p windlass-tests --test sim one_seed -- --nocapture")
}

#[test]
fn every_invariant_holds_in_every_seed_and_everything_that_can_occur_does() {
    let seeds = number("WINDLASS_SIM_SEEDS").unwrap_or(SEEDS);
    let total = Mutex::new((Coverage::default(), 0_u64, 0_u64, 0_u64));
    let failures = Mutex::new(Vec::new());
    run_seeds(seeds, Setup::default(), |seed, report| {
        let mut total = total.lock().unwrap();
        total.0.add(&report.coverage);
        total.1 += report.events;
        total.2 += report.virtual_ms;
        total.3 += report.builds;
        let mut failures = failures.lock().unwrap();
        failures.extend(report.violation.map(|violation| (seed, violation)));
        failures.len() >= 10
    });
    let (coverage, events, virtual_ms, builds) = total.into_inner().unwrap();
    println!("{seeds} seeds, {events} events, {builds} builds, {} hours of virtual time", virtual_ms / 3_600_000);
    let failures = failures.into_inner().unwrap();
    for (seed, violation) in &failures {
        println!("seed {seed}: {} at {} ms: {}", violation.invariant, violation.at_ms, violation.detail);
        println!("    {}", replay(*seed));
    }
    assert!(failures.is_empty(), "{} seeds fail, the first with: {}", failures.len(), replay(failures[0].0));
    check_coverage(&coverage, seeds);
}

fn check_coverage(coverage: &Coverage, seeds: u64) {
    let listed: BTreeSet<&str> =
        UNREACHED.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let names: BTreeSet<&str> = coverage::all().into_iter().collect();
    let (mut missing, mut stale) = (Vec::new(), Vec::new());
    for (name, count) in coverage.table() {
        println!("{count:>10} {name}");
        match (count, listed.contains(name)) {
            (0, false) => missing.push(name),
            (1.., true) => stale.push(name),
            _ => {}
        }
    }
    let unknown: Vec<_> = listed.difference(&names).collect();
    assert!(unknown.is_empty(), "sim-unreached.txt names what there is not: {unknown:?}");
    assert!(stale.is_empty(), "sim-unreached.txt names what is reached: take it off the list: {stale:?}");
    assert!(missing.is_empty() || seeds < SEEDS, "never reached: {missing:?}");
}

/// Plays one seed and prints all of it: `WINDLASS_SIM_SEED=N`.
#[test]
fn one_seed_is_played_again_if_it_is_named() {
    let Some(seed) = number("WINDLASS_SIM_SEED") else { return };
    let report = run(Setup { seed, traced: true, ..Setup::default() });
    for line in &report.trace {
        println!("{line}");
    }
    if let Some(violation) = report.violation {
        panic!("{} at {} ms: {}", violation.invariant, violation.at_ms, violation.detail);
    }
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..10 {
        let setup = Setup { seed, ..Setup::default() };
        let (one, two) = (run(setup), run(setup));
        assert_eq!((one.fingerprint, one.events), (two.fingerprint, two.events), "seed {seed}");
    }
    assert_ne!(run(Setup { seed: 1, ..Setup::default() }).fingerprint, run(Setup::default()).fingerprint);
}

/// With this fault switched on, a seed must fail by this invariant, and the oracle alone must see it:
/// what the cores check of themselves is switched off.
fn is_caught(invariant: &str, core_bugs: CoreBugs, agent_bugs: AgentBugs) {
    let caught = Mutex::new(None);
    let setup = Setup { core_bugs, agent_bugs, oracle_only: true, ..Setup::default() };
    run_seeds(SEEDS, setup, |seed, report| {
        // Its consequences may break others, too: the one that names it must be among them.
        let Some(violation) = report.violation.filter(|violation| violation.invariant == invariant) else {
            return false;
        };
        let mut caught = caught.lock().unwrap();
        caught.get_or_insert((seed, violation));
        true
    });
    let caught = caught.into_inner().unwrap();
    let (seed, violation) = caught.unwrap_or_else(|| panic!("{SEEDS} seeds do not break {invariant}"));
    println!("seed {seed}: {} at {} ms: {}", violation.invariant, violation.at_ms, violation.detail);
}

macro_rules! bugs {
    ($($name:ident: $invariant:literal, $core:expr, $agent:expr;)*) => {
        mod deliberate_bug {
            use super::*;
            $(#[test] fn $name() { is_caught($invariant, $core, $agent); })*
        }
    };
}

bugs! {
    a_result_of_a_stale_right_is_caught: "I3",
        CoreBugs { skip_epoch_fence: true, ..CoreBugs::default() }, AgentBugs::default();
    a_job_leased_twice_is_caught: "I2",
        CoreBugs { lease_twice: true, ..CoreBugs::default() }, AgentBugs::default();
    a_right_granted_again_after_a_restart_is_caught: "I2",
        CoreBugs { forget_last_epoch: true, ..CoreBugs::default() }, AgentBugs::default();
    a_cancel_that_leaves_waiting_jobs_is_caught: "I8",
        CoreBugs { ignore_cancel: true, ..CoreBugs::default() }, AgentBugs::default();
    an_answer_before_its_commit_is_caught: "I1",
        CoreBugs { reply_before_commit: true, ..CoreBugs::default() }, AgentBugs::default();
    a_job_in_the_wrong_zone_or_trust_class_is_caught: "I7",
        CoreBugs { ignore_trust_and_zone: true, ..CoreBugs::default() }, AgentBugs::default();
    a_step_before_its_dependency_is_caught: "I7",
        CoreBugs { forget_dependency: true, ..CoreBugs::default() }, AgentBugs::default();
    an_exclusive_job_without_a_fence_is_caught: "I3",
        CoreBugs { skip_exclusive_fence: true, ..CoreBugs::default() }, AgentBugs::default();
    a_slot_of_a_group_before_its_fence_is_caught: "I3",
        CoreBugs { slot_before_fence: true, ..CoreBugs::default() }, AgentBugs::default();
    a_job_offered_again_after_a_power_cut_is_caught: "I3",
        CoreBugs { forget_reboot: true, ..CoreBugs::default() }, AgentBugs::default();
    an_upload_that_is_inserted_twice_is_caught: "I3",
        CoreBugs { upload_twice: true, ..CoreBugs::default() }, AgentBugs::default();
    a_schedule_that_fires_twice_for_one_time_is_caught: "I3",
        CoreBugs { fire_twice: true, ..CoreBugs::default() }, AgentBugs::default();
    a_triggered_build_that_is_made_twice_is_caught: "I3",
        CoreBugs { trigger_twice: true, ..CoreBugs::default() }, AgentBugs::default();
    a_triggered_build_that_outlives_its_canceled_job_is_caught: "I8",
        CoreBugs { orphan_triggered: true, ..CoreBugs::default() }, AgentBugs::default();
    words_of_a_job_that_are_heard_twice_are_caught: "I3",
        CoreBugs { hear_twice: true, ..CoreBugs::default() }, AgentBugs::default();
    a_cancel_by_a_stale_right_is_caught: "I3",
        CoreBugs { believe_stale_cancel: true, ..CoreBugs::default() }, AgentBugs::default();
    a_notification_that_is_kept_in_memory_alone_is_caught: "I13",
        CoreBugs { forget_notification: true, ..CoreBugs::default() }, AgentBugs::default();
    a_step_that_runs_while_another_has_its_key_is_caught: "I14",
        CoreBugs { follow_nobody: true, ..CoreBugs::default() }, AgentBugs::default();
    a_result_that_goes_though_a_pin_holds_it_is_caught: "I15",
        CoreBugs { let_go_of_pinned: true, ..CoreBugs::default() }, AgentBugs::default();
    a_lease_without_a_deadline_is_caught: "I10",
        CoreBugs { drop_deadline: true, ..CoreBugs::default() }, AgentBugs::default();
    an_agent_that_outlives_its_right_is_caught: "I3",
        CoreBugs::default(), AgentBugs { outlives_right: true, ..AgentBugs::default() };
    an_agent_that_sends_its_log_from_its_own_offset_is_caught: "I4",
        CoreBugs::default(), AgentBugs { sends_log_from_own_offset: true, ..AgentBugs::default() };
    an_agent_that_forgets_before_the_commit_is_caught: "I3",
        CoreBugs::default(), AgentBugs { forgets_before_commit: true, ..AgentBugs::default() };
    an_agent_that_ignores_a_stop_is_caught: "I8",
        CoreBugs::default(), AgentBugs { ignores_stop: true, ..AgentBugs::default() };
    an_agent_that_forgets_what_it_cannot_read_is_caught: "I3",
        CoreBugs::default(), AgentBugs { forgets_unreadable: true, ..AgentBugs::default() };
}
