//! Notifications that wait: which is sent next, and what becomes of it when it was sent (docs/design/025).
//!
//! All of it follows from the rows but for what is under way: that is sent again after a restart. Rows of one lane are sent
//! in their order; a lane's first one has its place among its target's, and each target has one in the agenda.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use windlass_protocol::{Digest, Instant64, NotificationId, WallMs, limits};

use crate::effect::Effect;
use crate::error::Rejected;
use crate::row::{Delivery, NotificationRow, NotificationState};
use crate::state::Core;
use crate::timer::Timer;

/// All that wait.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: BTreeMap<NotificationId, Waiting>,
    targets: BTreeMap<String, Target>,
    /// How many wait of each project, the untrusted ones apart.
    shares: BTreeMap<(bool, String), usize>,
    /// Of all that wait, those of untrusted builds.
    untrusted: usize,
    /// The order of the next one.
    next: u64,
    /// Targets that may be sent something, by when.
    agenda: BTreeSet<(Instant64, String)>,
    /// Those that are on their way, by when they are taken for lost.
    under_way: BTreeSet<(Instant64, NotificationId)>,
    /// What came of others since the core was loaded, by service.
    counts: BTreeMap<(String, NotificationState), u64>,
}

/// One that waits or is on its way.
#[derive(Debug)]
struct Waiting {
    row: NotificationRow,
    target: String,
    lane: String,
    due: Instant64,
    /// When it is taken for lost, while it is on its way.
    lost: Option<Instant64>,
}

/// Where some of them go.
#[derive(Debug, Default)]
struct Target {
    lanes: BTreeMap<String, VecDeque<NotificationId>>,
    /// The lanes' first ones that are not on their way.
    heads: BTreeSet<(Instant64, NotificationId)>,
    under_way: usize,
    count: usize,
    /// Of these, those of untrusted builds.
    untrusted: usize,
    /// Tries in a row that failed.
    failures: u32,
    rest_until: Option<Instant64>,
    /// Its place in the agenda.
    at: Option<Instant64>,
}

impl Target {
    /// When something may be sent to it.
    fn next(&self) -> Option<Instant64> {
        if self.under_way >= limits::DELIVERIES_PER_TARGET_MAX {
            return None;
        }
        let (due, _) = *self.heads.first()?;
        Some(self.rest_until.map_or(due, |rest| rest.max(due)))
    }
}

/// What is seen of the outbox, for metrics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutboxView {
    /// How many wait or are on their way.
    pub waiting: usize,
    /// When the first of them was written down.
    pub oldest: Option<WallMs>,
    /// What came of others since the core was loaded, by service; services that nothing is sent to are one.
    pub over: BTreeMap<(String, NotificationState), u64>,
}

