//! Whose question for a key comes next.
//!
//! A bounded number of questions is out at once. One after the other goes to the namespace of which the fewest are out, and
//! strangers have a part of the places alone: whoever has ten thousand steps whose images nobody answers for keeps nobody else
//! waiting.

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{JobId, Namespace, Trust, limits};

/// Jobs whose keys are asked for, and those that wait for that.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// By which number they are out.
    out: BTreeMap<JobId, u64>,
    waiting: BTreeMap<Namespace, BTreeSet<JobId>>,
    /// Of all of both.
    namespaces: BTreeMap<JobId, Namespace>,
    /// How many of each are out.
    counts: BTreeMap<Namespace, usize>,
    /// How many of overlays are.
    strangers: usize,
    /// The last question's number.
    last: u64,
}

impl Questions {
    /// Whether a job's key is asked for, or will be.
    pub(super) fn has(&self, id: JobId) -> bool {
        self.namespaces.contains_key(&id)
    }

    /// By which number a job's key is asked for now.
    pub(super) fn number(&self, id: JobId) -> Option<u64> {
        self.out.get(&id).copied()
    }

    /// The jobs whose keys are asked for now.
    pub(super) fn out(&self) -> impl Iterator<Item = JobId> {
        self.out.keys().copied()
    }

    /// A job's key is to be asked for.
    pub(super) fn wait(&mut self, id: JobId, namespace: &Namespace) {
        if self.namespaces.insert(id, namespace.clone()).is_none() {
            self.waiting.entry(namespace.clone()).or_default().insert(id);
        }
    }

    /// The job whose turn it is, and its question's number.
    pub(super) fn next(&mut self) -> Option<(JobId, u64)> {
        if self.out.len() >= limits::REUSE_ASKED_MAX {
            return None;
        }
        let full = self.strangers >= limits::REUSE_ASKED_UNTRUSTED_MAX;
        let may = self.waiting.iter().filter(|(namespace, _)| !(full && namespace.trust() == Trust::Untrusted));
        let count = |namespace| self.counts.get(namespace).copied().unwrap_or_default();
        let (_, id, namespace) = may.filter_map(|(of, jobs)| Some((count(of), *jobs.first()?, of.clone()))).min()?;
        self.stop_waiting(id, &namespace);
        self.strangers += usize::from(namespace.trust() == Trust::Untrusted);
        *self.counts.entry(namespace).or_default() += 1;
        self.last += 1;
        self.out.insert(id, self.last);
        Some((id, self.last))
    }

    /// Nobody asks for a job's key any more; says whether it was out.
    pub(super) fn end(&mut self, id: JobId) -> bool {
        let Some(namespace) = self.namespaces.remove(&id) else { return false };
        self.stop_waiting(id, &namespace);
        if self.out.remove(&id).is_none() {
            return false;
        }
        self.strangers -= usize::from(namespace.trust() == Trust::Untrusted);
        if let Some(count) = self.counts.get_mut(&namespace) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&namespace);
            }
        }
        true
    }

    fn stop_waiting(&mut self, id: JobId, namespace: &Namespace) {
        if let Some(jobs) = self.waiting.get_mut(namespace) {
            jobs.remove(&id);
            if jobs.is_empty() {
                self.waiting.remove(namespace);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> JobId {
        let [a, b] = n.to_be_bytes();
        let mut bytes = [0; 16];
        (bytes[0], bytes[1]) = (a, b);
        JobId::from_bytes(bytes)
    }

    #[test]
    fn strangers_have_a_part_of_the_places_and_each_namespace_comes_to_its_turn() {
        let mut questions = Questions::default();
        let overlay = |n: u16| Namespace::overlay("p", &format!("pr:{n}"));
        for n in 0..1_000 {
            questions.wait(id(n), &overlay(1));
        }
        for n in 0..10 {
            questions.wait(id(2_000 + n), &overlay(2));
        }
        let asked: Vec<_> = std::iter::from_fn(|| questions.next()).map(|(id, _)| id).collect();
        assert_eq!(asked.len(), limits::REUSE_ASKED_UNTRUSTED_MAX);
        let second = asked.iter().filter(|job| **job >= id(2_000)).count();
        assert_eq!(second, 10, "whoever has fewer out comes first");
        for n in 0..100 {
            questions.wait(id(3_000 + n), &Namespace::trusted("q"));
        }
        let trusted: Vec<_> = std::iter::from_fn(|| questions.next()).map(|(id, _)| id).collect();
        assert_eq!(trusted.len(), limits::REUSE_ASKED_MAX - limits::REUSE_ASKED_UNTRUSTED_MAX);
        assert!(trusted.iter().all(|job| *job >= id(3_000)));
        assert!(questions.end(asked[0]) && !questions.end(asked[0]));
        assert_eq!(questions.next().map(|(id, _)| id), Some(id(22)), "one place of strangers was free");
        for n in 0..4_000 {
            questions.end(id(n));
        }
        assert_eq!((questions.strangers, questions.counts.len(), questions.waiting.len()), (0, 0, 0));
        assert_eq!((questions.out.len(), questions.namespaces.len()), (0, 0));
    }
}
