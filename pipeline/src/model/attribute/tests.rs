//! Every row of every table, under each of its names: what it comes to in the graph, and what is refused.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{BLOCK, COMMAND, GROUP, INPUT, Shape, TOP, TRIGGER, Table, WAIT};
use crate::compile::{Inputs, compile_with};
use crate::condition::Context;

/// What begins most pointers, and what stands for it.
const PLACES: [(char, &str); 2] = [('^', "/nodes/0/kind/command/"), ('%', "/nodes/0/kind/block/fields/0/")];

/// A value of one attribute. `@` in the document is the attribute's name, `#` the value.
#[derive(Clone)]
struct Case {
    table: &'static str,
    row: &'static str,
    document: Cow<'static, str>,
    good: &'static str,
    /// Where it shows in the graph, and as what.
    pointer: Cow<'static, str>,
    expected: &'static str,
    /// A value that is refused, and the code of the error; empty where any will do.
    bad: (&'static str, &'static str),
}

const fn case(
    table: &'static str,
    row: &'static str,
    document: &'static str,
    good: &'static str,
    pointer: &'static str,
    expected: &'static str,
    bad: (&'static str, &'static str),
) -> Case {
    Case { table, row, document: Cow::Borrowed(document), good, pointer: Cow::Borrowed(pointer), expected, bad }
}

const TOP_DOC: &str = "{@: #, steps: [{command: x}]}";
const STEP: &str = "steps: [{command: x, @: #}]";
const ANY: (&str, &str) = ("", "");
const TYPE: &str = "wrong-type";
const MAP: (&str, &str) = ("{a: b}", TYPE);
const FLAG: (&str, &str) = ("maybe", TYPE);

const TOPS: &[Case] = &[
    case("pipeline", "steps", "@: #", "[wait]", "/nodes/0/label", "\"wait\"", ("5", TYPE)),
    case("pipeline", "env", TOP_DOC, "{A: 0x10}", "/env", "[[\"A\",\"16\"]]", ("{A: [b]}", TYPE)),
    case("pipeline", "agents", TOP_DOC, "[queue=q, os=linux]", "^queue", "\"q\"", ("5", TYPE)),
    case("pipeline", "notify", TOP_DOC, "[{webhook: u}]", "/notify/0/service", "\"webhook\"", ("{a: b}", TYPE)),
    case("pipeline", "priority", TOP_DOC, "-3", "^priority", "-3", ("1.5", TYPE)),
    case("pipeline", "image", TOP_DOC, "node:20", "^image", "\"node:20\"", MAP),
    case("pipeline", "secrets", TOP_DOC, "[S]", "^secrets/0/env", "\"S\"", ("~", TYPE)),
    case("pipeline", "checkout", TOP_DOC, "{depth: 1}", "^checkout/depth", "1", ("true", TYPE)),
    case("pipeline", "cache", TOP_DOC, "[a, b]", "^cache/paths", "[\"a\",\"b\"]", ("5", TYPE)),
    case("pipeline", "timeout_in_minutes", TOP_DOC, "2", "^timeout_ms", "120000", ("0", "out-of-range")),
    case("pipeline", "supersede", TOP_DOC, "running", "/supersede", "\"running\"", ("sometimes", TYPE)),
];

