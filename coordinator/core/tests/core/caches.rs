//! Caches: found by key and by beginnings, never changed, never seen from below, and let go within their limits.

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{CacheRequest, CacheRow, PoolRow};
use windlass_coordinator_core::{Rejected, Reply};
use windlass_protocol::job::{Epoch, Phase};
use windlass_protocol::{AgentId, AttemptId, Digest, Namespace, Trust, WallMs, limits};

use crate::kit::*;

type Right = (AttemptId, Epoch);

/// A running job of a build in this namespace.
fn job(shell: &mut Shell, agent: AgentId, namespace: &Namespace) -> Right {
    shell.submit_with(graph(vec![step("a")]), |submit| submit.namespace = namespace.clone());
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    offer
}

fn request(shell: &mut Shell, request: CacheRequest) -> Result<Option<CacheRow>, Rejected> {
    match shell.request(Request::Cache(Box::new(request)))? {
        Reply::Cache(row) => Ok(row.map(|row| *row)),
        other => panic!("{other:?}"),
    }
}

fn save(shell: &mut Shell, right: Right, key: &str, text: &str, bytes: u64) -> Result<CacheRow, Rejected> {
    save_files(shell, right, key, text, (1, bytes))
}

fn save_files(
    shell: &mut Shell,
    (attempt, epoch): Right,
    key: &str,
    text: &str,
    (files, bytes): (u64, u64),
) -> Result<CacheRow, Rejected> {
    let (scope, manifest) = (Digest::of(b"paths"), Digest::of(text.as_bytes()));
    let key = key.to_owned();
    let save = CacheRequest::Save { attempt, epoch, scope, key, manifest, manifest_bytes: 0, files, bytes };
    request(shell, save).map(|row| row.expect("what is saved stands there"))
}

fn find_in(shell: &mut Shell, right: Right, scope: &str, key: &str, beginnings: &[&str]) -> Option<CacheRow> {
    let restore_keys = beginnings.iter().map(|key| (*key).to_owned()).collect();
    let (scope, key, (attempt, epoch)) = (Digest::of(scope.as_bytes()), key.to_owned(), right);
    request(shell, CacheRequest::Find { attempt, epoch, scope, key, restore_keys }).unwrap()
}

/// The key of what is found.
fn find(shell: &mut Shell, right: Right, key: &str, beginnings: &[&str]) -> Option<String> {
    find_in(shell, right, "paths", key, beginnings).map(|row| row.name.key)
}

fn trusted() -> Namespace {
    Namespace::trusted("app")
}

fn overlay(name: &str) -> Namespace {
    Namespace::overlay("app", name)
}

/// Time that only the calendar sees: nobody's right ends meanwhile.
fn later(shell: &mut Shell, ms: u64) {
    shell.now.wall = shell.now.wall.plus_ms(ms);
}

/// Trusted and untrusted agents.
fn agents(shell: &mut Shell) -> (AgentId, AgentId) {
    let trusted = shell.agent("trusted", 8);
    let token = shell.pool(PoolRow { trust: Trust::Untrusted, ..pool("wild") });
    let wild = shell.join(token, "wild");
    shell.hello(wild, 8, Vec::new());
    (trusted, wild)
}

#[test]
fn the_key_itself_comes_first_and_then_the_newest_of_each_beginning() {
    let mut shell = Shell::new();
    let (agent, _) = agents(&mut shell);
    let right = job(&mut shell, agent, &trusted());
    for key in ["node-1", "node-2", "go-1"] {
        save(&mut shell, right, key, key, 1).unwrap();
        later(&mut shell, 1_000);
    }
    assert_eq!(find(&mut shell, right, "node-1", &["go-"]).as_deref(), Some("node-1"));
    assert_eq!(find(&mut shell, right, "node-3", &["node-"]).as_deref(), Some("node-2"), "the newest");
    assert_eq!(find(&mut shell, right, "node-3", &["rust-", "go-", "node-"]).as_deref(), Some("go-1"), "in order");
    assert_eq!(find(&mut shell, right, "node-3", &[]), None);
    assert_eq!(find(&mut shell, right, "node", &[]), None, "a key is no beginning");
    assert_eq!(find_in(&mut shell, right, "other paths", "node-1", &["node-"]), None);
}

