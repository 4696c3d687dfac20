//! A job's secrets: asked for by its right before it starts, in its environment and its mask, and on no disk.
//!
//! What the step declares comes as names, in the variable that Buildkite's agent has for them. The values stay in memory:
//! an agent that starts again while the job runs asks for them again, so that what the job's commands send away is
//! redacted as before. Its supervisor, which masks the log, has had them all the time.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use windlass_git::SshKey;
use windlass_git::repository::is_ssh;
use windlass_protocol::cause::CauseKind;
use windlass_protocol::job::{JobSpec, Source};
use windlass_protocol::limits::{SECRETS_PER_ASK_MAX, SECRETS_PER_JOB_MAX};
use windlass_protocol::message::{AskRefused, Asked, Told};
use windlass_protocol::{Cause, Secret};

use crate::job_api::JobApi;
use crate::phases::variable;
use crate::right::Right;

/// Which secrets a job declares (reference 17.3).
const CONFIG: &str = "BUILDKITE_SECRETS_CONFIG";

/// The secret that is the key of a step's checkout (reference 11.7, docs/design/027).
const CHECKOUT_KEY: &str = "WINDLASS_CHECKOUT_SSH_SECRET";

/// One of them.
#[derive(Debug, Deserialize)]
struct Declared {
    key: String,
    environment_variable: String,
}

/// The secrets that a job has so far; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    /// Variables by name.
    variables: Vec<(String, Secret<String>)>,
    /// What its commands were given beside those.
    others: Vec<Secret<String>>,
}

impl Secrets {
    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the variables into an environment, over what is there.
    pub(crate) fn set(&self, env: &mut Vec<(String, String)>) {
        for (name, value) in &self.held().variables {
            env.retain(|(other, _)| other != name);
            env.push((name.clone(), value.expose().clone()));
        }
    }

    /// Every value, and each with lines as a terminal ends them.
    pub(crate) fn values(&self) -> Vec<String> {
        let held = self.held();
        let values = held.variables.iter().map(|(_, value)| value).chain(&held.others);
        let mut all = Vec::new();
        for value in values {
            let value = value.expose();
            if value.contains('\n') {
                all.push(value.replace('\n', "\r\n"));
            }
            all.push(value.clone());
        }
        all
    }

    /// A command of the job is given a value.
    pub(crate) fn add(&self, value: Secret<String>) {
        let mut held = self.held();
        let known = held.variables.iter().map(|(_, known)| known).chain(&held.others).any(|known| *known == value);
        if !known && held.others.len() < SECRETS_PER_JOB_MAX {
            held.others.push(value);
        }
    }

    /// Asks for what the job declares. All of it, or a cause.
    pub(crate) async fn fetch(&self, api: &JobApi, job: &JobSpec, right: &Right) -> Result<(), Cause> {
        let declared = declared(job)?;
        let mut variables = Vec::with_capacity(declared.len());
        for some in declared.chunks(SECRETS_PER_ASK_MAX) {
            let keys: Vec<_> = some.iter().map(|one| one.key.clone()).collect();
            let values = ask(api, job, right, keys).await?;
            let names = some.iter().map(|one| one.environment_variable.clone());
            variables.extend(names.zip(values));
        }
        self.held().variables = variables;
        Ok(())
    }
}

/// Asks for some secrets by their names.
async fn ask(api: &JobApi, job: &JobSpec, right: &Right, keys: Vec<String>) -> Result<Vec<Secret<String>>, Cause> {
    let count = keys.len();
    match api.ask_for(job.attempt, right, Asked::GetSecrets { keys }).await {
        Told::Secrets(values) if values.len() == count => Ok(values.into_iter().map(Secret::from).collect()),
        Told::Refused { code, detail } => Err(refused(code, detail)),
        Told::Secrets(_)
        | Told::Done
        | Told::Value(_)
        | Told::Keys(_)
        | Told::Text(_)
        | Told::Artifacts(_)
        | Told::Files(_)
        | Told::Cache(_) => Err(Cause::new(CauseKind::Internal, "the coordinator answered something else")),
    }
}

/// The key with which a job's repository is fetched, where its step names one. It goes to the agent's git and nowhere else:
/// neither into the job's environment nor onto a disk.
pub(crate) async fn checkout_key(api: &JobApi, job: &JobSpec, right: &Right) -> Result<Option<Arc<SshKey>>, Cause> {
    let name = variable(job, CHECKOUT_KEY);
    let Source::Git { repository, .. } = &job.source else { return Ok(None) };
    if name.is_empty() {
        return Ok(None);
    }
    let bad = |why: &dyn std::fmt::Display| {
        Cause::new(CauseKind::CheckoutFailed, format!("the secret {name} (checkout.ssh_secret): {why}"))
    };
    if !is_ssh(repository) {
        return Err(bad(&"it is for repositories that are fetched by ssh, and this one is not"));
    }
    let values = ask(api, job, right, vec![name.to_owned()]).await?;
    let text = values.first().map(|value| value.expose().as_str()).unwrap_or_default();
    SshKey::new(text).map(Arc::new).map(Some).map_err(|error| bad(&error))
}

fn declared(job: &JobSpec) -> Result<Vec<Declared>, Cause> {
    let config = job.env.iter().rev().find(|(name, _)| name == CONFIG).map(|(_, value)| value.as_str());
    let Some(config) = config.filter(|config| !config.is_empty()) else { return Ok(Vec::new()) };
    let bad = |detail: String| Cause::new(CauseKind::SecretMissing, detail);
    let declared: Vec<Declared> =
        serde_json::from_str(config).map_err(|error| bad(format!("{CONFIG} does not name secrets: {error}")))?;
    if declared.len() > SECRETS_PER_JOB_MAX {
        return Err(bad(format!("a job has at most {SECRETS_PER_JOB_MAX} secrets")));
    }
    let odd = |one: &&Declared| one.environment_variable.is_empty() || one.environment_variable.contains(['=', '\0']);
    match declared.iter().find(odd) {
        Some(one) => Err(bad(format!("no variable can have the name {:?}", one.environment_variable))),
        None => Ok(declared),
    }
}

fn refused(code: AskRefused, detail: String) -> Cause {
    let kind = match code {
        AskRefused::NotFound
        | AskRefused::Denied
        | AskRefused::Invalid
        | AskRefused::Conflict
        | AskRefused::NotServed => CauseKind::SecretMissing,
        AskRefused::NotHeld => CauseKind::LeaseLost,
        AskRefused::Unavailable => CauseKind::Internal,
    };
    Cause::new(kind, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_masked_as_a_terminal_shows_it_too() {
        let secrets = Secrets::default();
        secrets.held().variables.push(("KEY".to_owned(), Secret::new("one\ntwo".to_owned())));
        secrets.add(Secret::new("hunter22".to_owned()));
        secrets.add(Secret::new("hunter22".to_owned()));
        assert_eq!(secrets.values(), ["one\r\ntwo", "one\ntwo", "hunter22"]);
        let mut env = vec![("KEY".to_owned(), "before".to_owned()), ("A".to_owned(), "1".to_owned())];
        secrets.set(&mut env);
        assert_eq!(env, [("A".to_owned(), "1".to_owned()), ("KEY".to_owned(), "one\ntwo".to_owned())]);
        assert!(!format!("{secrets:?}").contains("hunter22"));
    }
}
