//! Schedules: each makes a build of its pipeline at its times, once for each, however often the coordinator starts.
//!
//! The next time is durable, and moves on in the commit that orders the build, to the first time after both the one that is
//! over and the clock: what was missed, while nobody was there or because the clock jumped, is made up once; a clock that
//! goes back fires nothing again.

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{BuildId, Cause, Namespace, ScheduleId, WallMs, limits};

use crate::error::Rejected;
use crate::order::{Obtained, Order, Orderer};
use crate::row::{Actor, BuildSource, Fired, Firing, NewSchedule, ScheduleRow, Submit};
use crate::state::Core;
use crate::timer::Timer;
use crate::timetable::Timetable;
use crate::trigger::{UNVERIFIED, unverified};

/// All schedules.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    pub(crate) rows: BTreeMap<ScheduleId, ScheduleRow>,
    /// Read once; one that this version cannot read any more never fires.
    tables: BTreeMap<ScheduleId, Timetable>,
    /// Those that are making no build, by their next time.
    pub(crate) due: BTreeSet<(WallMs, ScheduleId)>,
}

impl Core {
    /// Makes a schedule.
    pub(crate) fn add_schedule(&mut self, actor: &Actor, new: NewSchedule) -> Result<(), Rejected> {
        let NewSchedule { id, pipeline, cron, timezone, branch, commit, message, env, trusted, confined } = new;
        if !self.pipelines.contains_key(&pipeline) {
            return Err(Rejected::NoSuchPipeline(pipeline));
        }
        let of_pipeline = self.schedules.rows.values().filter(|row| row.pipeline == pipeline).count();
        let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
        for (what, value, limit) in [
            ("schedules", self.schedules.rows.len() + 1, limits::SCHEDULES_MAX),
            ("schedules of one pipeline", of_pipeline + 1, limits::SCHEDULES_PER_PIPELINE_MAX),
            ("bytes of a name", branch.as_ref().map_or(0, String::len), limits::NAME_MAX_BYTES),
            ("bytes of a name", commit.len(), limits::NAME_MAX_BYTES),
            ("bytes of a message", message.len(), limits::MESSAGE_MAX_BYTES),
            ("bytes of an environment", bytes, limits::ENV_MAX_BYTES),
            ("variables", env.len(), limits::ENV_VARS_MAX),
        ] {
            if value > limit {
                return Err(Rejected::Limit { what, limit: limit as u64 });
            }
        }
        let refuse = |what, why| Rejected::Setting { what, why };
        let table = Timetable::parse(&cron, &timezone).map_err(|why| refuse("schedule", why))?;
        let wall = self.now.wall;
        let next_at = table.next_after(wall);
        if next_at.is_none() {
            return Err(refuse("cron", format!("`{cron}` never comes")));
        }
        self.audit(actor, "schedule.add", &id.to_string(), &format!("{pipeline} {cron} {timezone}"));
        let row = ScheduleRow {
            id,
            pipeline,
            cron,
            timezone,
            branch,
            commit,
            message,
            env,
            trusted,
            confined,
            created_by: actor.clone(),
            created_at: wall,
            next_at,
            firing: None,
            last: None,
        };
        self.schedules.rows.insert(id, row);
        self.schedules.tables.insert(id, table);
        self.book.schedules.insert(id);
        self.await_schedule(id);
        Ok(())
    }

    /// Takes a schedule away; a build that it is making is not made.
    pub(crate) fn remove_schedule(&mut self, actor: &Actor, id: ScheduleId) -> Result<(), Rejected> {
        let row = self.schedules.rows.remove(&id).ok_or(Rejected::NoSuchSchedule(id))?;
        self.schedules.tables.remove(&id);
        if let Some(next) = row.next_at {
            self.schedules.due.remove(&(next, id));
        }
        if let Some(firing) = &row.firing {
            self.drop_order(firing.build);
        }
        self.book.schedules.insert(id);
        self.watch_schedules();
        self.audit(actor, "schedule.remove", &id.to_string(), &format!("{} {}", row.pipeline, row.cron));
        Ok(())
    }

    /// Takes a schedule's row into memory. Writes nothing.
    pub(crate) fn restore_schedule(&mut self, row: ScheduleRow) {
        let (id, firing) = (row.id, row.firing.as_ref().map(|firing| firing.build));
        if let Ok(table) = Timetable::parse(&row.cron, &row.timezone) {
            self.schedules.tables.insert(id, table);
        }
        self.schedules.rows.insert(id, row);
        match firing {
            Some(build) => self.order(build, Orderer::Schedule(id)),
            None => self.await_schedule(id),
        }
    }

