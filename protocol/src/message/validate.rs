//! Meaning, after shape: a message that decodes may still say what nobody may say.
//!
//! Sizes and counts are held against [`crate::limits`] here, once, so that cores and stores need not ask again. Whether
//! an attempt exists or a right is current is not asked here: that needs state.

use std::collections::BTreeSet;

use super::{
    AgentMessage, CoordinatorMessage, Enrol, EnrolAnswer, Evidence, Held, Hello, LogHeader, StoreAnswer, StoreBlobs,
    Verdict, grant,
};
use crate::cause::Cause;
use crate::host_facts::HostFacts;
use crate::job::{Epoch, JobSpec, Outcome, Resources, Source};
use crate::limits::{
    ARTIFACT_MAX_BYTES, ATTEMPTS_PER_JOB_MAX, CAPABILITIES_MAX, CERT_MAX_BYTES, CHAIN_MAX, COMMAND_MAX_BYTES,
    CSR_MAX_BYTES, DETAIL_MAX_BYTES, ENV_MAX_BYTES, ENV_VARS_MAX, EVIDENCE_MAX_BYTES, FINGERPRINT_MAX_BYTES, HELD_MAX,
    IMAGE_REF_MAX_BYTES, LEASE_MAX_MS, LEASE_MIN_MS, LOG_MAX_BYTES, MESSAGE_MAX_BYTES, NAME_MAX_BYTES, SLOTS_MAX,
    STEP_CPU_MAX_MILLIS, STEP_KEY_MAX_CHARS, STOCK_INPUTS_MAX, STOCK_MAX_BYTES, STORE_MAX_BLOBS, TAGS_MAX,
    TIMEOUT_MAX_MS, URL_MAX_BYTES,
};

/// A message that decodes and makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` breaks a rule: {rule}")]
pub struct Invalid {
    /// Where, as a path of field names.
    pub field: &'static str,
    /// What would be right.
    pub rule: &'static str,
}

/// A message whose meaning can be checked by itself.
pub trait Validate {
    /// Checks it.
    ///
    /// # Errors
    /// [`Invalid`] with the first rule that it breaks.
    fn validate(&self) -> Result<(), Invalid>;
}

pub(super) fn require(holds: bool, field: &'static str, rule: &'static str) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid { field, rule }) }
}

/// A name is what people read in lists and what stands in certificates: short, not empty, on one line.
pub(super) fn name(field: &'static str, text: &str) -> Result<(), Invalid> {
    require(!text.is_empty() && text.len() <= NAME_MAX_BYTES, field, "a name has 1 to 200 bytes")?;
    one_line(field, text)
}

fn one_line(field: &'static str, text: &str) -> Result<(), Invalid> {
    require(!text.chars().any(char::is_control), field, "there are no control characters in it")
}

pub(super) fn at_most(field: &'static str, text: &str, bytes: usize) -> Result<(), Invalid> {
    require(text.len() <= bytes, field, "it is not longer than its limit")
}

fn granted(field: &'static str, epoch: Epoch) -> Result<(), Invalid> {
    require(epoch.0 > 0, field, "epoch 0 is never granted")
}

fn sentence(field: &'static str, cause: &Cause) -> Result<(), Invalid> {
    at_most(field, &cause.detail, DETAIL_MAX_BYTES)
}

fn tags(field: &'static str, tags: &[(String, String)]) -> Result<(), Invalid> {
    require(tags.len() <= TAGS_MAX, field, "there are at most 64")?;
    for (key, value) in tags {
        name(field, key)?;
        at_most(field, value, NAME_MAX_BYTES)?;
        one_line(field, value)?;
    }
    Ok(())
}

fn each_once<T: Ord>(field: &'static str, attempts: impl ExactSizeIterator<Item = T>) -> Result<(), Invalid> {
    let count = attempts.len();
    require(count <= HELD_MAX, field, "there are at most 4096")?;
    require(attempts.collect::<BTreeSet<_>>().len() == count, field, "nothing stands in it twice")
}

fn csr(field: &'static str, der: &[u8]) -> Result<(), Invalid> {
    require(!der.is_empty() && der.len() <= CSR_MAX_BYTES, field, "a request has 1 to 4096 bytes")
}

