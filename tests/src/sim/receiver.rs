//! Those who are told of builds: a receiver that answers well, badly, twice, too late or never, and what it got.

use std::collections::{BTreeMap, BTreeSet};

use windlass_coordinator_core::Input;
use windlass_coordinator_core::row::{
    BuildNews, BuildRow, BuildState, Delivery, Message, NotificationRow, NotificationState,
};
use windlass_protocol::{BuildId, NotificationId, Trust};

use super::oracle::Verdict;
use super::store::Store;
use super::world::{Event, World};

/// A receiver that nobody reaches, and that says so for good after some tries.
pub const DEAD: &str = "https://dead.example/";
/// One that is there.
pub const LIVING: &str = "https://living.example/hook";

/// What receivers got, and what had to be told.
#[derive(Debug, Clone, Default)]
pub struct Receiver {
    /// Everything that came through, by how often.
    pub got: BTreeMap<NotificationId, u32>,
    /// The last that came through for the first time of each lane.
    lanes: BTreeMap<(String, String), NotificationId>,
    /// What the commit that is being made has to tell.
    due: BTreeSet<(BuildId, String, BuildNews)>,
    /// What it tells.
    told: BTreeSet<(BuildId, String, BuildNews)>,
}

/// What is seen of a build from outside is news, whatever lay between two commits.
fn news(before: Option<&BuildRow>, after: &BuildRow) -> Vec<BuildNews> {
    let was = before.map(|row| row.state);
    let begun = |state: BuildState| matches!(state, BuildState::Running | BuildState::Failing);
    let mut news = Vec::new();
    if was.is_none() {
        news.push(BuildNews::Scheduled);
    }
    if begun(after.state) && !was.is_some_and(begun) {
        news.push(BuildNews::Running);
    }
    if after.state == BuildState::Failing && was != Some(BuildState::Failing) {
        news.push(BuildNews::Failing);
    }
    if after.blocked.is_some() && before.is_none_or(|row| row.blocked.is_none()) {
        news.push(BuildNews::Blocked);
    }
    if after.state.is_final() && !was.is_some_and(BuildState::is_final) {
        news.push(if after.state == BuildState::Skipped { BuildNews::Skipped } else { BuildNews::Finished });
    }
    news
}

impl Receiver {
    /// A build's row is about to be durable: who is to hear of it?
    pub fn build_changes(&mut self, row: &BuildRow, store: &Store) {
        if row.namespace.trust() == Trust::Untrusted {
            return;
        }
        let news = news(store.rows.builds.get(&row.id), row);
        for entry in row.notify.iter().filter(|entry| entry.service == "webhook" && entry.condition.is_none()) {
            let url = entry.config.as_str().unwrap_or_default();
            self.due.extend(news.iter().map(|news| (row.id, url.to_owned(), *news)));
        }
    }

    /// A notification's row is about to be durable.
    pub fn notification_changes(&mut self, row: &NotificationRow) {
        if let Message::Webhook { url, event, .. } = &row.message {
            self.told.insert((row.build, url.clone(), *event));
        }
    }

    /// I13: what is news is told by the commit that makes it so.
    ///
    /// # Errors
    /// It is not.
    pub fn end_commit(&mut self) -> Verdict {
        let (due, told) = (std::mem::take(&mut self.due), std::mem::take(&mut self.told));
        match due.difference(&told).next() {
            Some((build, url, news)) => Err(("I13", format!("{url} never hears of {} of build {build}", news.name()))),
            None => Ok(()),
        }
    }

    /// One arrives. I1: not before it is durable. I13: in the order of its lane.
    fn arrives(&mut self, row: &NotificationRow, store: &Store) -> Verdict {
        let id = row.id;
        if !store.notifications.contains_key(&id) {
            return Err(("I1", format!("notification {id} was sent before it was durable")));
        }
        let times = self.got.entry(id).or_default();
        *times += 1;
        if *times == 1 {
            let lane = (row.message.target(), row.message.lane(row.build));
            if let Some(before) = self.lanes.insert(lane, id).filter(|before| *before > id) {
                return Err(("I13", format!("notification {id} came after {before}, which became due later")));
            }
        }
        Ok(())
    }

    /// I13: everything that became due came through, or is recorded as given up.
    ///
    /// # Errors
    /// It did not.
    pub fn judge_end(&self, store: &Store) -> Verdict {
        for row in store.notifications.values() {
            let came = self.got.contains_key(&row.id);
            match row.state {
                NotificationState::Pending => return Err(("I13", format!("notification {} still waits", row.id))),
                NotificationState::Delivered if !came => {
                    return Err(("I13", format!("notification {} is called delivered and never came", row.id)));
                }
                NotificationState::Delivered | NotificationState::Failed | NotificationState::Refused => {}
            }
        }
        Ok(())
    }
}

impl World {
    /// The shell sends one, once.
    pub(super) fn send_notification(&mut self, row: NotificationRow) {
        let (dead, attempt) = (row.message.target() == DEAD.trim_end_matches('/'), row.attempts + 1);
        let failed = Delivery::Later { status: Some(503), detail: "not now".to_owned(), after_ms: None };
        let never = Delivery::Never { status: Some(410), detail: "gone".to_owned() };
        let chance = if self.troubled { self.random.below(1_000) } else { 999 };
        let delivery = match (dead, chance) {
            (true, _) if attempt < 4 => failed,
            (true, _) | (_, 0..40) => never,
            (_, 40..150) => failed,
            (_, 150..220) => {
                let after_ms = Some(self.random.between(1, 30_000));
                Delivery::Later { status: Some(429), detail: "slowly".to_owned(), after_ms }
            }
            _ => {
                if let Err((invariant, detail)) = self.receiver.arrives(&row, &self.store) {
                    self.violate(invariant, detail);
                }
                Delivery::Done { status: 200 }
            }
        };
        // An answer may be lost with who waited for it.
        if self.troubled && self.random.thousandth(60) {
            return;
        }
        let generation = self.coordinator.generation;
        let times = if self.random.thousandth(60) { 2 } else { 1 };
        for _ in 0..times {
            let ms = self.random.between(1, 2_000);
            self.after(ms, Event::Answered { generation, id: row.id, attempt, delivery: delivery.clone() });
        }
    }

    pub(super) fn answered_delivery(&mut self, generation: u64, id: NotificationId, attempt: u32, delivery: Delivery) {
        if generation == self.coordinator.generation {
            self.feed(Input::Delivered { id, attempt, delivery });
        }
    }
}