impl Outbox {
    /// Whether this one may wait; else why not. Untrusted ones have places of their own.
    fn room(&self, row: &NotificationRow) -> Result<(), &'static str> {
        let (all, waiting) = (self.waiting.len() - self.untrusted, self.untrusted);
        let target = self.targets.get(&row.message.target());
        let (own, others) = target.map_or((0, 0), |target| (target.count - target.untrusted, target.untrusted));
        let share = self.shares.get(&(row.untrusted, row.project.clone())).copied().unwrap_or(0);
        let (waiting, max, own, target_max, share_max) = if row.untrusted {
            (
                waiting,
                limits::UNTRUSTED_NOTIFICATIONS_WAITING_MAX,
                others,
                limits::UNTRUSTED_NOTIFICATIONS_PER_TARGET_MAX,
                limits::UNTRUSTED_NOTIFICATIONS_PER_PROJECT_MAX,
            )
        } else {
            let max = limits::NOTIFICATIONS_WAITING_MAX - limits::UNTRUSTED_NOTIFICATIONS_WAITING_MAX;
            (all, max, own, limits::NOTIFICATIONS_PER_TARGET_MAX, limits::NOTIFICATIONS_PER_PROJECT_MAX)
        };
        match () {
            () if waiting >= max => Err("too many notifications wait"),
            () if share >= share_max => Err("too many notifications of this project wait"),
            () if own >= target_max => Err("too many notifications wait for this receiver"),
            () => Ok(()),
        }
    }

    fn add(&mut self, row: NotificationRow, due: Instant64) {
        let (id, name, lane) = (row.id, row.message.target(), row.message.lane(row.build));
        let target = self.targets.entry(name.clone()).or_default();
        target.count += 1;
        target.untrusted += usize::from(row.untrusted);
        self.untrusted += usize::from(row.untrusted);
        *self.shares.entry((row.untrusted, row.project.clone())).or_default() += 1;
        self.next = self.next.max(row.order + 1);
        let queue = target.lanes.entry(lane.clone()).or_default();
        queue.push_back(id);
        if queue.len() == 1 {
            target.heads.insert((due, id));
        }
        self.waiting.insert(id, Waiting { row, target: name.clone(), lane, due, lost: None });
        self.reseat(&name);
    }

    /// Puts a target where it belongs in the agenda, or forgets it.
    fn reseat(&mut self, name: &str) {
        let Some(target) = self.targets.get_mut(name) else { return };
        if let Some(at) = target.at.take() {
            self.agenda.remove(&(at, name.to_owned()));
        }
        if target.count == 0 {
            self.targets.remove(name);
            return;
        }
        target.at = target.next();
        if let Some(at) = target.at {
            self.agenda.insert((at, name.to_owned()));
        }
    }

    /// When something is to be done next.
    fn due(&self) -> Option<Instant64> {
        let free = self.under_way.len() < limits::DELIVERIES_MAX;
        let next = self.agenda.first().filter(|_| free).map(|(at, _)| *at);
        let lost = self.under_way.first().map(|(at, _)| *at);
        next.into_iter().chain(lost).min()
    }

    /// Sets the next one on its way that is due.
    fn start(&mut self, now: Instant64) -> Option<NotificationRow> {
        if self.under_way.len() >= limits::DELIVERIES_MAX {
            return None;
        }
        let (_, name) = self.agenda.first().filter(|(at, _)| *at <= now)?.clone();
        let target = self.targets.get_mut(&name)?;
        let (_, id) = target.heads.pop_first()?;
        target.under_way += 1;
        let waiting = self.waiting.get_mut(&id)?;
        let lost = now.plus_ms(limits::DELIVERY_LOST_MS);
        waiting.lost = Some(lost);
        self.under_way.insert((lost, id));
        let row = waiting.row.clone();
        self.reseat(&name);
        Some(row)
    }

    /// Takes one back that was on its way, for its row to be changed.
    fn back(&mut self, id: NotificationId) -> Option<&mut Waiting> {
        let waiting = self.waiting.get_mut(&id)?;
        let lost = waiting.lost.take()?;
        self.under_way.remove(&(lost, id));
        if let Some(target) = self.targets.get_mut(&waiting.target) {
            target.under_way -= 1;
        }
        Some(waiting)
    }

    /// It is tried again when this time comes; its lane waits with it.
    fn again(&mut self, id: NotificationId, due: Instant64) {
        let Some(waiting) = self.waiting.get_mut(&id) else { return };
        waiting.due = due;
        let name = waiting.target.clone();
        if let Some(target) = self.targets.get_mut(&name) {
            target.heads.insert((due, id));
        }
        self.reseat(&name);
    }

    /// It is over; the next one of its lane is first now.
    fn remove(&mut self, id: NotificationId) {
        let Some(gone) = self.waiting.remove(&id) else { return };
        *self.counts.entry(count_of(&gone.row)).or_default() += 1;
        self.untrusted -= usize::from(gone.row.untrusted);
        let share = (gone.row.untrusted, gone.row.project);
        if let Some(count) = self.shares.get_mut(&share) {
            *count -= 1;
            if *count == 0 {
                self.shares.remove(&share);
            }
        }
        if let Some(target) = self.targets.get_mut(&gone.target) {
            target.count -= 1;
            target.untrusted -= usize::from(gone.row.untrusted);
            if let Some(lane) = target.lanes.get_mut(&gone.lane) {
                lane.retain(|other| *other != id);
                match lane.front() {
                    Some(next) => {
                        if let Some(next) = self.waiting.get(next) {
                            target.heads.insert((next.due, next.row.id));
                        }
                    }
                    None => drop(target.lanes.remove(&gone.lane)),
                }
            }
        }
        self.reseat(&gone.target);
    }

    /// The receiver answered, or did not: the target's pause follows.
    fn rest(&mut self, name: &str, now: Instant64, failed: bool, after_ms: Option<u64>) {
        let Some(target) = self.targets.get_mut(name) else { return };
        target.failures = if failed { target.failures.saturating_add(1) } else { 0 };
        let pause = match (failed, target.failures.checked_sub(3)) {
            (true, Some(times)) => pause_ms(times).min(limits::TARGET_REST_MAX_MS),
            _ => 0,
        };
        let pause = pause.max(after_ms.unwrap_or(0).min(limits::DELIVERY_BACKOFF_MAX_MS));
        target.rest_until = (pause > 0).then(|| now.plus_ms(pause));
    }

    /// The rows of all that wait.
    pub(crate) fn rows(&self) -> BTreeMap<NotificationId, NotificationRow> {
        self.waiting.iter().map(|(id, waiting)| (*id, waiting.row.clone())).collect()
    }

    /// Whether everything that waits has its place, and no bound is passed; else what is wrong.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.waiting.len() > limits::NOTIFICATIONS_WAITING_MAX || self.under_way.len() > limits::DELIVERIES_MAX {
            return Err(("I9", format!("{} notifications wait, {} go", self.waiting.len(), self.under_way.len())));
        }
        for (id, waiting) in &self.waiting {
            let target = self.targets.get(&waiting.target);
            let first = target.and_then(|target| target.lanes.get(&waiting.lane)?.front());
            let head = target.is_some_and(|target| target.heads.contains(&(waiting.due, *id)));
            if waiting.row.state.is_final() || head != (first == Some(id) && waiting.lost.is_none()) {
                return Err(("I13", format!("notification {id} waits for nothing")));
            }
        }
        for (name, target) in &self.targets {
            let seated = target.at.is_some_and(|at| self.agenda.contains(&(at, name.clone())));
            if target.at != target.next() || seated != target.at.is_some() {
                return Err(("I13", format!("nobody sends to {name}")));
            }
        }
        Ok(())
    }
}

