//! A bucket in memory that fails as it is told to, and remembers what it held when.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use windlass_protocol::limits::ORIGIN_LIST_MAX;

use super::{Remote, RemoteError, RemoteObject};

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing is done, and no answer comes.
    Down,
    /// It is done, and no answer comes.
    AnswerLost,
    /// It says no.
    Denied,
    /// It says that the object is not there.
    NotFound,
    /// The answer has a wrong bit; of an upload, what is kept.
    Wrong,
    /// The answer ends early; of an upload, what is kept.
    Short,
}

/// All of them.
pub const TROUBLES: [Trouble; 6] =
    [Trouble::Down, Trouble::AnswerLost, Trouble::Denied, Trouble::NotFound, Trouble::Wrong, Trouble::Short];

type Objects = BTreeMap<String, Arc<[u8]>>;
type Clock = dyn Fn() -> usize + Send + Sync;

#[derive(Default)]
struct State {
    objects: Objects,
    calls: usize,
    log: Vec<String>,
    troubles: BTreeMap<usize, Trouble>,
    /// Every call.
    always: Option<Trouble>,
    clock: Option<Arc<Clock>>,
    before: Objects,
    /// What it held, after the moment of each change.
    history: Vec<(usize, Objects)>,
}

/// A bucket in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryRemote {
    state: Arc<Mutex<State>>,
}

impl std::fmt::Debug for MemoryRemote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryRemote")
    }
}

impl MemoryRemote {
    /// One that holds these objects.
    #[must_use]
    pub fn holding(objects: BTreeMap<String, Arc<[u8]>>) -> Self {
        let remote = Self::default();
        remote.lock().objects = objects;
        remote
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what it holds by this clock.
    pub fn remember_by(&self, clock: impl Fn() -> usize + Send + Sync + 'static) {
        self.lock().clock = Some(Arc::new(clock));
    }

    /// What it holds now is what it held before the clock began.
    pub fn begin_history(&self) {
        let mut state = self.lock();
        let held = state.objects.clone();
        state.before = held;
        state.history.clear();
    }

    /// What a crash at this moment may find: what it held before it, and after each change at that moment.
    #[must_use]
    pub fn held_at(&self, moment: usize) -> Vec<BTreeMap<String, Arc<[u8]>>> {
        let state = self.lock();
        let before = state.history.iter().rev().find(|(at, _)| *at < moment).map(|(_, held)| held.clone());
        let during = state.history.iter().filter(|(at, _)| *at == moment).map(|(_, held)| held.clone());
        [before.unwrap_or_else(|| state.before.clone())].into_iter().chain(during).collect()
    }

    /// What it holds.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Arc<[u8]>> {
        self.lock().objects.clone()
    }

    /// Changes what it holds behind everybody's back.
    pub fn set(&self, key: &str, bytes: Option<&[u8]>) {
        let mut state = self.lock();
        match bytes {
            Some(bytes) => drop(state.objects.insert(key.to_owned(), bytes.into())),
            None => drop(state.objects.remove(key)),
        }
    }

    /// How many calls came.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.lock().calls
    }

    /// What was asked for: one line a call.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.lock().log.clone()
    }

    /// Lets the call of this number (from 0) go wrong.
    pub fn fail_at(&self, call: usize, trouble: Trouble) {
        self.lock().troubles.insert(call, trouble);
    }

    /// Lets every call go wrong from now on, or none.
    pub fn fail_always(&self, trouble: Option<Trouble>) {
        self.lock().always = trouble;
    }

    fn begin(&self, line: String) -> Option<Trouble> {
        let mut state = self.lock();
        let call = state.calls;
        state.calls += 1;
        state.log.push(line);
        state.troubles.remove(&call).or(state.always)
    }

    fn change(&self, change: impl FnOnce(&mut Objects)) {
        let clock = self.lock().clock.clone();
        // Without the lock: the clock is somebody else's.
        let moment = clock.map(|clock| clock());
        let mut state = self.lock();
        change(&mut state.objects);
        if let Some(moment) = moment {
            let held = state.objects.clone();
            state.history.push((moment, held));
        }
    }
}

