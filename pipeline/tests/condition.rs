//! Conditions, rule by rule of the reference (15.2 to 15.8).

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the tests' own helpers fail by panicking")]
#![allow(clippy::too_many_lines, reason = "tables of cases are as long as the reference")]

use proptest::prelude::*;
use windlass_pipeline::condition::{
    Condition, Context, ContextError, EntryPoint, Error, ErrorKind, Value, decide, validate,
};
use windlass_protocol::limits::{CONDITION_DEPTH_MAX, CONDITION_MAX_BYTES};

fn context() -> Context {
    let mut context = Context::from_json(&serde_json::json!({
        "build": {
            "branch": "main", "number": 7, "state": "passed", "fixed": true, "message": " ",
            "creator": {"teams": ["deploy", "ops"], "verified": null},
            "pull_request": {"id": "12", "repository": "git@x", "repository.fork": false},
        },
        "pipeline": {"slug": "p"},
        "env": {"A": "alpha", "EMPTY": "", "TWO": "2", "UNI": "héllo", "N": "A", "BAD": "x", "HIDDEN": "y"},
    }))
    .unwrap();
    context.set_pipeline_env([("A".to_owned(), "lower".to_owned()), ("P".to_owned(), "pipeline".to_owned())]);
    context
}

fn outcome(expression: &str) -> Result<bool, Error> {
    decide(expression, EntryPoint::BuildCondition, &context())
}

fn all(expected: bool, expressions: &[&str]) {
    for expression in expressions {
        assert_eq!(outcome(expression), Ok(expected), "{expression}");
    }
}

fn refused(kind: ErrorKind, expressions: &[&str]) {
    for expression in expressions {
        assert_eq!(outcome(expression).map_err(|error| error.kind), Err(kind), "{expression}");
    }
}

#[test]
fn white_space_and_comments_stand_between_tokens() {
    all(true, &["\t\r\n true // all\n && // of\ntrue", "//\n//\ntrue", "true//"]);
    refused(ErrorKind::Parse, &["// nothing", "true \u{a0}", "tr ue", "true \0"]);
}

#[test]
fn identifiers_keep_their_dots_and_keywords_are_whole_words() {
    refused(ErrorKind::Parse, &["build. == 1", "build..branch == 1", ".a", "includes", "true includes", "é == 1"]);
    refused(ErrorKind::Validation, &["true.x", "nullable", "Build.branch == \"x\"", "build == null"]);
}

#[test]
fn integers_are_decimal_or_octal_and_have_no_sign() {
    all(true, &["0 == 0", "010 == 8", "00 == 0", "9223372036854775807 == 9223372036854775807", "build.number == 7"]);
    refused(ErrorKind::Parse, &["1 == -1", "08 == 8", "0x10 == 16", "9223372036854775808 == 1", "1_0 == 10"]);
}

