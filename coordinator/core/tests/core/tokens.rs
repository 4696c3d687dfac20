//! Tokens, pools, joining, and requests that are made twice.

use windlass_coordinator_core::input::Request;
use windlass_coordinator_core::row::*;
use windlass_coordinator_core::terms::{JoinTerms, cidr};
use windlass_coordinator_core::{Effect, Rejected, Reply};
use windlass_protocol::message::RefuseCode;
use windlass_protocol::{Digest, IdSource, TokenId, WallMs, limits};

use crate::kit::*;

fn token(shell: &mut Shell, number: u64, pool: PoolRow, uses: Option<u32>, expires_at: Option<WallMs>) -> TokenId {
    let id = IdSource::from_seed([5; 32]).token(WallMs(number));
    let grant = TokenGrant::join(pool.name.clone(), uses);
    let (secret_hash, note) = (Digest::of(b"secret"), "for tests".to_owned());
    let new = NewToken { id, secret_hash, grant, pool: Some(pool), note, expires_at };
    shell.request(Request::CreateToken(Box::new(new))).unwrap();
    id
}

fn code(result: Result<Reply, Rejected>) -> RefuseCode {
    match result {
        Err(Rejected::Join(refused)) => refused.code,
        other => panic!("{other:?}"),
    }
}

fn join(shell: &mut Shell, joining: Joining) -> Result<Reply, Rejected> {
    shell.request(Request::Join(Box::new(joining)))
}

#[test]
fn one_use_admits_one_agent_and_its_key_may_ask_again_for_ever() {
    let mut shell = Shell::new();
    let end = WallMs(START + 1_000);
    let id = token(&mut shell, 1, pool("main"), Some(1), Some(end));
    let first = join(&mut shell, joining(id, "one")).unwrap();
    assert_eq!(code(join(&mut shell, joining(id, "two"))), RefuseCode::TokenUsedUp);
    shell.pass(2_000);
    assert_eq!(join(&mut shell, joining(id, "one")).unwrap(), first);
    assert_eq!(code(join(&mut shell, joining(id, "two"))), RefuseCode::TokenExpired);
    let TokenGrant::Join { used, .. } = shell.rows.tokens[&id].grant else { panic!() };
    assert_eq!((used, shell.rows.agents.len()), (1, 1));
}

#[test]
fn a_token_that_could_do_nothing_for_long_is_forgotten_unless_an_agent_that_it_admitted_is_known() {
    let mut shell = Shell::new();
    let forget = |shell: &mut Shell, tokens_before| {
        let request = Request::Retain { idempotency_before: WallMs(0), tokens_before };
        shell.request(request).unwrap();
        shell.rows.tokens.keys().copied().collect::<Vec<_>>()
    };
    let lives = token(&mut shell, 1, pool("main"), None, None);
    let revoked = token(&mut shell, 2, pool("main"), None, None);
    let ended = token(&mut shell, 3, pool("main"), None, Some(WallMs(START + 500)));
    let used_up = token(&mut shell, 4, pool("main"), Some(1), None);
    let admitted = token(&mut shell, 5, pool("main"), None, None);
    shell.request(Request::RevokeToken { token: revoked, and_agents: false }).unwrap();
    let agent = shell.join(used_up, "one");
    shell.join(admitted, "two");
    shell.request(Request::RevokeToken { token: admitted, and_agents: false }).unwrap();
    assert_eq!(forget(&mut shell, WallMs(u64::MAX)), [lives, ended, used_up, admitted], "one has not ended yet");
    shell.pass(1_000);
    assert_eq!(forget(&mut shell, WallMs(START + 500)), [lives, ended, used_up, admitted], "it has ended just now");
    assert_eq!(forget(&mut shell, WallMs(START + 501)), [lives, used_up, admitted]);
    // Once the agent is no more, so is what it needs of its token.
    shell.pass(limits::AGENT_FORGET_MS + 1_000);
    assert!(shell.rows.agents.get(&agent).is_none_or(|row| row.gone.is_some()));
    assert_eq!(forget(&mut shell, WallMs(u64::MAX)), [lives]);
    let asked = shell.request(Request::RevokeToken { token: revoked, and_agents: false });
    assert_eq!(asked, Err(Rejected::NoSuchToken(revoked)));
}

