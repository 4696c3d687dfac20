//! The reference's attribute tables, row by row: each row is one of ours under all its names, nothing else is, and what
//! is left out has the default that the reference says.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    ADJUSTMENT, AUTOMATIC, BLOCK, BUILD, CACHE, CHECKOUT, COMMAND, DEPENDENCY, FLAGS, GROUP, IF_CHANGED, INPUT, MANUAL,
    MATRIX, NOTIFY, OPTION, RETRY, SECRET, SELECT_FIELD, SLACK, SOFT_FAIL, SPARSE, TEXT_FIELD, TOP, TRIGGER, Table,
    WAIT,
};
use crate::compile::{Inputs, compile_with};

/// A table of the reference: its section, ours, and its rows with the names that each has.
struct Section {
    number: &'static str,
    table: &'static Table,
    rows: &'static [Names],
}

const KEY: &[&str] = &["key", "id", "identifier"];
const LABEL: &[&str] = &["label", "name"];

/// What the reference has and we name otherwise than by a row, and what we have beside it.
const BESIDE: &[(&str, &str)] = &[
    // By `type: script`; the row is `command`'s.
    ("4", "script"),
    // The schema lists a type for groups and triggers, too.
    ("5.4", "type"),
    ("5.5", "type"),
    // Issue: a default for all steps.
    ("2", "timeout_in_minutes"),
];

type Names = &'static [&'static str];

/// Block and input steps have the same rows but for the first (5.3).
const fn gate(own: Names) -> [Names; 13] {
    [
        own,
        &["prompt"],
        &["submit"],
        &["fields"],
        &["blocked_state"],
        &["allowed_teams"],
        &["branches"],
        &["if"],
        &["depends_on"],
        KEY,
        LABEL,
        &["allow_dependency_failure"],
        &["type"],
    ]
}

