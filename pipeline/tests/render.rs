//! Interpolation of documents: what is expanded, in which order, and what stays (reference 14).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "the tests' own helpers fail by panicking, and print what they measured"
)]
#![allow(clippy::too_many_lines, reason = "tables of cases are as long as the reference")]

#[path = "support/clock.rs"]
mod clock;

use std::time::Duration;

use proptest::prelude::*;
use windlass_pipeline::normal::{self, to_json};
use windlass_pipeline::render::{Interpolation, render};
use windlass_pipeline::{identifiers, yaml};

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The first document's JSON after interpolation, or the codes of what is wrong.
fn rendered(text: &str, pairs: &[(&str, &str)], prefer_variables: bool) -> Result<String, Vec<&'static str>> {
    let variables = variables(pairs);
    let rendered = render(text, &Interpolation { variables: &variables, prefer_variables })
        .map_err(|found| found.into_iter().map(|it| it.code).collect::<Vec<_>>())?;
    let documents: Vec<String> = rendered.documents.iter().map(|it| to_json(it).unwrap().to_string()).collect();
    Ok(documents.join("\n"))
}

#[test]
fn documents_are_expanded_in_the_order_of_the_reference() {
    for (what, text, expected) in [
        ("entry by entry", "env: {A: 1, B: $A-$V, C: $B}", r#"{"env":{"A":1,"B":"1-v","C":"1-v"}}"#),
        ("entries before", "env: {B: $A, A: 1}", r#"{"env":{"B":"","A":1}}"#),
        ("the file wins", "env: {V: w}\nx: $V", r#"{"env":{"V":"w"},"x":"w"}"#),
        ("env wherever it stands", "x: $A\nenv: {A: 1}", r#"{"x":"1","env":{"A":1}}"#),
        (
            "natural forms",
            "env: {A: 0x10, B: true, C: 1.50, D: ~}\nx: $A $B $C <$D>",
            r#"{"env":{"A":16,"B":true,"C":1.5,"D":null},"x":"16 true 1.5 <>"}"#,
        ),
        ("keys of env", "env: {\"${V}_X\": 1}\nx: $v_X", r#"{"env":{"v_X":1},"x":"1"}"#),
        ("collisions of env", "env: {$K: 1, B: 2, C: $B}", r#"{"env":{"B":1,"C":"1"}}"#),
        ("collisions with an earlier one", "env: {B: 2, $K: 1, C: $B}", r#"{"env":{"B":1,"C":"1"}}"#),
        ("collisions of keys", "x: {$K: 1, B: 2}\ny: {B: 2, $K: 1}", r#"{"x":{"B":1},"y":{"B":1}}"#),
        (
            "numbers stay",
            "steps: [{command: $V, priority: 1, async: true, x: ~, y: 1.5}]",
            r#"{"steps":[{"command":"v","priority":1,"async":true,"x":null,"y":1.5}]}"#,
        ),
        ("text stays text", "steps: [{command: a, priority: $N}]", r#"{"steps":[{"command":"a","priority":"7"}]}"#),
        (
            "everything of a step",
            "steps: [{command: c, key: $V, depends_on: [$V], label: $V, if: 'a =~ /b$$/', notify: [{slack: $V}], $V: $V}]",
            r#"{"steps":[{"command":"c","key":"v","depends_on":["v"],"label":"v","if":"a =~ /b$/","notify":[{"slack":"v"}],"v":"v"}]}"#,
        ),
        (
            "its own env is not seen",
            "steps: [{command: <$F> $$F, env: {F: x, $V: $V}}]",
            r#"{"steps":[{"command":"<> $F","env":{"F":"x","v":"v"}}]}"#,
        ),
        (
            "plugins",
            "steps: [{plugins: [{'docker#$V': {image: $V, $V: 1}}, 'x#$V']}]",
            r#"{"steps":[{"plugins":[{"docker#v":{"image":"v","v":1}},"x#v"]}]}"#,
        ),
        (
            "matrices",
            "steps: [{command: c, matrix: {setup: {$V: [$V, 1]}, adjustments: [{with: {$V: $V}}]}}]",
            r#"{"steps":[{"command":"c","matrix":{"setup":{"v":["v",1]},"adjustments":[{"with":{"v":"v"}}]}}]}"#,
        ),
        (
            "groups",
            "steps: [{group: $V, steps: [{command: $V, env: {A: $V}}, {group: $V}]}]",
            r#"{"steps":[{"group":"v","steps":[{"command":"v","env":{"A":"v"}},{"group":"v"}]}]}"#,
        ),
        ("scalar steps", "steps: [wait, $W]", r#"{"steps":["wait","wait"]}"#),
        ("no recursion", "x: $R", r#"{"x":"$V"}"#),
        (
            "other keys of the top",
            "agents: {queue: $V}\nnotify: [{email: $V}]\n$V: [$V, {$V: $V}]",
            r#"{"agents":{"queue":"v"},"notify":[{"email":"v"}],"v":["v",{"v":"v"}]}"#,
        ),
        ("secrets of the top", "secrets: {A: $V}\nsteps: []", r#"{"secrets":{"A":"$V"},"steps":[]}"#),
        (
            "signature and secrets of a step",
            "steps: [{command: c, signature: {value: $V}, secrets: [$V]}]",
            r#"{"steps":[{"command":"c","signature":{"value":"$V"},"secrets":["$V"]}]}"#,
        ),
        (
            "they are nothing to other steps",
            "steps: [{wait: ~, signature: $V}, {x: 1, secrets: [$V]}]",
            r#"{"steps":[{"wait":null,"signature":"v"},{"x":1,"secrets":["v"]}]}"#,
        ),
        (
            "a step that does not decode",
            "steps: [{command: c, env: [x], secrets: [$V]}]",
            r#"{"steps":[{"command":"c","env":["x"],"secrets":["v"]}]}"#,
        ),
        (
            "checkout of the top",
            "checkout: {ssh_secret: $V, flags: {clone: $V}, other: $V, $V: 1}",
            r#"{"checkout":{"ssh_secret":"$V","flags":{"clone":"$V"},"other":"v","v":1}}"#,
        ),
        (
            "checkout of a step",
            "steps: [{command: c, checkout: {skip: $V, sparse: {paths: $V}, other: [$V]}}]",
            r#"{"steps":[{"command":"c","checkout":{"skip":"$V","sparse":{"paths":"$V"},"other":["v"]}}]}"#,
        ),
        ("a bare list", "- command: $V\n- wait\n", r#"{"steps":[{"command":"v"},"wait"]}"#),
        ("documents see earlier ones", "env: {A: 1}\n---\nx: $A\n", "{\"env\":{\"A\":1}}\n{\"x\":\"1\"}"),
        ("dates", "x: 2002-08-15\ny: $V", r#"{"x":"2002-08-15T00:00:00Z","y":"v"}"#),
    ] {
        let pairs = [("V", "v"), ("N", "7"), ("K", "B"), ("W", "wait"), ("R", "$V")];
        assert_eq!(rendered(text, &pairs, false).as_deref(), Ok(expected), "{what}");
    }
}

#[test]
fn a_variable_that_is_set_may_win_over_the_file() {
    let text = "env: {V: file, W: $V, X: new}\nx: $V $W $X\n";
    assert_eq!(
        rendered(text, &[("V", "set")], true).unwrap(),
        r#"{"env":{"V":"file","W":"set","X":"new"},"x":"set set new"}"#
    );
    assert_eq!(
        rendered(text, &[("V", "set")], false).unwrap(),
        r#"{"env":{"V":"file","W":"file","X":"new"},"x":"file file new"}"#
    );
}

#[test]
fn what_is_wrong_ends_the_rendering_with_everything_that_is_wrong() {
    for (text, codes) in [
        ("x: ${A", vec!["interpolation-syntax"]),
        ("x: [\"${A?}\", \"${B+c}\"]", vec!["required-variable", "interpolation-syntax"]),
        ("x\n", vec!["unsupported-document"]),
        ("~\n", vec!["unsupported-document"]),
        ("", vec!["no-document"]),
        ("{a: ", vec!["yaml-syntax"]),
    ] {
        assert_eq!(rendered(text, &[], false), Err(codes), "{text}");
    }
    let error =
        render("x: ${A?set $V}", &Interpolation { variables: &variables(&[("V", "it")]), ..Default::default() });
    assert_eq!(error.unwrap_err()[0].message, "$A: set it");
    let bomb = format!("env: {{A: {}}}\nx: [{}]", "y".repeat(100_000), vec!["$A$A$A$A"; 1_000].join(", "));
    assert!(rendered(&bomb, &[], false).unwrap_err().contains(&"too-large"));
}

#[test]
fn interpolation_is_linear_in_its_input() {
    let timed = |text: &str| {
        clock::best(|| {
            let _ = rendered(text, &[("A", "alpha")], false);
        })
    };
    for piece in ["$A ", "${A} ", "${N:-x} ", "$$", "\\\\ ", "{}"] {
        // Eight texts, since each has a bound, and a processor's time is told in steps of some milliseconds.
        let text = |times: usize| format!("x:\n{}", format!("- '{}'\n", piece.repeat(times)).repeat(8));
        let (short, long) = (timed(&text(5_000)), timed(&text(40_000)));
        println!("{piece:?}: {short:?} for 8 times 5,000, {long:?} for 8 times 40,000");
        // Quadratic would be 64 times as long, linear is 8.
        assert!(long < short * 24 + Duration::from_millis(60), "{piece:?} {short:?} {long:?}");
    }
    let nested = format!("x: '{}'\n", "${N:-".repeat(100_000));
    assert!(rendered(&nested, &[], false).is_err());
}

#[test]
fn names_in_a_text_are_told_with_the_escaped_ones_marked() {
    let names = |text: &str| identifiers(text).unwrap();
    assert_eq!(names("$A ${B:-$C} $$D \\$E.x ${F?${G}} $1 $${H}"), ["A", "B", "C", "$D", "$E", "F", "G"]);
    assert!(identifiers("${").is_err());
}

/// A document of any shape, without `$`.
fn documents() -> impl Strategy<Value = serde_json::Value> {
    let text = "[a-zA-Z0-9 _.:#{}\\\\/é-]{0,12}";
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        text.prop_map(serde_json::Value::from),
    ];
    let value = leaf.prop_recursive(3, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::vec((text, inner), 0..4)
                .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
        ]
    });
    let name = prop_oneof![
        Just("env".to_owned()),
        Just("steps".to_owned()),
        Just("checkout".to_owned()),
        Just("secrets".to_owned()),
        Just("agents".to_owned()),
        text.prop_map(|name| name),
    ];
    prop::collection::vec((name, value), 0..5).prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect()))
}

proptest! {
    #[test]
    fn rendering_a_document_without_a_dollar_changes_nothing(document in documents()) {
        let text = document.to_string();
        let once = rendered(&text, &[("A", "b")], false).unwrap();
        prop_assert_eq!(&once, &text);
    }

    #[test]
    fn rendering_a_result_without_a_dollar_again_changes_nothing(
        text in "[a-z$ {}:A-C-]{0,20}", key in "[a-z$A-C]{1,6}", value in "[a-z]{0,5}",
    ) {
        let document = serde_json::json!({"env": {key.clone(): text.clone()}, "steps": [{"command": text, key: "x"}]});
        let pairs = [("A", value.as_str()), ("B", "b")];
        if let Ok(once) = rendered(&document.to_string(), &pairs, false)
            && !once.contains('$')
        {
            prop_assert_eq!(rendered(&once, &pairs, false).unwrap(), once);
        }
    }

    #[test]
    fn no_text_upsets_interpolation(text in "[$\\\\{}:?A-C0-9é -]{0,40}") {
        let _ = identifiers(&text);
        let document = serde_json::json!({"x": text}).to_string();
        let _ = rendered(&document, &[("A", "é"), ("B", "")], false);
    }

    #[test]
    fn the_normal_form_of_a_normal_form_is_itself(document in documents()) {
        let normal = |text: &str| normal::upload(text, None).ok().map(|normal| to_json(&normal[0].document).unwrap());
        if let Some(once) = normal(&document.to_string()) {
            prop_assert_eq!(normal(&once.to_string()), Some(once));
        }
    }
}

#[test]
fn the_text_of_a_file_is_read_the_same_whether_it_is_yaml_or_json() {
    let yaml = "steps:\n- command: [a, $A]\n  matrix: [1, true]\n- wait\n";
    let json = r#"{"steps":[{"command":["a","$A"],"matrix":[1,true]},"wait"]}"#;
    assert_eq!(rendered(yaml, &[("A", "x")], false), rendered(json, &[("A", "x")], false));
    assert_eq!(yaml::parse(yaml).error, None);
}
