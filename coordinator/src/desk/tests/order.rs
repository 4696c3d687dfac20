//! Whatever the core says, and however slow the store is: never before it is durable, and always in its order (I1).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use windlass_coordinator_store::Fault;

use super::double::Entry;
use super::{Bench, DeskEnd, in_time};

/// One thing that a run does.
#[derive(Debug, Clone)]
enum Step {
    /// An agent makes the core do this.
    Agent(String),
    /// A client does.
    Client(String),
    /// One commit may pass the gate.
    Permit,
    /// The next call of the store fails.
    Fail,
    /// The desk is let run.
    Yield,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => "[cslf]{0,6}".prop_map(Step::Agent),
        2 => "[cslf]{0,6}[rx]".prop_map(Step::Client),
        2 => Just(Step::Permit),
        1 => Just(Step::Fail),
        3 => Just(Step::Yield),
    ]
}

/// Runs the steps, then lets everything through; the journal of it. With `faults` the first [`Step::Fail`] counts, and
/// once the core is there again the steps are run a second time.
fn run(steps: &[Step], faults: bool) -> Vec<Entry> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let bench = Bench::threaded();
        let fail_at = steps.iter().position(|step| matches!(step, Step::Fail)).filter(|_| faults);
        perform(&bench, steps, fail_at).await;
        if fail_at.is_some() {
            // This commits, if nothing did before it, and so meets the fault.
            drop(in_time(bench.ask("cr")).await.unwrap());
            let made =
                |entries: &Vec<Entry>| entries.iter().filter(|entry| matches!(entry, Entry::Made { .. })).count() == 2;
            in_time(bench.journal.wait_for(made)).await;
            perform(&bench, steps, None).await;
        }
        let journal = Arc::clone(&bench.journal);
        assert_eq!(bench.stop().await, DeskEnd::Stopped);
        journal.entries()
    })
}

async fn perform(bench: &Bench, steps: &[Step], fail_at: Option<usize>) {
    bench.gate.close();
    let mut answers = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        match step {
            Step::Agent(plan) => bench.agent(plan).await,
            Step::Client(plan) => answers.push(bench.ask(plan)),
            Step::Permit => bench.gate.permit(),
            Step::Fail if fail_at == Some(place) => {
                bench.store.fail_next(Fault::Io { doing: "commit", detail: String::new() });
            }
            Step::Fail => {}
            Step::Yield => tokio::task::yield_now().await,
        }
    }
    bench.gate.open();
    // A look is served after everything that stands in the queues; there may be no core to look at.
    drop(in_time(bench.handle.look(|_| ())).await);
    for answer in answers {
        // Every request is answered, one way or the other.
        drop(in_time(answer).await.unwrap());
    }
}

/// The numbers of all effects that are said, in the order in which the core made them.
fn spoken(steps: &[Step]) -> usize {
    let said = |plan: &String| plan.chars().filter(|letter| "slf".contains(*letter)).count();
    steps.iter().map(|step| if let Step::Agent(plan) | Step::Client(plan) = step { said(plan) } else { 0 }).sum()
}

/// Where each change became durable.
fn durable(entries: &[Entry]) -> BTreeMap<u64, usize> {
    let places = entries.iter().enumerate();
    places
        .filter_map(|(place, entry)| if let Entry::Durable(number) = entry { Some((*number, place)) } else { None })
        .collect()
}

/// What is said is said in order, and never before each change that the same core had decided before it is durable.
fn assert_order(entries: &[Entry]) {
    let durable = durable(entries);
    let cores: Vec<u64> =
        entries.iter().filter_map(|e| if let Entry::Made { from, .. } = e { Some(*from) } else { None }).collect();
    let changes: BTreeSet<u64> =
        entries.iter().filter_map(|e| if let Entry::Change(n) = e { Some(*n) } else { None }).collect();
    let mut last = 0;
    for (place, entry) in entries.iter().enumerate() {
        let Entry::Said(number) = entry else { continue };
        assert!(*number > last, "{number} after {last}");
        last = *number;
        let from = cores.iter().rev().find(|from| *from <= number).copied().unwrap();
        for change in changes.range(from..*number) {
            let at = durable.get(change);
            assert!(
                at.is_some_and(|at| *at < place),
                "effect {number} was said, change {change} was durable at {at:?}"
            );
        }
    }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn no_effect_is_said_before_the_changes_that_precede_it_are_durable(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let entries = run(&steps, false);
        assert_order(&entries);
        let said = entries.iter().filter(|entry| matches!(entry, Entry::Said(_))).count();
        prop_assert_eq!(said, spoken(&steps), "and all of them are said in the end");
    }
}

proptest! {
    // Few, since each waits for the pause before the store is loaded again.
    #![proptest_config(cases(32))]

    #[test]
    fn with_a_store_that_fails_nothing_of_a_lost_change_is_ever_said(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        assert_order(&run(&steps, true));
    }
}