/// Under which name it is counted. Names that pipelines made up are one.
fn count_of(row: &NotificationRow) -> (String, NotificationState) {
    let service = match &row.message {
        crate::row::Message::Unsent { .. } => "other",
        sent => sent.service(),
    };
    (service.to_owned(), row.state)
}

/// The pause after so many tries, without its jitter.
const fn pause_ms(tries: u32) -> u64 {
    let factor = if tries < 32 { 1_u64 << tries } else { 1 << 32 };
    let pause = limits::DELIVERY_BACKOFF_MS.saturating_mul(factor);
    if pause < limits::DELIVERY_BACKOFF_MAX_MS { pause } else { limits::DELIVERY_BACKOFF_MAX_MS }
}

/// The same, up to a quarter shorter or longer: those that failed together do not come again together.
fn jittered_ms(id: NotificationId, tries: u32) -> u64 {
    let pause = pause_ms(tries.saturating_sub(1));
    let seed = Digest::of(&[&id.as_bytes()[..], &tries.to_le_bytes()].concat());
    let [one, two, ..] = *seed.as_bytes();
    let share = u64::from(u16::from_le_bytes([one, two]));
    pause - pause / 4 + pause / 2 * share / u64::from(u16::MAX)
}

impl Core {
    /// A notification is due. It is written down in this commit and sent after it, or has failed for lack of room.
    pub(crate) fn post(&mut self, mut row: NotificationRow) {
        row.order = self.outbox.next;
        if !row.state.is_final()
            && let Err(why) = self.outbox.room(&row)
        {
            (row.state, row.detail) = (NotificationState::Failed, why.to_owned());
            row.finished_at = Some(row.created_at);
        }
        if row.state.is_final() {
            *self.outbox.counts.entry(count_of(&row)).or_default() += 1;
        } else {
            self.outbox.add(row.clone(), self.now.mono);
        }
        self.book.notifications.push(row);
    }

    /// One that waited when the rows were written.
    pub(crate) fn restore_notification(&mut self, row: NotificationRow) {
        // A clock that went back puts nothing off for longer than a pause can be.
        let latest = self.now.mono.plus_ms(limits::DELIVERY_BACKOFF_MAX_MS * 2);
        let due = self.mono_of(row.due_at).min(latest);
        self.outbox.add(row, due);
    }