    /// A schedule that is making nothing waits for its next time.
    fn await_schedule(&mut self, id: ScheduleId) {
        if let Some(next) = self.schedules.rows.get(&id).and_then(|row| row.next_at) {
            self.schedules.due.insert((next, id));
        }
        self.watch_schedules();
    }

    /// The clock that people set may jump while the other one runs on: it is looked at now and then.
    fn watch_schedules(&mut self) {
        match self.schedules.due.first() {
            Some((next, _)) => {
                let often = self.now.mono.plus_ms(limits::SCHEDULE_CHECK_MS);
                self.timers.set(Timer::Schedules, self.mono_of(*next).min(often));
            }
            None => self.timers.clear(Timer::Schedules),
        }
    }

    /// Fires what is due.
    pub(crate) fn on_schedules(&mut self) {
        let wall = self.now.wall;
        while let Some((at, id)) = self.schedules.due.first().copied().filter(|(at, _)| *at <= wall) {
            self.schedules.due.remove(&(at, id));
            self.fire(id, at);
        }
        self.watch_schedules();
    }

    fn fire(&mut self, id: ScheduleId, at: WallMs) {
        let wall = self.now.wall;
        let build = self.ids.build(wall);
        let after = if self.policy.bugs.fire_twice { WallMs(at.0 - 1) } else { at.max(wall) };
        let next = self.schedules.tables.get(&id).and_then(|table| table.next_after(after));
        let Some(row) = self.schedules.rows.get_mut(&id) else { return };
        row.next_at = next;
        row.firing = Some(Firing { build, at });
        self.book.schedules.insert(id);
        self.order(build, Orderer::Schedule(id));
    }

    /// What is to be known of a schedule's build.
    pub(crate) fn schedule_order(&self, build: BuildId, id: ScheduleId) -> Option<Order> {
        let row = self.schedules.rows.get(&id)?;
        let pipeline = self.pipelines.get(&row.pipeline)?.clone();
        Some(Order {
            build,
            branch: row.branch.clone().unwrap_or_else(|| pipeline.default_branch.clone()),
            pipeline,
            commit: row.commit.clone(),
            message: row.message.clone(),
            env: row.env.clone(),
            source: BuildSource::Schedule,
            creator: row.created_by.clone(),
            triggered_from: None,
        })
    }

    /// Makes a schedule's build.
    pub(crate) fn make_scheduled(&mut self, id: ScheduleId, obtained: Obtained) -> Result<(), Rejected> {
        let Some(row) = self.schedules.rows.get(&id).cloned() else { return Err(Rejected::NoSuchSchedule(id)) };
        let Some(firing) = row.firing else { return Err(Rejected::NoSuchSchedule(id)) };
        let (namespace, untrusted) = match (row.trusted, obtained.verified) {
            (true, true) => (Namespace::trusted(&row.pipeline), None),
            (true, false) => (Namespace::overlay(&row.pipeline, &unverified(&obtained)), Some(UNVERIFIED)),
            (false, _) => {
                let by_token = "who made its schedule may not make trusted builds";
                (Namespace::overlay(&row.pipeline, &format!("schedule:{id}")), Some(by_token))
            }
        };
        let untrusted = untrusted.map(str::to_owned);
        let submit = Submit {
            id: firing.build,
            number: obtained.number,
            pipeline: row.pipeline.clone(),
            registration: Some(obtained.registration),
            definition: obtained.definition,
            graph: obtained.graph,
            branch: obtained.branch,
            commit: obtained.commit,
            tag: None,
            message: row.message,
            origin: obtained.origin,
            source: BuildSource::Schedule,
            creator: row.created_by.clone(),
            namespace,
            env: row.env,
            meta_data: BTreeMap::new(),
            keep_workspace: false,
            no_reuse: false,
            rebuilt_from: None,
            triggered_from: None,
            confined: row.confined,
            untrusted,
            idempotency: None,
        };
        self.check_new(&submit)?;
        let number = self.next_number(&row.pipeline);
        self.make_build(&row.created_by, submit);
        let fired = Fired { at: firing.at, build: firing.build, number: Some(number), cause: None };
        self.fired(id, fired);
        Ok(())
    }

    /// A schedule's build cannot be made.
    pub(crate) fn fail_scheduled(&mut self, id: ScheduleId, cause: Cause) {
        let firing = self.schedules.rows.get(&id).and_then(|row| row.firing.clone());
        if let Some(Firing { build, at }) = firing {
            self.fired(id, Fired { at, build, number: None, cause: Some(cause) });
        }
    }

    fn fired(&mut self, id: ScheduleId, fired: Fired) {
        if let Some(row) = self.schedules.rows.get_mut(&id) {
            row.firing = None;
            row.last = Some(fired);
            self.book.schedules.insert(id);
        }
        self.await_schedule(id);
    }
}