#[test]
fn every_refusal_to_join_has_its_code() {
    let mut shell = Shell::new();
    let fixed = PoolRow { tags: TagPolicy::Fixed(vec![("os".to_owned(), "linux".to_owned())]), ..pool("fixed") };
    let id = token(&mut shell, 1, fixed, None, None);
    let wrong = Joining { secret_hash: Digest::of(b"guess"), ..joining(id, "one") };
    assert_eq!(code(join(&mut shell, wrong)), RefuseCode::TokenUnknown);
    let unknown = IdSource::from_seed([6; 32]).token(WallMs(9));
    assert_eq!(code(join(&mut shell, joining(unknown, "one"))), RefuseCode::TokenUnknown);
    let claims = Joining { tags: vec![("gpu".to_owned(), "yes".to_owned())], ..joining(id, "one") };
    assert_eq!(code(join(&mut shell, claims)), RefuseCode::TagNotAllowed);
    let agent = shell.join(id, "one");
    assert_eq!(shell.rows.agents[&agent].tags, [("os".to_owned(), "linux".to_owned())]);
    shell.request(Request::RevokeToken { token: id, and_agents: false }).unwrap();
    assert_eq!(code(join(&mut shell, joining(id, "two"))), RefuseCode::TokenRevoked);
    assert!(join(&mut shell, joining(id, "one")).is_ok(), "its agents stay");
    shell.request(Request::RevokeToken { token: id, and_agents: true }).unwrap();
    assert_eq!(code(join(&mut shell, joining(id, "one"))), RefuseCode::AgentRevoked);
}

/// A token with terms, for a pool that exists or is made.
fn token_with(shell: &mut Shell, number: u64, terms: JoinTerms) -> TokenId {
    let id = IdSource::from_seed([5; 32]).token(WallMs(number));
    let grant = TokenGrant::Join { pool: "main".to_owned(), max_uses: None, used: 0, terms };
    let (secret_hash, note) = (Digest::of(b"secret"), "for tests".to_owned());
    let new = NewToken { id, secret_hash, grant, pool: Some(pool("main")), note, expires_at: None };
    shell.request(Request::CreateToken(Box::new(new))).unwrap();
    id
}

#[test]
fn a_token_asks_for_its_time_its_networks_and_its_names_and_takes_no_use_for_a_refusal() {
    let mut shell = Shell::new();
    let terms = JoinTerms {
        not_before: Some(WallMs(START + 1_000)),
        allowed_cidrs: vec![cidr("192.0.2.0/24").unwrap(), cidr("2001:db8::7").unwrap()],
        name_pattern: Some("ci-*".parse().unwrap()),
    };
    let id = token_with(&mut shell, 1, terms.clone());
    let from = |name: &str, address: &str| Joining { address: Some(address.parse().unwrap()), ..joining(id, name) };
    assert_eq!(code(join(&mut shell, from("ci-1", "192.0.2.1"))), RefuseCode::TokenNotYetValid);
    shell.pass(1_000);
    assert_eq!(code(join(&mut shell, from("ci-1", "192.0.3.1"))), RefuseCode::Cidr);
    assert_eq!(code(join(&mut shell, joining(id, "ci-1"))), RefuseCode::Cidr);
    assert_eq!(code(join(&mut shell, from("prod-1", "192.0.2.1"))), RefuseCode::NameNotAllowed);
    assert!(join(&mut shell, from("ci-1", "192.0.2.1")).is_ok());
    assert!(join(&mut shell, from("ci-2", "2001:db8::7")).is_ok());
    let TokenGrant::Join { used, terms: held, .. } = &shell.rows.tokens[&id].grant else { panic!() };
    assert_eq!((*used, held), (2, &terms), "refusals take no use, and the row keeps the terms");
    // A lost answer is asked for again from wherever the agent is now.
    assert!(join(&mut shell, from("ci-1", "198.51.100.1")).is_ok());
}

