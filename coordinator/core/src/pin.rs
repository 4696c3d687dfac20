//! Pins of builds: what a build is made of, and made, stays for as long as its pin stands (docs/design/051).
//!
//! Here it is decided who may be pinned, for how long and within which bounds, and which results are held. Rows of builds and
//! artifacts are the store's: it lets none of them go whose build has a pin. Trees are the shell's ([`crate::roots`]).

use std::collections::{BTreeMap, BTreeSet};

use windlass_protocol::{BuildId, Digest, Trust, WallMs, limits};

use crate::amount::Amount;
use crate::effect::{Effect, Reply};
use crate::error::Rejected;
use crate::input::ReplyTo;
use crate::row::{
    Actor, ActorKind, Anew, AttemptRow, Change, JobReuse, JobRow, Kept, NewPin, PinGone, PinRefused, PinRequest,
    PinRow, ReuseName, Role,
};
use crate::state::Core;
use crate::timer::Timer;

/// All pins.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    /// By their builds.
    pub(crate) rows: BTreeMap<BuildId, PinRow>,
    /// The results that each of them holds, by their keys.
    pub(crate) results: BTreeSet<(BuildId, Digest)>,
    /// The results that found no room since their pins were last said, or restored.
    left_out: BTreeSet<(BuildId, Digest)>,
}

impl Pins {
    /// The keys of the results that a build's pin holds.
    fn results_of(&self, build: BuildId) -> impl Iterator<Item = Digest> {
        let from = (build, Digest::from_bytes([0; 32]));
        self.results.range(from..).take_while(move |(of, _)| *of == build).map(|(_, key)| *key)
    }
}

impl From<&PinRow> for Amount {
    fn from(row: &PinRow) -> Self {
        Self { count: 1, files: row.files, bytes: row.bytes }
    }
}

/// What a build comes to.
#[derive(Debug)]
struct Extent {
    /// A new pin of it, of the artifacts that it ever had.
    row: PinRow,
    /// For each key of its jobs the other names that its result may stand under; and whether one stood there.
    keyed: BTreeMap<Digest, (Vec<Digest>, bool)>,
}

impl Extent {
    fn of<'a>(
        mut row: PinRow,
        jobs: impl Iterator<Item = &'a JobRow>,
        attempts: impl Iterator<Item = &'a AttemptRow>,
    ) -> Self {
        (row.files, row.bytes) = AttemptRow::artifacts_of(attempts);
        let mut keyed = BTreeMap::<Digest, (Vec<Digest>, bool)>::new();
        for job in jobs {
            let Some(of) = job.reuse.as_ref().and_then(JobReuse::keyed) else { continue };
            let (names, was_there) = keyed.entry(of.keyed.key).or_default();
            let more: Vec<_> = of.keyed.also.iter().filter(|name| !names.contains(name)).copied().collect();
            names.extend(more);
            *was_there |= matches!(of.role, Role::Reused(_)) || matches!(of.kept, Some(Kept::Stored | Kept::Same));
        }
        Self { row, keyed }
    }
}

impl Core {
    pub(crate) fn on_pin(&mut self, to: ReplyTo, actor: &Actor, request: PinRequest) -> Result<(), Rejected> {
        let reply = match request {
            PinRequest::Pin(new) => {
                let build = new.build;
                Reply::Pinned { build, before: self.pin(actor, *new)?.map(Box::new) }
            }
            PinRequest::Unpin { build } => Reply::Unpinned { before: self.unpin(actor, build).map(Box::new) },
        };
        self.book.out.push(Effect::Reply { to, reply });
        Ok(())
    }

    /// Pins a build, or says something else of its pin; what that was before.
    fn pin(&mut self, actor: &Actor, new: NewPin) -> Result<Option<PinRow>, Rejected> {
        let extent = self.extent_of(actor, &new)?;
        if extent.row.namespace.trust() == Trust::Untrusted {
            return Err(PinRefused::Untrusted(new.build).into());
        }
        let before = self.pins.rows.get(&new.build).cloned();
        if before.is_none() && new.again {
            return Err(PinRefused::Over(new.build).into());
        }
        let (found, lost) = self.results_there(&extent);
        let mut row = before.clone().unwrap_or_else(|| extent.row.clone());
        if let Anew::This(end) = new.until {
            self.check_pin_end(end)?;
        }
        if let Anew::This(name) = &new.name {
            self.check_pin_name(&row, name)?;
        }
        (row.until, row.name) = (new.until.after(row.until), new.name.after(row.name));
        row.gone = PinGone { results: lost, ..new.gone };
        row.files = extent.row.files.saturating_sub(row.gone.files);
        row.bytes = extent.row.bytes.saturating_sub(row.gone.bytes);
        if before.is_none() {
            self.check_pin_room(&row, new.room_bytes)?;
            self.check_room_to_hold(&row.namespace, &found)?;
        }
        self.set_pin(actor, row, before.as_ref(), &found);
        Ok(before)
    }

