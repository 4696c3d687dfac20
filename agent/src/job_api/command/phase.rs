//! What a job's bootstrap says between its phases: what a hook changed, and which phase failed (docs/design/020). The job
//! can say the same by itself, and reaches by it what `env set` reaches: its own next phases and its own cause.

use std::collections::BTreeMap;

use windlass_agent_runner::mask::{Masker, secrets_of};
use windlass_hands::plan::{CARRY, FAILED, Fault};
use windlass_protocol::Cause;
use windlass_protocol::cause::CauseKind;

use super::{Fail, fatal};
use crate::job_api::door::Party;
use crate::job_api::hands::Hands;

/// A hook's name with its plugin's, in a cause.
const WHAT_MAX_CHARS: usize = 120;

/// Answers a bootstrap.
pub(super) async fn answer(hands: &mut Hands, party: &Party) -> Result<(), Fail> {
    let words = hands.words.get(1..).unwrap_or_default().to_vec();
    match words.split_first() {
        Some((word, gone)) if word == CARRY => carry(hands, party, gone.to_vec()).await,
        Some((word, rest)) if word == FAILED => failed(party, rest).await,
        _ => Err(fatal("a job's bootstrap says something that this version of Windlass does not know")),
    }
}

async fn carry(hands: &mut Hands, party: &Party, gone: Vec<String>) -> Result<(), Fail> {
    let mut set: BTreeMap<String, String> = hands.environment.clone();
    // Said by the bootstrap itself, and looked at already.
    set.remove("WINDLASS_ATTEMPT_ID");
    // It says by which right the job began; an agent that has started again since knows a newer one.
    set.remove("WINDLASS_LEASE_EPOCH");
    // Before anything can print them.
    for value in secrets_of(set.iter().map(|(name, value)| (name.as_str(), value.as_str()))).0 {
        party.masking.add(value).await.map_err(|error| fatal(format!("a new secret cannot be masked: {error}")))?;
    }
    let directory = String::from_utf8(hands.directory.clone());
    let directory = directory.map_err(|_| fatal("the directory that a hook changed to has no name in text"))?;
    let changes = &party.changes;
    let dropped = changes.carry(set, gone, (!directory.is_empty()).then_some(directory)).map_err(fatal)?;
    for name in dropped {
        hands.complain(&format!("warning: {name} is protected, and stays as it is\n")).await?;
    }
    let next = changes.since_the_start().encode().map_err(fatal)?;
    Ok(hands.put_out(&next).await?)
}

async fn failed(party: &Party, words: &[String]) -> Result<(), Fail> {
    let [fault, what, status] = words else { return Err(fatal("what failed is not said")) };
    let fault = Fault::of(fault).ok_or_else(|| fatal("what failed is not known"))?;
    let status: u8 = status.parse().map_err(fatal)?;
    let what = redacted(party, what)?;
    let what: String = what.chars().filter(|letter| !letter.is_control()).take(WHAT_MAX_CHARS).collect();
    let (kind, detail) = match fault {
        Fault::Hook => (CauseKind::HookFailed, format!("the {what} hook ended with status {status}")),
        Fault::Plugin => (CauseKind::PluginFailed, format!("the plugin {what} failed with status {status}")),
        Fault::Checkout => {
            (CauseKind::CheckoutFailed, format!("the checkout ended with status {status}; the log says why"))
        }
    };
    party.changes.note_failure(Cause::new(kind, detail)).map_err(fatal)
}

fn redacted(party: &Party, text: &str) -> Result<String, Fail> {
    let all = party.changes.variables();
    let (secrets, _) = secrets_of(all.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    let given = party.secrets.values();
    let mut masker = Masker::new(secrets.into_iter().chain(given.iter().map(String::as_str))).map_err(fatal)?;
    let mut masked = Vec::with_capacity(text.len());
    masker.push(text.as_bytes(), &mut masked);
    masker.finish(&mut masked);
    String::from_utf8(masked).map_err(fatal)
}
