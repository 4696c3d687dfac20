//! What removes a container and its network, by its supervisor or after that one's death.

use rustix::process::Signal;
use windlass_protocol::limits::{ENGINE_NOTICE_MS, ENGINE_REMOVE_MS, ENGINE_REMOVE_UNWELL_MS};

use super::super::engine::Engine;
use super::super::init::Init;
use crate::launch::{ContainerRecord, ContainerTask, InitRecord};

/// Ends and removes what an attempt without a supervisor left; says whether it is certain that nothing of it runs.
pub(crate) fn bury(record: &ContainerRecord, init: Option<&InitRecord>) -> bool {
    let seen = init.map(Init::again);
    if let Some(Ok(Some(init))) = &seen {
        // Not being allowed to leaves it to the engine.
        init.signal(Signal::KILL);
    }
    let engine = Engine::new(&record.engine);
    let container = removed(&engine, &format!("/containers/{}?force=1&v=1", record.name), ENGINE_REMOVE_MS);
    if container == Some(true) {
        // What is left of it is found by its labels.
        removed(&engine, &format!("/networks/{}", record.name), ENGINE_REMOVE_UNWELL_MS);
    }
    match &seen {
        None | Some(Err(_)) => container == Some(true),
        Some(Ok(None)) => true,
        Some(Ok(Some(init))) => init.ends_within(ENGINE_NOTICE_MS),
    }
}

/// Removes container and network; says whether that is done, or cannot be: what an engine that does not answer still
/// holds is found by its labels later.
pub(super) fn remove(engine: &Engine, task: &ContainerTask, limit_ms: u64) -> bool {
    let container = removed(engine, &format!("/containers/{}?force=1&v=1", task.container), limit_ms);
    match (&task.network, container) {
        (Some(network), Some(true)) => removed(engine, &format!("/networks/{network}"), limit_ms).unwrap_or(true),
        (_, container) => container.unwrap_or(true),
    }
}

/// Whether it is gone; `None` where the engine does not say.
fn removed(engine: &Engine, path: &str, limit_ms: u64) -> Option<bool> {
    let answer = engine.call("DELETE", path, limit_ms).ok()?;
    Some(answer.status < 300 || answer.status == 404)
}
