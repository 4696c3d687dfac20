//! What an offer may hold: asked when a build or an upload is taken, so that no job is made that no agent can be told of.
//!
//! What an agent is told is put together of what many gave: the client, the pipeline, its steps, the server. Each within its
//! own limit may together be beyond the message's. An offer that breaks a rule ends its agent's connection, so it is looked
//! at once more before it is sent (see [`Core::offer`]).

use windlass_pipeline::graph::{Command, Group, Node, NodeKind};
use windlass_protocol::job::{JobSpec, Source};
use windlass_protocol::message::validate::Validate as _;
use windlass_protocol::{AttemptId, BuildId, JobId, Namespace, limits};

use crate::checkout;
use crate::error::Rejected;
use crate::policy::Policy;
use crate::row::{BuildRow, Submit};
use crate::spec;
use crate::state::Core;

/// Names and values that the server sets itself, but for those that are counted one by one.
const STANDARD_ENV_BYTES: usize = 8 << 10;

/// Variables that the server sets.
const STANDARD_ENV_VARS: usize = 64;

/// What the offers of all jobs of a build have in common.
pub(crate) struct Common<'a> {
    pipeline: &'a str,
    origin: &'a Source,
    namespace: &'a Namespace,
    groups: &'a [Group],
    policy: &'a Policy,
    /// Of their environments, each variable of it counted where it is given.
    env_bytes: usize,
    env_vars: usize,
}

impl<'a> Common<'a> {
    /// Of a build that is to be made; `beneath` are the variables of its registered pipeline.
    ///
    /// # Errors
    /// [`Rejected`] where a part of it could stand in no offer.
    pub(crate) fn of_submit(
        submit: &'a Submit,
        beneath: &[(String, String)],
        policy: &'a Policy,
    ) -> Result<Self, Rejected> {
        let names = [
            ("pipeline", submit.pipeline.as_str()),
            ("branch", &submit.branch),
            ("commit", &submit.commit),
            ("tag", submit.tag.as_deref().unwrap_or_default()),
        ];
        for (field, text) in names {
            check_name(field, text)?;
        }
        no_nul("message", &submit.message)?;
        check_env("env", &submit.env)?;
        check_env("env", &submit.graph.env)?;
        submit.origin.validate().map_err(|invalid| answer("origin", invalid.rule))?;
        let texts: usize = names.iter().map(|(_, text)| text.len()).sum();
        // The pipeline's name stands there twice.
        let said = texts + submit.pipeline.len() + submit.message.len() + 4 * submit.creator.name.len();
        let env = [submit.env.as_slice(), beneath, &submit.graph.env, &policy.env];
        Ok(Self {
            pipeline: &submit.pipeline,
            origin: &submit.origin,
            namespace: &submit.namespace,
            groups: &submit.graph.groups,
            policy,
            env_bytes: STANDARD_ENV_BYTES + said + env.iter().map(|env| bytes_of(env)).sum::<usize>(),
            env_vars: STANDARD_ENV_VARS + env.iter().map(|env| env.len()).sum::<usize>(),
        })
    }

    /// Of a build that a job adds to, with the variables that it adds.
    ///
    /// # Errors
    /// [`Rejected`] where a part of it could stand in no offer.
    pub(crate) fn of_build(
        row: &'a BuildRow,
        added: &'a [(String, String)],
        groups: &'a [Group],
        policy: &'a Policy,
    ) -> Result<Self, Rejected> {
        check_env("env", added)?;
        let said = 2 * row.pipeline.len()
            + row.branch.len()
            + row.commit.len()
            + row.tag.as_ref().map_or(0, String::len)
            + row.message.len()
            + 4 * row.creator.name.len();
        let env = [row.pipeline_env.as_slice(), &row.env, added, &policy.env];
        Ok(Self {
            pipeline: &row.pipeline,
            origin: &row.origin,
            namespace: &row.namespace,
            groups,
            policy,
            env_bytes: STANDARD_ENV_BYTES + said + env.iter().map(|env| bytes_of(env)).sum::<usize>(),
            env_vars: STANDARD_ENV_VARS + env.iter().map(|env| env.len()).sum::<usize>(),
        })
    }