static SECTIONS: &[Section] = &[
    Section {
        number: "2",
        table: &TOP,
        rows: &[
            &["steps"],
            &["env"],
            &["agents"],
            &["notify"],
            &["priority"],
            &["image"],
            &["secrets"],
            &["checkout"],
            &["cache"],
        ],
    },
    Section {
        number: "4",
        table: &COMMAND,
        rows: &[
            &["command", "commands"],
            LABEL,
            KEY,
            &["agents", "agent_query_rules"],
            &["allow_dependency_failure"],
            &["artifact_paths", "artifacts"],
            &["branches"],
            &["cache"],
            &["cancel_on_build_failing"],
            &["checkout"],
            &["concurrency"],
            &["concurrency_group"],
            &["concurrency_method"],
            &["depends_on"],
            &["env"],
            &["if"],
            &["if_changed"],
            &["image"],
            &["matrix"],
            &["notify"],
            &["parallelism"],
            &["plugins"],
            &["priority"],
            &["retry"],
            &["secrets"],
            &["signature"],
            &["skip"],
            &["soft_fail"],
            &["timeout_in_minutes", "timeout"],
            &["type"],
        ],
    },
    Section {
        number: "5.1",
        table: &WAIT,
        rows: &[
            &["wait", "waiter"],
            &["continue_on_failure"],
            &["if"],
            &["branches"],
            &["depends_on"],
            KEY,
            LABEL,
            &["allow_dependency_failure"],
            &["type"],
        ],
    },
    Section { number: "5.2", table: &BLOCK, rows: &gate(&["block", "manual"]) },
    Section {
        number: "5.2, text fields",
        table: &TEXT_FIELD,
        rows: &[&["text"], &["key"], &["hint"], &["required"], &["default"], &["format"]],
    },
    Section {
        number: "5.2, select fields",
        table: &SELECT_FIELD,
        rows: &[&["select"], &["key"], &["options"], &["hint"], &["required"], &["multiple"], &["default"]],
    },
    Section { number: "5.3", table: &INPUT, rows: &gate(&["input"]) },
    Section {
        number: "5.4",
        table: &TRIGGER,
        rows: &[
            &["trigger"],
            &["build"],
            LABEL,
            &["async"],
            &["branches"],
            &["if"],
            &["if_changed"],
            &["depends_on"],
            KEY,
            &["allow_dependency_failure"],
            &["skip"],
            &["soft_fail"],
            &["parallelism"],
        ],
    },
    Section {
        number: "5.4, build",
        table: &BUILD,
        rows: &[&["branch"], &["commit"], &["message"], &["env"], &["meta_data"]],
    },
    Section {
        number: "5.5",
        table: &GROUP,
        rows: &[
            &["group", "label", "name"],
            &["steps"],
            KEY,
            &["depends_on"],
            &["allow_dependency_failure"],
            &["if"],
            &["if_changed"],
            &["skip"],
            &["notify"],
        ],
    },
    Section { number: "8.1", table: &MATRIX, rows: &[&["setup"], &["adjustments"]] },
    Section { number: "8.1, adjustments", table: &ADJUSTMENT, rows: &[&["with"], &["skip"], &["soft_fail"]] },
    Section { number: "10", table: &RETRY, rows: &[&["automatic"], &["manual"]] },
    Section {
        number: "10.1",
        table: &AUTOMATIC,
        rows: &[&["exit_status"], &["signal"], &["signal_reason"], &["limit"]],
    },
    Section { number: "10.2", table: &MANUAL, rows: &[&["allowed"], &["permit_on_passed"], &["reason"]] },
    Section { number: "10.3", table: &SOFT_FAIL, rows: &[&["exit_status"]] },
    Section { number: "11.1", table: &IF_CHANGED, rows: &[&["include"], &["exclude"]] },
    Section { number: "5.2, options", table: &OPTION, rows: &[&["label"], &["value"], &["hint"], &["required"]] },
    Section { number: "6.2", table: &DEPENDENCY, rows: &[&["step"], &["allow_failure"]] },
    Section { number: "11.4", table: &CACHE, rows: &[&["paths"], &["name"], &["size"]] },
    Section { number: "11.5", table: &SECRET, rows: &[&["key"], &["environment_variable"]] },
    Section {
        number: "11.7",
        table: &CHECKOUT,
        rows: &[
            &["skip"],
            &["submodules"],
            &["lfs"],
            &["depth"],
            &["flags"],
            &["sparse"],
            &["ssh_secret"],
            &["commit_verification"],
        ],
    },
    Section { number: "11.7, flags", table: &FLAGS, rows: &[&["clone"], &["fetch"], &["checkout"], &["clean"]] },
    Section { number: "11.7, sparse", table: &SPARSE, rows: &[&["paths"]] },
    Section {
        number: "13",
        table: &NOTIFY,
        rows: &[
            &["email"],
            &["slack"],
            &["webhook"],
            &["basecamp_campfire"],
            &["pagerduty_change_event"],
            &["github_commit_status"],
            &["github_check"],
            &["if"],
        ],
    },
    Section { number: "13, slack", table: &SLACK, rows: &[&["channels"], &["message"]] },
];

#[test]
fn every_row_of_the_reference_is_a_row_of_ours_under_all_its_names() {
    for section in SECTIONS {
        for names in section.rows {
            let row = section.table.rows.iter().find(|row| row.names.contains(&names[0]));
            let row = row.unwrap_or_else(|| panic!("reference {}: `{}` is no row", section.number, names[0]));
            let ours: BTreeSet<_> = row.names.iter().collect();
            let theirs: BTreeSet<_> = names.iter().collect();
            assert!(theirs.is_subset(&ours), "reference {}: {theirs:?} are {ours:?}", section.number);
        }
    }
}

