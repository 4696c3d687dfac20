//! What an operator says of what the cache lets go: bytes and days for sources of trusted builds and of overlays.

use serde::Deserialize;
use windlass_cache::{Policy, Store};
use windlass_protocol::Namespace;
use windlass_protocol::limits::{
    OVERLAY_BYTES_FACTOR, POLICY_OVERLAY_BYTES, POLICY_OVERLAY_MS, POLICY_TRUSTED_BYTES, POLICY_TRUSTED_MS,
};

/// The table `cache_policy` of the TOML file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CachePolicyFile {
    /// Bytes, such as `100GiB`, that a pipeline's trusted builds may have of sources; `0` is as many as they like.
    pub trusted_bytes: Option<String>,
    /// Days that those stay which no build uses; 0 is for ever.
    pub trusted_days: Option<u64>,
    /// The same of each overlay.
    pub overlay_bytes: Option<String>,
    /// The same of each overlay.
    pub overlay_days: Option<u64>,
}

/// What namespaces may keep of what nothing names by a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicies {
    /// Those of trusted builds.
    pub trusted: Policy,
    /// Overlays.
    pub overlay: Policy,
}

impl Default for CachePolicies {
    fn default() -> Self {
        Self {
            trusted: Policy { max_bytes: Some(POLICY_TRUSTED_BYTES), max_age_ms: Some(POLICY_TRUSTED_MS) },
            overlay: Policy { max_bytes: Some(POLICY_OVERLAY_BYTES), max_age_ms: Some(POLICY_OVERLAY_MS) },
        }
    }
}

/// Zero is no bound.
const fn bound(number: u64) -> Option<u64> {
    if number == 0 { None } else { Some(number) }
}

impl CachePolicies {
    /// What the file says; sizes are read by `bytes`, which answers `None` where it has said what is wrong.
    #[must_use]
    pub fn of(file: &CachePolicyFile, mut bytes: impl FnMut(&str) -> Option<u64>) -> Self {
        let mut policies = Self::default();
        let mut set = |policy: &mut Policy, size: Option<&String>, days: Option<u64>| {
            if let Some(size) = size.and_then(|size| bytes(size)) {
                policy.max_bytes = bound(size);
            }
            if let Some(days) = days {
                policy.max_age_ms = bound(days.saturating_mul(86_400_000));
            }
        };
        set(&mut policies.trusted, file.trusted_bytes.as_ref(), file.trusted_days);
        set(&mut policies.overlay, file.overlay_bytes.as_ref(), file.overlay_days);
        policies
    }

    /// What a namespace may keep; `None` where rows say what stays: what lies on a shelf is retained until they go.
    #[must_use]
    pub fn policy(&self, namespace: &Namespace) -> Option<Policy> {
        match (namespace.shelf(), &namespace.overlay) {
            (Some(_), _) => None,
            (None, None) => Some(self.trusted),
            (None, Some(_)) => Some(self.overlay),
        }
    }

    /// Refuses what an overlay has no room for: it would grow faster than sweeps, which come hourly, let go. What stands on a
    /// shelf has bounds of its own.
    ///
    /// # Errors
    /// [`OverlayFull`].
    pub fn check_room(&self, store: &Store, namespace: &Namespace, bytes: u64) -> Result<(), OverlayFull> {
        let overlay = namespace.shelf().is_none() && namespace.overlay.is_some();
        let Some(keeps_bytes) = self.overlay.max_bytes.filter(|_| overlay) else { return Ok(()) };
        let most_bytes = keeps_bytes.saturating_mul(OVERLAY_BYTES_FACTOR);
        let held_bytes = store.usage(namespace).bytes;
        if held_bytes.saturating_add(bytes) > most_bytes { Err(OverlayFull { held_bytes, most_bytes }) } else { Ok(()) }
    }
}

/// An overlay has as much as it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "untrusted sources of this pipeline and origin come to {most_bytes} bytes at most, and have {held_bytes}: what is not used \
     goes by itself within hours"
)]
pub struct OverlayFull {
    held_bytes: u64,
    most_bytes: u64,
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use windlass_cache::StoreOptions;
    use windlass_cache::vfs::recorded::RecordingFs;
    use windlass_protocol::Shelf;

    use super::*;

    #[test]
    fn an_overlay_has_room_for_twice_what_it_may_keep_to_the_byte_and_nothing_else_is_refused_here() {
        let store = Store::open(Arc::new(RecordingFs::new()), Path::new("/s"), StoreOptions::default()).unwrap();
        let [mine, other] = ["pr:1", "pr:2"].map(|overlay| Namespace::overlay("p", overlay));
        let trusted = Namespace::trusted("p");
        for namespace in [&mine, &trusted, &mine.on(Shelf::Artifacts)] {
            store.put(namespace, &[7; 1_500]).unwrap();
        }
        let keeps = |bytes| Policy { max_bytes: bytes, max_age_ms: None };
        let policies = |overlay| CachePolicies { trusted: keeps(Some(1)), overlay: keeps(overlay) };
        for (overlay, namespace, bytes, has_room) in [
            (Some(1_000), &mine, 0, true),
            (Some(1_000), &mine, 500, true),
            (Some(1_000), &mine, 501, false),
            (Some(1_000), &mine, u64::MAX, false),
            (Some(750), &mine, 0, true),
            (Some(749), &mine, 0, false),
            (Some(u64::MAX), &mine, 1 << 50, true),
            (None, &mine, u64::MAX, true),
            (Some(749), &other, 0, true),
            (Some(749), &other, 1_499, false),
            (Some(1), &trusted, u64::MAX, true),
            (Some(1), &mine.on(Shelf::Artifacts), u64::MAX, true),
            (Some(1), &mine.on(Shelf::Caches), u64::MAX, true),
        ] {
            let room = policies(overlay).check_room(&store, namespace, bytes);
            assert_eq!(room.is_ok(), has_room, "{bytes} bytes more in {namespace:?} that keeps {overlay:?}");
        }
        let told = policies(Some(700)).check_room(&store, &mine, 0).unwrap_err().to_string();
        assert!(told.contains("1400 bytes at most, and have 1500"), "{told}");
    }

    #[test]
    fn each_kind_has_its_own_and_what_rows_name_has_none() {
        let file = CachePolicyFile {
            trusted_bytes: Some("0".to_owned()),
            trusted_days: Some(2),
            overlay_bytes: Some("bad".to_owned()),
            overlay_days: None,
        };
        let policies = CachePolicies::of(&file, |text| text.parse().ok());
        let (trusted, overlay) = (Namespace::trusted("p"), Namespace::overlay("p", "pr:1"));
        let two_days = Policy { max_bytes: None, max_age_ms: Some(2 * 86_400_000) };
        assert_eq!(policies.policy(&trusted), Some(two_days));
        assert_eq!(policies.policy(&overlay), Some(CachePolicies::default().overlay));
        for shelf in Shelf::ALL {
            assert_eq!((policies.policy(&trusted.on(shelf)), policies.policy(&overlay.on(shelf))), (None, None));
        }
    }
}