const COMMANDS: &[Case] = &[
    case(
        "command_step",
        "commands",
        "steps: [{type: command, @: #}]",
        "[a, 1, true, ~]",
        "^command",
        "\"a\\n1\\ntrue\\n\"",
        ("[[a]]", TYPE),
    ),
    case("command_step", "label", STEP, "l", "/nodes/0/label", "\"l\"", MAP),
    case("command_step", "key", STEP, "k", "/nodes/0/key", "\"k\"", ("'a b'", "step-key")),
    case(
        "command_step",
        "agents",
        STEP,
        "{os: mac*, gpu: true}",
        "^tags",
        "[[\"os\",\"mac*\"],[\"gpu\",\"true\"]]",
        ("5", TYPE),
    ),
    case("command_step", "allow_dependency_failure", STEP, "'true'", "/nodes/0/allow_dependency_failure", "true", FLAG),
    case("command_step", "artifact_paths", STEP, "a/*;b", "^artifact_paths", "[\"a/*\",\"b\"]", MAP),
    case("command_step", "branches", STEP, "'!main'", "/nodes/0/broken", "\"branches\"", MAP),
    case(
        "command_step",
        "cache",
        STEP,
        "{paths: p, size: 20g}",
        "^cache/size_gb",
        "20",
        ("{name: n}", "missing-attribute"),
    ),
    case("command_step", "cancel_on_build_failing", STEP, "true", "^cancel_on_build_failing", "true", FLAG),
    case("command_step", "checkout", STEP, "{skip: 'true'}", "^checkout/skip", "true", ("false", TYPE)),
    case(
        "command_step",
        "concurrency",
        "steps: [{command: x, concurrency_group: g, @: #}]",
        "2",
        "^concurrency/limit",
        "2",
        ("0", "out-of-range"),
    ),
    case(
        "command_step",
        "concurrency_group",
        "steps: [{command: x, concurrency: 1, @: #}]",
        "g",
        "^concurrency/group",
        "\"g\"",
        ("~", "concurrency-pair"),
    ),
    case(
        "command_step",
        "concurrency_method",
        "steps: [{command: x, concurrency: 1, concurrency_group: g, @: #}]",
        "eager",
        "^concurrency/method",
        "\"eager\"",
        ("random", "unknown-word"),
    ),
    case(
        "command_step",
        "depends_on",
        "steps: [{command: x, key: k}, {command: y, @: #}]",
        "{step: k, allow_failure: true}",
        "/nodes/1/depends_on",
        "[{\"node\":0,\"allow_failure\":true}]",
        MAP,
    ),
    case("command_step", "env", STEP, "{A: 1.10}", "^env", "[[\"A\",\"1.1\"]]", ("{A: {b: c}}", TYPE)),
    case("command_step", "if", STEP, "'1 == 2'", "/nodes/0/broken", "\"if\"", ("build.nothing", "condition")),
    case(
        "command_step",
        "if_changed",
        STEP,
        "docs/**",
        "/nodes/0/skip",
        "\"no file that it names has changed\"",
        ("{exclude: a}", "missing-attribute"),
    ),
    case("command_step", "image", STEP, "alpine", "^image", "\"alpine\"", MAP),
    case(
        "command_step",
        "matrix",
        "steps: [{command: 'x {{matrix}}', @: #}]",
        "[a, 1]",
        "/nodes/1/kind/command/command",
        "\"x 1\"",
        ("{setup: {a: [b]}}", "matrix-token"),
    ),
    case(
        "command_step",
        "notify",
        STEP,
        "[github_check]",
        "/nodes/0/notify/0/service",
        "\"github_check\"",
        ("[slack]", "missing-attribute"),
    ),
    case("command_step", "parallelism", STEP, "2", "/nodes/1/kind/command/parallel", "[1,2]", ("-1", "out-of-range")),
    case(
        "command_step",
        "plugins",
        STEP,
        "[{b#v1: {z: 1, a: 2}}, c]",
        "^plugins/0",
        "{\"source\":\"github.com/buildkite-plugins/b-buildkite-plugin#v1\",\"config\":{\"z\":1,\"a\":2}}",
        ("[5]", TYPE),
    ),
    case("command_step", "priority", STEP, "'7'", "^priority", "7", ("high", TYPE)),
    case("command_step", "retry", STEP, "{automatic: true}", "^retry/0/limit", "2", ("true", TYPE)),
    case(
        "command_step",
        "secrets",
        STEP,
        "{E: k}",
        "^secrets/0",
        "{\"key\":\"k\",\"env\":\"E\"}",
        ("['']", "empty-value"),
    ),
    case("command_step", "signature", STEP, "{value: v}", "/nodes/0/label", "\"x\"", ANY),
    case("command_step", "skip", STEP, "'false'", "/nodes/0/skip", "\"false\"", ("5", TYPE)),
    case("command_step", "soft_fail", STEP, "[{exit_status: [1, 2]}]", "^soft_fail", "{\"oneof\":[1,2]}", ("5", TYPE)),
    case("command_step", "timeout_in_minutes", STEP, "5", "^timeout_ms", "300000", ("0", "out-of-range")),
    case("command_step", "type", STEP, "script", "^command", "\"x\"", ("bogus", "unknown-step")),
    case(
        "command_step",
        "reuse",
        STEP,
        "{inputs: src/**, env: [CC]}",
        "^reuse",
        r#"{"inputs":["src/**"],"artifacts":[],"outputs":[],"env":["CC"],"secrets":false,"verify_ppm":0}"#,
        ("{input: a}", "unknown-key"),
    ),
    case("command_step", "resources", STEP, "{cpus: 2}", "^resources/cpu_millis", "2000", ("2", TYPE)),
    case("command_step", "zone", STEP, "prod", "^zone", "\"prod\"", MAP),
    case("command_step", "exclusive", STEP, "true", "^exclusive", "true", FLAG),
    case("command_step", "interruptible", STEP, "true", "^interruptible", "true", FLAG),
    case("command_step", "cancel_grace_period", STEP, "90", "^grace_ms", "90000", ("3601", "out-of-range")),
    case("command_step", "tty", STEP, "true", "^tty", "true", FLAG),
];

/// What steps that are no commands have alike. `+` in the pointer is the step's kind in the graph.
struct Alike {
    row: &'static str,
    /// Values, where they show beneath the step, and as what.
    good: &'static [(&'static str, &'static str, &'static str)],
    bad: &'static [(&'static str, &'static str)],
}

