//! `resources`: what a step needs while it runs. Ours.

use windlass_protocol::job::Resources;
use windlass_protocol::limits::{STEP_CPU_MAX_MILLIS, STEP_MEMORY_MAX_BYTES, STEP_MEMORY_MIN_BYTES};

use super::attribute;
use crate::diagnostic::Diagnostic;
use crate::read::Reader;
use crate::yaml::Node;

/// Names of units, lower case, and their bytes.
const UNITS: [(&str, u64); 14] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
    ("", 1),
];

pub(super) fn read(reader: &mut Reader, node: &Node) -> Resources {
    let Some(map) = reader.mapping("resources", "a mapping of `cpus` and `memory`", node) else {
        return Resources::default();
    };
    attribute::check(reader, map, &attribute::RESOURCES);
    Resources {
        cpu_millis: map.get("cpus").and_then(|entry| cpus(reader, &entry.value)).unwrap_or(0),
        memory_bytes: map.get("memory").and_then(|entry| memory(reader, &entry.value)).unwrap_or(0),
    }
}

fn cpus(reader: &mut Reader, node: &Node) -> Option<u64> {
    if node.is_null() {
        return None;
    }
    let text = reader.text("cpus", node)?;
    let Some(millis) = scaled(text.trim(), 1_000) else {
        reader.wrong_type("cpus", "a number such as `2` or `0.5`", node);
        return None;
    };
    if millis == 0 || millis > STEP_CPU_MAX_MILLIS {
        let most = STEP_CPU_MAX_MILLIS / 1_000;
        reader.error("out-of-range", node.span, format!("`cpus` must be from 0.001 to {most}"));
        return None;
    }
    Some(millis)
}

fn memory(reader: &mut Reader, node: &Node) -> Option<u64> {
    if node.is_null() {
        return None;
    }
    let text = reader.text("memory", node)?;
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let unit = text[digits..].trim().to_ascii_lowercase();
    let unit_bytes = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, bytes)| *bytes);
    let Some(bytes) = unit_bytes.and_then(|unit| scaled(&text[..digits], unit)) else {
        reader.wrong_type("memory", "bytes, or a number with a unit such as `4GiB` or `512MB`", node);
        return None;
    };
    if !(STEP_MEMORY_MIN_BYTES..=STEP_MEMORY_MAX_BYTES).contains(&bytes) {
        let message =
            format!("`memory` must be from {STEP_MEMORY_MIN_BYTES} bytes (4MiB) to {STEP_MEMORY_MAX_BYTES} (1024TiB)");
        let hint = (unit.is_empty()).then(|| format!("a number alone is bytes; did you mean `{text}GiB`?"));
        reader.findings.push(Diagnostic::error("out-of-range", node.span, message).maybe_hint(hint));
        return None;
    }
    Some(bytes)
}

/// `digits[.digits]` times a unit, rounded down.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fits = |part: &str| part.len() <= 15 && part.bytes().all(|b| b.is_ascii_digit());
    if !fits(whole) || !fits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let number = |part: &str| if part.is_empty() { Some(0) } else { part.parse::<u128>().ok() };
    let places = u32::try_from(fraction.len()).ok()?;
    let unit = u128::from(unit);
    let total = number(whole)? * unit + number(fraction)? * unit / 10_u128.pow(places);
    u64::try_from(total).ok()
}

#[cfg(test)]
mod tests {
    use super::scaled;

    #[test]
    fn decimal_numbers_are_scaled_exactly() {
        for (text, unit, expected) in [
            ("2", 1_000, Some(2_000)),
            ("0.5", 1_000, Some(500)),
            (".25", 1_000, Some(250)),
            ("1.5", 1 << 30, Some(3 << 29)),
            ("0.0001", 1_000, Some(0)),
            ("", 1_000, None),
            (".", 1_000, None),
            ("1e3", 1_000, None),
            ("-1", 1_000, None),
            ("999999999999999", 1 << 40, None),
        ] {
            assert_eq!(scaled(text, unit), expected, "{text} of {unit}");
        }
    }
}
