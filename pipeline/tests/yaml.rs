//! Documents as trees: what merges, aliases and repetitions come to, and what is refused.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the tests' own helpers fail by panicking, and print what they measured"
)]

#[path = "support/clock.rs"]
mod clock;

use std::time::{Duration, Instant};

use windlass_pipeline::yaml::{Kind, Node, parse};

/// A document as JSON-like text, keys in their order.
fn written(node: &Node) -> String {
    match &node.kind {
        Kind::List(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(" ")),
        Kind::Map(map) => {
            let entries: Vec<String> =
                map.iter().map(|entry| format!("{}:{}", entry.key, written(&entry.value))).collect();
            format!("{{{}}}", entries.join(" "))
        }
        Kind::Null => "~".to_owned(),
        Kind::Time(time) => format!("time({time})"),
        Kind::Unsigned(value) => format!("unsigned({value})"),
        Kind::Bool(_) | Kind::Int(_) | Kind::Float(_) => format!("<{}>", node.natural().unwrap()),
        Kind::Text(text) => text.clone(),
    }
}

#[test]
fn documents_come_to_the_trees_that_the_reference_describes() {
    for (text, expected) in [
        ("a: 1\n1: b\ntrue: c\n~: d\n", "{a:<1> 1:b true:c null:d}"),
        ("{a: x, b: y, a: z}", "{a:z b:y}"),
        ("b: &b {x: 1, y: 2}\nm: {x: 9, <<: *b, z: 3}", "{b:{x:<1> y:<2>} m:{x:<9> y:<2> z:<3>}}"),
        ("b: &b {x: 1, y: 2}\nm: {<<: *b, x: 9}", "{b:{x:<1> y:<2>} m:{y:<2> x:<9>}}"),
        ("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nm: {<<: [*a, *b]}", "{a:{x:<1>} b:{x:<2> y:<2>} m:{x:<1> y:<2>}}"),
        ("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nm: {<<: *a, <<: *b}", "{a:{x:<1>} b:{x:<2> y:<2>} m:{x:<1> y:<2>}}"),
        ("a: &a {x: 1}\nb: &b {<<: *a, y: 2}\nm: {<<: *b, <<: *b}", "{a:{x:<1>} b:{x:<1> y:<2>} m:{x:<1> y:<2>}}"),
        ("k: &k key\n*k : v", "{k:key key:v}"),
        ("a: &x 1\nb: *x\nc: &x 2\nd: *x", "{a:<1> b:<1> c:<2> d:<2>}"),
        ("{'<<': {a: b}}", "{<<:{a:b}}"),
        ("\u{feff}a: b\r\nc: d\r\n", "{a:b c:d}"),
        ("{\"a\":\t[1,\t\"\\u00e9\", null, true, 1.5]}", "{a:[<1> é ~ <true> <1.5>]}"),
        ("a: |\n  x\n  y\nb: >\n  x\n  y\n", "{a:x\ny\n b:x y\n}"),
        ("a: !!str 5\nb: !!int '5'\nc: !custom 5\nd: 'yes'", "{a:5 b:<5> c:5 d:yes}"),
        ("a: 2002-08-15\nb: 12345678901234567890", "{a:time(2002-08-15T00:00:00Z) b:unsigned(12345678901234567890)}"),
    ] {
        let parsed = parse(text);
        assert_eq!(parsed.error, None, "{text}");
        assert_eq!(written(&parsed.documents[0]), expected, "{text}");
    }
}

#[test]
fn keys_and_values_know_their_places() {
    let parsed = parse("steps:\n  - key: \"é\"  # c\n    env: {A: b}\n    'it''s' : \"\\\"\"\n");
    let step = parsed.documents[0].as_map().unwrap().get("steps").unwrap().value.as_list().unwrap()[0]
        .as_map()
        .unwrap()
        .clone();
    let place = |key: &str| {
        let entry = step.get(key).unwrap();
        let (k, v) = (entry.key_span, entry.value.span);
        ((k.line, k.column, k.end_column), (v.line, v.column, v.end_line, v.end_column))
    };
    assert_eq!(place("key"), ((2, 5, 8), (2, 10, 2, 13)));
    assert_eq!(place("env"), ((3, 5, 8), (3, 10, 3, 16)));
    assert_eq!(place("it's"), ((4, 5, 12), (4, 15, 4, 19)));
}

#[test]
fn several_documents_are_read_in_order_and_share_no_anchors() {
    let parsed = parse("a: &x 1\n---\nb: 2\n---\n- c\n");
    assert_eq!(parsed.documents.iter().map(written).collect::<Vec<_>>(), ["{a:<1>}", "{b:<2>}", "[c]"]);
    let parsed = parse("a: &x 1\n---\nb: *x\n");
    assert_eq!((parsed.documents.len(), parsed.error.map(|error| error.code)), (1, Some("unknown-anchor")));
}

