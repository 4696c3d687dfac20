//! Ids that are made here, in order also within a millisecond.

use std::sync::{Mutex, PoisonError};

use windlass_protocol::IdSource;

use super::problem::Problem;

static IDS: Mutex<Option<IdSource>> = Mutex::new(None);

/// Makes one.
pub(crate) fn make<T>(id: impl FnOnce(&mut IdSource) -> T) -> Result<T, Problem> {
    let mut ids = IDS.lock().unwrap_or_else(PoisonError::into_inner);
    let source = match &mut *ids {
        Some(source) => source,
        none => {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(|error| Problem::internal(&error))?;
            none.insert(IdSource::from_seed(seed))
        }
    };
    Ok(id(source))
}
