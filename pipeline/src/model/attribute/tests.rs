//! Every row of every table, under each of its names: what it comes to in the graph, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{BLOCK, COMMAND, GROUP, INPUT, Shape, TOP, TRIGGER, Table, WAIT};
use crate::compile::{Inputs, compile_with};
use crate::condition::Context;

/// A value of one attribute. `@` in the document is the attribute's name, `#` the value.
struct Case {
    table: &'static str,
    row: &'static str,
    document: &'static str,
    good: &'static str,
    /// Where it shows in the graph, and as what.
    pointer: &'static str,
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
    Case { table, row, document, good, pointer, expected, bad }
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
    case("pipeline", "agents", TOP_DOC, "[queue=q, os=linux]", "/nodes/0/kind/command/queue", "\"q\"", ("5", TYPE)),
    case("pipeline", "notify", TOP_DOC, "[{webhook: u}]", "/notify/0/service", "\"webhook\"", ("{a: b}", TYPE)),
    case("pipeline", "priority", TOP_DOC, "-3", "/nodes/0/kind/command/priority", "-3", ("1.5", TYPE)),
    case("pipeline", "image", TOP_DOC, "node:20", "/nodes/0/kind/command/image", "\"node:20\"", MAP),
    case("pipeline", "secrets", TOP_DOC, "[S]", "/nodes/0/kind/command/secrets/0/env", "\"S\"", ("~", TYPE)),
    case("pipeline", "checkout", TOP_DOC, "{depth: 1}", "/nodes/0/kind/command/checkout/depth", "1", ("true", TYPE)),
    case("pipeline", "cache", TOP_DOC, "[a, b]", "/nodes/0/kind/command/cache/paths", "[\"a\",\"b\"]", ("5", TYPE)),
    case(
        "pipeline",
        "timeout_in_minutes",
        TOP_DOC,
        "2",
        "/nodes/0/kind/command/timeout_ms",
        "120000",
        ("0", "out-of-range"),
    ),
    case("pipeline", "supersede", TOP_DOC, "running", "/supersede", "\"running\"", ("sometimes", TYPE)),
];

