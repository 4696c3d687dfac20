//! Who may read and add which cache, and which of them go (docs/design/026). Bytes are the shell's.

use std::collections::BTreeSet;
use std::ops::Bound;

use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, Digest, Namespace, Trust, WallMs, limits};

use crate::effect::{Effect, Reply};
use crate::error::Rejected;
use crate::input::ReplyTo;
use crate::row::{CacheName, CacheRequest, CacheRow};
use crate::state::Core;

/// How much some namespaces may have together.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    count: usize,
    bytes: u64,
}

const TRUSTED: Allowance = Allowance { count: limits::CACHES_TRUSTED_MAX, bytes: limits::CACHES_TRUSTED_MAX_BYTES };
const OVERLAY: Allowance = Allowance { count: limits::CACHES_OVERLAY_MAX, bytes: limits::CACHES_OVERLAY_MAX_BYTES };
const OVERLAYS: Allowance = Allowance { count: limits::CACHES_OVERLAYS_MAX, bytes: limits::CACHES_OVERLAYS_MAX_BYTES };

impl Core {
    pub(crate) fn on_cache(&mut self, to: ReplyTo, request: CacheRequest) -> Result<(), Rejected> {
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
                    };
                    self.add_cache(row)?;
                }
                Reply::Cache(self.caches.get(&name).cloned().map(Box::new))
            }
            CacheRequest::Forget { unused_since } => {
                self.forget_caches(unused_since);
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
        if row.bytes > own.bytes {
            return Err(Rejected::Limit { what: "bytes of one cache", limit: own.bytes });
        }
        if self.caches.len() >= limits::CACHES_MAX {
            return Err(Rejected::Limit { what: "caches of all pipelines", limit: limits::CACHES_MAX as u64 });
        }
        self.book.caches.insert(name.clone());
        self.caches.insert(name.clone(), row);
        let namespace = name.namespace.clone();
        self.trim_caches(&name, own, |of| *of == namespace);
        if namespace.trust() == Trust::Untrusted {
            // Whatever an overlay adds, what is trusted stays.
            self.trim_caches(&name, OVERLAYS, |of| of.overlay.is_some());
        }
        Ok(())
    }

    /// Lets go of what was used longest ago of those namespaces of a project, until they have no more than they may. `new`
    /// stays.
    fn trim_caches(&mut self, new: &CacheName, most: Allowance, of: impl Fn(&Namespace) -> bool) {
        let project = Namespace::trusted(&new.namespace.project);
        let first = CacheName { namespace: project, scope: Digest::from_bytes([0; 32]), key: String::new() };
        let own = self.caches.range((Bound::Included(first), Bound::Unbounded));
        let own = own.take_while(|(name, _)| name.namespace.project == new.namespace.project);
        let rows: Vec<&CacheRow> = own.map(|(_, row)| row).filter(|row| of(&row.name.namespace)).collect();
        let (mut count, mut bytes) = (rows.len(), rows.iter().fold(0_u64, |sum, row| sum.saturating_add(row.bytes)));
        if count <= most.count && bytes <= most.bytes {
            return;
        }
        let by_use: BTreeSet<(WallMs, &CacheName)> =
            rows.iter().filter(|row| row.name != *new).map(|row| (row.used_at, &row.name)).collect();
        let mut going = Vec::new();
        for (_, name) in by_use {
            if count <= most.count && bytes <= most.bytes {
                break;
            }
            count -= 1;
            bytes = bytes.saturating_sub(self.caches.get(name).map_or(0, |row| row.bytes));
            going.push(name.clone());
        }
        self.drop_caches(going);
    }

    fn forget_caches(&mut self, unused_since: WallMs) {
        let unused = self.caches.values().filter(|row| row.used_at < unused_since);
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