fn chain(field: &'static str, chain: &[Vec<u8>]) -> Result<(), Invalid> {
    require((1..=CHAIN_MAX).contains(&chain.len()), field, "a chain has 1 to 4 certificates")?;
    let sized = chain.iter().all(|der| !der.is_empty() && der.len() <= CERT_MAX_BYTES);
    require(sized, field, "a certificate has 1 to 8192 bytes")
}

impl Validate for Hello {
    fn validate(&self) -> Result<(), Invalid> {
        name("hello.name", &self.name)?;
        name("hello.version", &self.version)?;
        at_most("hello.machine_id", &self.machine_id, NAME_MAX_BYTES)?;
        one_line("hello.machine_id", &self.machine_id)?;
        at_most("hello.boot_id", &self.boot_id, NAME_MAX_BYTES)?;
        one_line("hello.boot_id", &self.boot_id)?;
        require((1..=SLOTS_MAX).contains(&self.slots), "hello.slots", "an agent has 1 to 512 slots")?;
        tags("hello.tags", &self.tags)?;
        require(self.capabilities.len() <= CAPABILITIES_MAX, "hello.capabilities", "there are at most 64")?;
        for capability in &self.capabilities {
            name("hello.capabilities", capability)?;
        }
        self.host.validate()?;
        each_once("hello.held", self.held.iter().map(|held| held.attempt))?;
        self.held.iter().try_for_each(Validate::validate)
    }
}

impl Validate for HostFacts {
    fn validate(&self) -> Result<(), Invalid> {
        at_most("host.platform", &self.platform, NAME_MAX_BYTES)?;
        one_line("host.platform", &self.platform)?;
        at_most("host.system", &self.system, FINGERPRINT_MAX_BYTES)
    }
}

impl Validate for Held {
    fn validate(&self) -> Result<(), Invalid> {
        granted("held.epoch", self.epoch)
    }
}

impl Validate for Outcome {
    fn validate(&self) -> Result<(), Invalid> {
        let status = self.exit_status.is_none_or(|status| (0..=255).contains(&status));
        require(status, "outcome.exit_status", "a status is 0 to 255")?;
        let signal = self.signal.is_none_or(|signal| (1..=127).contains(&signal));
        require(signal, "outcome.signal", "a signal is 1 to 127")?;
        require(self.log_bytes <= LOG_MAX_BYTES, "outcome.log_bytes", "no log is longer than its limit")?;
        self.cause.as_ref().map_or(Ok(()), |cause| sentence("outcome.cause", cause))
    }
}

impl Validate for AgentMessage {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Hello(hello) => hello.validate(),
            // Health is volatile and only ever shown or compared: no number in it can do harm.
            Self::Beat { seq: _, health: _, held } => {
                each_once("beat.held", held.iter().map(|(attempt, _)| *attempt))?;
                held.iter().try_for_each(|(_, epoch)| granted("beat.held", *epoch))
            }
            Self::Stock { inputs, fetched: _ } => {
                require(inputs.len() <= STOCK_INPUTS_MAX, "stock.inputs", "more inputs than an agent tells of")?;
                let sizes = inputs.iter().all(|input| input.bytes <= STOCK_MAX_BYTES);
                require(sizes, "stock.inputs", "no input is as long as that")?;
                each_once("stock.inputs", inputs.iter().map(|input| input.name))
            }
            Self::Accepted { epoch, .. } => granted("accepted.epoch", *epoch),
            Self::Refused { epoch, cause, .. } => {
                granted("refused.epoch", *epoch)?;
                sentence("refused.cause", cause)
            }
            Self::Started { epoch, .. } => granted("started.epoch", *epoch),
            Self::Finished { epoch, outcome, .. } => {
                granted("finished.epoch", *epoch)?;
                outcome.validate()
            }
            Self::Stopped { epoch, .. } => granted("stopped.epoch", *epoch),
            Self::Draining | Self::Resumed => Ok(()),
            Self::Goodbye { reason } => at_most("goodbye.reason", reason, DETAIL_MAX_BYTES),
            Self::Renew { csr: der } => csr("renew.csr", der),
            Self::Serves { address } => grant::address("serves.address", address),
        }
    }
}

