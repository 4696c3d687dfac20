//! Who may read and add which cache, and which of them go (docs/design/026). Bytes are the shell's.

use std::ops::Bound;

use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, Digest, Namespace, Trust, WallMs, limits};

use crate::amount::Amount;
use crate::effect::{Effect, Reply};
use crate::error::Rejected;
use crate::input::ReplyTo;
use crate::row::{Actor, CacheName, CacheRequest, CacheRow};
use crate::state::Core;

impl From<&CacheRow> for Amount {
    fn from(row: &CacheRow) -> Self {
        Self { count: 1, files: row.files, bytes: row.bytes }
    }
}

const TRUSTED: Amount = Amount {
    count: limits::CACHES_TRUSTED_MAX as u64,
    files: limits::CACHES_TRUSTED_MAX_FILES,
    bytes: limits::CACHES_TRUSTED_MAX_BYTES,
};
/// Half of it.
const PINNED: Amount = Amount {
    count: limits::CACHES_TRUSTED_MAX as u64 / 2,
    files: limits::CACHES_TRUSTED_MAX_FILES / 2,
    bytes: limits::CACHES_TRUSTED_MAX_BYTES / 2,
};
const OVERLAY: Amount = Amount {
    count: limits::CACHES_OVERLAY_MAX as u64,
    files: limits::CACHES_OVERLAY_MAX_FILES,
    bytes: limits::CACHES_OVERLAY_MAX_BYTES,
};
const OVERLAYS: Amount = Amount {
    count: limits::CACHES_OVERLAYS_MAX as u64,
    files: limits::CACHES_OVERLAYS_MAX_FILES,
    bytes: limits::CACHES_OVERLAYS_MAX_BYTES,
};

impl Core {
    pub(crate) fn on_cache(&mut self, to: ReplyTo, actor: &Actor, request: CacheRequest) -> Result<(), Rejected> {
        let reply = match request {
            CacheRequest::Find { attempt, epoch, scope, key, restore_keys } => {
                let namespace = self.cache_namespace(attempt, epoch)?;
                let found = self.find_cache(&namespace, scope, &key, &restore_keys);
                if let Some(name) = &found {
                    self.touch_cache(name);
                }
                Reply::Cache(found.and_then(|name| self.caches.get(&name)).cloned().map(Box::new))
            }
            CacheRequest::Save { attempt, epoch, scope, key, manifest, manifest_bytes, files, bytes } => {
                let name = CacheName { namespace: self.cache_namespace(attempt, epoch)?, scope, key };
                if !self.caches.contains_key(&name) {
                    let lease = self.leases.get(&attempt).ok_or(Rejected::NoLease(attempt))?;
                    let (job, now) = (lease.job, self.now.wall);
                    let row = CacheRow {
                        name: name.clone(),
                        manifest,
                        manifest_bytes,
                        files,
                        bytes: bytes.saturating_add(manifest_bytes),
                        build: self.jobs[&job].row.build,
                        job,
                        created_at: now,
                        used_at: now,
                        pinned: false,
                    };
                    self.add_cache(row)?;
                }
                Reply::Cache(self.caches.get(&name).cloned().map(Box::new))
            }
            CacheRequest::Pin { name, pinned } => {
                self.pin_cache(&name, pinned)?;
                let act = if pinned { "cache.pin" } else { "cache.unpin" };
                self.audit(actor, act, &name.namespace.to_string(), &name.key);
                Reply::Done
            }
            CacheRequest::Remove { name, manifest } => {
                if self.caches.get(&name).is_some_and(|row| row.manifest == manifest) {
                    self.audit(actor, "cache.rm", &name.namespace.to_string(), &name.key);
                    self.drop_caches(vec![name]);
                }
                Reply::Done
            }
            CacheRequest::Forget { unused_since } => {
                self.forget_caches(unused_since);
                Reply::Done
            }
            CacheRequest::Drop { damaged } => {
                let is_it =
                    |name: &CacheName, manifest| self.caches.get(name).is_some_and(|row| row.manifest == manifest);
                let going = damaged.into_iter().filter(|(name, manifest)| is_it(name, *manifest));
                let going = going.map(|(name, _)| name).collect();
                self.drop_caches(going);
                Reply::Done
            }
        };
        self.book.out.push(Effect::Reply { to, reply });
        Ok(())
    }

    /// The namespace of the build of a job, by its right.
    fn cache_namespace(&self, attempt: AttemptId, epoch: Epoch) -> Result<Namespace, Rejected> {
        let job = self.held(attempt, Some(epoch))?;
        Ok(self.builds[&self.jobs[&job].row.build].row.namespace.clone())
    }

    /// The key itself, then each beginning that will do; of the own namespace, then of what it reads beside it (I12).
    fn find_cache(&self, own: &Namespace, scope: Digest, key: &str, beginnings: &[String]) -> Option<CacheName> {
        let beneath = own.overlay.is_some().then(|| Namespace::trusted(&own.project));
        let places = [Some(own.clone()), beneath];
        let places: Vec<Namespace> = places.into_iter().flatten().collect();
        let exact = places.iter().find_map(|namespace| {
            let name = CacheName { namespace: namespace.clone(), scope, key: key.to_owned() };
            self.caches.contains_key(&name).then_some(name)
        });
        let newest = |beginning: &String| places.iter().find_map(|of| self.newest_cache(of, scope, beginning));
        exact.or_else(|| beginnings.iter().find_map(newest))
    }

    fn newest_cache(&self, namespace: &Namespace, scope: Digest, beginning: &str) -> Option<CacheName> {
        let from = CacheName { namespace: namespace.clone(), scope, key: beginning.to_owned() };
        let there = self.caches.range(from..).take_while(|(name, _)| {
            name.namespace == *namespace && name.scope == scope && name.key.starts_with(beginning)
        });
        there.max_by_key(|(_, row)| row.created_at).map(|(name, _)| name.clone())
    }

