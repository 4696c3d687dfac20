//! The registry: pipelines by name. What a build needs of its pipeline it keeps from when it is made; a change of the
//! registry changes only builds that are made after it.

use windlass_protocol::{Digest, PipelineId, limits};

use crate::error::Rejected;
use crate::row::{Actor, DEFAULT_BRANCH, PipelineChange, PipelineRow, Registered};
use crate::state::Core;

impl Core {
    /// Registers a pipeline.
    pub(crate) fn create_pipeline(
        &mut self,
        actor: &Actor,
        id: PipelineId,
        name: &str,
        change: PipelineChange,
    ) -> Result<(), Rejected> {
        if self.pipelines.contains_key(name) {
            return Err(Rejected::PipelineExists(name.to_owned()));
        }
        bound("registered pipelines", self.pipelines.len() + 1, limits::PIPELINES_MAX)?;
        bound("bytes of a name", name.len(), limits::NAME_MAX_BYTES)?;
        let wall = self.now.wall;
        let row = PipelineRow {
            id,
            name: name.to_owned(),
            description: String::new(),
            repository: None,
            default_branch: DEFAULT_BRANCH.to_owned(),
            file: None,
            definition: None,
            protected_refs: Vec::new(),
            env: Vec::new(),
            timeout_ms: None,
            created_by: actor.clone(),
            created_at: wall,
            updated_at: wall,
        };
        let said = self.settle_pipeline(row, change)?;
        self.audit(actor, "pipeline.create", name, &said);
        Ok(())
    }

    /// Changes a registered pipeline.
    pub(crate) fn update_pipeline(
        &mut self,
        actor: &Actor,
        name: &str,
        change: PipelineChange,
    ) -> Result<(), Rejected> {
        let row = self.pipelines.get(name).ok_or_else(|| Rejected::NoSuchPipeline(name.to_owned()))?;
        let row = PipelineRow { updated_at: self.now.wall, ..row.clone() };
        let said = self.settle_pipeline(row, change)?;
        self.audit(actor, "pipeline.update", name, &said);
        Ok(())
    }

    /// Puts the row in place, once all of what is said of it is found to be fit; the names of what was said.
    fn settle_pipeline(&mut self, mut row: PipelineRow, change: PipelineChange) -> Result<String, Rejected> {
        let said = names(&change);
        let definition = change.definition.clone();
        apply(&mut row, change);
        check(&row)?;
        if let Some(Some(text)) = definition {
            bound("bytes of a pipeline", text.len(), limits::PIPELINE_MAX_BYTES)?;
            let digest = Digest::of(text.as_bytes());
            row.definition = Some(digest);
            self.book.definitions.push((digest, text));
        }
        self.book.pipelines.insert(row.name.clone());
        self.pipelines.insert(row.name.clone(), row);
        Ok(said)
    }

    /// What a build that is made now keeps of its pipeline, and the variables that lie beneath its own.
    pub(crate) fn registered(
        &self,
        name: &str,
        own: Vec<(String, String)>,
    ) -> (Option<Registered>, Vec<(String, String)>) {
        let Some(row) = self.pipelines.get(name) else { return (None, own) };
        let beneath = row.env.iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name));
        let env = beneath.cloned().collect::<Vec<_>>();
        (Some(row.into()), env.into_iter().chain(own).collect())
    }

    /// A registered pipeline by name.
    #[must_use]
    pub fn pipeline(&self, name: &str) -> Option<&PipelineRow> {
        self.pipelines.get(name)
    }
}

/// What a change speaks of.
fn names(change: &PipelineChange) -> String {
    let said = [
        ("description", change.description.is_some()),
        ("repository", change.repository.is_some()),
        ("default_branch", change.default_branch.is_some()),
        ("file", change.file.is_some()),
        ("definition", change.definition.is_some()),
        ("protected_refs", change.protected_refs.is_some()),
        ("env", !change.env.is_empty()),
        ("timeout", change.timeout_ms.is_some()),
    ];
    said.iter().filter(|(_, said)| *said).map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
}

fn apply(row: &mut PipelineRow, change: PipelineChange) {
    let PipelineChange { description, repository, default_branch, file, definition, protected_refs, env, timeout_ms } =
        change;
    row.description = description.unwrap_or(std::mem::take(&mut row.description));
    row.repository = repository.unwrap_or(row.repository.take());
    row.default_branch = default_branch.unwrap_or(std::mem::take(&mut row.default_branch));
    row.file = file.unwrap_or(row.file.take());
    row.definition = definition.map_or(row.definition, |text| text.map(|text| Digest::of(text.as_bytes())));
    row.protected_refs = protected_refs.unwrap_or(std::mem::take(&mut row.protected_refs));
    row.timeout_ms = timeout_ms.unwrap_or(row.timeout_ms);
    for (name, value) in env {
        match (value, row.env.iter().position(|(other, _)| *other == name)) {
            (Some(value), Some(place)) => row.env[place].1 = value,
            (Some(value), None) => row.env.push((name, value)),
            (None, Some(place)) => drop(row.env.remove(place)),
            (None, None) => {}
        }
    }
}

fn bound(what: &'static str, value: usize, limit: usize) -> Result<(), Rejected> {
    if value > limit { Err(Rejected::Limit { what, limit: limit as u64 }) } else { Ok(()) }
}

fn check(row: &PipelineRow) -> Result<(), Rejected> {
    let env: usize = row.env.iter().map(|(name, value)| name.len() + value.len()).sum();
    let longest_ref = row.protected_refs.iter().map(String::len).max().unwrap_or(0);
    for (what, value, limit) in [
        ("bytes of a description", row.description.len(), limits::DETAIL_MAX_BYTES),
        ("bytes of a URL", row.repository.as_ref().map_or(0, String::len), limits::URL_MAX_BYTES),
        ("bytes of a name", row.default_branch.len(), limits::NAME_MAX_BYTES),
        ("bytes of a path", row.file.as_ref().map_or(0, String::len), limits::NAME_MAX_BYTES),
        ("bytes of an environment", env, limits::ENV_MAX_BYTES),
        ("variables", row.env.len(), limits::ENV_VARS_MAX),
        ("protected refs", row.protected_refs.len(), limits::PROTECTED_PATTERNS_MAX),
        ("bytes of a protected ref", longest_ref, limits::NAME_MAX_BYTES),
    ] {
        bound(what, value, limit)?;
    }
    let refuse = |what, why: &str| Err(Rejected::Setting { what, why: why.to_owned() });
    let odd = |text: &str| text.is_empty() || text.starts_with(['-', '!']) || text.contains(char::is_whitespace);
    let pattern = |text: &str| text.contains(['*', '?', '[', '{', '\\', '~', '^', ':']);
    if odd(&row.default_branch) || pattern(&row.default_branch) {
        return refuse("default_branch", "a branch's name");
    }
    if row.repository.as_deref().is_some_and(|url| odd(url) || url.contains(char::is_control)) {
        return refuse("repository", "a URL that git understands");
    }
    if row.protected_refs.iter().any(|pattern| odd(pattern)) {
        return refuse("protected_refs", "names of branches, or whole refs such as refs/tags/v*");
    }
    let inside = |path: &str| !path.starts_with('/') && path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if row.file.as_deref().is_some_and(|path| !inside(path) || path.contains(char::is_control)) {
        return refuse("file", "a path within the source, such as .windlass/pipeline.yml");
    }
    if row.timeout_ms == Some(0) {
        return refuse("timeout", "longer than nothing");
    }
    Ok(())
}