#[test]
fn what_stands_under_a_key_stays_and_a_restart_forgets_nothing() {
    let mut shell = Shell::new();
    let (agent, _) = agents(&mut shell);
    let right = job(&mut shell, agent, &trusted());
    assert_eq!(save(&mut shell, right, "k", "first", 1).unwrap().manifest, Digest::of(b"first"));
    assert_eq!(save(&mut shell, right, "k", "second", 1).unwrap().manifest, Digest::of(b"first"));
    shell.restart();
    shell.hello(agent, 1, vec![held(right, Phase::Running)]);
    assert_eq!(save(&mut shell, right, "k", "third", 1).unwrap().manifest, Digest::of(b"first"));
    let stale = (right.0, Epoch(right.1.0 + 1));
    assert!(matches!(save(&mut shell, stale, "k2", "x", 1), Err(Rejected::StaleEpoch { .. })));
    shell.run(agent, right, 0);
    assert!(matches!(save(&mut shell, right, "k2", "x", 1), Err(Rejected::NoLease(_))));
}

#[test]
fn what_is_untrusted_reads_what_is_trusted_and_writes_beside_it() {
    let mut shell = Shell::new();
    let (agent, untrusted) = agents(&mut shell);
    let ours = job(&mut shell, agent, &trusted());
    let (pull, other) = (job(&mut shell, untrusted, &overlay("1")), job(&mut shell, untrusted, &overlay("2")));
    save(&mut shell, ours, "k", "good", 1).unwrap();
    let found = find_in(&mut shell, pull, "paths", "k", &[]).unwrap();
    assert_eq!(found.manifest, Digest::of(b"good"));
    let saved = save(&mut shell, pull, "k", "evil", 1).unwrap();
    assert_eq!((saved.manifest, &saved.name.namespace), (Digest::of(b"evil"), &overlay("1")));
    save(&mut shell, pull, "k-2", "evil", 1).unwrap();
    let seen = |shell: &mut Shell, right| find_in(shell, right, "paths", "k", &["k-"]).map(|row| row.manifest);
    assert_eq!(seen(&mut shell, pull), Some(Digest::of(b"evil")), "its own first");
    assert_eq!(seen(&mut shell, ours), Some(Digest::of(b"good")));
    assert_eq!(seen(&mut shell, other), Some(Digest::of(b"good")));
    assert_eq!(find(&mut shell, ours, "none", &["k-"]), None);
    let newest = find_in(&mut shell, ours, "paths", "none", &["k"]).map(|row| row.manifest);
    assert_eq!(newest, Some(Digest::of(b"good")), "whatever was saved since beside it");
}

#[test]
fn who_saves_too_much_loses_what_was_used_longest_ago_and_nothing_trusted_for_what_is_not() {
    let mut shell = Shell::new();
    let (agent, untrusted) = agents(&mut shell);
    let (ours, pull) = (job(&mut shell, agent, &trusted()), job(&mut shell, untrusted, &overlay("1")));
    save(&mut shell, ours, "trusted", "t", limits::CACHES_TRUSTED_MAX_BYTES).unwrap();
    let third = limits::CACHES_OVERLAY_MAX_BYTES / 3;
    for key in ["a", "b", "c"] {
        save(&mut shell, pull, key, key, third).unwrap();
        later(&mut shell, limits::CACHE_TOUCH_MS);
    }
    assert!(find(&mut shell, pull, "a", &[]).is_some(), "used");
    save(&mut shell, pull, "d", "d", third).unwrap();
    let there: Vec<bool> = ["a", "b", "c", "d"].map(|key| find(&mut shell, pull, key, &[]).is_some()).into();
    assert_eq!(there, [true, false, true, true]);
    for n in 0..limits::CACHES_OVERLAY_MAX + 5 {
        save(&mut shell, pull, &format!("n{n}"), "n", 1).unwrap();
    }
    let own = shell.rows.caches.keys().filter(|name| name.namespace == overlay("1")).count();
    assert_eq!(own, limits::CACHES_OVERLAY_MAX);
    assert!(find(&mut shell, ours, "trusted", &[]).is_some());
    let large = save(&mut shell, pull, "large", "l", limits::CACHES_OVERLAY_MAX_BYTES + 1);
    assert!(matches!(large, Err(Rejected::Limit { what: "bytes of one cache", .. })), "{large:?}");
}