const COMMANDS: &[Case] = &[
    case(
        "command_step",
        "commands",
        "steps: [{type: command, @: #}]",
        "[a, 1, true, ~]",
        "/nodes/0/kind/command/command",
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
        "/nodes/0/kind/command/tags",
        "[[\"os\",\"mac*\"],[\"gpu\",\"true\"]]",
        ("5", TYPE),
    ),
    case("command_step", "allow_dependency_failure", STEP, "'true'", "/nodes/0/allow_dependency_failure", "true", FLAG),
    case(
        "command_step",
        "artifact_paths",
        STEP,
        "a/*;b",
        "/nodes/0/kind/command/artifact_paths",
        "[\"a/*\",\"b\"]",
        MAP,
    ),
    case("command_step", "branches", STEP, "'!main'", "/nodes/0/broken", "\"branches\"", MAP),
    case(
        "command_step",
        "cache",
        STEP,
        "{paths: p, size: 20g}",
        "/nodes/0/kind/command/cache/size_gb",
        "20",
        ("{name: n}", "missing-attribute"),
    ),
    case(
        "command_step",
        "cancel_on_build_failing",
        STEP,
        "true",
        "/nodes/0/kind/command/cancel_on_build_failing",
        "true",
        FLAG,
    ),
    case(
        "command_step",
        "checkout",
        STEP,
        "{skip: 'true'}",
        "/nodes/0/kind/command/checkout/skip",
        "true",
        ("false", TYPE),
    ),
    case(
        "command_step",
        "concurrency",
        "steps: [{command: x, concurrency_group: g, @: #}]",
        "2",
        "/nodes/0/kind/command/concurrency/limit",
        "2",
        ("0", "out-of-range"),
    ),
    case(
        "command_step",
        "concurrency_group",
        "steps: [{command: x, concurrency: 1, @: #}]",
        "g",
        "/nodes/0/kind/command/concurrency/group",
        "\"g\"",
        ("~", "concurrency-pair"),
    ),
    case(
        "command_step",
        "concurrency_method",
        "steps: [{command: x, concurrency: 1, concurrency_group: g, @: #}]",
        "eager",
        "/nodes/0/kind/command/concurrency/method",
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
    case(
        "command_step",
        "env",
        STEP,
        "{A: 1.10}",
        "/nodes/0/kind/command/env",
        "[[\"A\",\"1.1\"]]",
        ("{A: {b: c}}", TYPE),
    ),
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
    case("command_step", "image", STEP, "alpine", "/nodes/0/kind/command/image", "\"alpine\"", MAP),
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
        "/nodes/0/kind/command/plugins/0",
        "{\"source\":\"github.com/buildkite-plugins/b-buildkite-plugin#v1\",\"config\":{\"z\":1,\"a\":2}}",
        ("[5]", TYPE),
    ),
    case("command_step", "priority", STEP, "'7'", "/nodes/0/kind/command/priority", "7", ("high", TYPE)),
    case(
        "command_step",
        "retry",
        STEP,
        "{automatic: true}",
        "/nodes/0/kind/command/retry/0/limit",
        "2",
        ("true", TYPE),
    ),
    case(
        "command_step",
        "secrets",
        STEP,
        "{E: k}",
        "/nodes/0/kind/command/secrets/0",
        "{\"key\":\"k\",\"env\":\"E\"}",
        ("['']", "empty-value"),
    ),
    case("command_step", "signature", STEP, "{value: v}", "/nodes/0/label", "\"x\"", ANY),
    case("command_step", "skip", STEP, "'false'", "/nodes/0/skip", "\"false\"", ("5", TYPE)),
    case(
        "command_step",
        "soft_fail",
        STEP,
        "[{exit_status: [1, 2]}]",
        "/nodes/0/kind/command/soft_fail",
        "{\"oneof\":[1,2]}",
        ("5", TYPE),
    ),
    case(
        "command_step",
        "timeout_in_minutes",
        STEP,
        "5",
        "/nodes/0/kind/command/timeout_ms",
        "300000",
        ("0", "out-of-range"),
    ),
    case("command_step", "type", STEP, "script", "/nodes/0/kind/command/command", "\"x\"", ("bogus", "unknown-step")),
    case(
        "command_step",
        "reuse",
        STEP,
        "{inputs: src/**, env: [CC]}",
        "/nodes/0/kind/command/reuse",
        "{\"inputs\":[\"src/**\"],\"outputs\":[],\"env\":[\"CC\"]}",
        ("{input: a}", "unknown-key"),
    ),
    case(
        "command_step",
        "resources",
        STEP,
        "{cpus: 2}",
        "/nodes/0/kind/command/resources/cpu_millis",
        "2000",
        ("2", TYPE),
    ),
    case("command_step", "zone", STEP, "prod", "/nodes/0/kind/command/zone", "\"prod\"", MAP),
    case("command_step", "exclusive", STEP, "true", "/nodes/0/kind/command/exclusive", "true", FLAG),
    case("command_step", "interruptible", STEP, "true", "/nodes/0/kind/command/interruptible", "true", FLAG),
    case("command_step", "tty", STEP, "true", "/nodes/0/kind/command/tty", "true", FLAG),
];

const A_WAIT: &str = "steps: [{command: x, key: k}, {wait: ~, @: #}]";

const WAITS: &[Case] = &[
    case("wait_step", "wait", "steps: [{@: #}]", "l", "/nodes/0/label", "\"l\"", ("[a]", TYPE)),
    case("wait_step", "continue_on_failure", A_WAIT, "true", "/nodes/1/depends_on/0/allow_failure", "true", FLAG),
    case("wait_step", "if", A_WAIT, "'false'", "/nodes/1/broken", "\"if\"", ("'1'", "condition")),
    case("wait_step", "branches", A_WAIT, "topic", "/nodes/1/broken", "\"branches\"", MAP),
    case("wait_step", "depends_on", A_WAIT, "[]", "/nodes/1/depends_on", "[]", MAP),
    case("wait_step", "key", A_WAIT, "w", "/nodes/1/key", "\"w\"", ("k", "duplicate-step-key")),
    case("wait_step", "label", A_WAIT, "l", "/nodes/1/label", "\"l\"", MAP),
    case("wait_step", "allow_dependency_failure", A_WAIT, "true", "/nodes/1/allow_dependency_failure", "true", FLAG),
    case("wait_step", "type", "steps: [{@: #}]", "waiter", "/nodes/0/label", "\"wait\"", ("bogus", "unknown-step")),
];