    /// Whether the job of a step could be offered.
    ///
    /// # Errors
    /// [`Rejected`] with the step and the rule.
    pub(crate) fn check(&self, node: &Node) -> Result<(), Rejected> {
        let NodeKind::Command(command) = &node.kind else { return Ok(()) };
        let of_step = |rule: &str| Rejected::Graph(format!("step `{}`: {rule}", shown(&node.label)));
        self.bare(node, command).validate().map_err(|invalid| of_step(&invalid.to_string()))?;
        let group = node.place.group.and_then(|group| self.groups.get(usize::try_from(group).ok()?));
        let of_group =
            group.map(|group| [group.key.as_deref(), group.label.as_deref()]).into_iter().flatten().flatten();
        let of_group: Vec<&str> = of_group.collect();
        if node.label.contains('\0') || of_group.iter().any(|text| text.contains('\0')) {
            return Err(of_step("there is a NUL in a label or key"));
        }
        // What its keys become, beside its own variables.
        let keys = spec::of_step(command, None).into_iter().map(|(name, value)| (name.to_owned(), value));
        let keys = keys.chain(checkout::beneath(&command.checkout)).chain(checkout::above(&command.checkout, &[]));
        let keys: Vec<(String, String)> = keys.collect();
        check_variables(&command.env).and_then(|()| check_variables(&keys)).map_err(of_step)?;
        let said = command.command.len()
            + command.image.as_ref().map_or(0, String::len)
            + command.queue.len()
            + node.label.len()
            + node.key.as_ref().map_or(0, String::len)
            + of_group.iter().map(|text| text.len()).sum::<usize>();
        let bytes = self.env_bytes + said + bytes_of(&command.env) + bytes_of(&keys);
        let vars = self.env_vars + command.env.len() + keys.len();
        for (what, value, limit) in [
            ("bytes of an environment, with the command, message and labels in it", bytes, limits::ENV_MAX_BYTES),
            ("variables of an environment", vars, limits::ENV_VARS_MAX),
            ("tags of a step", command.tags.len(), limits::TAGS_MAX),
        ] {
            if value > limit {
                return Err(Rejected::Limit { what, limit: limit as u64 });
            }
        }
        Ok(())
    }

    /// An offer of the step, without its environment.
    fn bare(&self, node: &Node, command: &Command) -> JobSpec {
        JobSpec {
            attempt: AttemptId::from_bytes([0; 16]),
            attempt_number: 1,
            job: JobId::from_bytes([0; 16]),
            build: BuildId::from_bytes([0; 16]),
            build_number: 1,
            pipeline: self.pipeline.to_owned(),
            step_key: node.key.clone(),
            label: node.label.clone(),
            command: command.command.clone(),
            env: Vec::new(),
            image: command.image.clone(),
            source: self.origin.clone(),
            namespace: self.namespace.clone(),
            queue: command.queue.clone(),
            timeout_ms: command.timeout_ms.map(|ms| ms.min(self.policy.timeout_max_ms)),
            grace_ms: command.grace_ms.unwrap_or(self.policy.grace_ms),
            resources: command.resources,
            exclusive: command.exclusive,
            interruptible: command.interruptible,
            tty: command.tty,
            keep_workspace: false,
            log_limit_bytes: self.policy.log_limit_bytes,
        }
    }
}

impl Core {
    /// Offers a leased attempt to its agent, perhaps again. What no agent could take is not sent, for it would end the
    /// connection of each: its job fails.
    pub(crate) fn offer(&mut self, id: AttemptId) {
        let Some(lease) = self.leases.get(&id) else { return };
        let (agent, epoch) = (lease.agent, lease.epoch);
        let Some(spec) = self.spec(id) else { return };
        match spec.validate() {
            Ok(()) => {
                let offer = windlass_protocol::message::CoordinatorMessage::Offer { epoch, job: Box::new(spec) };
                self.send(agent, offer);
            }
            Err(invalid) => self.fail_unoffered(id, &format!("no agent can be told to run it: {invalid}")),
        }
    }
}

fn bytes_of(env: &[(String, String)]) -> usize {
    env.iter().map(|(name, value)| name.len() + value.len()).sum()
}

fn answer(field: &str, why: &str) -> Rejected {
    Rejected::Answer { field: field.to_owned(), why: why.to_owned() }
}

fn check_name(field: &'static str, text: &str) -> Result<(), Rejected> {
    if text.len() > limits::NAME_MAX_BYTES {
        return Err(Rejected::Limit { what: "bytes of a name", limit: limits::NAME_MAX_BYTES as u64 });
    }
    if text.chars().any(char::is_control) {
        return Err(answer(field, "there are control characters in it"));
    }
    Ok(())
}

fn no_nul(field: &str, text: &str) -> Result<(), Rejected> {
    if text.contains('\0') { Err(answer(field, "there is a NUL in it")) } else { Ok(()) }
}

fn check_env(field: &str, env: &[(String, String)]) -> Result<(), Rejected> {
    check_variables(env).map_err(|rule| answer(field, rule))
}

fn check_variables(env: &[(String, String)]) -> Result<(), &'static str> {
    if env.iter().any(|(name, _)| name.is_empty() || name.contains(['=', '\0'])) {
        return Err("a variable has a name, without = and NUL");
    }
    if env.iter().any(|(_, value)| value.contains('\0')) {
        return Err("there is a NUL in a variable's value");
    }
    Ok(())
}

/// A label that fits a sentence.
fn shown(label: &str) -> String {
    label.chars().filter(|c| !c.is_control()).take(60).collect()
}
