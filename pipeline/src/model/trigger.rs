//! Trigger steps (reference 5.4).

use windlass_protocol::limits::NAME_MAX_BYTES;

use super::TriggerStep;
use super::attribute::{self, BUILD};
use super::command::{parallelism, soft_fail, variables};
use super::gate::text;
use crate::diagnostic::Span;
use crate::read::Reader;
use crate::yaml::Map;

pub(super) fn read(reader: &mut Reader, span: Span, map: &Map) -> TriggerStep {
    let pipeline = map.get("trigger").filter(|entry| !entry.value.is_null());
    if pipeline.is_none() {
        reader.error("missing-attribute", span, "the trigger step does not name its pipeline");
    }
    let mut step = TriggerStep {
        pipeline: pipeline.and_then(|entry| reader.name("trigger", &entry.value, NAME_MAX_BYTES)).unwrap_or_default(),
        r#async: map.get("async").and_then(|entry| reader.flag(entry)).unwrap_or(false),
        soft_fail: map.get("soft_fail").and_then(|entry| soft_fail(reader, &entry.value)).unwrap_or_default(),
        parallelism: map.get("parallelism").and_then(|entry| parallelism(reader, entry)),
        ..TriggerStep::default()
    };
    let build = map.get("build").and_then(|entry| reader.map("build", "a mapping", &entry.value));
    if let Some(build) = build {
        attribute::check(reader, build, &BUILD);
        step.branch = text(reader, build, "branch");
        step.commit = text(reader, build, "commit");
        step.message = text(reader, build, "message");
        step.env = build.get("env").map(|entry| variables(reader, "env", &entry.value)).unwrap_or_default();
        step.meta_data =
            build.get("meta_data").map(|entry| variables(reader, "meta_data", &entry.value)).unwrap_or_default();
    }
    step
}