impl Validate for CoordinatorMessage {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Welcome { session: _, lease_ms, beat_ms, verdicts } => {
                let lease = (LEASE_MIN_MS..=LEASE_MAX_MS).contains(lease_ms);
                require(lease, "welcome.lease_ms", "a lease lasts between a second and a day")?;
                require((1..=*lease_ms).contains(beat_ms), "welcome.beat_ms", "a beat fits in a lease")?;
                each_once("welcome.verdicts", verdicts.iter().map(|(attempt, _)| *attempt))?;
                verdicts.iter().try_for_each(|(_, verdict)| verdict.validate())
            }
            Self::BeatAck { seq: _, beat_ms: _ } | Self::LogAck { .. } | Self::Resume => Ok(()),
            Self::Offer { epoch, job } => {
                granted("offer.epoch", *epoch)?;
                job.validate()
            }
            Self::Cancel { attempt: _, epoch, cause, grace_ms: _ } => {
                granted("cancel.epoch", *epoch)?;
                sentence("cancel.cause", cause)
            }
            Self::Stop { attempt: _, epoch } => granted("stop.epoch", *epoch),
            Self::Committed { attempt: _, epoch } => granted("committed.epoch", *epoch),
            Self::Drain { deadline_ms, leave: _ } => {
                let bounded = deadline_ms.is_none_or(|ms| ms <= TIMEOUT_MAX_MS);
                require(bounded, "drain.deadline_ms", "a drain ends within seven days")
            }
            Self::Certificate { chain: ders } => chain("certificate.chain", ders),
            Self::Refuse { code: _, detail } => at_most("refuse.detail", detail, DETAIL_MAX_BYTES),
            Self::Peers { key: _, peers } => grant::peers("peers.peers", peers),
            Self::Knows { abilities } => {
                require(abilities.len() <= CAPABILITIES_MAX, "knows.abilities", "there are at most 64")?;
                abilities.iter().try_for_each(|ability| at_most("knows.abilities", ability, NAME_MAX_BYTES))
            }
        }
    }
}

impl Validate for Verdict {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Keep { epoch, log_offset: _ } => granted("verdict.epoch", *epoch),
            Self::Committed | Self::Stop => Ok(()),
        }
    }
}

impl Validate for JobSpec {
    fn validate(&self) -> Result<(), Invalid> {
        let numbered = (1..=ATTEMPTS_PER_JOB_MAX).contains(&(self.attempt_number as usize));
        require(numbered, "job.attempt_number", "attempts are numbered from 1 to 100")?;
        require(self.build_number > 0, "job.build_number", "builds are numbered from 1")?;
        name("job.pipeline", &self.pipeline)?;
        name("job.queue", &self.queue)?;
        name("job.namespace", &self.namespace.project)?;
        self.namespace.overlay.as_ref().map_or(Ok(()), |overlay| name("job.namespace", overlay))?;
        if let Some(key) = &self.step_key {
            let short = !key.is_empty() && key.chars().count() <= STEP_KEY_MAX_CHARS;
            require(short, "job.step_key", "a key has 1 to 100 characters")?;
        }
        at_most("job.label", &self.label, MESSAGE_MAX_BYTES)?;
        at_most("job.command", &self.command, COMMAND_MAX_BYTES)?;
        require(!self.command.contains('\0'), "job.command", "there is no NUL in it")?;
        environment(&self.env)?;
        if let Some(image) = &self.image {
            require(!image.is_empty() && image.len() <= IMAGE_REF_MAX_BYTES, "job.image", "it has 1 to 1024 bytes")?;
            one_line("job.image", image)?;
        }
        self.source.validate()?;
        self.resources.validate()?;
        let timed = self.timeout_ms.is_none_or(|ms| (1..=TIMEOUT_MAX_MS).contains(&ms));
        require(timed, "job.timeout_ms", "a timeout lasts up to seven days")?;
        require(self.grace_ms <= TIMEOUT_MAX_MS, "job.grace_ms", "a grace lasts up to seven days")?;
        let logged = (1..=LOG_MAX_BYTES).contains(&self.log_limit_bytes);
        require(logged, "job.log_limit_bytes", "a log may have 1 byte to 16 GiB")
    }
}