#[test]
fn every_table_of_ours_is_one_of_the_reference_s_or_ours_alone() {
    let tables = super::tests::tables();
    for (name, table) in &tables {
        let known = SECTIONS.iter().any(|section| std::ptr::eq(section.table, *table));
        assert!(known || table.rows.iter().all(|row| row.ours), "the reference has no table `{name}`");
    }
    assert_eq!(tables.len(), SECTIONS.len() + 3, "beside those of the reference `reuse`, its `blob` and `resources`");
}

#[test]
fn every_row_of_ours_is_the_reference_s_or_says_that_it_is_ours() {
    for section in SECTIONS {
        for row in section.table.rows.iter().filter(|row| !row.ours) {
            let known = section.rows.iter().any(|names| names.contains(&row.names[0]))
                || section.rows.iter().any(|names| row.names.contains(&names[0]))
                || BESIDE.iter().any(|(number, name)| *number == section.number && row.names.contains(name));
            assert!(known, "reference {} has no `{}`", section.number, row.names[0]);
        }
    }
}

const COMMAND_ONLY: &str = "steps: [{command: x}]";
const GROUP_ONLY: &str = "steps: [{group: g, steps: [{command: x}]}]";
const TRIGGER_ONLY: &str = "steps: [{trigger: t}]";
const RULE_ONLY: &str = "steps: [{command: x, retry: {automatic: {}}}]";
const TEXT_ONLY: &str = "steps: [{block: b, fields: [{text: t, key: k}]}]";
const SELECT_ONLY: &str = "steps: [{block: b, fields: [{select: t, key: k, options: [{label: l, value: v}]}]}]";