#[test]
fn what_nobody_uses_goes_and_use_is_noted_now_and_then() {
    let mut shell = Shell::new();
    let (agent, _) = agents(&mut shell);
    let right = job(&mut shell, agent, &trusted());
    save(&mut shell, right, "used", "u", 1).unwrap();
    save(&mut shell, right, "unused", "u", 1).unwrap();
    let saved_at = shell.rows.caches.values().map(|row| row.used_at).max().unwrap();
    later(&mut shell, limits::CACHE_TOUCH_MS / 2);
    find(&mut shell, right, "used", &[]).unwrap();
    assert!(shell.rows.caches.values().all(|row| row.used_at <= saved_at), "a restore is no commit");
    later(&mut shell, limits::CACHE_TOUCH_MS);
    find(&mut shell, right, "used", &[]).unwrap();
    let unused_since = WallMs(saved_at.0 + 1);
    shell.request(Request::Cache(Box::new(CacheRequest::Forget { unused_since }))).unwrap();
    assert_eq!(shell.rows.caches.keys().map(|name| name.key.as_str()).collect::<Vec<_>>(), ["used"]);
}

#[test]
fn files_are_bounded_as_bytes_are() {
    let mut shell = Shell::new();
    let (agent, untrusted) = agents(&mut shell);
    let (ours, pull) = (job(&mut shell, agent, &trusted()), job(&mut shell, untrusted, &overlay("1")));
    save_files(&mut shell, ours, "trusted", "t", (limits::CACHES_TRUSTED_MAX_FILES, 1)).unwrap();
    let third = limits::CACHES_OVERLAY_MAX_FILES / 3;
    for key in ["a", "b", "c", "d"] {
        save_files(&mut shell, pull, key, key, (third, 1)).unwrap();
        later(&mut shell, 1_000);
    }
    let there: Vec<bool> = ["a", "b", "c", "d"].map(|key| find(&mut shell, pull, key, &[]).is_some()).into();
    assert_eq!(there, [false, true, true, true]);
    for n in 2..6 {
        let other = job(&mut shell, untrusted, &overlay(&n.to_string()));
        save_files(&mut shell, other, "k", "k", (limits::CACHES_OVERLAY_MAX_FILES, 1)).unwrap();
    }
    let files = |of: &dyn Fn(&Namespace) -> bool| {
        shell.rows.caches.values().filter(|row| of(&row.name.namespace)).map(|row| row.files).sum::<u64>()
    };
    assert_eq!(files(&|of| of.overlay.is_some()), limits::CACHES_OVERLAYS_MAX_FILES);
    assert_eq!(files(&|of| of.overlay.is_none()), limits::CACHES_TRUSTED_MAX_FILES);
    let large = save_files(&mut shell, pull, "large", "l", (limits::CACHES_OVERLAY_MAX_FILES + 1, 1));
    assert!(matches!(large, Err(Rejected::Limit { what: "files of one cache", .. })), "{large:?}");
}

#[test]
fn where_all_is_full_the_overlay_that_was_used_longest_ago_goes_for_what_is_trusted() {
    let mut shell = Shell::new();
    let (agent, _) = agents(&mut shell);
    let right = job(&mut shell, agent, &trusted());
    let row = save(&mut shell, right, "first", "f", 1).unwrap();
    // What other projects have, one of it untrusted.
    for n in 1..limits::CACHES_MAX {
        let mut row = row.clone();
        let project = format!("other-{}", n / limits::CACHES_TRUSTED_MAX);
        row.name.namespace =
            if n == 7 || n == 8 { Namespace::overlay(&project, "1") } else { Namespace::trusted(&project) };
        row.name.key = n.to_string();
        row.used_at = WallMs(row.used_at.0 + if n == 7 { 5 } else { 9 });
        shell.rows.caches.insert(row.name.clone(), row);
    }
    shell.restart();
    shell.hello(agent, 1, vec![held(right, Phase::Running)]);
    let overlays = |shell: &Shell| {
        let names = shell.rows.caches.keys().filter(|name| name.namespace.overlay.is_some());
        names.map(|name| name.key.clone()).collect::<Vec<_>>()
    };
    save(&mut shell, right, "second", "s", 1).unwrap();
    assert_eq!(overlays(&shell), ["8"]);
    save(&mut shell, right, "third", "t", 1).unwrap();
    assert_eq!((overlays(&shell), shell.rows.caches.len()), (vec![], limits::CACHES_MAX));
    let full = save(&mut shell, right, "fourth", "f", 1);
    assert!(matches!(full, Err(Rejected::Limit { what: "caches of all pipelines", .. })), "{full:?}");
    assert_eq!(shell.rows.caches.len(), limits::CACHES_MAX);
    // One's own are trimmed first: nobody else's has to go.
    save(&mut shell, right, "large", "l", limits::CACHES_TRUSTED_MAX_BYTES).unwrap();
    assert_eq!(find(&mut shell, right, "first", &[]), None);
}