#[test]
fn hostile_documents_are_refused_within_named_limits() {
    let bomb: String = (1..30).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, n| {
        let inner = vec![format!("*a{}", n - 1); 10].join(", ");
        format!("{text}a{n}: &a{n} [{inner}]\n")
    });
    let fat = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), vec!["*a"; 1_000].join(", "));
    let stair: String =
        (1..200).fold("a0: &a0 [x]\n".to_owned(), |text, n| format!("{text}a{n}: &a{n} [*a{}]\n", n - 1));
    let merges: String = (1..40).fold("a0: &a0 {k: v}\n".to_owned(), |text, n| {
        format!("{text}a{n}: &a{n} {{<<: [{}]}}\n", vec![format!("*a{}", n - 1); 10].join(", "))
    });
    for (text, code) in [
        (bomb, "too-large"),
        (fat, "too-large"),
        (stair, "too-deep"),
        ("[".repeat(100_000), "too-deep"),
        ("- ".repeat(100_000), "too-deep"),
        ("{a: ".repeat(1_000), "too-deep"),
        ("--- a\n".repeat(1_000), "too-large"),
        ("x".repeat(5 << 20), "too-large"),
        ("a: &a {b: *a}".to_owned(), "infinite-recursion"),
        ("a: *nobody".to_owned(), "yaml-syntax"),
    ] {
        let error = parse(&text).error.unwrap_or_else(|| panic!("accepted: {text:.60}"));
        assert_eq!(error.code, code, "{text:.60}: {}", error.message);
    }
    // Merging the same thing ten times is no bomb: nothing multiplies.
    assert_eq!(parse(&merges).error, None);
}

#[test]
fn a_repeated_key_is_a_warning_at_the_second_place() {
    let parsed = parse("a: 1\nb: 2\na: 3\n");
    assert_eq!(parsed.warnings.len(), 1);
    assert_eq!((parsed.warnings[0].code, parsed.warnings[0].span.line), ("duplicate-key", 3));
}

#[test]
fn json_is_read_with_its_white_space_and_a_mapping_in_a_key_is_refused() {
    let parsed = parse("\n \t \n{\n\t\"steps\" :\t[\n\t\t{\"command\":\"a\\tb\"},\t\"wait\"]\n}\n");
    assert_eq!(parsed.error, None);
    assert_eq!(written(&parsed.documents[0]), "{steps:[{command:a\tb} wait]}");
    let parsed = parse("{\"a\":\t\"x\\\\\\\"\ty\",\t\"b\": \"\t\"}");
    assert_eq!(written(&parsed.documents[0]), "{a:x\\\"\ty b:\t}", "a tab in a string stays one");
    for (text, code) in [
        ("{[a]: b}", "complex-key"),
        ("? {a: b}\n: c\n", "complex-key"),
        ("a: &a [x]\n*a : y\n", "complex-key"),
        ("<<: 1\n", "wrong-merge"),
        ("<<: [{a: b}, 1]\n", "wrong-merge"),
        ("a:\n\t- b\n", "yaml-syntax"),
        ("a: b: c\n", "yaml-syntax"),
        ("%x", "yaml-syntax"),
    ] {
        assert_eq!(parse(text).error.map(|error| error.code), Some(code), "{text}");
    }
}

#[test]
fn alias_bombs_end_before_they_are_built() {
    let bombs = [
        // Depth by merges, width by lists, and keys that each are an alias.
        (1..25).fold("a0: &a0 {k: [x, x, x, x, x, x, x, x]}\n".to_owned(), |text, n| {
            let inner: Vec<String> = (0..8).map(|k| format!("k{k}: *a{}", n - 1)).collect();
            format!("{text}a{n}: &a{n} {{{}}}\n", inner.join(", "))
        }),
        format!("k: &k {}\nsteps:\n{}", "y".repeat(60_000), "- {command: *k, label: *k}\n".repeat(2_000)),
        format!("k: &k {}\nsteps:\n{}", "y".repeat(60_000), "- {*k : *k}\n".repeat(2_000)),
    ];
    for bomb in bombs {
        let began = Instant::now();
        let error = parse(&bomb).error.unwrap_or_else(|| panic!("accepted: {bomb:.60}"));
        assert_eq!(error.code, "too-large", "{bomb:.60}");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

#[test]
fn ten_thousand_steps_are_read_and_brought_into_their_normal_form_in_no_time() {
    let step = "  - command: make test\n    label: \":hammer: test\"\n    key: step-NNNN\n    env: {A: b, C: 1}\n    \
                agents: {queue: default}\n";
    let steps: String = (0..10_000).map(|n| step.replace("NNNN", &n.to_string())).collect();
    let text = format!("env: {{X: y}}\nsteps:\n{steps}");
    let read = clock::best(|| assert_eq!(parse(&text).error, None));
    let normal = clock::best(|| assert_eq!(windlass_pipeline::normal::upload(&text, None).unwrap().len(), 1));
    println!("10,000 steps, {} bytes: read in {read:?}, in normal form in {normal:?}", text.len());
    // An unoptimised build is slower by an order of magnitude.
    let limit = if cfg!(debug_assertions) { Duration::from_secs(5) } else { Duration::from_millis(100) };
    assert!(read < limit, "{read:?}");
}