/// The column "default" of the reference's tables: section, attribute, a document without it, and what it comes to there.
const DEFAULTS: &[(&str, &str, &str, &str, &str)] = &[
    ("2", "env", COMMAND_ONLY, "/env", "[]"),
    ("2", "agents", COMMAND_ONLY, "/nodes/0/kind/command/queue", "\"default\""),
    ("2", "notify", COMMAND_ONLY, "/notify", "[]"),
    ("2", "priority", COMMAND_ONLY, "/nodes/0/kind/command/priority", "0"),
    ("2", "image", COMMAND_ONLY, "/nodes/0/kind/command/image", "null"),
    ("2", "secrets", COMMAND_ONLY, "/nodes/0/kind/command/secrets", "[]"),
    ("2", "cache", COMMAND_ONLY, "/nodes/0/kind/command/cache", "null"),
    ("4", "command", "steps: [{plugins: [p]}]", "/nodes/0/kind/command/command", "\"\""),
    ("4", "label", COMMAND_ONLY, "/nodes/0/label", "\"x\""),
    ("4", "key", COMMAND_ONLY, "/nodes/0/key", "null"),
    ("4", "agents", "{agents: {queue: q}, steps: [{command: x}]}", "/nodes/0/kind/command/queue", "\"q\""),
    ("4", "allow_dependency_failure", COMMAND_ONLY, "/nodes/0/allow_dependency_failure", "false"),
    ("4", "artifact_paths", COMMAND_ONLY, "/nodes/0/kind/command/artifact_paths", "[]"),
    ("4", "branches", COMMAND_ONLY, "/nodes/0/broken", "null"),
    ("4", "cancel_on_build_failing", COMMAND_ONLY, "/nodes/0/kind/command/cancel_on_build_failing", "false"),
    ("4", "checkout", "{checkout: {depth: 3}, steps: [{command: x}]}", "/nodes/0/kind/command/checkout/depth", "3"),
    ("4", "concurrency", COMMAND_ONLY, "/nodes/0/kind/command/concurrency", "null"),
    (
        "4",
        "concurrency_method",
        "steps: [{command: x, concurrency: 1, concurrency_group: g}]",
        "/nodes/0/kind/command/concurrency/method",
        "\"ordered\"",
    ),
    ("4", "depends_on", COMMAND_ONLY, "/nodes/0/depends_on", "[]"),
    ("4", "env", COMMAND_ONLY, "/nodes/0/kind/command/env", "[]"),
    ("4", "image", "{image: i, steps: [{command: x}]}", "/nodes/0/kind/command/image", "\"i\""),
    ("4", "matrix", COMMAND_ONLY, "/nodes/0/matrix", "[]"),
    ("4", "notify", COMMAND_ONLY, "/nodes/0/notify", "[]"),
    ("4", "parallelism", COMMAND_ONLY, "/nodes/0/kind/command/parallel", "null"),
    ("4", "plugins", COMMAND_ONLY, "/nodes/0/kind/command/plugins", "[]"),
    ("4", "priority", "{priority: 4, steps: [{command: x}]}", "/nodes/0/kind/command/priority", "4"),
    ("4", "retry.automatic", COMMAND_ONLY, "/nodes/0/kind/command/retry", "[]"),
    ("4", "retry.manual", COMMAND_ONLY, "/nodes/0/kind/command/manual_retry/allowed", "true"),
    ("4", "skip", COMMAND_ONLY, "/nodes/0/skip", "null"),
    ("4", "skip: false", "steps: [{command: x, skip: false}]", "/nodes/0/skip", "null"),
    ("4", "skip: ''", "steps: [{command: x, skip: ''}]", "/nodes/0/skip", "null"),
    ("4", "skip: 'false'", "steps: [{command: x, skip: 'false'}]", "/nodes/0/skip", "\"false\""),
    ("4", "soft_fail", COMMAND_ONLY, "/nodes/0/kind/command/soft_fail", "\"never\""),
    ("4", "timeout_in_minutes", COMMAND_ONLY, "/nodes/0/kind/command/timeout_ms", "null"),
    ("5.1", "continue_on_failure", "steps: [wait]", "/nodes/0/kind/wait/continue_on_failure", "false"),
    ("5.2", "fields", "steps: [{block: b}]", "/nodes/0/kind/block/fields", "[]"),
    ("5.2", "blocked_state", "steps: [{block: b}]", "/nodes/0/kind/block/blocked_state", "\"passed\""),
    ("5.2", "allowed_teams", "steps: [{block: b}]", "/nodes/0/kind/block/allowed_teams", "[]"),
    ("5.2", "text: required", TEXT_ONLY, "/nodes/0/kind/block/fields/0/required", "true"),
    ("5.2", "select: required", SELECT_ONLY, "/nodes/0/kind/block/fields/0/required", "true"),
    ("5.4", "async", TRIGGER_ONLY, "/nodes/0/kind/trigger/async", "false"),
    ("5.4", "soft_fail", TRIGGER_ONLY, "/nodes/0/kind/trigger/soft_fail", "\"never\""),
    ("5.4", "build.env", TRIGGER_ONLY, "/nodes/0/kind/trigger/env", "[]"),
    ("5.5", "allow_dependency_failure", GROUP_ONLY, "/groups/0/allow_dependency_failure", "false"),
    ("5.5", "notify", GROUP_ONLY, "/groups/0/notify", "[]"),
    ("10.1", "limit", RULE_ONLY, "/nodes/0/kind/command/retry/0/limit", "2"),
    (
        "10.2",
        "permit_on_passed",
        "steps: [{command: x, retry: {manual: true}}]",
        "/nodes/0/kind/command/manual_retry/permit_on_passed",
        "true",
    ),
    (
        "10.2",
        "manual: false",
        "steps: [{command: x, retry: {manual: false}}]",
        "/nodes/0/kind/command/manual_retry/allowed",
        "false",
    ),
];

#[test]
fn what_is_left_out_has_the_reference_s_default() {
    for (section, attribute, document, pointer, expected) in DEFAULTS {
        let compiled = compile_with(document, "p.yml", &Inputs::default());
        let graph = compiled.graph.and_then(|graph| serde_json::to_value(graph).ok()).unwrap_or_default();
        let expected: Value = serde_json::from_str(expected).unwrap_or_default();
        assert_eq!(graph.pointer(pointer), Some(&expected), "reference {section}, {attribute}: {graph}");
    }
}