/// Table, word, and the step with what it needs beside the attribute.
const STEPS: [(&str, &str, &str); 4] = [
    ("wait_step", "wait", "wait: ~"),
    ("block_step", "block", "block: b"),
    ("input_step", "input", "input: b"),
    ("trigger_step", "trigger", "trigger: p"),
];

/// Of wait, block, input and trigger steps.
const ALL_ALIKE: &[Alike] = &[
    Alike {
        row: "if",
        good: &[("'false'", "/broken", "\"if\"")],
        bad: &[("'('", "condition"), ("'\"a\"'", "condition"), ("'step.key == \"a\"'", "condition")],
    },
    Alike {
        row: "branches",
        good: &[("topic", "/broken", "\"branches\""), ("[topic]", "/broken", "\"branches\"")],
        bad: &[MAP],
    },
    Alike {
        row: "depends_on",
        good: &[("[]", "/depends_on", "[]"), ("~", "/depends_on", "[]"), ("[k]", "/depends_on/0/node", "0")],
        bad: &[MAP],
    },
    Alike {
        row: "key",
        good: &[("w", "/key", "\"w\"")],
        bad: &[
            ("k", "duplicate-step-key"),
            ("''", "step-key"),
            ("é", "step-key"),
            ("0190046e-e199-453b-a302-a21a4d649d31", "step-key"),
        ],
    },
    Alike { row: "label", good: &[("l", "/label", "\"l\"")], bad: &[MAP] },
    Alike { row: "allow_dependency_failure", good: &[("true", "/allow_dependency_failure", "true")], bad: &[FLAG] },
];

/// Of block and input steps.
const GATES_ALIKE: &[Alike] = &[
    Alike { row: "prompt", good: &[("p", "/kind/+/prompt", "\"p\"")], bad: &[MAP] },
    Alike {
        row: "submit",
        good: &[("~", "/kind/+/submit", "\"Continue\""), ("go", "/kind/+/submit", "\"go\"")],
        bad: &[MAP],
    },
    Alike {
        row: "fields",
        good: &[
            ("[{text: t, key: a/b}]", "/kind/+/fields/0/key", "\"a/b\""),
            (
                "[{select: s, key: k, options: [{label: l, value: v}]}]",
                "/kind/+/fields/0/kind/select/options/0/value",
                "\"v\"",
            ),
        ],
        bad: &[("[{key: k}]", "unknown-field"), ("[{select: s, key: k, options: []}]", "no-options")],
    },
    Alike {
        row: "blocked_state",
        good: &[
            ("passed", "/kind/+/blocked_state", "\"passed\""),
            ("failed", "/kind/+/blocked_state", "\"failed\""),
            ("running", "/kind/+/blocked_state", "\"running\""),
        ],
        bad: &[("blocked", "unknown-word")],
    },
    Alike {
        row: "allowed_teams",
        good: &[("t", "/kind/+/allowed_teams", "[\"t\"]"), ("[t, u]", "/kind/+/allowed_teams", "[\"t\",\"u\"]")],
        bad: &[MAP],
    },
];

/// A case for each good value; the bad ones are spread over them, the last good one again for those that are left.
fn alike() -> impl Iterator<Item = Case> {
    let rows = STEPS.into_iter().flat_map(|step| {
        let gates = if matches!(step.1, "block" | "input") { GATES_ALIKE } else { &[] };
        ALL_ALIKE.iter().chain(gates).map(move |alike| (step, alike))
    });
    rows.flat_map(|((table, word, step), alike)| {
        let count = alike.good.len().max(alike.bad.len());
        (0..count).filter_map(move |index| {
            let (good, pointer, expected) = *alike.good.get(index).or_else(|| alike.good.last())?;
            Some(Case {
                table,
                row: alike.row,
                document: Cow::Owned(format!("steps: [{{command: x, key: k}}, {{{step}, @: #}}]")),
                good,
                pointer: Cow::Owned(format!("/nodes/1{}", pointer.replace('+', word))),
                expected,
                bad: alike.bad.get(index).copied().unwrap_or(ANY),
            })
        })
    })
}

const A_WAIT: &str = "steps: [{command: x, key: k}, {wait: ~, @: #}]";
const A_TRIGGER: &str = "steps: [{command: x, key: k}, {trigger: p, @: #}]";
const A_STEP: &str = "steps: [{@: #}]";
const BOGUS: (&str, &str) = ("bogus", "unknown-step");
const A_LIST: (&str, &str) = ("[a]", TYPE);

