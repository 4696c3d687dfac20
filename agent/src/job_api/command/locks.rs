//! `lock acquire|release|do|done|get`: locks between the jobs of this agent (reference 19.8).

use std::time::Duration;

use super::{Call, Fail, fatal};
use crate::job_api::lock::{LockError, Owner, Taken};

/// The key, where the command has as many arguments as it takes.
async fn key(call: &mut Call<'_>, arguments: usize) -> Result<String, Fail> {
    if call.line.arguments.len() != arguments {
        return Err(call.misused().await);
    }
    if call.line.text("lock-scope") != "machine" {
        return Err(fatal("only 'machine' scope for locks is supported in this version"));
    }
    Ok(call.argument(0).unwrap_or_default().to_owned())
}

/// Waits for a lock, as long as the command may and is there to have it.
async fn wait<T>(
    call: &mut Call<'_>,
    what: &str,
    waiting: impl Future<Output = Result<T, LockError>>,
) -> Result<T, Fail> {
    let most = call.line.time("lock-wait-timeout");
    let over = async {
        match most {
            Some(most) => tokio::time::sleep(most).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        gone = call.hands.gone() => Err(gone.into()),
        had = waiting => had.map_err(|error| fatal(format!("{what}: {error}"))),
        () = over => Err(fatal(format!("{what}: {} passed without it", shown(most.unwrap_or_default())))),
    }
}

fn owner(call: &Call<'_>) -> Owner {
    Owner { attempt: call.party.spec.attempt, life: call.party.account.life() }
}

fn shown(time: Duration) -> String {
    format!("{time:?}")
}

pub(super) async fn acquire(call: &mut Call<'_>) -> Result<(), Fail> {
    let key = key(call, 1).await?;
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).map_err(fatal)?;
    let secret = windlass_protocol::hex::to(&secret);
    let token = format!("acquired(attempt={},otp={secret})", call.party.spec.attempt);
    let (shared, owner) = (call.shared, owner(call));
    let taken = wait(call, "could not acquire lock", shared.locks.acquire(&key, &token, &owner)).await?;
    // Who waited may be gone before it hears: nobody would know the token, so that the lock is free again.
    call.print(&format!("{token}\n")).await?;
    taken.keep();
    Ok(())
}

pub(super) async fn release(call: &mut Call<'_>) -> Result<(), Fail> {
    let key = key(call, 2).await?;
    let token = call.argument(1).unwrap_or_default();
    call.shared.locks.release(&key, token).map_err(|error| fatal(format!("could not release lock: {error}")))
}

pub(super) async fn begin(call: &mut Call<'_>) -> Result<(), Fail> {
    let key = key(call, 1).await?;
    let (shared, owner) = (call.shared, owner(call));
    let begun = wait(call, "couldn't start do-once lock", shared.locks.begin(&key, &owner)).await?;
    // As with a lock: work that nobody knows to be theirs is another's to begin.
    call.print(if begun.is_some() { "do\n" } else { "done\n" }).await?;
    begun.into_iter().for_each(Taken::keep);
    Ok(())
}

pub(super) async fn done(call: &mut Call<'_>) -> Result<(), Fail> {
    let key = key(call, 1).await?;
    call.shared.locks.done(&key).map_err(|error| fatal(format!("couldn't complete do-once lock: {error}")))
}

pub(super) async fn get(call: &mut Call<'_>) -> Result<(), Fail> {
    let key = key(call, 1).await?;
    let value = call.shared.locks.get(&key);
    call.print(&format!("{value}\n")).await
}
