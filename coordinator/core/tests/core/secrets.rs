//! Secrets: the narrowest one, for trusted builds on trusted pools alone, by a live right, and noted.

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::{Sealed, SecretName, SecretRefused, SecretRequest};
use windlass_coordinator_core::{Rejected, Reply};
use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, Namespace, Trust, limits};

use crate::kit::*;

fn name(key: &str, pipeline: &str, branch: &str, zone: &str) -> SecretName {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    SecretName { key: key.to_owned(), pipeline: some(pipeline), branch: some(branch), zone: some(zone) }
}

fn sealed(text: &str) -> Sealed {
    Sealed { key_id: "k".to_owned(), nonce: "00".to_owned(), bytes: text.to_owned() }
}

fn ask(shell: &mut Shell, request: SecretRequest) -> Result<Reply, Rejected> {
    shell.request(Request::Secret(Box::new(request)))
}

fn set(shell: &mut Shell, name: SecretName, text: &str) -> Result<Reply, Rejected> {
    ask(shell, SecretRequest::Set { name, sealed: sealed(text) })
}

/// The sealed bytes of what a job is given.
fn read(shell: &mut Shell, (attempt, epoch): (AttemptId, Epoch), keys: &[&str]) -> Result<Vec<String>, Rejected> {
    let keys = keys.iter().map(|key| (*key).to_owned()).collect();
    match ask(shell, SecretRequest::Read { attempt, epoch, keys })? {
        Reply::Secrets(rows) => Ok(rows.into_iter().map(|row| row.sealed.bytes).collect()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_job_gets_the_narrowest_secret_that_is_for_it() {
    let mut shell = Shell::new();
    for (at, whom) in
        [("", "", ""), ("app", "", ""), ("app", "rel*", ""), ("other", "", ""), ("", "", "mars")].iter().enumerate()
    {
        set(&mut shell, name("KEY", whom.0, whom.1, whom.2), &at.to_string()).unwrap();
    }
    set(&mut shell, name("B", "", "", ""), "b").unwrap();
    let agent = shell.agent("one", 2);
    shell.submit_with(graph(vec![step("a")]), |submit| submit.branch = "main".to_owned());
    let main = shell.offer(agent);
    shell.submit_with(graph(vec![step("a")]), |submit| submit.branch = "rel/1".to_owned());
    let release = shell.offer(agent);
    assert_eq!(read(&mut shell, main, &["key", "b"]), Ok(vec!["1".to_owned(), "b".to_owned()]));
    assert_eq!(read(&mut shell, release, &["Key"]), Ok(vec!["2".to_owned()]));
    let missing = read(&mut shell, main, &["KEY", "none"]).unwrap_err();
    assert_eq!(missing, SecretRefused::NotForJob { key: "none".to_owned() }.into(), "all of them, or none");
}

#[test]
fn a_tag_that_is_called_as_a_branch_gets_no_secret_of_the_branch() {
    let mut shell = Shell::new();
    set(&mut shell, name("KEY", "", "main", ""), "branch").unwrap();
    set(&mut shell, name("SIGN", "", "refs/tags/*", ""), "tag").unwrap();
    let agent = shell.agent("one", 2);
    let tagged = |submit: &mut windlass_coordinator_core::row::Submit| {
        (submit.branch, submit.tag) = ("main".to_owned(), Some("main".to_owned()));
    };
    shell.submit_with(graph(vec![step("a")]), tagged);
    let tag = shell.offer(agent);
    shell.submit_with(graph(vec![step("a")]), |submit| submit.branch = "main".to_owned());
    let branch = shell.offer(agent);
    assert_eq!(read(&mut shell, tag, &["SIGN"]), Ok(vec!["tag".to_owned()]));
    assert!(read(&mut shell, tag, &["KEY"]).is_err(), "it is no branch");
    assert_eq!(read(&mut shell, branch, &["KEY"]), Ok(vec!["branch".to_owned()]));
}

#[test]
fn builds_that_are_not_trusted_get_none_and_neither_does_a_right_that_ended() {
    let mut shell = Shell::new();
    set(&mut shell, name("KEY", "", "", ""), "v").unwrap();
    let trusted = shell.agent("one", 1);
    let token = shell.pool(windlass_coordinator_core::row::PoolRow { trust: Trust::Untrusted, ..pool("wild") });
    let wild = shell.join(token, "wild");
    shell.hello(wild, 1, Vec::new());
    shell.submit_with(graph(vec![step("a")]), |submit| submit.namespace = Namespace::overlay("app", "pr:7"));
    let offer = shell.offer(wild);
    assert_eq!(read(&mut shell, offer, &["KEY"]), Err(SecretRefused::Untrusted.into()));
    let build = shell.submit(graph(vec![step("a")]));
    let (attempt, epoch) = shell.offer(trusted);
    assert!(matches!(read(&mut shell, (attempt, Epoch(epoch.0 + 1)), &["KEY"]), Err(Rejected::StaleEpoch { .. })));
    assert!(read(&mut shell, (attempt, epoch), &["KEY"]).is_ok());
    shell.cancel(build);
    assert!(read(&mut shell, (attempt, epoch), &["KEY"]).is_err(), "nor one that is cancelled");
}

#[test]
fn secrets_are_set_again_removed_and_sealed_anew() {
    let mut shell = Shell::new();
    let key = name("KEY", "app", "", "");
    set(&mut shell, key.clone(), "1").unwrap();
    set(&mut shell, key.clone(), "2").unwrap();
    assert_eq!(shell.rows.secrets[&key].sealed, sealed("2"));
    let values = vec![
        (key.clone(), sealed("2"), sealed("3")),
        (key.clone(), sealed("2"), sealed("4")),
        (name("GONE", "", "", ""), sealed("2"), sealed("5")),
    ];
    ask(&mut shell, SecretRequest::Reseal { values }).unwrap();
    assert_eq!(shell.rows.secrets[&key].sealed, sealed("3"), "only what is still so");
    assert_eq!(shell.rows.secrets.len(), 1);
    let other = name("KEY", "", "", "");
    let refused = ask(&mut shell, SecretRequest::Remove { name: other.clone() });
    assert_eq!(refused, Err(SecretRefused::NoSuchSecret(other).into()));
    assert_eq!(ask(&mut shell, SecretRequest::Remove { name: key }), Ok(Reply::Done));
    assert!(shell.rows.secrets.is_empty());
}

#[test]
fn a_name_that_means_nothing_is_refused() {
    let mut shell = Shell::new();
    let long = "A".repeat(limits::NAME_MAX_BYTES + 1);
    for key in ["", "a", "1A", "A B", "A=", "-A", "Ä", &long] {
        let refused = set(&mut shell, name(key, "", "", ""), "v").unwrap_err();
        assert!(matches!(refused, Rejected::Secret(SecretRefused::Invalid { field: "key", .. })), "{key:?}");
    }
    let refused = set(&mut shell, name("A", "", "!main", ""), "v").unwrap_err();
    assert!(matches!(refused, Rejected::Secret(SecretRefused::Invalid { field: "branch", .. })));
    let empty = SecretName { zone: Some(String::new()), ..name("A", "", "", "") };
    assert!(set(&mut shell, empty, "v").is_err());
    assert!(set(&mut shell, name("_A-1.b".to_uppercase().as_str(), "p q", "*", "z"), "v").is_ok());
    assert_eq!(shell.rows.secrets.len(), 1);
}