    /// A pin's row is as it is to be: it is written, holds these results, and has its deadline.
    fn set_pin(&mut self, actor: &Actor, mut row: PinRow, before: Option<&PinRow>, found: &BTreeSet<ReuseName>) {
        let build = row.build;
        let said = |row: &PinRow| (row.name.clone(), row.until);
        if before.map(said) != Some(said(&row)) {
            let name = row.name.as_ref().map(|name| format!(" as {name}")).unwrap_or_default();
            let until = row.until.map_or("until it is undone".to_owned(), |at| format!("until {}", rfc3339(at)));
            let detail = format!("{} #{}{name} {until}", row.pipeline, row.number);
            self.audit(actor, "build.pin", &build.to_string(), &detail);
        }
        row.left_out = 0;
        self.pins.left_out.retain(|(of, _)| *of != build);
        self.pins.rows.insert(build, row);
        found.iter().for_each(|name| self.hold_for(build, name));
        if self.pins.rows.get(&build) != before {
            self.book.pins.insert(build);
        }
        if before.map(|before| before.until) != self.pins.rows.get(&build).map(|row| row.until) {
            self.await_pin_end(build);
        }
    }

    /// Lets all of a build go when its own time is over; the pin that it had.
    fn unpin(&mut self, actor: &Actor, build: BuildId) -> Option<PinRow> {
        let row = self.drop_pin(build)?;
        let detail = format!("{} #{}", row.pipeline, row.number);
        self.audit(actor, "build.unpin", &build.to_string(), &detail);
        Some(row)
    }

    fn drop_pin(&mut self, build: BuildId) -> Option<PinRow> {
        let row = self.pins.rows.remove(&build)?;
        let keys: Vec<Digest> = self.pins.results_of(build).collect();
        for key in keys {
            self.pins.results.remove(&(build, key));
            self.release_entry(&ReuseName { namespace: row.namespace.clone(), key });
        }
        self.pins.left_out.retain(|(of, _)| *of != build);
        self.timers.clear(Timer::Pin(build));
        self.book.pins.insert(build);
        Some(row)
    }

    /// What a build comes to, by its rows.
    fn extent_of(&self, actor: &Actor, new: &NewPin) -> Result<Extent, Rejected> {
        if let Some(build) = self.builds.get(&new.build) {
            let jobs = build.jobs.iter().map(|id| &self.jobs[id].row);
            let row = PinRow::of(&build.row, actor.clone(), self.now.wall);
            return Ok(Extent::of(row, jobs, self.attempts_of(new.build)));
        }
        let rows = new.rows.as_ref().filter(|rows| rows.build.id == new.build && rows.build.state.is_final());
        let rows = rows.ok_or(Rejected::NotInMemory(new.build))?;
        let row = PinRow::of(&rows.build, actor.clone(), self.now.wall);
        Ok(Extent::of(row, rows.jobs.iter(), rows.attempts.iter()))
    }

    /// The results of a build that are there, and of how many keys none is that was.
    fn results_there(&self, extent: &Extent) -> (BTreeSet<ReuseName>, u64) {
        let (mut found, mut lost) = (BTreeSet::new(), 0);
        for (key, (also, was_there)) in &extent.keyed {
            let names = std::iter::once(key).chain(also);
            let mut names = names.map(|key| ReuseName { namespace: extent.row.namespace.clone(), key: *key });
            match names.find(|name| self.reuse.entries.contains_key(name)) {
                Some(name) => drop(found.insert(name)),
                None => lost += u64::from(*was_there),
            }
        }
        (found, lost)
    }

    fn check_pin_end(&self, end: WallMs) -> Result<(), Rejected> {
        let refuse = |why: &str| Err(Rejected::Setting { what: "until", why: why.to_owned() });
        if end <= self.now.wall {
            return refuse("this time is over; a pin ends in the future");
        }
        if end.0 > limits::TIME_LAST_MS {
            return refuse("the year 9999 at most; leave it out for no end");
        }
        Ok(())
    }

