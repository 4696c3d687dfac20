//! Gates: block and input steps that a person opens, and what the answers must be (reference 5.2, 5.3); and the meta-data
//! that the answers become.

use std::collections::{BTreeMap, BTreeSet};

use windlass_pipeline::graph::{Choice, Field, FieldKind, Gate, NodeKind, typed};
use windlass_protocol::{JobId, limits};

use crate::account::of_meta_data;
use crate::error::Rejected;
use crate::row::{Actor, BuildState, JobRefused, JobState, Unblocked};
use crate::state::Core;

/// The gate that a step is.
pub(crate) const fn gate_of(kind: &NodeKind) -> Option<&Gate> {
    match kind {
        NodeKind::Block(gate) | NodeKind::Input(gate) => Some(gate),
        NodeKind::Command(_) | NodeKind::Wait { .. } | NodeKind::Trigger(_) => None,
    }
}

impl Core {
    /// Opens a gate: what waits behind it goes on, and the answers become the build's meta-data. Gives a line for the
    /// audit trail. That answers match the formats of their fields is seen to before ([`Gate::check_formats`]).
    pub(crate) fn unblock(
        &mut self,
        actor: &Actor,
        id: JobId,
        given: &BTreeMap<String, Vec<String>>,
    ) -> Result<String, Rejected> {
        let row = &self.jobs.get(&id).ok_or(Rejected::JobNotInMemory(id))?.row;
        let refuse = |why| Err(Rejected::Job { job: id, why });
        let Some(gate) = gate_of(&row.node.kind) else { return refuse(JobRefused::NotAGate) };
        match (row.state, &row.unblocked) {
            (JobState::Blocked, _) => {}
            (_, Some(unblocked)) => return refuse(JobRefused::Unblocked { by: unblocked.by.name.clone() }),
            (state, None) if state.is_final() => return refuse(JobRefused::Ended),
            (_, None) => return refuse(JobRefused::NotReached),
        }
        if !gate.allowed_teams.is_empty() && !gate.allowed_teams.contains(&actor.name) {
            return refuse(JobRefused::NotAllowedHere { teams: gate.allowed_teams.clone() });
        }
        let answers = answers(gate, given)?;
        let build = row.build;
        let meta_data = self.with_meta_data(build, answers.iter().cloned())?;
        let detail = answers.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ");
        let unblocked = Unblocked { by: actor.clone(), at: self.now.wall, answers };
        let row = self.edit_build(build);
        row.meta_data = meta_data;
        row.unblocker = Some(actor.clone());
        self.count_texts(build);
        self.change_job(id, |row| {
            row.started_at = Some(unblocked.at);
            row.unblocked = Some(unblocked);
            row.state = JobState::Unblocked;
        });
        Ok(detail)
    }

    /// Sets meta-data of a build that goes on.
    pub(crate) fn set_meta_data(
        &mut self,
        id: windlass_protocol::BuildId,
        values: BTreeMap<String, String>,
    ) -> Result<(), Rejected> {
        if !self.builds.contains_key(&id) {
            return Err(Rejected::NotInMemory(id));
        }
        if let Some((key, _)) = values.iter().find(|(key, value)| key.trim().is_empty() || value.trim().is_empty()) {
            let why = "neither a key nor a value may be blank".to_owned();
            return Err(Rejected::Answer { field: key.clone(), why });
        }
        let meta_data = self.with_meta_data(id, values)?;
        self.edit_build(id).meta_data = meta_data;
        self.count_texts(id);
        Ok(())
    }

    /// A build's meta-data with some set, if it may hold that.
    fn with_meta_data(
        &self,
        id: windlass_protocol::BuildId,
        values: impl IntoIterator<Item = (String, String)>,
    ) -> Result<BTreeMap<String, String>, Rejected> {
        let before = &self.builds[&id].row.meta_data;
        let mut meta_data = before.clone();
        meta_data.extend(values);
        check_meta_data(&meta_data)?;
        self.check_room(id, of_meta_data(&meta_data), of_meta_data(before))?;
        Ok(meta_data)
    }

    /// Gates that were opened say so whether their build has failed since (reference 16.1).
    pub(crate) fn mark_gates(&mut self, build: windlass_protocol::BuildId, state: BuildState) {
        let (from, to) = match state {
            BuildState::Failed => (JobState::Unblocked, JobState::UnblockedFailed),
            _ => (JobState::UnblockedFailed, JobState::Unblocked),
        };
        for job in self.builds[&build].jobs.clone() {
            let row = &self.jobs[&job].row;
            if row.state == from && row.unblocked.is_some() {
                self.set_state(job, to);
            }
        }
    }
}