const WAITS: &[Case] = &[
    case("wait_step", "wait", A_STEP, "l", "/nodes/0/label", "\"l\"", A_LIST),
    case("wait_step", "continue_on_failure", A_WAIT, "true", "/nodes/1/depends_on/0/allow_failure", "true", FLAG),
    case("wait_step", "type", A_STEP, "waiter", "/nodes/0/label", "\"wait\"", BOGUS),
    case("block_step", "block", A_STEP, "l", "/nodes/0/label", "\"l\"", A_LIST),
    case("block_step", "type", A_STEP, "manual", "/nodes/0/kind/block/submit", "\"Continue\"", BOGUS),
    case("input_step", "input", A_STEP, "l", "/nodes/0/label", "\"l\"", A_LIST),
    case("input_step", "type", A_STEP, "input", "/nodes/0/kind/input/submit", "\"Continue\"", BOGUS),
];

const TRIGGERS: &[Case] = &[
    case("trigger_step", "trigger", A_STEP, "p", "/nodes/0/kind/trigger/pipeline", "\"p\"", ("~", "missing-attribute")),
    case(
        "trigger_step",
        "build",
        A_TRIGGER,
        "{branch: b}",
        "/nodes/1/kind/trigger/branch",
        "\"b\"",
        ("{what: b}", "unknown-key"),
    ),
    case("trigger_step", "label", A_TRIGGER, "l", "/nodes/1/kind/trigger/message", "\"l\"", MAP),
    case("trigger_step", "async", A_TRIGGER, "true", "/nodes/1/kind/trigger/async", "true", FLAG),
    case(
        "trigger_step",
        "if_changed",
        A_TRIGGER,
        "[docs/**]",
        "/nodes/1/skip",
        "\"no file that it names has changed\"",
        ("5", TYPE),
    ),
    case("trigger_step", "skip", A_TRIGGER, "true", "/nodes/1/skip", "\"skipped by the pipeline\"", ("[]", TYPE)),
    case("trigger_step", "soft_fail", A_TRIGGER, "true", "/nodes/1/kind/trigger/soft_fail", "\"always\"", ("5", TYPE)),
    case(
        "trigger_step",
        "parallelism",
        A_TRIGGER,
        "3",
        "/nodes/3/kind/trigger/parallel",
        "[2,3]",
        ("-1", "out-of-range"),
    ),
    case(
        "trigger_step",
        "type",
        "steps: [{trigger: p, @: #}]",
        "trigger",
        "/nodes/0/kind/trigger/commit",
        "\"HEAD\"",
        BOGUS,
    ),
];

const A_GROUP: &str = "steps: [{command: x, key: k}, {group: g, @: #, steps: [{command: y}]}]";

const GROUPS: &[Case] = &[
    case(
        "group_step",
        "group",
        "steps: [{type: group, @: #, steps: [wait]}]",
        "l",
        "/groups/0/label",
        "\"l\"",
        ("[a]", TYPE),
    ),
    case(
        "group_step",
        "steps",
        "steps: [{group: g, @: #}]",
        "[wait]",
        "/nodes/0/place/group",
        "0",
        ("[]", "empty-group"),
    ),
    case("group_step", "key", A_GROUP, "w", "/groups/0/key", "\"w\"", ("k", "duplicate-step-key")),
    case("group_step", "depends_on", A_GROUP, "k", "/nodes/1/depends_on/0/node", "0", MAP),
    case("group_step", "allow_dependency_failure", A_GROUP, "true", "/groups/0/allow_dependency_failure", "true", FLAG),
    case("group_step", "if", A_GROUP, "'false'", "/nodes/1/broken", "\"if\"", ("nothing", "condition")),
    case(
        "group_step",
        "if_changed",
        A_GROUP,
        "docs/**",
        "/nodes/1/skip",
        "\"no file that it names has changed\"",
        ("'[a'", "glob"),
    ),
    case("group_step", "skip", A_GROUP, "why", "/nodes/1/skip", "\"why\"", ("5", TYPE)),
    case(
        "group_step",
        "notify",
        A_GROUP,
        "[{email: a@b.c}]",
        "/groups/0/notify/0/config",
        "\"a@b.c\"",
        ("[{if: 'true'}]", "missing-attribute"),
    ),
    case("group_step", "type", A_GROUP, "group", "/groups/0/label", "\"g\"", ("bogus", "unknown-step")),
];

const A_FIELD: &str = "steps: [{block: b, fields: [{text: t, key: k, @: #}]}]";
const A_SELECT: &str =
    "steps: [{block: b, fields: [{select: t, key: k, options: [{label: l, value: v}, {label: m, value: w}], @: #}]}]";
const AN_OPTION: &str = "steps: [{block: b, fields: [{select: t, key: k, options: [{label: l, value: v, @: #}]}]}]";
const A_BUILD: &str = "steps: [{trigger: p, build: {@: #}}]";
const FIELD_AT: &str = "/nodes/0/kind/block/fields/0";