    fn check_pin_name(&self, row: &PinRow, name: &str) -> Result<(), Rejected> {
        let refuse = |why: String| Err(Rejected::Setting { what: "name", why });
        if name.is_empty() || name.trim() != name || name.chars().any(char::is_control) {
            return refuse("some characters, with no blanks around them and no control characters".to_owned());
        }
        if name.len() > limits::NAME_MAX_BYTES {
            return refuse(format!("at most {} bytes", limits::NAME_MAX_BYTES));
        }
        let mut others = self.pins.rows.values().filter(|other| other.build != row.build);
        match others.find(|other| other.pipeline == row.pipeline && other.name.as_deref() == Some(name)) {
            Some(other) => Err(PinRefused::NameTaken { name: name.to_owned(), number: other.number }.into()),
            None => Ok(()),
        }
    }

    /// Refuses a pin more where there are too many, or they hold too much.
    fn check_pin_room(&self, new: &PinRow, room_bytes: u64) -> Result<(), Rejected> {
        let of_all: Amount = self.pins.rows.values().chain([new]).map(Amount::from).sum();
        let own = self.pins.rows.values().filter(|row| row.pipeline == new.pipeline);
        let own: Amount = own.chain([new]).map(Amount::from).sum();
        PinRefused::check([
            ("pins of one pipeline", own.count, limits::PINS_PER_PIPELINE_MAX as u64),
            ("artifacts of one pipeline's pins", own.files, limits::PINNED_MAX_FILES),
            ("bytes of one pipeline's pins", own.bytes, limits::PINNED_MAX_BYTES),
        ])?;
        if of_all.count > limits::PINS_MAX as u64 {
            return Err(PinRefused::Full("pins").into());
        }
        if of_all.bytes > room_bytes {
            return Err(PinRefused::Full("bytes, which leave the rest of the disk to builds").into());
        }
        Ok(())
    }

    /// A build has written or used a result: if it is pinned, that stays with it.
    pub(crate) fn hold_for(&mut self, build: BuildId, name: &ReuseName) {
        let own = self.pins.rows.get(&build).is_some_and(|row| row.namespace == name.namespace);
        if !own || self.pins.results.contains(&(build, name.key)) {
            return;
        }
        if self.hold_entry(name) {
            self.pins.results.insert((build, name.key));
            self.book.pinned_results.insert((build, name.key));
        } else if let Some(row) = self.pins.rows.get_mut(&build)
            && self.pins.left_out.insert((build, name.key))
        {
            row.left_out += 1;
            self.book.pins.insert(build);
        }
    }

    /// A build has an artifact more: if it is pinned, it is counted.
    pub(crate) fn count_pinned(&mut self, build: BuildId, bytes: u64) {
        if let Some(row) = self.pins.rows.get_mut(&build) {
            row.files += 1;
            row.bytes = row.bytes.saturating_add(bytes);
            self.book.pins.insert(build);
        }
    }

    /// Takes pins in from their rows.
    pub(crate) fn restore_pins(&mut self, rows: BTreeMap<BuildId, PinRow>, results: BTreeSet<(BuildId, Digest)>) {
        for (build, key) in &results {
            if let Some(row) = rows.get(build) {
                let name = ReuseName { namespace: row.namespace.clone(), key: *key };
                self.restore_hold_of_entry(name);
            }
        }
        let builds: Vec<BuildId> = rows.keys().copied().collect();
        self.pins = Pins { rows, results, left_out: BTreeSet::new() };
        builds.iter().for_each(|build| self.restore_left_out(*build));
        builds.into_iter().for_each(|build| self.await_pin_end(build));
    }

    /// Which results of a build that goes on found no room before, so that none is counted twice.
    fn restore_left_out(&mut self, build: BuildId) {
        let (Some(live), Some(row)) = (self.builds.get(&build), self.pins.rows.get(&build)) else { return };
        if row.left_out > 0 {
            let jobs = live.jobs.iter().map(|id| &self.jobs[id].row);
            let (found, _) = self.results_there(&Extent::of(row.clone(), jobs, std::iter::empty()));
            let keys = found.into_iter().map(|name| (build, name.key));
            let left_out = keys.filter(|result| !self.pins.results.contains(result)).collect();
            self.pins.left_out = &self.pins.left_out | &left_out;
        }
    }