#[test]
fn an_entry_goes_by_the_manifest_that_it_had() {
    let mut shell = Shell::new();
    let (agent, _) = agents(&mut shell);
    let right = job(&mut shell, agent, &trusted());
    for key in ["bad", "good"] {
        save(&mut shell, right, key, key, 1).unwrap();
    }
    let name = |shell: &Shell, key: &str| shell.rows.caches.keys().find(|name| name.key == key).unwrap().clone();
    let damaged =
        vec![(name(&shell, "bad"), Digest::of(b"bad")), (name(&shell, "good"), Digest::of(b"what was there before"))];
    shell.request(Request::Cache(Box::new(CacheRequest::Drop { damaged }))).unwrap();
    assert_eq!(shell.rows.caches.keys().map(|name| name.key.as_str()).collect::<Vec<_>>(), ["good"]);
}

#[test]
fn what_is_pinned_stays_and_leaves_the_builds_half_of_their_room() {
    let mut shell = Shell::new();
    let (agent, untrusted) = agents(&mut shell);
    let (ours, pull) = (job(&mut shell, agent, &trusted()), job(&mut shell, untrusted, &overlay("1")));
    let pin = |shell: &mut Shell, row: &CacheRow, pinned| {
        shell.request(Request::Cache(Box::new(CacheRequest::Pin { name: row.name.clone(), pinned })))
    };
    let keys = |shell: &Shell| shell.rows.caches.keys().map(|name| name.key.clone()).collect::<Vec<_>>();
    let half = limits::CACHES_TRUSTED_MAX_BYTES / 2;
    let kept = save(&mut shell, ours, "kept", "kept", half).unwrap();
    later(&mut shell, limits::CACHE_TOUCH_MS);
    let other = save(&mut shell, ours, "other", "other", 1).unwrap();
    pin(&mut shell, &kept, true).unwrap();
    assert!(matches!(pin(&mut shell, &other, true), Err(Rejected::Setting { what: "pinned", .. })), "more than half");
    let evil = save(&mut shell, pull, "evil", "evil", 1).unwrap();
    assert!(matches!(pin(&mut shell, &evil, true), Err(Rejected::Setting { what: "pinned", .. })), "untrusted");
    // It was used longest ago, and others go for what is new.
    save(&mut shell, ours, "large", "large", half).unwrap();
    assert_eq!(keys(&shell), ["kept", "large", "evil"]);
    let too_large = save(&mut shell, ours, "x", "x", half + 1);
    assert!(matches!(too_large, Err(Rejected::Limit { what: "bytes of one cache", .. })), "{too_large:?}");
    shell.restart();
    shell.request(Request::Cache(Box::new(CacheRequest::Forget { unused_since: WallMs(u64::MAX) }))).unwrap();
    assert_eq!(keys(&shell), ["kept"], "a restart forgets no pin");
    let audit = |shell: &Shell, action: &str| shell.audits.iter().filter(|done| *done == action).count();
    assert_eq!(audit(&shell, "cache.pin"), 1);
    pin(&mut shell, &kept, false).unwrap();
    let remove = |manifest| Request::Cache(Box::new(CacheRequest::Remove { name: kept.name.clone(), manifest }));
    shell.request(remove(Digest::of(b"another"))).unwrap();
    assert_eq!(keys(&shell), ["kept"], "that one is not meant");
    shell.request(remove(kept.manifest)).unwrap();
    assert!(keys(&shell).is_empty());
    assert!(matches!(pin(&mut shell, &kept, true), Err(Rejected::Setting { .. })), "gone");
}
