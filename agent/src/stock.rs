//! What this machine has of the large inputs of jobs, for the coordinator to weigh (docs/design/036): images that its engine
//! has, and source trees that it brought.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use windlass_agent_core::Input;
use windlass_agent_runner::docker::Engine;
use windlass_protocol::Digest;
use windlass_protocol::limits::{
    ENGINE_PING_MS, STOCK_EVERY_MS, STOCK_INPUTS_MAX, STOCK_MIN_BYTES, ZONE_RATE_MIN_BYTES,
};
use windlass_protocol::stock::{Fetched, InputName, Stocked};

/// Source trees that were brought, the one that was used last at the end; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trees(Arc<Mutex<Brought>>);

#[derive(Debug, Default)]
struct Brought {
    trees: VecDeque<Stocked>,
    fetched: Fetched,
}

impl Trees {
    /// A job's tree of so many bytes is here; it took so long until all of it was.
    pub(crate) fn note(&self, root: &Digest, bytes: u64, took: Duration) {
        let name = InputName::tree(root);
        let mut brought = self.lock();
        let known = brought.trees.iter().position(|tree| tree.name == name);
        if let Some(at) = known {
            brought.trees.remove(at);
        } else {
            let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            brought.fetched.bytes = brought.fetched.bytes.saturating_add(bytes);
            brought.fetched.ms = brought.fetched.ms.saturating_add(ms);
        }
        brought.trees.push_back(Stocked { name, bytes });
        if brought.trees.len() > STOCK_INPUTS_MAX {
            brought.trees.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Brought> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the core what is here, at first and whenever it has changed, for as long as the core listens.
pub(crate) async fn watch(trees: Trees, engine: Engine, runs_images: Arc<AtomicBool>, feed: mpsc::Sender<Input>) {
    let mut told = (Vec::new(), Fetched::default());
    loop {
        let images = if runs_images.load(Ordering::Relaxed) { images(&engine).await } else { Vec::new() };
        let (inputs, fetched) = {
            let brought = trees.lock();
            (largest(images, brought.trees.iter().copied()), brought.fetched)
        };
        let measured = fetched.bytes.saturating_sub(told.1.bytes) >= ZONE_RATE_MIN_BYTES;
        if inputs != told.0 || measured {
            told = (inputs.clone(), fetched);
            if feed.send(Input::Stock { inputs, fetched }).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(STOCK_EVERY_MS)).await;
    }
}

/// The largest inputs, each once, in the order of their names.
fn largest(images: Vec<Stocked>, trees: impl Iterator<Item = Stocked>) -> Vec<Stocked> {
    let mut all: Vec<_> = images.into_iter().chain(trees).filter(|input| input.bytes >= STOCK_MIN_BYTES).collect();
    all.sort_unstable_by_key(|input| (input.name, std::cmp::Reverse(input.bytes)));
    all.dedup_by_key(|input| input.name);
    all.sort_unstable_by_key(|input| std::cmp::Reverse(input.bytes));
    all.truncate(STOCK_INPUTS_MAX);
    all.sort_unstable();
    all
}

/// What the engine has, by every name that a step may call it by. An engine that does not answer has nothing for now.
async fn images(engine: &Engine) -> Vec<Stocked> {
    let asked = tokio::time::timeout(Duration::from_millis(ENGINE_PING_MS), engine.images()).await;
    match asked {
        Ok(Ok(images)) => {
            let named = images.into_iter().flat_map(|(names, bytes)| names.into_iter().map(move |name| (name, bytes)));
            named.flat_map(|(name, bytes)| called(&name).map(move |name| Stocked { name, bytes })).collect()
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "images_not_listed");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// An image's names: the tag `latest` may be left out.
fn called(name: &str) -> impl Iterator<Item = InputName> + use<> {
    let short = name.strip_suffix(":latest").map(InputName::image);
    [Some(InputName::image(name)), short].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_inputs_are_told_each_once_and_small_ones_are_not() {
        let input = |n: u64, bytes| Stocked { name: InputName::image(&n.to_string()), bytes };
        let many = (0..200).map(|n| input(n, STOCK_MIN_BYTES + n));
        let images = vec![input(1_000, STOCK_MIN_BYTES - 1), input(199, STOCK_MIN_BYTES)];
        let told = largest(images, many);
        assert_eq!(told.len(), STOCK_INPUTS_MAX);
        assert!(told.iter().all(|input| input.bytes >= STOCK_MIN_BYTES + 136), "{told:?}");
        assert!(told.is_sorted());
    }

    #[test]
    fn a_tree_that_comes_again_is_measured_once_and_old_ones_are_forgotten() {
        let trees = Trees::default();
        let root = |n: usize| Digest::of(&n.to_le_bytes());
        for n in [0, 1, 0] {
            trees.note(&root(n), 1_000, Duration::from_millis(10));
        }
        assert_eq!(trees.lock().fetched, Fetched { bytes: 2_000, ms: 20 });
        for n in 2..=STOCK_INPUTS_MAX {
            trees.note(&root(n), 1, Duration::ZERO);
        }
        let names: Vec<_> = trees.lock().trees.iter().map(|tree| tree.name).collect();
        assert_eq!(names.len(), STOCK_INPUTS_MAX);
        assert!(names.contains(&InputName::tree(&root(0))), "it was used after the other");
        assert!(!names.contains(&InputName::tree(&root(1))));
    }

    #[test]
    fn an_image_is_known_with_its_latest_tag_and_without() {
        let names: Vec<_> = called("node:latest").collect();
        assert_eq!(names, [InputName::image("node:latest"), InputName::image("node")]);
        assert_eq!(called("node:20").count(), 1);
    }
}