    /// Sends what is due, after everything that this input changed.
    pub(crate) fn send_due(&mut self) {
        while let Some(row) = self.outbox.start(self.now.mono) {
            self.book.out.push(Effect::Deliver(Box::new(row)));
        }
        match self.outbox.due() {
            Some(due) => self.timers.set(Timer::Notifications, due),
            None => self.timers.clear(Timer::Notifications),
        }
    }

    /// Those that are taken for lost are tried again. What is due is sent when the input is concluded.
    pub(crate) fn on_notifications_due(&mut self) {
        while let Some((_, id)) = self.outbox.under_way.first().filter(|(lost, _)| *lost <= self.now.mono).copied() {
            let delivery =
                Delivery::Later { status: None, detail: "nobody said what came of it".to_owned(), after_ms: None };
            self.delivered(id, delivery);
        }
    }

    /// The shell says what came of a try.
    pub(crate) fn on_delivered(
        &mut self,
        id: NotificationId,
        attempt: u32,
        delivery: Delivery,
    ) -> Result<(), Rejected> {
        let waiting = self.outbox.waiting.get(&id).filter(|waiting| waiting.lost.is_some());
        if waiting.is_none_or(|waiting| waiting.row.attempts + 1 != attempt) {
            return Err(Rejected::NotUnderWay(id));
        }
        self.delivered(id, delivery);
        Ok(())
    }

    fn delivered(&mut self, id: NotificationId, delivery: Delivery) {
        let (mono, wall) = (self.now.mono, self.now.wall);
        let Some(waiting) = self.outbox.back(id) else { return };
        let row = &mut waiting.row;
        row.attempts += 1;
        let (status, detail, after_ms) = match delivery {
            Delivery::Done { status } => {
                row.state = NotificationState::Delivered;
                (Some(status), String::new(), None)
            }
            Delivery::Later { status, detail, after_ms } => (status, detail, Some(after_ms)),
            Delivery::Never { status, detail } => {
                row.state = NotificationState::Failed;
                (status, detail, None)
            }
        };
        (row.status, row.detail) = (status, detail);
        row.detail.truncate(row.detail.floor_char_boundary(limits::NOTIFICATION_DETAIL_MAX_BYTES));
        let pause_ms = after_ms.flatten().unwrap_or(0).min(limits::DELIVERY_BACKOFF_MAX_MS);
        let pause_ms = pause_ms.max(jittered_ms(id, row.attempts));
        row.due_at = wall.plus_ms(pause_ms);
        let old = row.due_at.0.saturating_sub(row.created_at.0) > limits::DELIVERY_LIFE_MS;
        if !row.state.is_final() && (old || row.attempts >= limits::DELIVERY_TRIES_MAX) {
            row.state = NotificationState::Failed;
        }
        row.finished_at = row.state.is_final().then_some(wall);
        let (row, target) = (row.clone(), waiting.target.clone());
        self.outbox.rest(&target, mono, after_ms.is_some(), after_ms.flatten());
        if row.state.is_final() {
            self.outbox.remove(id);
        } else {
            self.outbox.again(id, mono.plus_ms(pause_ms));
        }
        self.book.notifications.push(row);
    }

    /// What waits, and what came of the rest.
    #[must_use]
    pub fn outbox(&self) -> OutboxView {
        let oldest = self.outbox.waiting.values().next().map(|waiting| waiting.row.created_at);
        OutboxView { waiting: self.outbox.waiting.len(), oldest, over: self.outbox.counts.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_no_two_notifications_have_the_same_ones() {
        assert_eq!([0, 1, 2, 11, 12, 40].map(pause_ms), [1_000, 2_000, 4_000, 2_048_000, 3_600_000, 3_600_000]);
        let ids: Vec<_> = (0..32).map(|n| NotificationId::from_bytes([n; 16])).collect();
        let pauses: BTreeSet<_> = ids.iter().map(|id| jittered_ms(*id, 5)).collect();
        assert!(pauses.len() > 24 && pauses.iter().all(|pause| (12_000..=20_000).contains(pause)), "{pauses:?}");
    }
}
