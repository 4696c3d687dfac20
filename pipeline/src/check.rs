//! What only all steps together show: keys, dependencies, circles, artifacts (reference 3.3, 6).

mod artifact;
mod cycle;
mod key;

use crate::decide::Fate;
use crate::diagnostic::{Diagnostic, Severity};
use crate::graph::{Dependency, Feature, LinkGroup, LinkKind, LinkStep, Linked, link};
use crate::model::{Dependency as Written, Pipeline, StepKind, StepWord};
use crate::read::{Reader, shown};
use crate::suggest::did_you_mean;

/// Checks what steps say of each other, and gives each step's edges, the implicit ones written out.
pub(crate) fn check(reader: &mut Reader, pipeline: &Pipeline, fates: &[Fate], served: Option<&[Feature]>) -> Linked {
    let later = served.is_none_or(|served| served.contains(&Feature::UnresolvedDependency));
    let keys = key::check(reader, pipeline);
    let linked = edges(pipeline, fates);
    for step in &pipeline.steps {
        let own = step.key.as_ref().map_or("", |key| key.named.text.as_str());
        unresolved(reader, &keys, own, step.depends_on.as_deref(), later);
    }
    for group in &pipeline.groups {
        let own = group.key.as_ref().map_or("", |key| key.named.text.as_str());
        unresolved(reader, &keys, own, group.depends_on.as_deref(), later);
    }
    cycle::check(reader, pipeline, &linked.edges);
    artifact::check(reader, pipeline);
    linked
}

fn edges(pipeline: &Pipeline, fates: &[Fate]) -> Linked {
    let declared = |written: Option<&[Written]>| -> Option<Vec<Dependency>> {
        written.map(|all| all.iter().map(Written::to_graph).collect())
    };
    let of_steps: Vec<_> = pipeline.steps.iter().map(|step| declared(step.depends_on.as_deref())).collect();
    let of_groups: Vec<_> = pipeline.groups.iter().map(|group| declared(group.depends_on.as_deref())).collect();
    let steps: Vec<LinkStep<'_>> = pipeline
        .steps
        .iter()
        .zip(&of_steps)
        .zip(fates)
        .map(|((step, declared), fate)| LinkStep {
            place: &step.place,
            uploaded_by: None,
            kind: match (step.kind, step.elements.first().map(|element| &element.kind)) {
                (StepWord::Wait, Some(StepKind::Wait { continue_on_failure })) => {
                    LinkKind::Wait { continue_on_failure: *continue_on_failure }
                }
                (StepWord::Block, _) => LinkKind::Block,
                _ => LinkKind::Other,
            },
            key: step.key.as_ref().map(|key| key.named.text.as_str()),
            declared: declared.as_deref(),
            conditional: step.condition.is_some() || step.branches.is_some(),
            removed: fate.broken.is_some(),
        })
        .collect();
    let groups: Vec<LinkGroup<'_>> = pipeline
        .groups
        .iter()
        .zip(&of_groups)
        .map(|(group, declared)| LinkGroup {
            place: &group.place,
            uploaded_by: None,
            key: group.key.as_ref().map(|key| key.named.text.as_str()),
            declared: declared.as_deref(),
            allow_dependency_failure: group.allow_dependency_failure,
        })
        .collect();
    link(&steps, &groups)
}

/// A key that nobody has is no error where a `later` upload may bring it (reference 6.2). It is more often a mistake.
fn unresolved(reader: &mut Reader, keys: &key::Keys<'_>, own: &str, dependencies: Option<&[Written]>, later: bool) {
    for Written { step: name, .. } in dependencies.unwrap_or_default() {
        if keys.contains(name.text.as_str()) || (reader.open && name.text.contains('$')) {
            continue;
        }
        reader.uses(Feature::UnresolvedDependency, name.span);
        if key::is_uuid(&name.text) {
            continue;
        }
        let others = keys.iter().copied().filter(|key| *key != own);
        let or_else = || Some("unless a later upload brings it, the step never runs and the build fails".to_owned());
        let hint = reader.findings.wants_hints().then(|| did_you_mean(&name.text, others).or_else(or_else)).flatten();
        let who = if own.is_empty() { "the step".to_owned() } else { format!("step `{}`", shown(own)) };
        let message = format!("{who} depends on `{}`, which is not in this pipeline", shown(&name.text));
        let severity = if later { Severity::Warning } else { Severity::Error };
        let diagnostic = Diagnostic::error("unknown-dependency", name.span, message).maybe_hint(hint);
        reader.findings.push(Diagnostic { severity, ..diagnostic });
    }
}