#[test]
fn strings_have_the_escapes_of_their_quotes() {
    all(
        true,
        &[
            r#""\x41\101\s\q" == "AA q""#,
            r#""\e\a\b\f\v\r\t\n" == "\x1b\x07\x08\x0c\x0b\x0d\x09\x0a""#,
            r#""\x4" == "x4""#,
            r#""\"" == '"'"#,
            r"'it\'s \\ \n' == 'it\'s \\ \n'",
            r#"'\n' == "\\n""#,
            r#""$" == '$'"#,
            r#""a$ b" == 'a$ b'"#,
            r#""it's" == 'it\'s'"#,
            "\"a\nb\" == \"a\\nb\"",
        ],
    );
    refused(ErrorKind::Parse, &["\"a", "'a", r#""\""#, r#""\400" == """#, r"'\'", "\"a\0\" == \"\""]);
}

#[test]
fn single_signs_and_leftovers_are_no_expressions() {
    refused(
        ErrorKind::Parse,
        &[
            "1 = 1",
            "true & true",
            "true | true",
            "@",
            "true true",
            "(true",
            "true)",
            "[\"a\"",
            "true ?",
            "true ? true",
            "true : true",
            "!",
            "&& true",
            "true &&",
            "== 1",
            "$",
            "$1",
            "${A",
            "${A\" == \"",
            "env(",
            "env(,)",
            "[,]",
            "[\"a\",]",
            "env(\"A\",)",
            "~",
        ],
    );
    let error = outcome("build.branch = \"x\"").unwrap_err();
    assert_eq!((error.span, error.hint.as_deref()), (13..14, Some("equality is `==`, a match `=~`")));
}

#[test]
fn precedence_is_the_references() {
    all(
        true,
        &[
            "true || false && false",
            "!false == true",
            "true == true == true",
            "false == false == true",
            "true ? true : false ? false : false",
            "false ? false : true ? true : false",
            "false || true ? true : false",
            "(true || false) && true",
            "!(false)",
            "!!true",
            "true ? false || true : false",
        ],
    );
    all(false, &["(true || false) && false", "!true == true", "true ? false : true"]);
}

#[test]
fn types_are_checked_over_the_whole_tree() {
    refused(
        ErrorKind::Validation,
        &[
            "true || nope",
            "false && nope == 1",
            "true ? true : nope",
            "nope()",
            "!1",
            "!null",
            "!\"a\"",
            "1 && true",
            "true && null",
            "null ? true : true",
            "1 ? true : false",
            "\"a\" =~ \"a\"",
            "1 =~ /a/",
            "/a/ =~ /a/",
            "build.state =~ /a/",
            "build.state !~ /a/",
            "\"a\" includes \"a\"",
            "[\"a\"] includes 1",
            "[\"a\"] includes build.state",
            "[1] includes \"a\"",
            "[null] includes \"a\"",
            "[[\"a\"]] == []",
            "[build.state] includes \"a\"",
            "1 == \"1\"",
            "true == \"true\"",
            "[\"a\"] == \"a\"",
            "1 == [\"a\"]",
            "\"passed\" == build.state",
            "build.state == build.state",
            "build.state == build.source",
            "build.state == \"pased\"",
            "build.state == 'passed$'",
            "build.state == 1",
            "build.state == /a/",
            "true ? 1 : \"a\" == 1",
            "(true ? build.state : \"nope\") == null",
            "step.key == \"a\"",
            "env() == \"a\"",
            "env(\"A\", \"A\") == \"a\"",
            "env(1) == \"a\"",
            "env(null) == \"a\"",
            "env([\"A\"]) == \"a\"",
            "env(\"$A$\") == \"\" && env(\"\") == \"\"",
            "env(\"$$A\") == \"\"",
            "env(\"A-B\") == \"\"",
            "env('$A') == \"\"",
            "env(\"BUILDKITE_NOPE\") == \"\"",
            "env(\"BUILDKITE_PULL_REQUEST_LABELS\") == \"\"",
            "build.env(\"BUILDKITE_AGENT_ACCESS_TOKEN\") == null",
            "pipeline.name == \"x\"",
        ],
    );
    refused(ErrorKind::Result, &["null", "1", "\"a\"", "/a/", "[\"a\"]", "build.branch", "true ? null : null", "$A"]);
    all(
        true,
        &[
            "null == null",
            "[\"a\"] == [\"a\"]",
            "[] != [\"a\"]",
            "/a/i == /a/i",
            "/a/ != /a/i",
            "/a/ != /b/",
            "build.state == null == false",
            "null != build.state",
            "(true ? null : build.state) == null",
            "build.state == \"${N}\" == false",
            "env(build.state) == \"\"",
            "(true ? \"a\" : null) == \"a\"",
        ],
    );
}

#[test]
fn misspelt_names_are_helped_with() {
    for (expression, hint) in [
        ("build.brunch == \"x\"", "did you mean `build.branch`?"),
        ("env(\"BUILDKITE_MESSGE\") == \"x\"", "did you mean `BUILDKITE_MESSAGE`?"),
        ("env(\"$$A\") == \"x\"", "did you mean `A`?"),
        ("build.state == \"pased\"", "did you mean `passed`?"),
        ("envs(\"A\") == \"x\"", "did you mean `env`?"),
    ] {
        assert_eq!(outcome(expression).unwrap_err().hint.as_deref(), Some(hint), "{expression}");
    }
    assert_eq!(outcome("true && nope == 1").unwrap_err().span, 8..12);
}

#[test]
fn null_is_false_and_equal_to_itself_alone() {
    all(
        true,
        &[
            "!build.creator.verified",
            "build.creator.verified == null",
            "null !~ /a/",
            "build.message == null",
            "build.env(\"NOPE\") == null",
            "$NOPE == null",
            "${NOPE} == null",
            "true == !build.creator.verified",
        ],
    );
    all(
        false,
        &[
            "build.creator.verified",
            "build.creator.verified && true",
            "null =~ /a/",
            "null includes \"a\"",
            "build.creator.teams includes null",
            "true ? null : true",
            "build.creator.verified ? true : false",
            "build.branch == null",
            "build.author.teams includes \"a\"",
        ],
    );
    refused(
        ErrorKind::Evaluation,
        &[
            "[build.tag] includes \"a\"",
            "[$NOPE] == []",
            "env(build.env(\"NOPE\")) == \"\"",
            "env(env(\"NOPE\")) == \"\"",
            "env(\"BUILDKITE_${N}\") == \"\"",
        ],
    );
}

#[test]
fn what_is_cut_short_is_not_evaluated() {
    all(true, &["true || ${NOPE?} == \"\"", "true ? true : ${NOPE?} == \"\"", "!(false && ${NOPE?} == \"\")"]);
    refused(ErrorKind::Evaluation, &["true && ${NOPE?} == \"\"", "false || ${NOPE?} == \"\""]);
}

#[test]
fn includes_looks_for_equal_elements_or_matches() {
    all(
        true,
        &["build.creator.teams includes \"ops\"", "build.creator.teams includes /^op/", "[$A, 'b'] includes 'alpha'"],
    );
    all(false, &["build.creator.teams includes \"op\"", "[] includes \"\"", "[] includes /a?/"]);
}

#[test]
fn shell_templates_expand_as_the_reference_says() {
    all(
        true,
        &[
            "$A == \"alpha\"",
            "$A.b == \"alpha.b\"",
            "$NOPE.b == \".b\"",
            "\"<$A.b>\" == '<alpha.b>'",
            "\"${A}${NOPE}\" == 'alpha'",
            "\"$$A \\$A\" == '$A $A'",
            "'$A' == \"\\$A\"",
            "${NOPE:-x} == 'x'",
            "${EMPTY:-x} == 'x'",
            "${EMPTY-x} == ''",
            "${NOPE-x} == 'x'",
            "${A-x} == 'alpha'",
            "${A:+x} == 'x'",
            "${EMPTY:+x} == ''",
            "${EMPTY+x} == 'x'",
            "${NOPE+x} == ''",
            "${NOPE:+x} == ''",
            "${A?} == 'alpha'",
            "${EMPTY?} == ''",
            "${A:?no} == 'alpha'",
            "${UNI:1} == 'éllo'",
            "${UNI:1:1} == 'é'",
            "${UNI: -2} == 'lo'",
            "${UNI:0:-3} == 'hé'",
            "${UNI:9} == ''",
            "${UNI:-9} == 'héllo'",
            "${UNI: -9:2} == 'hé'",
            "${UNI:3:-4} == ''",
            "${NOPE:1} == null",
            "${EMPTY:0} == ''",
            "${UNI:$TWO:${TWO}} == 'll'",
            "${UNI:${NOPE:-1}:1} == 'é'",
            "${UNI:9:x} == ''",
            "${NOPE-${A:-y}} == 'alpha'",
            "${NOPE-a\\x41\\n} == \"aA\\n\"",
            "${NOPE-'a}$A'} == 'a}$A'",
            "${NOPE-\"}$A\"} == '}alpha'",
            "${NOPE-{x}} == '{x}'",
            "\"${A\" == '${A'",
            "\"a ' ${A} '\" == \"a  ${A} \" == false",
            "\"say 'hi' $A\" == 'say hi alpha'",
        ],
    );
    refused(
        ErrorKind::Evaluation,
        &[
            "${NOPE?} == ''",
            "${EMPTY:?} == ''",
            "${A:x} == ''",
            "${A:} == ''",
            "${A:1:x} == ''",
            "${A:1:2:3} == ''",
            "${1} == ''",
            "${} == ''",
            "${A.b} == ''",
            "${A%x} == ''",
            "\"${1}\" == ''",
            "${NOPE-\\400} == ''",
            "\"it's $A\" == ''",
            "${A:99999999999999999999} == ''",
        ],
    );
}

#[test]
fn the_environment_is_layered_and_hides_what_conditions_may_not_know() {
    let mut context = context();
    context.set_build_env([
        ("BUILDKITE_AGENT_ACCESS_TOKEN".to_owned(), "secret".to_owned()),
        ("BUILDKITE_BRANCH".to_owned(), "forged".to_owned()),
        ("BUILDKITE_GITHUB_EVENT".to_owned(), "push".to_owned()),
    ]);
    let holds = |expression: &str| decide(expression, EntryPoint::BuildCondition, &context);
    for expression in [
        "env(\"A\") == \"alpha\"",
        "env(\"P\") == \"pipeline\"",
        "env(\"BUILDKITE_BRANCH\") == \"main\"",
        "$BUILDKITE_AGENT_ACCESS_TOKEN == null",
        "env(\"BUILDKITE_TAG\") == \"\"",
        "build.env(\"BUILDKITE_COMMIT\") == null",
        "env(\"BUILDKITE_PULL_REQUEST\") == \"12\"",
        "env(\"BUILDKITE_GITHUB_EVENT\") == \"push\"",
        "build.source_event == null",
        "env(\"EMPTY\") == build.env(\"EMPTY\")",
    ] {
        assert_eq!(holds(expression), Ok(true), "{expression}");
    }
}

#[test]
fn entry_points_decide_what_an_error_means_and_whether_a_step_is_known() {
    let context = {
        let mut context = context();
        context.set("step.key", Value::Text("k".to_owned())).unwrap();
        context
    };
    let decided = |expression: &str, entry| decide(expression, entry, &context).map_err(|error| error.kind);
    for (expression, entry, expected) in [
        ("", EntryPoint::BuildCondition, Err(ErrorKind::Parse)),
        (" \n", EntryPoint::StepNotification, Ok(true)),
        ("nope", EntryPoint::BuildNotification, Ok(false)),
        ("step.key == \"k\"", EntryPoint::BuildNotification, Ok(false)),
        ("step.key == \"k\"", EntryPoint::StepNotification, Ok(true)),
        ("step.key == \"k\"", EntryPoint::BuildConditionWithStep, Ok(true)),
        ("step.key == \"k\"", EntryPoint::BuildCondition, Err(ErrorKind::Validation)),
    ] {
        assert_eq!(decided(expression, entry), expected, "{expression:?} {entry:?}");
    }
    assert!(validate(" ", EntryPoint::BuildCondition).is_ok());
    assert_eq!(EntryPoint::named("unknown"), None);
}

#[test]
fn every_variable_of_the_reference_is_known_and_of_its_kind() {
    let text = [
        "build.id",
        "build.branch",
        "build.commit",
        "build.tag",
        "build.message",
        "build.source_event",
        "build.source_action",
        "build.creator.id",
        "build.creator.name",
        "build.creator.email",
        "build.author.id",
        "build.author.name",
        "build.author.email",
        "build.scm.author.name",
        "build.scm.author.email",
        "build.scm.committer.name",
        "build.scm.committer.email",
        "build.pull_request.id",
        "build.pull_request.base_branch",
        "build.pull_request.repository",
        "build.pull_request.label",
        "build.merge_queue.base_branch",
        "build.merge_queue.base_commit",
        "pipeline.id",
        "pipeline.slug",
        "pipeline.default_branch",
        "pipeline.repository",
        "organization.id",
        "organization.slug",
        "step.id",
        "step.key",
        "step.label",
    ];
    let booleans = [
        "build.fixed",
        "build.creator.verified",
        "build.pull_request.draft",
        "build.pull_request.repository.fork",
        "pipeline.started_passing",
        "pipeline.started_failing",
        "pipeline.next_finished_build_exists",
    ];
    let lists = ["build.creator.teams", "build.author.teams", "build.pull_request.labels"];
    let sets = ["build.state", "build.blocked_state", "build.source", "step.type", "step.state", "step.outcome"];
    let valid = |expression: String| validate(&expression, EntryPoint::StepNotification).is_ok();
    assert!(text.iter().all(|name| valid(format!("{name} =~ /a/"))));
    assert!(booleans.iter().all(|name| valid(format!("!{name}"))));
    assert!(lists.iter().all(|name| valid(format!("{name} includes \"a\""))));
    assert!(valid("build.number == 1".to_owned()));
    assert!(sets.iter().all(|name| valid(format!("{name} == null")) && !valid(format!("{name} == \"nope\""))));
    for (name, values) in [
        (
            "build.state",
            "creating started running scheduled blocked passed failing failed canceling canceled skipped not_run",
        ),
        ("build.blocked_state", "failed passed running"),
        ("build.source", "api ui webhook trigger_job schedule pipeline_trigger"),
        ("step.type", "command wait input trigger group"),
        ("step.state", "ignored waiting_for_dependencies ready waiting_for_input running failing canceled finished"),
        ("step.outcome", "neutral passed soft_failed hard_failed errored"),
    ] {
        assert!(values.split(' ').all(|value| valid(format!("{name} == \"{value}\""))), "{name}");
    }
    assert_eq!(text.len() + booleans.len() + lists.len() + sets.len() + 1, 49);
}

#[test]
fn what_is_no_variable_or_of_another_kind_is_no_context() {
    let refused = |json: serde_json::Value| Context::from_json(&json).unwrap_err();
    assert_eq!(refused(serde_json::json!({"build": {"nope": 1}})), ContextError::Unknown("build.nope".to_owned()));
    assert_eq!(refused(serde_json::json!({"nope": {"a": 1}})), ContextError::Unknown("nope".to_owned()));
    for (json, message) in [
        (serde_json::json!({"build": {"number": "7"}}), "`build.number` takes an integer"),
        (serde_json::json!({"build": {"fixed": 1}}), "`build.fixed` takes true or false"),
        (serde_json::json!({"build": {"branch": ["a"]}}), "`build.branch` takes a string"),
        (serde_json::json!({"build": {"creator": {"teams": [1]}}}), "`build.creator.teams` takes a list of strings"),
        (serde_json::json!({"env": {"A": []}}), "`env.A` takes a string"),
        (serde_json::json!([]), "`the context` takes an object"),
    ] {
        assert_eq!(refused(json).to_string(), message);
    }
}

#[test]
fn regular_expressions_are_of_the_references_dialect() {
    for (pattern, text, expected) in [
        ("b", "abc", true),
        ("B", "abc", false),
        ("(?i)B", "abc", true),
        ("^b", "a\\nb", false),
        ("a$", "a\\n", false),
        ("a\\Z", "a\\n", true),
        ("a\\z", "a\\n", false),
        ("a.b", "a\\nb", false),
        ("(?s)a.b", "a\\nb", true),
        ("(?m)^b$", "a\\nb\\nc", true),
        ("[[:digit:]]+", "x1", true),
        ("[^[:alpha:]]", "abc", false),
        ("\\d\\w\\s", "1a ", true),
        ("\\bfoo\\b", "a foo b", true),
        ("\\w", "é", true),
        ("É", "é", false),
        ("(a)(b)\\2\\1", "abba", true),
        ("a(?=b)b", "ab", true),
        ("a(?!b)", "ab", false),
        ("a+?b", "aab", true),
        ("a{2}", "aa", true),
        ("a{2,}", "a", false),
        ("a{1,2}$", "aa", true),
        ("a{,2}", "a{,2}", true),
        ("a{x}", "a{x}", true),
        ("}+", "}}", true),
        ("]", "]", true),
        ("[]a]", "]", true),
        ("[^]]", "]", false),
        ("[a-c-]", "-", true),
        ("[a\\-c]", "b", false),
        ("[\\d-z]", "-", true),
        ("[a-z-[aeiou]]", "e", false),
        ("[a-z-[aeiou]]", "b", true),
        ("x(?# a ( comment )y", "xy", true),
        ("\\x41", "A", true),
        ("\\x{41}", "A", true),
        ("\\u0041", "A", true),
        ("\\101", "A", true),
        ("\\cA", "\\x01", true),
        ("\\t", "\\t", true),
        ("\\.", "a", false),
        ("\\/", "/", true),
        ("\\&", "&", true),
        ("a&&b", "a&&b", true),
        ("[a&&b]", "&", true),
        ("(?x) a b # c", "ab", true),
        ("(?i:A)b", "ab", true),
        ("(?i:A)b", "aB", false),
        ("\\p{L}", "é", true),
        ("\\P{Lu}", "A", false),
        ("a|", "", true),
        ("()", "", true),
        ("(?:a|b)+c", "abac", true),
        ("^*a", "a", true),
        ("(?-i)A", "a", false),
        ("(a)\\k<1>", "aa", true),
        ("[\\b]", "\\b", true),
    ] {
        let expression = format!("\"{text}\" =~ /{pattern}/");
        assert_eq!(outcome(&expression), Ok(expected), "{expression}");
    }
    all(true, &["\"ABC\" =~ /b/i", "\"É\" =~ /é/i", "\"aA\" =~ /(a)\\1/i", "\"\\xff\" =~ /^.$/", "\"}\" =~ /[}]/"]);
    refused(
        ErrorKind::Parse,
        &[
            "\"\" =~ /a/x",
            "\"\" =~ /a/I",
            "\"\" =~ /a",
            "\"\" =~ /(?<=a)/",
            "\"\" =~ /(?<!a)/",
            "\"\" =~ /(?>a)/",
            "\"\" =~ /(?<n>a)/",
            "\"\" =~ /(?P<n>a)/",
            "\"\" =~ /(?'n'a)/",
            "\"\" =~ /(?(1)a)/",
            "\"\" =~ /a?+/",
            "\"\" =~ /a*+/",
            "\"\" =~ /a++/",
            "\"\" =~ /a{1}+/",
            "\"\" =~ /a{1,}+/",
            "\"\" =~ /a{1,2}+/",
            "\"\" =~ /\\h/",
            "\"\" =~ /\\y/",
            "\"\" =~ /\\_/",
            "\"\" =~ /(a/",
            "\"\" =~ /a)/",
            "\"\" =~ /[a/",
            "\"\" =~ /*a/",
            "\"\" =~ /a|*/",
            "\"\" =~ /a**/",
            "\"\" =~ /{1}/",
            "\"\" =~ /a{2,1}/",
            "\"\" =~ /a{1001}/",
            "\"\" =~ /(a{100}){100}/",
            "\"\" =~ /[z-a]/",
            "\"\" =~ /[[:nope:]]/",
            "\"\" =~ /\\1/",
            "\"\" =~ /\\k<1>/",
            "\"\" =~ /\\p{Nope}/",
            "\"\" =~ /\\pL/",
            "\"\" =~ /(?#a/",
            "\"\" =~ /(?y)a/",
            "\"\" =~ /\\x4/",
            "\"\" =~ /\\u123/",
            "\"\" =~ /[a-\\d]/",
            "\"\" =~ /[]/",
        ],
    );
}

#[test]
fn a_match_that_would_never_end_is_an_error_soon() {
    let began = std::time::Instant::now();
    let text = "a".repeat(5_000);
    let mut context = Context::default();
    context.set("build.message", Value::Text(text)).unwrap();
    let expression = "build.message =~ /(?=a)(a*)*\\1b/";
    let error = decide(expression, EntryPoint::BuildCondition, &context).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Evaluation);
    println!("the match was given up after {:?}", began.elapsed());
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    let linear = decide("build.message =~ /^(a|aa)+$b/", EntryPoint::BuildCondition, &context);
    assert_eq!(linear, Ok(false), "without look-ahead and references it is linear");
}

#[test]
fn a_linear_match_of_a_large_pattern_with_a_long_text_is_an_error_at_once() {
    let mut context = Context::default();
    context.set("build.message", Value::Text("ab".repeat(32_000))).unwrap();
    let large = format!("build.message =~ /[ab]*a{}c/", "[ab]{1000}".repeat(8));
    let error = decide(&large, EntryPoint::BuildCondition, &context).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Evaluation, "the match takes too long"));
    assert_eq!(decide("build.message =~ /^[ab]{1000}/", EntryPoint::BuildCondition, &context), Ok(true));
    let many = vec!["build.message =~ /c[ab]{1000}/"; 30].join(" || ");
    let error = decide(&many, EntryPoint::BuildCondition, &context).unwrap_err();
    assert_eq!(error.message, "the match takes too long", "each is small, and together they are not");
}

