//! No step runs before what it depends on, and every step runs that may: random pipelines from their text to their end,
//! judged by what the text says (reference 6.1 to 6.3) and not by the graph that was made of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use windlass_pipeline::compile;
use windlass_protocol::AttemptId;
use windlass_protocol::job::Epoch;

use crate::kit::*;

/// A step of a pipeline that is written for a test.
#[derive(Debug, Clone)]
struct Written {
    /// A wait, and whether it goes on after failures.
    wait: Option<bool>,
    /// What it names, by how many steps back, and whether a failure of it is allowed; `None` names nothing at all.
    names: Option<Vec<(usize, bool)>>,
    jobs: usize,
    fails: bool,
    soft: bool,
    /// `allow_dependency_failure`.
    allows: bool,
}

/// How it stands with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Open,
    Good,
    /// One of its jobs has failed, others are not over.
    Failing,
    Bad,
}

fn written() -> impl Strategy<Value = Written> {
    let names = prop::option::weighted(0.4, prop::collection::vec((1_usize..6, prop::bool::weighted(0.3)), 0..3));
    let wait = prop::option::weighted(0.2, any::<bool>());
    let rare = || prop::bool::weighted(0.2);
    (wait, names, 1_usize..3, rare(), rare(), rare()).prop_map(|(wait, names, jobs, fails, soft, allows)| Written {
        wait,
        names,
        jobs,
        fails,
        soft,
        allows,
    })
}

fn text(steps: &[Written]) -> String {
    let mut text = "steps:\n".to_owned();
    for (at, step) in steps.iter().enumerate() {
        let what = match step.wait {
            Some(on) => format!("wait: ~, continue_on_failure: {on}"),
            None => format!("command: run, parallelism: {}, soft_fail: {}", step.jobs, step.soft),
        };
        let names = step.names.as_ref().map(|names| {
            let one = |(back, allow): &(usize, bool)| {
                at.checked_sub(*back).map(|other| format!("{{step: k{other}, allow_failure: {allow}}}"))
            };
            format!(", depends_on: [{}]", names.iter().filter_map(one).collect::<Vec<_>>().join(", "))
        });
        let (names, allows) = (names.unwrap_or_default(), step.allows);
        // Writing to a text does not fail.
        let _ = writeln!(text, "  - {{key: k{at}, {what}, allow_dependency_failure: {allows}{names}}}");
    }
    text
}

/// What each step waits for, and whether it goes on after a failure of that.
fn befores(steps: &[Written]) -> Vec<Vec<(usize, bool)>> {
    let mut all = Vec::new();
    let (mut barrier, mut since) = (None, Vec::new());
    for (at, step) in steps.iter().enumerate() {
        let named = step.names.as_ref().map(|names| {
            // A wait that goes on does so after a failure of a step; of a wait before it, it has to be told.
            let goes_on = |other: usize| step.wait == Some(true) && steps[other].wait.is_none();
            let named = names.iter().filter_map(|(back, allow)| Some((at.checked_sub(*back)?, *allow)));
            let named = named.map(|(other, allow)| (other, allow || goes_on(other)));
            // Named twice, it is forgiven only if both say so.
            named.fold(BTreeMap::new(), |mut all: BTreeMap<usize, bool>, (other, allow)| {
                all.entry(other).and_modify(|both| *both &= allow).or_insert(allow);
                all
            })
        });
        let mut before: Vec<(usize, bool)> = match (named, step.wait) {
            (Some(named), _) => named.into_iter().collect(),
            (None, Some(on)) => {
                let since = since.iter().map(|other| (*other, on));
                since.chain(barrier.map(|other| (other, false))).collect()
            }
            (None, None) => barrier.map(|other| (other, false)).into_iter().collect(),
        };
        before.iter_mut().for_each(|(_, allow)| *allow |= step.allows);
        all.push(before);
        if step.wait.is_some() {
            (barrier, since) = (Some(at), Vec::new());
        } else {
            since.push(at);
        }
    }
    all
}

/// How all steps stand when so many jobs of each have ended.
fn standings(steps: &[Written], befores: &[Vec<(usize, bool)>], ended: &[usize]) -> Vec<Standing> {
    let mut all: Vec<Standing> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let may = ready(&befores[at], &all);
        all.push(match (may, step.wait) {
            (Standing::Good, None) if step.fails && !step.soft && ended[at] == step.jobs => Standing::Bad,
            (Standing::Good, None) if step.fails && !step.soft && ended[at] > 0 => Standing::Failing,
            (Standing::Good, None) if ended[at] < step.jobs => Standing::Open,
            (may, _) => may,
        });
    }
    all
}

/// Whether what a step waits for lets it run: a failure that is not allowed ends that at once, one that is allowed only when
/// all jobs are over.
fn ready(before: &[(usize, bool)], all: &[Standing]) -> Standing {
    let of = |(other, allow): &(usize, bool)| match (all[*other], *allow) {
        (Standing::Bad, true) => Standing::Good,
        (Standing::Failing, true) => Standing::Open,
        (Standing::Failing, false) => Standing::Bad,
        (standing, _) => standing,
    };
    let standings: Vec<Standing> = before.iter().map(of).collect();
    if standings.contains(&Standing::Bad) {
        Standing::Bad
    } else if standings.contains(&Standing::Open) {
        Standing::Open
    } else {
        Standing::Good
    }
}

/// Plays a build to its end, ending offered jobs in an order of `choices`; gives how many jobs of each step have run.
fn play(steps: &[Written], choices: &[usize]) -> Vec<usize> {
    let text = text(steps);
    let compiled = compile(&text, "pipeline.yml", &[]);
    let graph = compiled.graph.as_ref().unwrap_or_else(|| panic!("{}", compiled.render(&text)));
    let befores = befores(steps);
    let mut shell = Shell::new();
    let agent = shell.agent("one", 3);
    shell.submit(graph.clone());
    let (mut ended, mut open) = (vec![0; steps.len()], Vec::<(usize, (AttemptId, Epoch))>::new());
    let mut choices = choices.iter().cycle();
    loop {
        for (epoch, spec) in shell.offers(agent) {
            let at: usize = spec.step_key.as_deref().and_then(|key| key.strip_prefix('k')?.parse().ok()).unwrap();
            let now = ready(&befores[at], &standings(steps, &befores, &ended));
            assert_eq!(now, Standing::Good, "step k{at} runs, ended: {ended:?}\n{text}");
            open.push((at, (spec.attempt, epoch)));
        }
        if open.is_empty() {
            return ended;
        }
        let next = choices.next().copied().unwrap_or_default() % open.len();
        let (at, offer) = open.swap_remove(next);
        shell.run(agent, offer, i32::from(steps[at].fails));
        ended[at] += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_step_runs_before_what_it_depends_on_and_every_step_runs_that_may(
        steps in prop::collection::vec(written(), 1..12), choices in prop::collection::vec(0_usize..9, 1..20),
    ) {
        let ran = play(&steps, &choices);
        let last = standings(&steps, &befores(&steps), &ran);
        for (at, step) in steps.iter().enumerate().filter(|(_, step)| step.wait.is_none()) {
            let may = ready(&befores(&steps)[at], &last) == Standing::Good;
            prop_assert_eq!(ran[at], if may { step.jobs } else { 0 }, "step k{}\n{}", at, text(&steps));
        }
    }
}