const GATES: &[Case] = &[
    case("text_field", "text", "steps: [{block: b, fields: [{key: k, @: #}]}]", "t", "%label", "\"t\"", MAP),
    case(
        "text_field",
        "key",
        "steps: [{block: b, fields: [{text: t, @: #}]}]",
        "a-b",
        "%key",
        "\"a-b\"",
        ("'a b'", "field-key"),
    ),
    case("text_field", "hint", A_FIELD, "h", "%hint", "\"h\"", MAP),
    case("text_field", "required", A_FIELD, "false", "%required", "false", FLAG),
    case("text_field", "default", A_FIELD, "d", "%kind/text/default", "\"d\"", MAP),
    case("text_field", "format", A_FIELD, "'[0-9]+'", "%kind/text/format", "\"[0-9]+\"", MAP),
    case(
        "select_field",
        "select",
        "steps: [{block: b, fields: [{key: k, options: [{label: l, value: v}], @: #}]}]",
        "t",
        "%label",
        "\"t\"",
        MAP,
    ),
    case(
        "select_field",
        "key",
        "steps: [{block: b, fields: [{select: t, options: [{label: l, value: v}], @: #}]}]",
        "k",
        FIELD_AT,
        "{\"key\":\"k\",\"label\":\"t\",\"hint\":null,\"required\":true,\"kind\":{\"select\":{\"options\":[{\"label\":\"l\",\"value\":\"v\",\"hint\":null,\"required\":false}],\"multiple\":false,\"default\":[]}}}",
        ("~", "missing-key"),
    ),
    case(
        "select_field",
        "options",
        "steps: [{block: b, fields: [{select: t, key: k, @: #}]}]",
        "[{label: l, value: 1}]",
        "%kind/select/options/0/value",
        "\"1\"",
        ("[{label: l}]", "missing-attribute"),
    ),
    case("select_field", "hint", A_SELECT, "h", "%hint", "\"h\"", MAP),
    case("select_field", "required", A_SELECT, "false", "%required", "false", FLAG),
    case("select_field", "multiple", A_SELECT, "true", "%kind/select/multiple", "true", FLAG),
    case("select_field", "default", A_SELECT, "v", "%kind/select/default", "[\"v\"]", ("[v, w]", "too-many")),
    case(
        "option",
        "label",
        "steps: [{block: b, fields: [{select: t, key: k, options: [{value: v, @: #}]}]}]",
        "l",
        "%kind/select/options/0/label",
        "\"l\"",
        ("~", "missing-attribute"),
    ),
    case(
        "option",
        "value",
        "steps: [{block: b, fields: [{select: t, key: k, options: [{label: v, @: #}]}]}]",
        "l",
        "%kind/select/options/0/value",
        "\"l\"",
        ("~", "missing-attribute"),
    ),
    case("option", "hint", AN_OPTION, "h", "%kind/select/options/0/hint", "\"h\"", MAP),
    case("option", "required", AN_OPTION, "true", "%kind/select/options/0/required", "true", FLAG),
    case("build", "branch", A_BUILD, "b", "/nodes/0/kind/trigger/branch", "\"b\"", MAP),
    case("build", "commit", A_BUILD, "c", "/nodes/0/kind/trigger/commit", "\"c\"", MAP),
    case("build", "message", A_BUILD, "m", "/nodes/0/kind/trigger/message", "\"m\"", MAP),
    case("build", "env", A_BUILD, "{A: true}", "/nodes/0/kind/trigger/env", "[[\"A\",\"true\"]]", ("[a]", TYPE)),
    case("build", "meta_data", A_BUILD, "{a: b}", "/nodes/0/kind/trigger/meta_data", "[[\"a\",\"b\"]]", ("[a]", TYPE)),
];

const A_DEPENDENCY: &str = "steps: [{command: x, key: k}, {command: y, depends_on: [{step: k, @: #}]}]";
const A_RULE: &str = "steps: [{command: x, retry: {automatic: {@: #}}}]";
const BY_HAND: &str = "steps: [{command: x, retry: {manual: {@: #}}}]";
const ADJUSTED: &str = "steps: [{command: x, matrix: {setup: [a], adjustments: [{with: a, @: #}]}}]";

