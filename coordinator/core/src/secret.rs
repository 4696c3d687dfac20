//! Who is given which secret. Values are sealed and stay so here: the shell opens what a reply names.

use windlass_protocol::job::Epoch;
use windlass_protocol::{AttemptId, Trust, limits};

use crate::effect::{Effect, Reply};
use crate::error::Rejected;
use crate::input::ReplyTo;
use crate::row::{Actor, BuildRow, Sealed, SecretName, SecretRefused, SecretRequest, SecretRow};
use crate::state::Core;

impl Core {
    pub(crate) fn on_secret(&mut self, to: ReplyTo, actor: &Actor, request: SecretRequest) -> Result<(), Rejected> {
        let reply = match request {
            SecretRequest::Set { name, sealed } => {
                self.set_secret(actor, name, sealed)?;
                Reply::Done
            }
            SecretRequest::Remove { name } => {
                if self.secrets.remove(&name).is_none() {
                    return Err(SecretRefused::NoSuchSecret(name).into());
                }
                self.audit(actor, "secret.rm", &name.to_string(), "");
                self.book.secrets.insert(name);
                Reply::Done
            }
            SecretRequest::Read { attempt, epoch, keys } => {
                let rows = self.secrets_for(attempt, epoch, &keys)?;
                if !self.declares(attempt, &keys) {
                    self.spoil(attempt, "it was given a secret that its step does not name");
                }
                let names: Vec<_> = rows.iter().map(|row| row.name.to_string()).collect();
                self.audit(actor, "secret.get", &attempt.to_string(), &names.join(", "));
                Reply::Secrets(rows)
            }
            SecretRequest::Reseal { values } => {
                self.reseal(actor, values);
                Reply::Done
            }
        };
        self.book.out.push(Effect::Reply { to, reply });
        Ok(())
    }

    fn set_secret(&mut self, actor: &Actor, name: SecretName, sealed: Sealed) -> Result<(), Rejected> {
        check_name(&name)?;
        let known = self.secrets.get(&name);
        if known.is_none() && self.secrets.len() >= limits::SECRETS_MAX {
            return Err(Rejected::Limit { what: "secrets", limit: limits::SECRETS_MAX as u64 });
        }
        let (created_by, created_at) =
            known.map_or_else(|| (actor.clone(), self.now.wall), |row| (row.created_by.clone(), row.created_at));
        let (updated_by, updated_at) = (actor.clone(), self.now.wall);
        self.audit(actor, "secret.set", &name.to_string(), "");
        self.book.secrets.insert(name.clone());
        let row = SecretRow { name: name.clone(), sealed, created_by, created_at, updated_by, updated_at };
        self.secrets.insert(name, row);
        Ok(())
    }

    /// What a job may have: its build is trusted, it runs on a trusted pool, and each secret is for its pipeline, branch
    /// and zone. All of them, or none.
    fn secrets_for(&self, attempt: AttemptId, epoch: Epoch, keys: &[String]) -> Result<Vec<SecretRow>, Rejected> {
        let job = self.held(attempt, Some(epoch))?;
        self.check_goes_on(job)?;
        let build = &self.builds[&self.jobs[&job].row.build].row;
        let holder = self.leases[&attempt].agent;
        let agent = self.agents.get(&holder).ok_or(Rejected::NoSuchAgent(holder))?;
        let pool = self.pools.get(&agent.row.pool);
        let pool = pool.filter(|pool| pool.trust == Trust::Trusted && build.namespace.trust() == Trust::Trusted);
        let zone = &pool.ok_or(SecretRefused::Untrusted)?.zone;
        let branch = branch_of(build);
        let find = |key: &String| {
            let wanted = key.to_ascii_uppercase();
            let all = self.secrets.values().filter(|row| row.name.key == wanted);
            let mine = all.filter(|row| row.name.is_for(&build.pipeline, &branch, zone));
            let row = mine.max_by_key(|row| row.name.narrowness());
            row.cloned().ok_or_else(|| SecretRefused::NotForJob { key: key.clone() }.into())
        };
        keys.iter().map(find).collect()
    }

    /// Whether the step of an attempt names all these secrets.
    fn declares(&self, attempt: AttemptId, keys: &[String]) -> bool {
        let command = self.attempts.get(&attempt).and_then(|row| self.command(row.job));
        let named = |key: &String| {
            command.is_some_and(|command| command.secrets.iter().any(|secret| secret.key.eq_ignore_ascii_case(key)))
        };
        keys.iter().all(named)
    }

    /// The version of the secret that a build's jobs get under a key, which changes when it is set; or why that is not known
    /// before an agent has the job.
    pub(crate) fn secret_version(&self, build: &BuildRow, key: &str) -> Result<String, String> {
        if build.namespace.trust() == Trust::Untrusted {
            // Nor may it have what trusted builds have made of them.
            return Err("its build is untrusted, and is given no secrets".to_owned());
        }
        let (wanted, branch) = (key.to_ascii_uppercase(), branch_of(build));
        let all = self.secrets.values().filter(|row| row.name.key == wanted);
        let mine = all.filter(|row| {
            let anywhere = SecretName { zone: None, ..row.name.clone() };
            anywhere.is_for(&build.pipeline, &branch, "")
        });
        let mine: Vec<&SecretRow> = mine.collect();
        if mine.iter().any(|row| row.name.zone.is_some()) {
            return Err(format!("which secret `{key}` is depends on the zone that it runs in"));
        }
        let row = mine.into_iter().max_by_key(|row| row.name.narrowness());
        let row = row.ok_or_else(|| format!("there is no secret `{key}` for it"))?;
        Ok(format!("{} {}", row.name, row.updated_at.0))
    }

    fn reseal(&mut self, actor: &Actor, values: Vec<(SecretName, Sealed, Sealed)>) {
        for (name, before, after) in values {
            let Some(row) = self.secrets.get_mut(&name).filter(|row| row.sealed == before) else { continue };
            row.sealed = after;
            self.audit(actor, "secret.reseal", &name.to_string(), "");
            self.book.secrets.insert(name);
        }
    }
}

/// What patterns of branches are asked of. A tag that is called as a branch is not the branch of its name.
fn branch_of(build: &BuildRow) -> String {
    let is_tag = build.tag.as_ref() == Some(&build.branch);
    if is_tag { format!("refs/tags/{}", build.branch) } else { build.branch.clone() }
}

fn check_name(name: &SecretName) -> Result<(), Rejected> {
    let bad = |field, why| Err(SecretRefused::Invalid { field, why }.into());
    let first = name.key.bytes().next();
    let inside = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    let begins = first.is_some_and(|byte| byte.is_ascii_uppercase() || byte == b'_');
    if !begins || name.key.len() > limits::NAME_MAX_BYTES || !name.key.bytes().all(inside) {
        return bad("key", "1 to 200 letters, digits, `_`, `-` and `.`, the first one a letter or `_`");
    }
    let is_text = |text: &Option<String>| {
        text.as_ref().is_none_or(|text| {
            (1..=limits::NAME_MAX_BYTES).contains(&text.len()) && !text.chars().any(|c| c.is_control())
        })
    };
    for (field, value) in [("pipeline", &name.pipeline), ("branch", &name.branch), ("zone", &name.zone)] {
        if !is_text(value) {
            return bad(field, "1 to 200 bytes without control characters");
        }
    }
    if name.branch.as_deref().is_some_and(|pattern| pattern.starts_with('!')) {
        return bad("branch", "a pattern says which branches, not which are left out");
    }
    Ok(())
}
