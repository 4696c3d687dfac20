//! `cache save|restore` (reference 19.9; docs/design/026): directories that are kept by key, of a file or of the step itself.
//!
//! What goes wrong with one cache is said, and fails nothing: a job can always go on without.

mod chosen;
mod key;
mod restore;
mod save;

use windlass_protocol::message::{Asked, CacheQuery, FoundCache, Told};

use self::chosen::{Chosen, chosen};
use super::{Call, Fail, untold};
use crate::job_api::hands::HandsError;

/// Where the key of the step's cache is kept between restore and save: the command may change what it was made of.
const STEP_KEY: &str = "WINDLASS_CACHE_KEY";

/// `cache save`.
pub(super) async fn save(call: &mut Call<'_>) -> Result<(), Fail> {
    for cache in chosen(call).await? {
        let saved = save::save(call, &cache).await;
        tell(call, &cache, "saved", saved).await?;
    }
    Ok(())
}

/// `cache restore`.
pub(super) async fn restore(call: &mut Call<'_>) -> Result<(), Fail> {
    for cache in chosen(call).await? {
        let restored = restore::restore(call, &cache).await;
        tell(call, &cache, "restored", restored).await?;
    }
    Ok(())
}

/// Says why a cache was not saved or restored. Where the command's program is gone, nobody would hear of it.
async fn tell(call: &mut Call<'_>, cache: &Chosen, what: &str, came: Result<(), Fail>) -> Result<(), Fail> {
    let why = match came {
        Err(Fail::Hands(error @ (HandsError::Gone(_) | HandsError::Bad(_) | HandsError::Confused))) => {
            return Err(error.into());
        }
        Ok(()) | Err(Fail::Silent(_)) => return came,
        Err(Fail::Hands(error)) => error.to_string(),
        Err(Fail::Fatal(why)) => why,
    };
    call.note("warning", &format!("Cache {:?} was not {what}: {why}", cache.name)).await
}

/// The cache that stands under a key, or under one that will do.
async fn find(call: &mut Call<'_>, cache: &Chosen, query: (String, Vec<String>)) -> Result<Option<FoundCache>, Fail> {
    let (key, restore_keys) = query;
    let query = CacheQuery { scope: cache.scope, key, restore_keys };
    match call.ask(Asked::FindCache(Box::new(query)), &[]).await? {
        Told::Cache(found) => Ok(found.map(|found| *found)),
        other => Err(untold("the coordinator does not say what there is", other)),
    }
}

/// Bytes for people.
fn shown_bytes(bytes: u64) -> String {
    format!("{bytes} bytes")
}