    /// Sets a pin's deadline, by the clock that never steps; or forgets it.
    fn await_pin_end(&mut self, build: BuildId) {
        match self.pins.rows.get(&build).and_then(|row| row.until) {
            Some(until) => self.timers.set(Timer::Pin(build), self.mono_of(until)),
            None => self.timers.clear(Timer::Pin(build)),
        }
    }

    /// A pin's time is over, unless the wall's clock went back meanwhile.
    pub(crate) fn on_pin_due(&mut self, build: BuildId) {
        let Some(row) = self.pins.rows.get(&build) else { return };
        let Some(until) = row.until else { return };
        if self.now.wall < until {
            return self.await_pin_end(build);
        }
        if let Some(row) = self.drop_pin(build) {
            let coordinator = Actor { kind: ActorKind::System, name: "coordinator".to_owned() };
            let detail = format!("{} #{}", row.pipeline, row.number);
            self.audit(&coordinator, "build.pin_over", &build.to_string(), &detail);
        }
    }

    /// What is to be written of pins: each before the results that it holds.
    pub(crate) fn changes_of_pins(
        &self,
        pins: &BTreeSet<BuildId>,
        results: BTreeSet<(BuildId, Digest)>,
    ) -> Vec<Change> {
        let rows = pins.iter().map(|build| match self.pins.rows.get(build) {
            Some(row) => Change::Pin(Box::new(row.clone())),
            None => Change::PinOver(*build),
        });
        let held = results.into_iter().filter(|result| self.pins.results.contains(result));
        rows.chain(held.map(|(build, key)| Change::PinResult { build, key })).collect()
    }

    /// What all pins come to, and how many results they hold, each once.
    #[must_use]
    pub fn pinned(&self) -> (Amount, usize) {
        (self.pins.rows.values().map(Amount::from).sum(), self.reuse.held_entries())
    }

    /// That pins are within their bounds, will end, and agree with what they hold.
    pub(crate) fn check_pins(&self) -> Result<(), (&'static str, String)> {
        let (mut names, mut of_pipeline) = (BTreeSet::new(), BTreeMap::<&str, usize>::new());
        for (build, row) in &self.pins.rows {
            if *build != row.build || row.namespace.trust() == Trust::Untrusted {
                return Err(("I12", format!("the pin of {build} is {row:?}")));
            }
            if row.until.is_some() != self.timers.has(Timer::Pin(*build)) {
                return Err(("I10", format!("the pin of {build} ends at {:?}, and nobody looks after it", row.until)));
            }
            let named = row.name.as_ref().is_none_or(|name| names.insert((&row.pipeline, name)));
            let count = of_pipeline.entry(&row.pipeline).or_default();
            *count += 1;
            if !named || *count > limits::PINS_PER_PIPELINE_MAX {
                return Err(("I9", format!("the pin of {build} is one too many: {row:?}")));
            }
            if self.builds.contains_key(build) {
                let (files, bytes) = AttemptRow::artifacts_of(self.attempts_of(*build));
                // Fewer where it was pinned by rows of before; the shell looks again, and says so.
                if row.files > files || row.bytes > bytes {
                    let counts = (row.files, row.bytes);
                    return Err(("I15", format!("the pin of {build} counts {counts:?}, it has {:?}", (files, bytes))));
                }
            }
        }
        if self.pins.rows.len() > limits::PINS_MAX {
            return Err(("I9", format!("there are {} pins", self.pins.rows.len())));
        }
        for (build, key) in &self.pins.results {
            let Some(row) = self.pins.rows.get(build) else {
                return Err(("I11", format!("{key} is held by no pin of {build}")));
            };
            let name = ReuseName { namespace: row.namespace.clone(), key: *key };
            if !self.reuse.entries.contains_key(&name) {
                return Err(("I15", format!("the pin of {build} holds the result of {key}, which went")));
            }
        }
        let held = self.pins.results.iter().filter_map(|(build, key)| {
            let namespace = self.pins.rows.get(build)?.namespace.clone();
            Some(ReuseName { namespace, key: *key })
        });
        self.reuse.check_held(held)
    }
}

/// A moment as people read it.
fn rfc3339(at: WallMs) -> String {
    let ms = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    ms.map_or_else(|| format!("{} ms", at.0), |time| time.to_string())
}