const RULES: &[Case] = &[
    case(
        "dependency",
        "step",
        "steps: [{command: x, key: k}, {command: y, depends_on: [{@: #}]}]",
        "k",
        "/nodes/1/depends_on/0/node",
        "0",
        ("''", "empty-value"),
    ),
    case("dependency", "allow_failure", A_DEPENDENCY, "true", "/nodes/1/depends_on/0/allow_failure", "true", FLAG),
    case(
        "retry",
        "automatic",
        "steps: [{command: x, retry: {@: #}}]",
        "[{limit: 1}, {limit: 0}]",
        "^retry/1/limit",
        "0",
        ("5", TYPE),
    ),
    case(
        "retry",
        "manual",
        "steps: [{command: x, retry: {@: #}}]",
        "false",
        "^manual_retry/allowed",
        "false",
        ("{allow: true}", "unknown-key"),
    ),
    case(
        "automatic",
        "exit_status",
        A_RULE,
        "[1, -1]",
        "^retry/0/exit_status",
        "{\"oneof\":[1,-1]}",
        ("256", "out-of-range"),
    ),
    case(
        "automatic",
        "signal",
        A_RULE,
        "[none, SIGTERM]",
        "^retry/0/signal",
        "{\"noneor\":[15]}",
        ("SIGNOPE", "unknown-signal"),
    ),
    case("automatic", "signal_reason", A_RULE, "none", "^retry/0/or_no_cause", "true", ("bogus", "unknown-reason")),
    case("automatic", "limit", A_RULE, "10", "^retry/0/limit", "10", ("11", "out-of-range")),
    case("automatic", "cause", A_RULE, "agent_lost", "^retry/0/cause", "[\"agent_lost\"]", ("nope", "unknown-cause")),
    case("manual", "allowed", BY_HAND, "false", "^manual_retry/allowed", "false", FLAG),
    case("manual", "permit_on_passed", BY_HAND, "false", "^manual_retry/permit_on_passed", "false", FLAG),
    case("manual", "reason", BY_HAND, "r", "^manual_retry/reason", "\"r\"", MAP),
    case(
        "soft_fail",
        "exit_status",
        "steps: [{command: x, soft_fail: [{@: #}]}]",
        "'*'",
        "^soft_fail",
        "\"always\"",
        ("256", "out-of-range"),
    ),
    case(
        "matrix",
        "setup",
        "steps: [{command: x, matrix: {@: #}}]",
        "{a: [b], c: [d, e]}",
        "/nodes/1/matrix",
        "[[\"a\",\"b\"],[\"c\",\"e\"]]",
        ("~", "matrix-setup"),
    ),
    case(
        "matrix",
        "adjustments",
        "steps: [{command: x, matrix: {setup: [a], @: #}}]",
        "[{with: b}]",
        "/nodes/1/matrix",
        "[[\"\",\"b\"]]",
        ("[{skip: true}]", "matrix-adjustment"),
    ),
    case(
        "adjustment",
        "with",
        "steps: [{command: x, matrix: {setup: [a], adjustments: [{@: #}]}}]",
        "[b]",
        "/nodes/1/matrix",
        "[[\"\",\"b\"]]",
        ("{a: b}", "matrix-adjustment"),
    ),
    case("adjustment", "skip", ADJUSTED, "''", "/nodes/0/skip", "\"skipped by the pipeline\"", ("5", TYPE)),
    case("adjustment", "soft_fail", ADJUSTED, "true", "^soft_fail", "\"always\"", ("5", TYPE)),
    case(
        "if_changed",
        "include",
        "steps: [{command: x, if_changed: {@: #}}]",
        "[docs/**]",
        "/nodes/0/skip",
        "\"no file that it names has changed\"",
        ("~", "missing-attribute"),
    ),
    case(
        "if_changed",
        "exclude",
        "steps: [{command: x, if_changed: {include: '**', @: #}}]",
        "src/**",
        "/nodes/0/skip",
        "\"no file that it names has changed\"",
        ("'[a'", "glob"),
    ),
];

const A_CHECKOUT: &str = "steps: [{command: x, checkout: {@: #}}]";
const GIT_FLAGS: &str = "steps: [{command: x, checkout: {flags: {@: #}}}]";
const A_CACHE: &str = "steps: [{command: x, cache: {paths: [p], @: #}}]";
const A_REUSE: &str = "steps: [{command: x, reuse: {@: #}}]";
const A_BLOB: &str = "steps: [{command: x, reuse: {blobs: [{path: a, @: #}]}}]";
const A_BLOB_AT: &str = "steps: [{command: x, reuse: {blobs: [{digest: 'b3:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f', @: #}]}}]";
const A_PROGRAM: &str = "steps: [{command: x, reuse: {blobs: [{path: a, digest: 'b3:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f', @: #}]}}]";
const NOTIFIED: &str = "{notify: [{@: #}], steps: [wait]}";
const SLACK_TO: &str = "{notify: [{slack: {channels: [c], @: #}}], steps: [wait]}";

