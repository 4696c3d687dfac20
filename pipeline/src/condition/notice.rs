//! Conditions of notifications: each text is read once for a build, and all of one event share an account of what reading
//! and asking them may cost.

use std::collections::BTreeMap;

use windlass_protocol::limits::CONDITIONS_KEPT_EFFORT_MAX;

use super::regex::Effort;
use super::{Condition, Context, EntryPoint, Environment, MATCHES_MAX, validate_within};

/// What reading a byte of a condition costs, beside its patterns.
const READ_BYTE: usize = 256;

/// What asking a condition costs, beside its matches.
const ASK: usize = 4_096;
const ASK_BYTE: usize = 64;

/// Conditions of a build's notifications that were read before. What is beyond its bound is read again each time.
#[derive(Debug, Default)]
pub struct Conditions {
    /// By entry point, then text; `None` is one that is none.
    read: [BTreeMap<String, Option<Condition>>; 2],
    /// What reading those that are kept did cost.
    effort: usize,
}

/// The conditions of one event's notifications: they share what they look at, and what they may cost together.
#[derive(Debug)]
pub struct Notices {
    context: Context,
    environment: Environment,
    effort: Effort,
}

impl Notices {
    /// Of an event of which this is known.
    #[must_use]
    pub fn new(context: Context) -> Self {
        let environment = context.environment();
        Self { context, environment, effort: Effort::for_matches(MATCHES_MAX) }
    }

    /// For the facts of a step, which are not in the environment: each step of an event has its own.
    pub const fn context_mut(&mut self) -> &mut Context {
        &mut self.context
    }

    /// Whether a condition holds; one that cannot be decided, or not within what is left, does not.
    #[must_use]
    pub fn holds(&self, conditions: &mut Conditions, expression: &str, entry: EntryPoint) -> bool {
        if !self.effort.take(ASK.saturating_add(expression.len().saturating_mul(ASK_BYTE))) {
            return false;
        }
        let decide = |it: &Condition| it.evaluate_within(&self.context, &self.environment, &self.effort);
        let kept = &mut conditions.read[usize::from(entry == EntryPoint::StepNotification)];
        if let Some(known) = kept.get(expression) {
            return known.as_ref().is_some_and(|it| decide(it).unwrap_or(false));
        }
        let before = self.effort.left();
        if !self.effort.take(expression.len().saturating_mul(READ_BYTE)) {
            return false;
        }
        let condition = validate_within(expression, entry, Some(&self.effort)).ok();
        if self.effort.left() == 0 {
            return false;
        }
        let cost = before - self.effort.left();
        let holds = condition.as_ref().is_some_and(|it| decide(it).unwrap_or(false));
        if conditions.effort.saturating_add(cost) <= CONDITIONS_KEPT_EFFORT_MAX {
            conditions.effort += cost;
            kept.insert(expression.to_owned(), condition);
        }
        holds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: EntryPoint = EntryPoint::BuildNotification;

    fn notices() -> Notices {
        let mut context = Context::default();
        context.set("build.branch", super::super::Value::Text("main".to_owned())).unwrap();
        Notices::new(context)
    }

    #[test]
    fn a_text_is_read_once_and_reading_is_paid() {
        let (mut kept, text) = (Conditions::default(), "build.branch =~ /^m[a-z]{40}|main/");
        let costs = |kept: &mut Conditions| {
            let notices = notices();
            let before = notices.effort.left();
            assert!(notices.holds(kept, text, ENTRY));
            before - notices.effort.left()
        };
        let (first, second) = (costs(&mut kept), costs(&mut kept));
        assert!(second * 20 < first, "{first} {second}");
        assert!(!notices().holds(&mut kept, "build.branch ==", ENTRY));
        assert_eq!(kept.read[0].len(), 2, "what cannot be read is not read again either");
    }

    #[test]
    fn an_event_reads_no_more_than_its_account_pays_and_a_build_keeps_no_more_than_its_bound() {
        let (mut kept, notices) = (Conditions::default(), notices());
        let text = |n: usize| format!("build.branch =~ /^main$|{n}[a-z]{{900}}/");
        let held = (0..1_000).take_while(|n| notices.holds(&mut kept, &text(*n), ENTRY)).count();
        assert!((10..100).contains(&held), "{held}");
        assert!(kept.effort <= CONDITIONS_KEPT_EFFORT_MAX && kept.read[0].len() < held, "{}", kept.read[0].len());
        assert!(!notices.holds(&mut kept, "true", ENTRY), "nothing is left");
        assert!(self::notices().holds(&mut kept, "true", ENTRY), "the next event has its own account");
    }
}