#[test]
fn expressions_beyond_the_limits_are_refused() {
    let deep = CONDITION_DEPTH_MAX + 1;
    refused(
        ErrorKind::Parse,
        &[
            &format!("\"{}\" == ''", "x".repeat(CONDITION_MAX_BYTES)),
            &format!("{}true{}", "(".repeat(deep), ")".repeat(deep)),
            &format!("{}true", "!".repeat(deep)),
            &format!("true{}", " == true".repeat(deep + 1)),
            &format!("true{}", " ? true : true".repeat(deep)),
            &format!("{}\"\"{} == []", "[".repeat(deep), "]".repeat(deep)),
            &format!("{}{} == ''", "${A-".repeat(deep), "}".repeat(deep)),
            &format!("\"\" =~ /{}{}/", "(".repeat(deep), ")".repeat(deep)),
            &format!("\"{}\" == ''", "${'".repeat(CONDITION_MAX_BYTES / 4)),
        ],
    );
    all(true, &[&format!("true{}", " && true".repeat(1_500)), &format!("false{} || true", " || false".repeat(1_500))]);
    let mut context = Context::default();
    context.set_build_env([("A".to_owned(), "x".repeat(100_000))]);
    let bomb = format!("\"{}\" == ''", "$A".repeat(100));
    let error = decide(&bomb, EntryPoint::BuildCondition, &context).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Evaluation);
}