const A_BLOCK: &str = "steps: [{command: x, key: k}, {block: b, @: #}]";

const BLOCKS: &[Case] = &[
    case("block_step", "block", "steps: [{@: #}]", "l", "/nodes/0/label", "\"l\"", ("[a]", TYPE)),
    case("block_step", "prompt", A_BLOCK, "p", "/nodes/1/kind/block/prompt", "\"p\"", MAP),
    case("block_step", "submit", A_BLOCK, "~", "/nodes/1/kind/block/submit", "\"Continue\"", MAP),
    case(
        "block_step",
        "fields",
        A_BLOCK,
        "[{text: t, key: a/b}]",
        "/nodes/1/kind/block/fields/0/key",
        "\"a/b\"",
        ("[{key: k}]", "unknown-field"),
    ),
    case(
        "block_step",
        "blocked_state",
        A_BLOCK,
        "running",
        "/nodes/1/kind/block/blocked_state",
        "\"running\"",
        ("blocked", "unknown-word"),
    ),
    case("block_step", "allowed_teams", A_BLOCK, "t", "/nodes/1/kind/block/allowed_teams", "[\"t\"]", MAP),
    case("block_step", "branches", A_BLOCK, "topic", "/nodes/1/broken", "\"branches\"", MAP),
    case("block_step", "if", A_BLOCK, "'false'", "/nodes/1/broken", "\"if\"", ("'('", "condition")),
    case("block_step", "depends_on", A_BLOCK, "~", "/nodes/1/depends_on", "[]", MAP),
    case(
        "block_step",
        "key",
        A_BLOCK,
        "w",
        "/nodes/1/key",
        "\"w\"",
        ("0190046e-e199-453b-a302-a21a4d649d31", "step-key"),
    ),
    case("block_step", "label", A_BLOCK, "l", "/nodes/1/label", "\"l\"", MAP),
    case("block_step", "allow_dependency_failure", A_BLOCK, "true", "/nodes/1/allow_dependency_failure", "true", FLAG),
    case(
        "block_step",
        "type",
        "steps: [{@: #}]",
        "manual",
        "/nodes/0/kind/block/submit",
        "\"Continue\"",
        ("bogus", "unknown-step"),
    ),
];

const AN_INPUT: &str = "steps: [{command: x, key: k}, {input: b, @: #}]";

const INPUTS: &[Case] = &[
    case("input_step", "input", "steps: [{@: #}]", "l", "/nodes/0/label", "\"l\"", ("[a]", TYPE)),
    case("input_step", "prompt", AN_INPUT, "p", "/nodes/1/kind/input/prompt", "\"p\"", MAP),
    case("input_step", "submit", AN_INPUT, "go", "/nodes/1/kind/input/submit", "\"go\"", MAP),
    case(
        "input_step",
        "fields",
        AN_INPUT,
        "[{select: s, key: k, options: [{label: l, value: v}]}]",
        "/nodes/1/kind/input/fields/0/kind/select/options/0/value",
        "\"v\"",
        ("[{select: s, key: k, options: []}]", "no-options"),
    ),
    case(
        "input_step",
        "blocked_state",
        AN_INPUT,
        "failed",
        "/nodes/1/kind/input/blocked_state",
        "\"failed\"",
        ("no", "unknown-word"),
    ),
    case("input_step", "allowed_teams", AN_INPUT, "[t, u]", "/nodes/1/kind/input/allowed_teams", "[\"t\",\"u\"]", MAP),
    case("input_step", "branches", AN_INPUT, "[topic]", "/nodes/1/broken", "\"branches\"", MAP),
    case("input_step", "if", AN_INPUT, "'false'", "/nodes/1/broken", "\"if\"", ("'\"a\"'", "condition")),
    case("input_step", "depends_on", AN_INPUT, "k", "/nodes/1/depends_on/0/node", "0", MAP),
    case("input_step", "key", AN_INPUT, "w", "/nodes/1/key", "\"w\"", ("''", "step-key")),
    case("input_step", "label", AN_INPUT, "l", "/nodes/1/label", "\"l\"", MAP),
    case("input_step", "allow_dependency_failure", AN_INPUT, "true", "/nodes/1/allow_dependency_failure", "true", FLAG),
    case(
        "input_step",
        "type",
        "steps: [{@: #}]",
        "input",
        "/nodes/0/kind/input/submit",
        "\"Continue\"",
        ("bogus", "unknown-step"),
    ),
];