fn environment(env: &[(String, String)]) -> Result<(), Invalid> {
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    require(bytes <= ENV_MAX_BYTES, "job.env", "all of it has at most 256 KiB")?;
    require(env.len() <= ENV_VARS_MAX, "job.env", "there are at most 16384 variables")?;
    for (name, value) in env {
        let named = !name.is_empty() && !name.contains(['=', '\0']);
        require(named, "job.env", "a variable has a name, without = and NUL")?;
        require(!value.contains('\0'), "job.env", "there is no NUL in a value")?;
    }
    Ok(())
}

impl Validate for Source {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Empty | Self::Tree { digest: _ } => Ok(()),
            Self::Git { repository, commit, branch } => {
                let parts = [
                    ("job.source.repository", repository, URL_MAX_BYTES),
                    ("job.source.commit", commit, NAME_MAX_BYTES),
                    ("job.source.branch", branch, NAME_MAX_BYTES),
                ];
                require(!repository.is_empty(), "job.source.repository", "there is one")?;
                require(!commit.is_empty(), "job.source.commit", "there is one")?;
                for (field, text, bytes) in parts {
                    at_most(field, text, bytes)?;
                    one_line(field, text)?;
                    // git would take it for an option.
                    require(!text.starts_with('-'), field, "it does not begin with -")?;
                }
                Ok(())
            }
        }
    }
}

impl Validate for Resources {
    fn validate(&self) -> Result<(), Invalid> {
        require(self.cpu_millis <= STEP_CPU_MAX_MILLIS, "job.resources.cpu_millis", "no machine has so many")
    }
}

impl Validate for Evidence {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::None => Ok(()),
            Self::Document { kind, bytes } => {
                name("evidence.kind", kind)?;
                require(bytes.len() <= EVIDENCE_MAX_BYTES, "evidence.bytes", "a document has at most 16 KiB")
            }
        }
    }
}

impl Validate for Enrol {
    fn validate(&self) -> Result<(), Invalid> {
        csr("enrol.csr", &self.csr)?;
        name("enrol.name", &self.name)?;
        name("enrol.version", &self.version)?;
        at_most("enrol.machine_id", &self.machine_id, NAME_MAX_BYTES)?;
        one_line("enrol.machine_id", &self.machine_id)?;
        tags("enrol.tags", &self.tags)?;
        self.evidence.validate()
    }
}

impl Validate for EnrolAnswer {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Enrolled { agent: _, chain: ders, pool, zone } => {
                chain("enrolled.chain", ders)?;
                name("enrolled.pool", pool)?;
                name("enrolled.zone", zone)
            }
            Self::Refused { code: _, detail } => at_most("refused.detail", detail, DETAIL_MAX_BYTES),
        }
    }
}

impl Validate for StoreBlobs {
    fn validate(&self) -> Result<(), Invalid> {
        granted("store.epoch", self.epoch)?;
        let counted = (1..=STORE_MAX_BLOBS).contains(&self.blobs.len());
        require(counted, "store.blobs", "a request names 1 to 8000 blobs")?;
        let small = self.blobs.iter().all(|(_, bytes)| *bytes <= ARTIFACT_MAX_BYTES);
        require(small, "store.bytes", "what a job stores has at most 10 GiB")
    }
}

impl Validate for StoreAnswer {
    fn validate(&self) -> Result<(), Invalid> {
        match self {
            Self::Wanted(wanted) => {
                require(wanted.len() <= STORE_MAX_BLOBS, "store.wanted", "there are at most 8000")?;
                let in_order = wanted.is_sorted_by(|a, b| a.place < b.place);
                require(in_order, "store.wanted", "each place comes once, in order")?;
                let small = wanted.iter().all(|blob| blob.offset <= ARTIFACT_MAX_BYTES);
                require(small, "store.offset", "what a job stores has at most 10 GiB")
            }
            Self::Stored => Ok(()),
            Self::Refused { code: _, detail } => at_most("store.detail", detail, DETAIL_MAX_BYTES),
        }
    }
}

impl Validate for LogHeader {
    fn validate(&self) -> Result<(), Invalid> {
        granted("log.epoch", self.epoch)?;
        require(self.offset <= LOG_MAX_BYTES, "log.offset", "no log is longer than its limit")
    }
}
