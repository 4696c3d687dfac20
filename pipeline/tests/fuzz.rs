//! Mutated pipelines through the fuzz entry. `WINDLASS_FUZZ_RUNS` sets how many; a failing one prints its seed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the tests' own helpers fail by panicking")]

use windlass_pipeline::{fuzz, fuzz_condition, fuzz_document, fuzz_glob, fuzz_interpolation};

const SEEDS: [&str; 8] = [
    "env: {A: 1, B: $A}\nsteps:\n  - key: a\n    command: [x, y]\n  - wait: ~\n  - {command: z, depends_on: [{step: a}]}\n",
    "a: &a {x: 1}\nb: {<<: *a, <<: [*a, {y: 2}]}\nsteps: [*a]\n---\n- wait\n",
    "steps: [{command: \"${A:-${B:-$$C}} ${D:1:-2} ${E?no}\", label: '%n %T', parallelism: 3}]",
    "steps:\n  - command: |\n      echo $X\n    retry: {automatic: [{exit_status: -1, cause: agent_lost}], manual: false}\n",
    "{\"steps\": [{\"command\": \"x\", \"resources\": {\"cpus\": 0.5, \"memory\": \"4GiB\"}}]}",
    "? [a, b]\n: - !!str 5\n  - 2002-08-15T10:00:00Z\n",
    "steps:\n- group: g\n  steps:\n  - {block: é, key: 🦀}\n- \"wait\"\n",
    "supersede: running\nsteps:\n  - {type: script, name: >\n     x, skip: '', soft_fail: [{exit_status: '*'}]}\n",
];

/// Pieces that are put in: what means something to the readers.
const PIECES: [&str; 22] = [
    "&a ",
    "*a",
    "<<: ",
    "${",
    "}",
    "$$",
    "---\n",
    "- ",
    ": ",
    "\n",
    "\t",
    "{",
    "[",
    "]",
    "|",
    "'",
    "\"",
    "\u{feff}",
    "é",
    "depends_on: a\n",
    "!!int ",
    "0x",
];

/// SplitMix64: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound.max(1)).unwrap()).unwrap()
    }
}

/// Expressions, with pieces of their own.
const EXPRESSIONS: [&str; 8] = [
    "build.branch == \"main\" || !build.fixed && env(\"A\") =~ /^a(b|c)+$/i",
    "build.creator.teams includes /x{1,3}?/ ? \"a$A\" == '${A}' : ${A:-\"x}\"} != null",
    "[\"a\", $A.b, \"\\x41\\101\\s\"] includes \"${A: -2:${B:-1}}\" // c",
    "build.state == \"passed\" == (step.outcome != null)",
    "\"\" =~ /(a)(?=b)[^]a-c-[b]]\\1(?#x)(?i-s:\\d)[[:alpha:]]\\p{L}/",
    "a ? b : c ? d : e",
    "${A:1:2} == 010 && ${A?} == build.env(\"${A+x}\")",
    "!(!(!(true))) != false",
];
const EXPRESSION_PIECES: [&str; 24] = [
    "${", "}", "$$", "\"", "'", "/", "\\", "(", ")", "[", "]", " && ", " || ", " == ", " =~ ", " ? ", " : ", "!",
    "null", "*", "{2}", "(?=", "[^", "é",
];

const GLOBS: [&str; 5] =
    ["**/*.{go,rs}\na/b/c.rs", "{a,b/**/{c,}}d?[^x]\nb/y/cdzz", "src/**\nsrc/x", "!a* b*c\nbxc", "\\*[a-]~\n*-~"];
const GLOB_PIECES: [&str; 12] = ["*", "**", "/**/", "?", "{", "}", ",", "[", "]", "\\", "\n", "é"];

fn mutated(random: &mut Random, seeds: &[&str], pieces: &[&str]) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].as_bytes().to_vec();
    for _ in 0..=random.below(6) {
        let at = random.below(bytes.len() + 1);
        match random.below(5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 => bytes.truncate(at),
            2 => drop(bytes.drain(at..(at + random.below(8)).min(bytes.len()))),
            3 => {
                let copied: Vec<u8> = bytes[at..(at + random.below(40)).min(bytes.len())].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copied);
            }
            _ => drop(bytes.splice(at..at, pieces[random.below(pieces.len())].bytes())),
        }
    }
    bytes
}

fn run(seeds: &[&str], pieces: &[&str], entry: fn(&[u8])) {
    let runs = std::env::var("WINDLASS_FUZZ_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(3_000_u64);
    for seed in 0..runs {
        let bytes = mutated(&mut Random(seed), seeds, pieces);
        if std::panic::catch_unwind(|| entry(&bytes)).is_err() {
            panic!("seed {seed}: {:?}", String::from_utf8_lossy(&bytes));
        }
    }
}

#[test]
fn no_mutation_of_a_pipeline_makes_the_reader_panic() {
    run(&SEEDS, &PIECES, fuzz);
}

#[test]
fn no_mutation_of_a_document_upsets_rendering_and_its_normal_form() {
    run(&SEEDS, &PIECES, fuzz_document);
}

#[test]
fn no_mutation_of_a_text_upsets_interpolation() {
    run(&["${A:-${B:-$$C}} ${D:1:-2} $A\\$", "$$${A?x} $é ${A: 1 : 2}"], &EXPRESSION_PIECES, fuzz_interpolation);
}

#[test]
fn no_mutation_of_an_expression_upsets_conditions() {
    run(&EXPRESSIONS, &EXPRESSION_PIECES, fuzz_condition);
}

#[test]
fn no_mutation_of_a_glob_upsets_matching() {
    run(&GLOBS, &GLOB_PIECES, fuzz_glob);
}
