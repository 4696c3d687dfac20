//! The normal form of documents, rule by rule (reference 1.2, 1.4, 3.1, 3.2, 11 and 12.1).

#![allow(clippy::unwrap_used, reason = "the tests' own helpers fail by panicking")]
#![allow(clippy::too_many_lines, reason = "tables of cases are as long as the reference")]

use windlass_pipeline::normal::{to_json, upload};

/// The JSON, and the codes of the warnings; or the code of the error.
fn form(text: &str) -> Result<(String, Vec<&'static str>), &'static str> {
    let normal = upload(text, None).map_err(|errors| errors[0].code)?;
    let codes = normal[0].warnings.iter().map(|warning| warning.code).collect();
    Ok((to_json(&normal[0].document).unwrap().to_string(), codes))
}

/// The JSON of the only step, which gives no warning.
fn step(text: &str) -> String {
    let (json, warnings) = form(&format!("steps:\n- {text}\n")).unwrap();
    assert!(warnings.is_empty(), "{text} {warnings:?}");
    json.strip_prefix(r#"{"steps":["#).unwrap().strip_suffix("]}").unwrap().to_owned()
}

#[test]
fn steps_come_to_their_normal_form() {
    for (text, expected) in [
        ("wait", r#""wait""#),
        ("manual", r#""manual""#),
        ("{command: a}", r#"{"command":"a"}"#),
        ("{commands: [a, 1, true, ~, 1.50]}", r#"{"command":"a\n1\ntrue\n\n1.5"}"#),
        ("{command: a, commands: b}", r#"{"command":"b"}"#),
        ("{command: ~}", r#"{"command":""}"#),
        ("{command: []}", r#"{"command":""}"#),
        ("{plugins: [x]}", r#"{"plugins":[{"github.com/buildkite-plugins/x-buildkite-plugin":null}],"command":""}"#),
        ("{type: script, label: 1}", r#"{"type":"script","label":"1","command":""}"#),
        ("{command: a, id: 1, name: true}", r#"{"command":"a","key":"1","label":"true"}"#),
        ("{command: a, identifier: i, id: j, key: k}", r#"{"command":"a","identifier":"i","id":"j","key":"k"}"#),
        ("{command: a, identifier: i, id: j}", r#"{"command":"a","identifier":"i","key":"j"}"#),
        ("{command: a, label: l, name: n}", r#"{"command":"a","label":"l","name":"n"}"#),
        ("{command: a, key: ~, label: ''}", r#"{"command":"a"}"#),
        (
            "{command: a, env: {A: 0777, B: 08, C: 1.10, D: ~, E: yes, F: 1e6}}",
            r#"{"command":"a","env":{"A":"511","B":"8","C":"1.1","D":"","E":"yes","F":"1e+06"}}"#,
        ),
        ("{command: a, env: ~}", r#"{"command":"a"}"#),
        ("{command: a, env: {}}", r#"{"command":"a"}"#),
        ("{command: a, matrix: [1, true, x]}", r#"{"command":"a","matrix":["1","true","x"]}"#),
        ("{command: a, matrix: {setup: [1]}}", r#"{"command":"a","matrix":["1"]}"#),
        ("{command: a, matrix: {setup: {os: [1, a]}}}", r#"{"command":"a","matrix":{"setup":{"os":["1","a"]}}}"#),
        (
            "{command: a, matrix: {setup: [1], adjustments: [{with: 2, skip: ~, soft_fail: true}]}}",
            r#"{"command":"a","matrix":{"setup":["1"],"adjustments":[{"with":"2","soft_fail":true}]}}"#,
        ),
        (
            "{command: a, matrix: {setup: {o: [1]}, adjustments: [{with: {o: 8}, skip: false}]}}",
            r#"{"command":"a","matrix":{"setup":{"o":["1"]},"adjustments":[{"with":{"o":"8"},"skip":false}]}}"#,
        ),
        ("{command: a, cache: false}", r#"{"command":"a","cache":false}"#),
        ("{command: a, cache: true}", r#"{"command":"a","cache":{}}"#),
        ("{command: a, cache: x}", r#"{"command":"a","cache":{"paths":["x"]}}"#),
        ("{command: a, cache: [x, 1]}", r#"{"command":"a","cache":{"paths":["x","1"]}}"#),
        (
            "{command: a, cache: {paths: x, name: n, size: 20g}}",
            r#"{"command":"a","cache":{"paths":["x"],"name":"n","size":"20g"}}"#,
        ),
        ("{command: a, secrets: [A]}", r#"{"command":"a","secrets":[{"key":"A","environment_variable":"A"}]}"#),
        ("{command: a, secrets: {E: A}}", r#"{"command":"a","secrets":[{"key":"A","environment_variable":"E"}]}"#),
        (
            "{command: a, secrets: [{key: A, environment_variable: E}]}",
            r#"{"command":"a","secrets":[{"key":"A","environment_variable":"E"}]}"#,
        ),
        (
            "{command: a, plugins: {b#1: {}, c: {d: [1, true]}}}",
            r#"{"command":"a","plugins":[{"github.com/buildkite-plugins/b-buildkite-plugin#1":null},{"github.com/buildkite-plugins/c-buildkite-plugin":{"d":[1,true]}}]}"#,
        ),
        ("{command: a, plugins: []}", r#"{"command":"a"}"#),
        (
            "{command: a, checkout: {skip: true}, signature: {value: v}}",
            r#"{"command":"a","checkout":{"skip":true},"signature":{"value":"v"}}"#,
        ),
        ("{command: a, checkout: ~}", r#"{"command":"a"}"#),
        (
            "{command: a, agents: [q=1], soft_fail: ~, retry: {}, priority: 1, x: [], y: 1.5, z: 2002-08-15}",
            r#"{"command":"a","agents":["q=1"],"soft_fail":null,"retry":{},"priority":1,"x":[],"y":1.5,"z":"2002-08-15T00:00:00Z"}"#,
        ),
        ("{wait: ~, if: x}", r#"{"wait":null,"if":"x"}"#),
        ("{waiter: ~}", r#"{"waiter":null}"#),
        (
            "{block: b, fields: [{text: t, key: k}], name: n}",
            r#"{"block":"b","fields":[{"text":"t","key":"k"}],"name":"n"}"#,
        ),
        ("{type: input, label: i}", r#"{"type":"input","label":"i"}"#),
        ("{trigger: t, build: {env: {A: 1}}}", r#"{"trigger":"t","build":{"env":{"A":1}}}"#),
        (
            "{group: g, id: k, steps: [{commands: a}, wait]}",
            r#"{"group":"g","key":"k","steps":[{"command":"a"},"wait"]}"#,
        ),
        ("{group: ~, label: l, steps: ~}", r#"{"group":null,"label":"l","steps":[]}"#),
        ("{type: group, label: l}", r#"{"type":"group","group":"l","steps":[]}"#),
        ("{block: b, command: c}", r#"{"block":"b","command":"c"}"#),
    ] {
        assert_eq!(step(text), expected, "{text}");
    }
}

#[test]
fn what_does_not_decode_is_sent_as_it_is_written_with_a_warning() {
    for text in [
        r#""nope""#,
        r#"{"a":1}"#,
        r#"{"type":"mystery"}"#,
        r#"{"type":"commands","command":"a"}"#,
        r#"{"command":{"command":"a"}}"#,
        r#"{"command":"a","env":{"A":{"b":1}}}"#,
        r#"{"command":"a","env":{"A":[1]}}"#,
        r#"{"command":"a","env":{"A":12345678901234567890}}"#,
        r#"{"command":"a","env":[1]}"#,
        r#"{"command":["a",["b"]]}"#,
        r#"{"command":"a","key":[1]}"#,
        r#"{"command":"a","secrets":null}"#,
        r#"{"command":"a","secrets":[{"environment_variable":"E"}]}"#,
        r#"{"command":"a","secrets":{"E":""}}"#,
        r#"{"command":"a","checkout":true}"#,
        r#"{"command":"a","cache":1}"#,
        r#"{"command":"a","matrix":"a"}"#,
        r#"{"command":"a","matrix":{"setup":"a"}}"#,
        r#"{"command":"a","matrix":{"setup":["a"],"adjustments":[{"with":1.5}]}}"#,
        r#"{"command":"a","plugins":"x"}"#,
        r#"{"group":[1],"steps":[]}"#,
    ] {
        let document = format!(r#"{{"steps":[{text}]}}"#);
        assert_eq!(form(&document), Ok((document.clone(), vec!["unknown-step"])), "{text}");
    }
    let dated = form("steps: [{command: a, env: {A: 2002-08-15}}]\n").unwrap();
    assert_eq!(
        dated,
        (r#"{"steps":[{"command":"a","env":{"A":"2002-08-15T00:00:00Z"}}]}"#.to_owned(), vec!["unknown-step"])
    );
}

#[test]
fn the_top_level_is_a_mapping_or_a_list_and_nothing_else() {
    for (text, expected) in [
        ("- wait", Ok((r#"{"steps":["wait"]}"#, vec![]))),
        ("[]", Ok((r#"{"steps":[]}"#, vec![]))),
        ("steps: ~", Ok((r#"{"steps":[]}"#, vec![]))),
        ("a: 1", Ok((r#"{"a":1,"steps":[]}"#, vec!["no-steps"]))),
        ("env: ~\nsteps: []", Ok((r#"{"steps":[]}"#, vec![]))),
        ("env: {A: 1, A: 2}\nsteps: []", Ok((r#"{"env":{"A":"2"},"steps":[]}"#, vec![]))),
        ("1: a\n~: b\nsteps: []", Ok((r#"{"1":"a","null":"b","steps":[]}"#, vec![]))),
        (
            "checkout: ~\nsecrets: [A]\nsteps: []",
            Ok((r#"{"secrets":[{"key":"A","environment_variable":"A"}],"steps":[]}"#, vec![])),
        ),
        ("a", Err("unsupported-document")),
        ("~", Err("unsupported-document")),
        ("", Err("no-document")),
        ("steps: {}", Err("wrong-type")),
        ("steps: [1]", Err("wrong-type")),
        ("steps: [~]", Err("wrong-type")),
        ("steps: [[]]", Err("wrong-type")),
        ("steps: [{type: 5}]", Err("wrong-type")),
        ("steps: [{group: g, steps: [1]}]", Err("wrong-type")),
        ("env: [a]\nsteps: []", Err("wrong-type")),
        ("env: {A: [1]}\nsteps: []", Err("wrong-type")),
        ("env: {A: 2002-08-15}\nsteps: []", Err("wrong-type")),
        ("checkout: false\nsteps: []", Err("wrong-type")),
        ("checkout: x\nsteps: []", Err("wrong-type")),
        ("secrets: ~\nsteps: []", Err("wrong-type")),
    ] {
        let found = form(text);
        assert_eq!(found, expected.map(|(json, codes)| (json.to_owned(), codes)), "{text}");
    }
}

#[test]
fn a_number_that_json_cannot_write_is_an_error_with_its_place() {
    let normal = upload("steps: [{wait: ~, x: .inf}]", None).unwrap();
    assert_eq!(to_json(&normal[0].document).unwrap_err().span.column, 22);
}
