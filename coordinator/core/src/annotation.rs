//! Annotations: words about a build, or about one of its jobs, for people (reference 19.3).
//!
//! What they are called and how long they are stands in their build's row; their texts go to the store, which adds to them
//! what is to be added, and never come back here.

use windlass_protocol::{BuildId, JobId, limits};

use crate::account::of_note;
use crate::error::Rejected;
use crate::row::{Annotate, Annotation, BuildEvent, Change, EventRow};
use crate::state::Core;

/// Where nothing else is said (reference 19.3).
const PRIORITY: u8 = 3;

/// The one of this name.
fn find(all: &[Annotation], context: &str, job: Option<JobId>) -> Option<usize> {
    all.iter().position(|annotation| annotation.context == context && annotation.job == job)
}

impl Core {
    /// Writes one. A text takes the place of the text and the style that were there, unless it is added.
    pub(crate) fn annotate(&mut self, build: BuildId, speaker: JobId, says: Annotate) -> Result<(), Rejected> {
        let wall = self.now.wall;
        let job = says.own.then_some(speaker);
        let all = &self.builds[&build].row.annotations;
        let found = find(all, &says.context, job);
        let known = found.and_then(|at| all.get(at));
        if known.is_none() && says.text.is_none() {
            let why = format!("there is no annotation `{}` whose style could change", says.context);
            return Err(Rejected::Answer { field: "context".to_owned(), why });
        }
        let before = known.map_or(0, |annotation| annotation.bytes);
        let added = says.text.as_ref().map_or(0, String::len);
        let keeps = says.append || says.text.is_none();
        let bytes = if keeps { before + added } else { added };
        let total: usize = all.iter().map(|annotation| annotation.bytes).sum();
        for (what, value, limit) in [
            (
                "characters of an annotation's context",
                says.context.chars().count(),
                limits::ANNOTATION_CONTEXT_MAX_CHARS,
            ),
            ("bytes of an annotation", bytes, limits::ANNOTATION_MAX_BYTES),
            ("bytes of a build's annotations", total - before + bytes, limits::ANNOTATIONS_MAX_BYTES),
            ("annotations of one build", all.len() + usize::from(known.is_none()), limits::ANNOTATIONS_PER_BUILD_MAX),
        ] {
            if value > limit {
                return Err(Rejected::Limit { what, limit: limit as u64 });
            }
        }
        let less = known.map_or(0, |known| of_note(&known.context, known.bytes));
        self.check_room(build, of_note(&says.context, bytes), less)?;
        let kept = known.filter(|_| keeps);
        let annotation = Annotation {
            id: known.map_or_else(|| self.ids.annotation(wall), |annotation| annotation.id),
            context: says.context,
            job,
            style: says.style.or(kept.and_then(|annotation| annotation.style)),
            priority: says.priority.or(kept.map(|annotation| annotation.priority)).unwrap_or(PRIORITY),
            bytes,
            by: speaker,
            created_at: known.map_or(wall, |annotation| annotation.created_at),
            updated_at: wall,
        };
        let (id, context) = (annotation.id, annotation.context.clone());
        let row = self.edit_build(build);
        match found.and_then(|at| row.annotations.get_mut(at)) {
            Some(known) => *known = annotation,
            None => row.annotations.push(annotation),
        }
        self.count_texts(build);
        let text = says.text.map(|text| Change::AnnotationText { annotation: id, build, text, append: says.append });
        self.book.texts.extend(text);
        let event = BuildEvent::Annotated { annotation: id, context, job };
        self.book.events.push(EventRow { build, at: wall, event });
        Ok(())
    }

    /// Takes one away; where there is none there is nothing to do.
    pub(crate) fn remove_annotation(&mut self, build: BuildId, context: &str, job: Option<JobId>) {
        let Some(at) = find(&self.builds[&build].row.annotations, context, job) else { return };
        let gone = self.edit_build(build).annotations.remove(at);
        self.count_texts(build);
        self.book.texts.push(Change::AnnotationGone(gone.id));
        let event = BuildEvent::AnnotationRemoved { annotation: gone.id, context: gone.context, job };
        self.book.events.push(EventRow { build, at: self.now.wall, event });
    }
}