#[test]
fn rows_of_tokens_from_before_there_were_terms_ask_for_nothing() {
    let text = r#"{"kind":"join","pool":"p","max_uses":1,"used":0}"#;
    assert_eq!(serde_json::from_str::<TokenGrant>(text).unwrap(), TokenGrant::join("p", Some(1)));
}

#[test]
fn a_pool_allows_the_tags_on_its_list_and_names_the_one_that_is_not() {
    let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut shell = Shell::new();
    let allowed = TagPolicy::Allowed(vec![tag("os", "linux"), tag("gpu", "*")]);
    let id = token(&mut shell, 1, PoolRow { tags: allowed, ..pool("main") }, None, None);
    let claims = |name: &str, tags: Vec<_>| Joining { tags, ..joining(id, name) };
    for (name, claim, named) in [("a", tag("os", "mac"), "`os=mac`"), ("b", tag("ram", "8"), "`ram=8`")] {
        match join(&mut shell, claims(name, vec![tag("os", "linux"), claim])) {
            Err(Rejected::Join(JoinRefused { code: RefuseCode::TagNotAllowed, detail })) => {
                assert!(detail.contains(named), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }
    let Ok(Reply::Joined { agent, .. }) = join(&mut shell, claims("c", vec![tag("gpu", "a100")])) else { panic!() };
    assert_eq!(shell.rows.agents[&agent].tags, [tag("gpu", "a100")], "what it claims, and no more");
}

#[test]
fn a_name_belongs_to_the_agent_of_the_pool_that_is_online() {
    let mut shell = Shell::new();
    let one = shell.agent("one", 1);
    let id = shell.pool(pool("main"));
    let other = |key: &[u8], name: &str| Joining { key: Digest::of(key), ..joining(id, name) };
    assert_eq!(code(join(&mut shell, other(b"k2", "one"))), RefuseCode::NameTaken);
    let elsewhere = shell.pool(pool("elsewhere"));
    let theirs = Joining { key: Digest::of(b"k3"), ..joining(elsewhere, "one") };
    assert!(join(&mut shell, theirs).is_ok(), "names are a pool's own");
    // Nor is a name taken by an agent that is called otherwise since.
    let two = shell.agent("two", 1);
    match shell.hello_as(two, "one") {
        Err(Rejected::Join(refused)) => assert_eq!(refused.code, RefuseCode::NameTaken),
        other => panic!("{other:?}"),
    }
    shell.disconnect(one);
    let stranger = Joining { machine_id: "another".to_owned(), ..other(b"k2", "one") };
    let Ok(Reply::Joined { agent, .. }) = join(&mut shell, stranger) else { panic!() };
    assert!(agent != one && shell.rows.agents.contains_key(&one), "another machine replaces nobody");
}

#[test]
fn an_agent_that_has_joined_takes_no_name_that_its_token_does_not_allow() {
    let mut shell = Shell::new();
    let terms = JoinTerms { name_pattern: Some("ci-*".parse().unwrap()), ..JoinTerms::default() };
    let id = token_with(&mut shell, 1, terms);
    let Ok(Reply::Joined { agent, .. }) = join(&mut shell, joining(id, "ci-1")) else { panic!() };
    assert!(shell.hello_as(agent, "ci-9").is_ok());
    match shell.hello_as(agent, "prod-1") {
        Err(Rejected::Join(refused)) => assert_eq!(refused.code, RefuseCode::NameNotAllowed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_paused_pool_and_a_full_fleet_admit_nobody() {
    let mut shell = Shell::new();
    let paused = token(&mut shell, 1, PoolRow { paused: true, ..pool("paused") }, None, None);
    assert_eq!(code(join(&mut shell, joining(paused, "one"))), RefuseCode::PoolPaused);
    let id = shell.pool(pool("main"));
    let first = shell.join(id, "one");
    let row = shell.rows.agents[&first].clone();
    let mut ids = IdSource::from_seed([8; 32]);
    while shell.rows.agents.len() < limits::AGENTS_MAX {
        let other = AgentRow {
            id: ids.agent(WallMs(START)),
            key: Digest::of(&shell.rows.agents.len().to_le_bytes()),
            ..row.clone()
        };
        shell.rows.agents.insert(other.id, other);
    }
    shell.restart();
    assert_eq!(code(join(&mut shell, joining(id, "one too many"))), RefuseCode::PoolFull);
}

#[test]
fn a_token_that_contradicts_its_pool_is_refused_and_says_where() {
    let mut shell = Shell::new();
    token(&mut shell, 1, pool("main"), None, None);
    let other = PoolRow { zone: "elsewhere".to_owned(), ..pool("main") };
    let grant = TokenGrant::join("main".to_owned(), None);
    let id = IdSource::from_seed([5; 32]).token(WallMs(77));
    let (secret_hash, note) = (Digest::of(b"secret"), String::new());
    let new = NewToken { id, secret_hash, grant, pool: Some(other), note, expires_at: None };
    let refused = shell.request(Request::CreateToken(Box::new(new)));
    assert_eq!(refused, Err(Rejected::PoolConflict { pool: "main".to_owned(), field: "zone" }));
    assert_eq!(shell.rows.tokens.len(), 1);
}

#[test]
fn a_machine_that_lost_its_state_replaces_its_old_agent_whose_job_is_lost() {
    let mut shell = Shell::new();
    let old = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let offer = shell.offer(old);
    shell.start(old, offer);
    shell.disconnect(old);
    let id = shell.pool(pool("main"));
    let new = Joining { key: Digest::of(b"another key"), ..joining(id, "one") };
    assert!(matches!(join(&mut shell, new), Ok(Reply::Joined { agent, .. }) if agent != old));
    assert!(!shell.rows.agents.contains_key(&old));
    assert_eq!(shell.states(build), [JobState::Failed]);
}

#[test]
fn a_revoked_agent_is_cut_off_and_its_jobs_are_lost() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    let offer = shell.offer(agent);
    shell.start(agent, offer);
    shell.request(Request::RevokeAgent { agent }).unwrap();
    assert!(!shell.is_connected(agent));
    assert_eq!(shell.states(build), [JobState::Failed]);
}

#[test]
fn the_same_key_with_the_same_body_is_the_same_build_and_with_another_is_refused() {
    let mut shell = Shell::new();
    let by = IdSource::from_seed([5; 32]).token(WallMs(1));
    let ask = |body: &[u8]| {
        let key = ((by, "k".to_owned()), Digest::of(body));
        Request::Submit(Box::new(submission(graph(vec![step("a")]), |submit| submit.idempotency = Some(key))))
    };
    let Ok(Reply::Submitted { build, existing: false }) = shell.request(ask(b"one")) else { panic!() };
    assert_eq!(shell.request(ask(b"one")), Ok(Reply::Submitted { build, existing: true }));
    assert_eq!(shell.request(ask(b"two")), Err(Rejected::IdempotencyMismatch));
    assert_eq!(shell.rows.builds.len(), 1);
}

#[test]
fn graphs_that_cannot_be_and_submits_past_a_limit_are_refused() {
    let mut shell = Shell::new();
    let refused = |shell: &mut Shell, submit| shell.request(Request::Submit(Box::new(submit))).unwrap_err();
    let circle = submission(graph(vec![after(step("a"), &[1]), after(step("b"), &[0])]), |_| {});
    assert!(matches!(refused(&mut shell, circle), Rejected::Graph(_)));
    let nowhere = submission(graph(vec![after(step("a"), &[9])]), |_| {});
    assert!(matches!(refused(&mut shell, nowhere), Rejected::Graph(_)));
    // What its keys become counts among a step's variables.
    let paths = step_with("a", |command| {
        command.artifact_paths = vec!["x".repeat(limits::ENV_MAX_BYTES)];
    });
    let many = refused(&mut shell, submission(graph(vec![paths]), |_| {}));
    assert!(matches!(many, Rejected::Limit { .. }), "{many:?}");
    let long = submission(graph(vec![]), |submit| submit.message = "x".repeat(limits::MESSAGE_MAX_BYTES + 1));
    assert!(matches!(refused(&mut shell, long), Rejected::Limit { .. }));
    assert!(shell.rows.builds.is_empty());
}

#[test]
fn what_people_do_is_in_the_audit_trail() {
    let mut shell = Shell::new();
    let agent = shell.agent("one", 1);
    let build = shell.submit(graph(vec![step("a")]));
    shell.cancel(build);
    shell
        .request(Request::DrainAgents { agents: vec![agent], deadline_ms: None, on_deadline: OnDeadline::Wait })
        .unwrap();
    shell.request(Request::ResumeAgent { agent }).unwrap();
    shell.request(Request::RevokeAgent { agent }).unwrap();
    let expected =
        ["token.create", "agent.join", "build.submit", "build.cancel", "agent.drain", "agent.resume", "agent.revoke"];
    assert_eq!(shell.audits, expected);
}

#[test]
fn a_submit_for_a_number_that_another_build_got_is_refused_with_the_next_one() {
    let mut shell = Shell::new();
    let ask = |shell: &mut Shell, number| {
        let submit = submission(graph(vec![step("a")]), |submit| submit.number = number);
        shell.request(Request::Submit(Box::new(submit)))
    };
    assert_eq!(shell.core.next_number("app"), 1);
    ask(&mut shell, None).unwrap();
    assert_eq!(ask(&mut shell, Some(1)), Err(Rejected::NumberTaken { next: 2 }));
    assert_eq!(ask(&mut shell, Some(3)), Err(Rejected::NumberTaken { next: 2 }), "nor one that would leave a gap");
    let Ok(Reply::Submitted { build, .. }) = ask(&mut shell, Some(2)) else { panic!() };
    assert_eq!((shell.build(build).number, shell.rows.pipeline_numbers["app"]), (2, 2));
    assert_eq!(shell.core.next_number("other"), 1);
}

#[test]
fn a_build_has_the_id_that_its_submit_names_and_a_known_key_gives_the_first_ones() {
    let mut shell = Shell::new();
    let key = ((IdSource::from_seed([5; 32]).token(WallMs(1)), "k".to_owned()), Digest::of(b"body"));
    let first = submission(graph(vec![step("a")]), |submit| submit.idempotency = Some(key.clone()));
    let again = submission(graph(vec![step("a")]), |submit| (submit.idempotency, submit.number) = (Some(key), Some(1)));
    let taken = submission(graph(vec![step("a")]), |submit| submit.id = first.id);
    let id = first.id;
    assert_eq!(shell.submit_with(graph(vec![step("a")]), |submit| *submit = first), id);
    let known = shell.request(Request::Submit(Box::new(again)));
    assert_eq!(known, Ok(Reply::Submitted { build: id, existing: true }), "whatever number it was compiled for");
    assert_eq!(shell.request(Request::Submit(Box::new(taken))), Err(Rejected::IdTaken(id)));
}

#[test]
fn a_later_use_of_a_token_is_written_an_earlier_one_and_one_of_no_token_are_not() {
    let mut shell = Shell::new();
    let token = shell.pool(pool("main"));
    let nobody = IdSource::from_seed([5; 32]).token(WallMs(1));
    let mut note = |uses: &[(TokenId, u64)]| {
        shell.take_effects();
        let uses = uses.iter().map(|(token, at)| (*token, WallMs(*at))).collect();
        shell.request(Request::NoteUses(uses)).unwrap();
        let changes = shell.take_effects().into_iter().filter(|effect| matches!(effect, Effect::Change(_))).count();
        (changes, shell.rows.tokens[&token].last_used_at)
    };
    assert_eq!(note(&[(token, 7), (nobody, 8)]), (1, Some(WallMs(7))));
    assert_eq!(note(&[(token, 6), (token, 7)]), (0, Some(WallMs(7))));
    assert_eq!(note(&[(token, 9)]), (1, Some(WallMs(9))));
    let at = shell.now.wall;
    shell.join(token, "one");
    assert_eq!(shell.rows.tokens[&token].last_used_at, Some(at), "joining is a use");
}