const OTHERS: &[Case] = &[
    case(
        "secret",
        "key",
        "steps: [{command: x, secrets: [{@: #}]}]",
        "k",
        "^secrets/0/env",
        "\"k\"",
        ("''", "empty-value"),
    ),
    case(
        "secret",
        "environment_variable",
        "steps: [{command: x, secrets: [{key: k, @: #}]}]",
        "E",
        "^secrets/0/env",
        "\"E\"",
        ("BUILDKITE_SHELL", "protected-variable"),
    ),
    case("checkout", "skip", A_CHECKOUT, "true", "^checkout/skip", "true", FLAG),
    case("checkout", "submodules", A_CHECKOUT, "false", "^checkout/submodules", "false", FLAG),
    case("checkout", "lfs", A_CHECKOUT, "true", "^checkout/lfs", "true", FLAG),
    case("checkout", "depth", A_CHECKOUT, "5", "^checkout/depth", "5", ("0", "out-of-range")),
    case("checkout", "flags", A_CHECKOUT, "{clone: -v}", "^checkout/flags/clone", "\"-v\"", ("5", TYPE)),
    case("checkout", "sparse", A_CHECKOUT, "{paths: a}", "^checkout/sparse", "[\"a\"]", ("5", TYPE)),
    case("checkout", "ssh_secret", A_CHECKOUT, "s", "^checkout/ssh_secret", "\"s\"", MAP),
    case(
        "checkout",
        "commit_verification",
        A_CHECKOUT,
        "strict",
        "^checkout/commit_verification",
        "\"strict\"",
        ("maybe", "unknown-word"),
    ),
    case("flags", "clone", GIT_FLAGS, "-a", "^checkout/flags/clone", "\"-a\"", MAP),
    case("flags", "fetch", GIT_FLAGS, "-a", "^checkout/flags/fetch", "\"-a\"", MAP),
    case("flags", "checkout", GIT_FLAGS, "-a", "^checkout/flags/checkout", "\"-a\"", MAP),
    case("flags", "clean", GIT_FLAGS, "-a", "^checkout/flags/clean", "\"-a\"", MAP),
    case(
        "sparse",
        "paths",
        "steps: [{command: x, checkout: {sparse: {@: #}}}]",
        "[a, b]",
        "^checkout/sparse",
        "[\"a\",\"b\"]",
        MAP,
    ),
    case(
        "cache",
        "paths",
        "steps: [{command: x, cache: {@: #}}]",
        "p",
        "^cache/paths",
        "[\"p\"]",
        ("[]", "missing-attribute"),
    ),
    case("cache", "name", A_CACHE, "n", "^cache/name", "\"n\"", MAP),
    case("cache", "size", A_CACHE, "20g", "^cache/size_gb", "20", ("20", TYPE)),
    case("cache", "key", A_CACHE, "k", "^cache/key", "\"k\"", MAP),
    case(
        "cache",
        "restore_keys",
        "steps: [{command: x, cache: {paths: [p], key: k, @: #}}]",
        "[a]",
        "^cache/restore_keys",
        "[\"a\"]",
        MAP,
    ),
    case("reuse", "inputs", A_REUSE, "a/**", "^reuse/inputs", "[\"a/**\"]", ("'[a'", "glob")),
    case("reuse", "outputs", A_REUSE, "[o, 'p; ./q']", "^reuse/outputs", "[\"o\",\"p\",\"q\"]", MAP),
    case("reuse", "artifacts", A_REUSE, "'dist/*'", "^reuse/artifacts", "[\"dist/*\"]", MAP),
    case(
        "reuse",
        "blobs",
        A_REUSE,
        "[{path: ./t/a.tar, digest: 'blake3:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f'}]",
        "^reuse/blobs",
        r#"[{"path":"t/a.tar","digest":"b3:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f"}]"#,
        MAP,
    ),
    case("blob", "path", A_BLOB_AT, "a/b", "^reuse/blobs/0/path", "\"a/b\"", ("../b", "reuse-path")),
    case(
        "blob",
        "digest",
        A_BLOB,
        "sha256:0F0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f",
        "^reuse/blobs/0/digest",
        "\"sha256:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f\"",
        ("md5:0f", "reuse-digest"),
    ),
    case("blob", "executable", A_PROGRAM, "true", "^reuse/blobs/0/executable", "true", FLAG),
    case("reuse", "env", A_REUSE, "[A]", "^reuse/env", "[\"A\"]", MAP),
    case("reuse", "secrets", A_REUSE, "true", "^reuse/secrets", "true", FLAG),
    case("reuse", "verify", A_REUSE, "0.5%", "^reuse/verify_ppm", "5000", ("101%", "out-of-range")),
    case(
        "resources",
        "cpus",
        "steps: [{command: x, resources: {@: #}}]",
        "0.5",
        "^resources/cpu_millis",
        "500",
        ("lots", TYPE),
    ),
    case(
        "resources",
        "memory",
        "steps: [{command: x, resources: {@: #}}]",
        "4MiB",
        "^resources/memory_bytes",
        "4194304",
        ("4", "out-of-range"),
    ),
    case("notification", "email", NOTIFIED, "a@b.c", "/notify/0/config", "\"a@b.c\"", ANY),
    case(
        "notification",
        "slack",
        NOTIFIED,
        "'#c'",
        "/notify/0/config",
        "\"#c\"",
        ("{message: m}", "missing-attribute"),
    ),
    case("notification", "webhook", NOTIFIED, "u", "/notify/0/config", "\"u\"", ANY),
    case("notification", "basecamp_campfire", NOTIFIED, "u", "/notify/0/service", "\"basecamp_campfire\"", ANY),
    case(
        "notification",
        "pagerduty_change_event",
        NOTIFIED,
        "u",
        "/notify/0/service",
        "\"pagerduty_change_event\"",
        ANY,
    ),
    case("notification", "github_commit_status", NOTIFIED, "{context: c}", "/notify/0/config/context", "\"c\"", ANY),
    case("notification", "github_check", NOTIFIED, "{name: n}", "/notify/0/config/name", "\"n\"", ANY),
    case(
        "notification",
        "if",
        "{notify: [{webhook: u, @: #}], steps: [wait]}",
        "'build.branch == \"a\"'",
        "/notify/0/if",
        "\"build.branch == \\\"a\\\"\"",
        MAP,
    ),
    case(
        "slack",
        "channels",
        "{notify: [{slack: {@: #}}], steps: [wait]}",
        "[c]",
        "/notify/0/config/channels",
        "[\"c\"]",
        ANY,
    ),
    case("slack", "message", SLACK_TO, "m", "/notify/0/config/message", "\"m\"", ANY),
];