fn refuse(trouble: Trouble, key: &str) -> RemoteError {
    match trouble {
        Trouble::Denied => RemoteError::Refused { why: "403 Forbidden".to_owned() },
        Trouble::NotFound => RemoteError::Missing { key: key.to_owned() },
        Trouble::Down | Trouble::AnswerLost | Trouble::Wrong | Trouble::Short => {
            RemoteError::Unavailable { why: "503 Slow Down".to_owned() }
        }
    }
}

/// What was spoiled once is not made right by being spoiled again: another byte each way.
fn spoil(mut bytes: Vec<u8>, trouble: Option<Trouble>, nth: usize) -> Vec<u8> {
    match trouble {
        Some(Trouble::Wrong) => {
            let at = bytes.len() / nth;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x40;
            }
        }
        Some(Trouble::Short) => bytes.truncate(bytes.len() / 2),
        _ => {}
    }
    bytes
}

impl Remote for MemoryRemote {
    fn put(&self, key: &str, bytes: u64, next: &mut dyn FnMut() -> io::Result<Vec<u8>>) -> Result<(), RemoteError> {
        let trouble = self.begin(format!("put {key} {bytes}"));
        if let Some(trouble @ (Trouble::Down | Trouble::Denied | Trouble::NotFound)) = trouble {
            return Err(refuse(trouble, key));
        }
        let mut body = Vec::new();
        while (body.len() as u64) < bytes {
            let part = next().map_err(|e| RemoteError::Unavailable { why: e.to_string() })?;
            body.extend_from_slice(&part);
        }
        let body = spoil(body, trouble, 2);
        self.change(|objects| drop(objects.insert(key.to_owned(), body.into())));
        match trouble {
            Some(Trouble::AnswerLost) => Err(refuse(Trouble::AnswerLost, key)),
            _ => Ok(()),
        }
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, RemoteError> {
        let trouble = self.begin(format!("get {key} {}..{}", range.start, range.end));
        if let Some(trouble @ (Trouble::Down | Trouble::AnswerLost | Trouble::Denied | Trouble::NotFound)) = trouble {
            return Err(refuse(trouble, key));
        }
        let object = self.lock().objects.get(key).cloned();
        let object = object.ok_or_else(|| RemoteError::Missing { key: key.to_owned() })?;
        let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let bytes = object.get(at(range.start)..at(range.end).min(object.len())).unwrap_or_default();
        Ok(spoil(bytes.to_vec(), trouble, 3))
    }

    fn delete(&self, key: &str) -> Result<(), RemoteError> {
        let trouble = self.begin(format!("delete {key}"));
        if let Some(trouble @ (Trouble::Down | Trouble::Denied)) = trouble {
            return Err(refuse(trouble, key));
        }
        self.change(|objects| drop(objects.remove(key)));
        match trouble {
            Some(Trouble::AnswerLost) => Err(refuse(Trouble::AnswerLost, key)),
            _ => Ok(()),
        }
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<RemoteObject>, RemoteError> {
        let trouble = self.begin(format!("list {prefix}"));
        if let Some(trouble) = trouble {
            return Err(refuse(if trouble == Trouble::NotFound { Trouble::Down } else { trouble }, prefix));
        }
        let state = self.lock();
        let keys: BTreeSet<&String> = state.objects.keys().filter(|key| key.starts_with(prefix)).collect();
        let after = |key: &&&String| after.is_none_or(|after| key.as_str() > after);
        let page = keys.iter().filter(after).take(ORIGIN_LIST_MAX);
        let object = |key: &&String| RemoteObject {
            key: (*key).clone(),
            bytes: state.objects.get(*key).map_or(0, |bytes| bytes.len() as u64),
        };
        Ok(page.map(object).collect())
    }
}