#[test]
fn a_condition_tells_the_variables_that_it_names() {
    let condition = validate("build.tag != null && (build.branch == build.tag || true)", EntryPoint::BuildCondition);
    assert_eq!(condition.unwrap().names().collect::<Vec<_>>(), ["build.branch", "build.tag"]);
}

/// Expressions whose types fit, as text.
fn expressions() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just("\"a$A\"".to_owned()),
        Just("'it\\'s'".to_owned()),
        Just("build.branch".to_owned()),
        Just("${A:-\"x\"}".to_owned()),
        Just("env(\"A\")".to_owned()),
    ];
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("build.fixed".to_owned()),
        (text.clone(), text.clone()).prop_map(|(a, b)| format!("{a} == {b}")),
        text.clone().prop_map(|a| format!("{a} =~ /a+(b|c)/i")),
        (text.clone(), text).prop_map(|(a, b)| format!("[{a}, {b}] includes {a}")),
        (0..100_u32).prop_map(|n| format!("build.number != {n}")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} && {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) == ({b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a}) ? {b} : {c}")),
        ]
    })
}

proptest! {
    #[test]
    fn a_printed_condition_reads_back_as_the_same(expression in expressions()) {
        let condition = validate(&expression, EntryPoint::BuildCondition).unwrap();
        let printed = condition.to_string();
        let again: Condition = validate(&printed, EntryPoint::BuildCondition).unwrap();
        prop_assert_eq!(&again, &condition, "{} {}", expression, printed);
        let context = context();
        prop_assert_eq!(again.evaluate(&context), condition.evaluate(&context));
    }

    #[test]
    fn no_text_upsets_the_reader(expression in "[a-z\\$\\{\\}\"'/\\\\()\\[\\]&|=~!?:, .0-9+*-]{0,60}") {
        let _ = decide(&expression, EntryPoint::BuildNotification, &context());
    }

    #[test]
    fn no_regular_expression_upsets_the_reader(pattern in "[ab(){}\\[\\]\\\\?*+|^$.:,=!<>#0-9i-]{1,30}") {
        let _ = outcome(&format!("\"aab\" =~ /{pattern}/"));
    }
}