    /// Notes that a cache is used, unless that was done not long ago.
    fn touch_cache(&mut self, name: &CacheName) {
        let now = self.now.wall;
        let Some(row) = self.caches.get_mut(name) else { return };
        if now.0.saturating_sub(row.used_at.0) >= limits::CACHE_TOUCH_MS {
            row.used_at = now;
            self.book.caches.insert(name.clone());
        }
    }

    fn add_cache(&mut self, row: CacheRow) -> Result<(), Rejected> {
        let name = row.name.clone();
        let own = if name.namespace.trust() == Trust::Trusted { TRUSTED } else { OVERLAY };
        let own = own.less(self.pinned_of(&name.namespace));
        if row.bytes > own.bytes {
            return Err(Rejected::Limit { what: "bytes of one cache", limit: own.bytes });
        }
        if row.files > own.files {
            return Err(Rejected::Limit { what: "files of one cache", limit: own.files });
        }
        self.book.caches.insert(name.clone());
        self.caches.insert(name.clone(), row);
        let namespace = name.namespace.clone();
        self.trim_caches(&name, own, |of| *of == namespace);
        if namespace.trust() == Trust::Untrusted {
            // Whatever an overlay adds, what is trusted stays.
            self.trim_caches(&name, OVERLAYS, |of| of.overlay.is_some());
        }
        self.trim_overlays_of_all(&name)
    }

    /// Where there are too many caches in all, lets go of what of anybody's overlays was used longest ago; where there are no
    /// overlays but that of `new`, `new` is refused, and nothing else has changed.
    fn trim_overlays_of_all(&mut self, new: &CacheName) -> Result<(), Rejected> {
        if self.caches.len() <= limits::CACHES_MAX {
            return Ok(());
        }
        let overlays = self.caches.values().filter(|row| row.name.namespace.overlay.is_some() && row.name != *new);
        let oldest = overlays.min_by_key(|row| (row.used_at, &row.name)).map(|row| row.name.clone());
        let full = oldest.is_none();
        self.drop_caches(vec![oldest.unwrap_or_else(|| new.clone())]);
        if full {
            return Err(Rejected::Limit { what: "caches of all pipelines", limit: limits::CACHES_MAX as u64 });
        }
        Ok(())
    }

    /// Lets go of what was used longest ago of those namespaces of a project, until they have no more than they may. `new`
    /// stays.
    fn trim_caches(&mut self, new: &CacheName, most: Amount, of: impl Fn(&Namespace) -> bool) {
        let project = Namespace::trusted(&new.namespace.project);
        let first = CacheName { namespace: project, scope: Digest::from_bytes([0; 32]), key: String::new() };
        let own = self.caches.range((Bound::Included(first), Bound::Unbounded));
        let own = own.take_while(|(name, _)| name.namespace.project == new.namespace.project);
        let rows: Vec<&CacheRow> = own.map(|(_, row)| row).filter(|row| of(&row.name.namespace)).collect();
        let rows: Vec<&CacheRow> = rows.into_iter().filter(|row| !row.pinned).collect();
        let mut sum = rows.iter().copied().map(Amount::from).sum::<Amount>();
        if sum.fits(most) {
            return;
        }
        let mut by_use: Vec<&CacheRow> = rows.into_iter().filter(|row| row.name != *new).collect();
        by_use.sort_by_key(|row| (row.used_at, &row.name));
        let mut going = Vec::new();
        for row in by_use {
            if sum.fits(most) {
                break;
            }
            sum = sum.less(Amount::from(row));
            going.push(row.name.clone());
        }
        self.drop_caches(going);
    }

    /// What is pinned of a namespace.
    fn pinned_of(&self, namespace: &Namespace) -> Amount {
        let first = CacheName { namespace: namespace.clone(), scope: Digest::from_bytes([0; 32]), key: String::new() };
        let own = self.caches.range(first..).take_while(|(name, _)| name.namespace == *namespace);
        own.filter(|(_, row)| row.pinned).map(|(_, row)| Amount::from(row)).sum()
    }

    /// At most half of what a project may have can be pinned, so that its builds go on saving.
    fn pin_cache(&mut self, name: &CacheName, pinned: bool) -> Result<(), Rejected> {
        let refuse = |why: &str| Rejected::Setting { what: "pinned", why: why.to_owned() };
        let row = self.caches.get(name).ok_or_else(|| refuse("the cache is gone"))?;
        if name.namespace.trust() == Trust::Untrusted {
            return Err(refuse("caches of untrusted builds go with what they were for"));
        }
        if pinned && !row.pinned && !self.pinned_of(&name.namespace).and(Amount::from(row)).fits(PINNED) {
            return Err(refuse("half of what the pipeline's caches may have together is pinned already"));
        }
        if let Some(row) = self.caches.get_mut(name).filter(|row| row.pinned != pinned) {
            row.pinned = pinned;
            self.book.caches.insert(name.clone());
        }
        Ok(())
    }

    fn forget_caches(&mut self, unused_since: WallMs) {
        let unused = self.caches.values().filter(|row| row.used_at < unused_since && !row.pinned);
        // The rest of them next time: a commit has its limit.
        let going = unused.take(limits::EXPIRE_ROWS_MAX).map(|row| row.name.clone()).collect();
        self.drop_caches(going);
    }

    fn drop_caches(&mut self, going: Vec<CacheName>) {
        for name in going {
            self.caches.remove(&name);
            self.book.caches.insert(name);
        }
    }
}