/// A build's meta-data within its limits.
pub(crate) fn check_meta_data(meta_data: &BTreeMap<String, String>) -> Result<(), Rejected> {
    let bytes: usize = meta_data.iter().map(|(key, value)| key.len() + value.len()).sum();
    let key = meta_data.keys().map(String::len).max().unwrap_or(0);
    let value = meta_data.values().map(String::len).max().unwrap_or(0);
    for (what, value, limit) in [
        ("bytes of a meta-data key", key, limits::META_DATA_KEY_MAX_BYTES),
        ("bytes of a meta-data value", value, limits::META_DATA_VALUE_MAX_BYTES),
        ("meta-data keys of one build", meta_data.len(), limits::META_DATA_KEYS_MAX),
        ("bytes of a build's meta-data", bytes, limits::META_DATA_MAX_BYTES),
    ] {
        if value > limit {
            return Err(Rejected::Limit { what, limit: limit as u64 });
        }
    }
    Ok(())
}

/// The answer to each question, as it is stored.
fn answers(gate: &Gate, given: &BTreeMap<String, Vec<String>>) -> Result<Vec<(String, String)>, Rejected> {
    let refuse = |field: &str, why: String| Err(Rejected::Answer { field: field.to_owned(), why });
    if let Some(unknown) = given.keys().find(|key| gate.fields.iter().all(|field| field.key != **key)) {
        let known: Vec<&str> = gate.fields.iter().map(|field| field.key.as_str()).collect();
        let why = match known.as_slice() {
            [] => "the step asks nothing".to_owned(),
            known => format!("the step does not ask for it; it asks for {}", known.join(", ")),
        };
        return refuse(unknown, why);
    }
    let mut answers = Vec::with_capacity(gate.fields.len());
    for field in &gate.fields {
        let values = given.get(&field.key);
        match answer(field, values.map(Vec::as_slice)) {
            Ok(value) if value.len() > limits::META_DATA_VALUE_MAX_BYTES => {
                let (what, limit) = ("bytes of a meta-data value", limits::META_DATA_VALUE_MAX_BYTES as u64);
                return Err(Rejected::Limit { what, limit });
            }
            Ok(value) => answers.push((field.key.clone(), value)),
            Err(why) => return refuse(&field.key, why),
        }
    }
    Ok(answers)
}

/// One answer; a question that is left out is answered by its default.
fn answer(field: &Field, given: Option<&[String]>) -> Result<String, String> {
    let value = match &field.kind {
        // Whether it matches its format is asked before the core is: that may take a while.
        FieldKind::Text { default, format: _ } => {
            typed(default.as_deref(), given).ok_or_else(|| "it takes one value".to_owned())?
        }
        FieldKind::Select { options, multiple, default } => {
            let values = given.unwrap_or(default);
            chosen(options, *multiple, values)?
        }
    };
    if field.required && value.is_empty() { Err("it needs a value".to_owned()) } else { Ok(value) }
}

/// Options that are named where an answer is none of them.
const OPTIONS_SHOWN: usize = 20;

/// The chosen values, in the order of the options. There may be many of both.
fn chosen(options: &[Choice], multiple: bool, values: &[String]) -> Result<String, String> {
    if values.len() > limits::OPTIONS_MAX {
        return Err(format!("it takes at most {} values", limits::OPTIONS_MAX));
    }
    let known: BTreeSet<&str> = options.iter().map(|option| option.value.as_str()).collect();
    let values: BTreeSet<&str> = values.iter().map(String::as_str).filter(|value| !value.is_empty()).collect();
    if let Some(unknown) = values.iter().find(|value| !known.contains(*value)) {
        let shown: String = unknown.chars().take(100).collect();
        let some: Vec<&str> = options.iter().map(|option| option.value.as_str()).take(OPTIONS_SHOWN).collect();
        let more = if options.len() > OPTIONS_SHOWN { ", ..." } else { "" };
        return Err(format!("`{shown}` is not one of {}{more}", some.join(", ")));
    }
    let picked: Vec<&Choice> = options.iter().filter(|option| values.contains(option.value.as_str())).collect();
    if !multiple && picked.len() > 1 {
        return Err("it takes one value".to_owned());
    }
    if let Some(missing) = options.iter().find(|option| option.required && !values.contains(option.value.as_str())) {
        return Err(format!("`{}` must be chosen", missing.value));
    }
    Ok(picked.iter().map(|option| option.value.as_str()).collect::<Vec<_>>().join("\n"))
}