const A_TRIGGER: &str = "steps: [{command: x, key: k}, {trigger: p, @: #}]";

const TRIGGERS: &[Case] = &[
    case(
        "trigger_step",
        "trigger",
        "steps: [{@: #}]",
        "p",
        "/nodes/0/kind/trigger/pipeline",
        "\"p\"",
        ("~", "missing-attribute"),
    ),
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
    case("trigger_step", "branches", A_TRIGGER, "topic", "/nodes/1/broken", "\"branches\"", MAP),
    case("trigger_step", "if", A_TRIGGER, "'false'", "/nodes/1/broken", "\"if\"", ("'step.key == \"a\"'", "condition")),
    case(
        "trigger_step",
        "if_changed",
        A_TRIGGER,
        "[docs/**]",
        "/nodes/1/skip",
        "\"no file that it names has changed\"",
        ("5", TYPE),
    ),
    case("trigger_step", "depends_on", A_TRIGGER, "[k]", "/nodes/1/depends_on/0/node", "0", MAP),
    case("trigger_step", "key", A_TRIGGER, "w", "/nodes/1/key", "\"w\"", ("é", "step-key")),
    case(
        "trigger_step",
        "allow_dependency_failure",
        A_TRIGGER,
        "true",
        "/nodes/1/allow_dependency_failure",
        "true",
        FLAG,
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
        ("bogus", "unknown-step"),
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
    case(
        "text_field",
        "text",
        "steps: [{block: b, fields: [{key: k, @: #}]}]",
        "t",
        "/nodes/0/kind/block/fields/0/label",
        "\"t\"",
        MAP,
    ),
    case(
        "text_field",
        "key",
        "steps: [{block: b, fields: [{text: t, @: #}]}]",
        "a-b",
        "/nodes/0/kind/block/fields/0/key",
        "\"a-b\"",
        ("'a b'", "field-key"),
    ),
    case("text_field", "hint", A_FIELD, "h", "/nodes/0/kind/block/fields/0/hint", "\"h\"", MAP),
    case("text_field", "required", A_FIELD, "false", "/nodes/0/kind/block/fields/0/required", "false", FLAG),
    case("text_field", "default", A_FIELD, "d", "/nodes/0/kind/block/fields/0/kind/text/default", "\"d\"", MAP),
    case(
        "text_field",
        "format",
        A_FIELD,
        "'[0-9]+'",
        "/nodes/0/kind/block/fields/0/kind/text/format",
        "\"[0-9]+\"",
        MAP,
    ),
    case(
        "select_field",
        "select",
        "steps: [{block: b, fields: [{key: k, options: [{label: l, value: v}], @: #}]}]",
        "t",
        "/nodes/0/kind/block/fields/0/label",
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
        "/nodes/0/kind/block/fields/0/kind/select/options/0/value",
        "\"1\"",
        ("[{label: l}]", "missing-attribute"),
    ),
    case("select_field", "hint", A_SELECT, "h", "/nodes/0/kind/block/fields/0/hint", "\"h\"", MAP),
    case("select_field", "required", A_SELECT, "false", "/nodes/0/kind/block/fields/0/required", "false", FLAG),
    case(
        "select_field",
        "multiple",
        A_SELECT,
        "true",
        "/nodes/0/kind/block/fields/0/kind/select/multiple",
        "true",
        FLAG,
    ),
    case(
        "select_field",
        "default",
        A_SELECT,
        "v",
        "/nodes/0/kind/block/fields/0/kind/select/default",
        "[\"v\"]",
        ("[v, w]", "too-many"),
    ),
    case(
        "option",
        "label",
        "steps: [{block: b, fields: [{select: t, key: k, options: [{value: v, @: #}]}]}]",
        "l",
        "/nodes/0/kind/block/fields/0/kind/select/options/0/label",
        "\"l\"",
        ("~", "missing-attribute"),
    ),
    case(
        "option",
        "value",
        "steps: [{block: b, fields: [{select: t, key: k, options: [{label: v, @: #}]}]}]",
        "l",
        "/nodes/0/kind/block/fields/0/kind/select/options/0/value",
        "\"l\"",
        ("~", "missing-attribute"),
    ),
    case("option", "hint", AN_OPTION, "h", "/nodes/0/kind/block/fields/0/kind/select/options/0/hint", "\"h\"", MAP),
    case(
        "option",
        "required",
        AN_OPTION,
        "true",
        "/nodes/0/kind/block/fields/0/kind/select/options/0/required",
        "true",
        FLAG,
    ),
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
        "/nodes/0/kind/command/retry/1/limit",
        "0",
        ("5", TYPE),
    ),
    case(
        "retry",
        "manual",
        "steps: [{command: x, retry: {@: #}}]",
        "false",
        "/nodes/0/kind/command/manual_retry/allowed",
        "false",
        ("{allow: true}", "unknown-key"),
    ),
    case(
        "automatic",
        "exit_status",
        A_RULE,
        "[1, -1]",
        "/nodes/0/kind/command/retry/0/exit_status",
        "{\"oneof\":[1,-1]}",
        ("256", "out-of-range"),
    ),
    case(
        "automatic",
        "signal",
        A_RULE,
        "[none, SIGTERM]",
        "/nodes/0/kind/command/retry/0/signal",
        "{\"noneor\":[15]}",
        ("SIGNOPE", "unknown-signal"),
    ),
    case(
        "automatic",
        "signal_reason",
        A_RULE,
        "none",
        "/nodes/0/kind/command/retry/0/or_no_cause",
        "true",
        ("bogus", "unknown-reason"),
    ),
    case("automatic", "limit", A_RULE, "10", "/nodes/0/kind/command/retry/0/limit", "10", ("11", "out-of-range")),
    case(
        "automatic",
        "cause",
        A_RULE,
        "agent_lost",
        "/nodes/0/kind/command/retry/0/cause",
        "[\"agent_lost\"]",
        ("nope", "unknown-cause"),
    ),
    case("manual", "allowed", BY_HAND, "false", "/nodes/0/kind/command/manual_retry/allowed", "false", FLAG),
    case(
        "manual",
        "permit_on_passed",
        BY_HAND,
        "false",
        "/nodes/0/kind/command/manual_retry/permit_on_passed",
        "false",
        FLAG,
    ),
    case("manual", "reason", BY_HAND, "r", "/nodes/0/kind/command/manual_retry/reason", "\"r\"", MAP),
    case(
        "soft_fail",
        "exit_status",
        "steps: [{command: x, soft_fail: [{@: #}]}]",
        "'*'",
        "/nodes/0/kind/command/soft_fail",
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
    case("adjustment", "soft_fail", ADJUSTED, "true", "/nodes/0/kind/command/soft_fail", "\"always\"", ("5", TYPE)),
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
const NOTIFIED: &str = "{notify: [{@: #}], steps: [wait]}";
const SLACK_TO: &str = "{notify: [{slack: {channels: [c], @: #}}], steps: [wait]}";

const OTHERS: &[Case] = &[
    case(
        "secret",
        "key",
        "steps: [{command: x, secrets: [{@: #}]}]",
        "k",
        "/nodes/0/kind/command/secrets/0/env",
        "\"k\"",
        ("''", "empty-value"),
    ),
    case(
        "secret",
        "environment_variable",
        "steps: [{command: x, secrets: [{key: k, @: #}]}]",
        "E",
        "/nodes/0/kind/command/secrets/0/env",
        "\"E\"",
        ("BUILDKITE_SHELL", "protected-variable"),
    ),
    case("checkout", "skip", A_CHECKOUT, "true", "/nodes/0/kind/command/checkout/skip", "true", FLAG),
    case("checkout", "submodules", A_CHECKOUT, "false", "/nodes/0/kind/command/checkout/submodules", "false", FLAG),
    case("checkout", "lfs", A_CHECKOUT, "true", "/nodes/0/kind/command/checkout/lfs", "true", FLAG),
    case("checkout", "depth", A_CHECKOUT, "5", "/nodes/0/kind/command/checkout/depth", "5", ("0", "out-of-range")),
    case(
        "checkout",
        "flags",
        A_CHECKOUT,
        "{clone: -v}",
        "/nodes/0/kind/command/checkout/flags/clone",
        "\"-v\"",
        ("5", TYPE),
    ),
    case(
        "checkout",
        "sparse",
        A_CHECKOUT,
        "{paths: a}",
        "/nodes/0/kind/command/checkout/sparse",
        "[\"a\"]",
        ("5", TYPE),
    ),
    case("checkout", "ssh_secret", A_CHECKOUT, "s", "/nodes/0/kind/command/checkout/ssh_secret", "\"s\"", MAP),
    case(
        "checkout",
        "commit_verification",
        A_CHECKOUT,
        "strict",
        "/nodes/0/kind/command/checkout/commit_verification",
        "\"strict\"",
        ("maybe", "unknown-word"),
    ),
    case("flags", "clone", GIT_FLAGS, "-a", "/nodes/0/kind/command/checkout/flags/clone", "\"-a\"", MAP),
    case("flags", "fetch", GIT_FLAGS, "-a", "/nodes/0/kind/command/checkout/flags/fetch", "\"-a\"", MAP),
    case("flags", "checkout", GIT_FLAGS, "-a", "/nodes/0/kind/command/checkout/flags/checkout", "\"-a\"", MAP),
    case("flags", "clean", GIT_FLAGS, "-a", "/nodes/0/kind/command/checkout/flags/clean", "\"-a\"", MAP),
    case(
        "sparse",
        "paths",
        "steps: [{command: x, checkout: {sparse: {@: #}}}]",
        "[a, b]",
        "/nodes/0/kind/command/checkout/sparse",
        "[\"a\",\"b\"]",
        MAP,
    ),
    case(
        "cache",
        "paths",
        "steps: [{command: x, cache: {@: #}}]",
        "p",
        "/nodes/0/kind/command/cache/paths",
        "[\"p\"]",
        ("[]", "missing-attribute"),
    ),
    case("cache", "name", A_CACHE, "n", "/nodes/0/kind/command/cache/name", "\"n\"", MAP),
    case("cache", "size", A_CACHE, "20g", "/nodes/0/kind/command/cache/size_gb", "20", ("20", TYPE)),
    case("cache", "key", A_CACHE, "k", "/nodes/0/kind/command/cache/key", "\"k\"", MAP),
    case(
        "cache",
        "restore_keys",
        "steps: [{command: x, cache: {paths: [p], key: k, @: #}}]",
        "[a]",
        "/nodes/0/kind/command/cache/restore_keys",
        "[\"a\"]",
        MAP,
    ),
    case("reuse", "inputs", A_REUSE, "a/**", "/nodes/0/kind/command/reuse/inputs", "[\"a/**\"]", ("'[a'", "glob")),
    case("reuse", "outputs", A_REUSE, "[o]", "/nodes/0/kind/command/reuse/outputs", "[\"o\"]", MAP),
    case("reuse", "env", A_REUSE, "[A]", "/nodes/0/kind/command/reuse/env", "[\"A\"]", MAP),
    case(
        "resources",
        "cpus",
        "steps: [{command: x, resources: {@: #}}]",
        "0.5",
        "/nodes/0/kind/command/resources/cpu_millis",
        "500",
        ("lots", TYPE),
    ),
    case(
        "resources",
        "memory",
        "steps: [{command: x, resources: {@: #}}]",
        "4MiB",
        "/nodes/0/kind/command/resources/memory_bytes",
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

fn cases() -> impl Iterator<Item = &'static Case> {
    [TOPS, COMMANDS, WAITS, BLOCKS, INPUTS, TRIGGERS, GROUPS, GATES, RULES, OTHERS].into_iter().flatten()
}

/// Every table that can be reached from a pipeline's.
fn tables() -> BTreeMap<&'static str, &'static Table> {
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
            let (graph, _, said) = compiled(case, name, case.good);
            let graph = graph.unwrap_or_default();
            let expected: Value = serde_json::from_str(case.expected).unwrap_or_default();
            let found = graph.pointer(case.pointer);
            assert_eq!(found, Some(&expected), "{}.{name}\n{said}", case.table);
            assert!(!said.contains("unknown-key"), "{}.{name}: {said}", case.table);
        }
    }
}

#[test]
fn every_attribute_refuses_what_it_cannot_be() {
    for case in cases().filter(|case| !case.bad.1.is_empty()) {
        let (graph, errors, said) = compiled(case, case.row, case.bad.0);
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