fn cases() -> impl Iterator<Item = Case> {
    let written = [TOPS, COMMANDS, WAITS, TRIGGERS, GROUPS, GATES, RULES, OTHERS].into_iter().flatten();
    written.cloned().chain(alike())
}

/// Every table that can be reached from a pipeline's.
pub(super) fn tables() -> BTreeMap<&'static str, &'static Table> {
    fn look(shape: &Shape, all: &mut BTreeMap<&'static str, &'static Table>) {
        match shape {
            Shape::Map(table) => add(table, all),
            Shape::Either(shapes) => shapes.iter().for_each(|shape| look(shape, all)),
            Shape::List(of) | Shape::Some(of) | Shape::MapOf(of) => look(of, all),
            Shape::Text | Shape::Flag | Shape::Integer(..) | Shape::Word(_) | Shape::Variables | Shape::AnyMap => {}
            Shape::Steps { .. } => {}
        }
    }
    fn add(table: &'static Table, all: &mut BTreeMap<&'static str, &'static Table>) {
        if all.insert(table.name, table).is_none() {
            table.rows.iter().for_each(|row| look(&row.shape, all));
        }
    }
    let mut all = BTreeMap::new();
    for table in [&TOP, &COMMAND, &WAIT, &BLOCK, &INPUT, &TRIGGER, &GROUP] {
        add(table, &mut all);
    }
    all
}

fn compiled(case: &Case, name: &str, value: &str) -> (Option<Value>, Vec<&'static str>, String) {
    let text = case.document.replace('@', name).replacen('#', value, 1);
    let branch = [("BUILDKITE_BRANCH".to_owned(), "main".to_owned())];
    let changed = ["src/a.rs".to_owned()];
    let context = Context::default();
    let inputs =
        Inputs { standard_env: &branch, context: Some(&context), changed: Some(&changed), ..Inputs::default() };
    let compiled = compile_with(&text, "p.yml", &inputs);
    let errors = compiled.diagnostics.iter().filter(|found| found.is_error()).map(|found| found.code).collect();
    let rendered = compiled.render(&text);
    (compiled.graph.and_then(|graph| serde_json::to_value(graph).ok()), errors, rendered)
}

#[test]
fn every_attribute_under_each_of_its_names_comes_to_what_it_says() {
    let tables = tables();
    for case in cases() {
        let table = tables[case.table];
        let row = table.rows.iter().find(|row| row.names.contains(&case.row));
        let names = row.map(|row| row.names).unwrap_or_default();
        assert!(!names.is_empty(), "{}.{} is no row", case.table, case.row);
        for name in names {
            let (graph, _, said) = compiled(&case, name, case.good);
            let graph = graph.unwrap_or_default();
            let expected: Value = serde_json::from_str(case.expected).unwrap_or_default();
            let place = PLACES.iter().fold(case.pointer.to_string(), |place, (mark, is)| place.replace(*mark, is));
            let found = graph.pointer(&place);
            assert_eq!(found, Some(&expected), "{}.{name}\n{said}", case.table);
            assert!(!said.contains("unknown-key"), "{}.{name}: {said}", case.table);
        }
    }
}

#[test]
fn every_attribute_refuses_what_it_cannot_be() {
    for case in cases().filter(|case| !case.bad.1.is_empty()) {
        let (graph, errors, said) = compiled(&case, case.row, case.bad.0);
        assert!(graph.is_none(), "{}.{} takes {}", case.table, case.row, case.bad.0);
        assert!(errors.contains(&case.bad.1), "{}.{}: {said}", case.table, case.row);
    }
}

#[test]
fn no_row_of_a_table_is_without_a_case() {
    let tried: BTreeSet<(&str, &str)> = cases().map(|case| (case.table, case.row)).collect();
    for table in tables().values() {
        for row in table.rows {
            let named = row.names.iter().any(|name| tried.contains(&(table.name, *name)));
            assert!(named, "{}.{} has no case", table.name, row.names[0]);
        }
    }
}
