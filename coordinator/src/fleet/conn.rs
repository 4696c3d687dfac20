//! One control connection of one agent, and the rights that were given over it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::Connection;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use windlass_coordinator_core::input::ConnId;
use windlass_coordinator_logs::LogStore;
use windlass_protocol::host::now;
use windlass_protocol::identity::AgentIdentity;
use windlass_protocol::job::Epoch;
use windlass_protocol::limits::{CERT_LOOK_MS, CONTROL_OUTBOX_MAX, REFUSAL_DELIVERY_MS};
use windlass_protocol::link::{Code, FramedSend};
use windlass_protocol::message::{CacheUse, CacheZone, CoordinatorMessage, Peer, RefuseCode, Verdict};
use windlass_protocol::{AgentId, AttemptId, WallMs};

/// A connection that has said hello.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) agent: AgentId,
    pub(super) connection: Connection,
    /// Its zone and its trust.
    pub(super) zone: CacheZone,
    /// Whether it told [`CHUNKS_2`](windlass_protocol::version::CHUNKS_2).
    pub(super) knows_archives: bool,
    /// Whether it told [`BRING_1`](windlass_protocol::version::BRING_1).
    pub(super) brings: bool,
    /// By which key it was told to believe grants, and of which peers.
    pub(super) told: Mutex<Option<([u8; 32], Vec<Peer>)>>,
    /// What it said last of its cache; nothing before its first beat.
    used: Mutex<Option<CacheUse>>,
    outbox: mpsc::Sender<CoordinatorMessage>,
    rights: Mutex<BTreeMap<AttemptId, Epoch>>,
    /// When the certificate ends that it was opened with, or the last one that was issued over it.
    served_until: AtomicU64,
    runtime: Handle,
}

impl Conn {
    /// A connection that is served until `until`, and the task that writes to its control stream.
    pub(super) fn open(
        id: ConnId,
        peer: &AgentIdentity,
        until: WallMs,
        connection: Connection,
        send: FramedSend,
        logs: LogStore,
    ) -> Self {
        let (outbox, queue) = mpsc::channel(CONTROL_OUTBOX_MAX);
        tokio::spawn(write(connection.clone(), send, queue, logs));
        Self {
            id,
            agent: peer.agent,
            connection,
            zone: peer.cache_zone(),
            knows_archives: false,
            brings: false,
            told: Mutex::default(),
            used: Mutex::default(),
            outbox,
            rights: Mutex::default(),
            served_until: AtomicU64::new(until.0),
            runtime: Handle::current(),
        }
    }

    /// What an agent's cache did since it said so last over this connection.
    pub(super) fn used_since(&self, now: CacheUse) -> CacheUse {
        let before = self.used.lock().unwrap_or_else(PoisonError::into_inner).replace(now).unwrap_or(now);
        CacheUse {
            disk_hits: now.disk_hits.saturating_sub(before.disk_hits),
            disk_misses: now.disk_misses.saturating_sub(before.disk_misses),
            peer_hits: now.peer_hits.saturating_sub(before.peer_hits),
            peer_misses: now.peer_misses.saturating_sub(before.peer_misses),
            peer_failures: now.peer_failures.saturating_sub(before.peer_failures),
        }
    }

    /// A newer certificate was issued over it.
    pub(super) fn serve_until(&self, until: WallMs) {
        self.served_until.fetch_max(until.0, Ordering::Relaxed);
    }

    /// Ends it once its certificate has ended and no newer one was issued. Its agent may then renew, and come again.
    pub(super) async fn end_with_certificate(self: Arc<Self>) {
        past(|| WallMs(self.served_until.load(Ordering::Relaxed))).await;
        let detail = "the certificate has ended while the connection stood: renew it first".to_owned();
        tracing::warn!(agent = %self.agent, "certificate_ended_on_connection");
        self.refuse(RefuseCode::CertificateExpired, detail);
    }

    /// Queues a message. Never blocks: an agent that does not read is disconnected, and comes again.
    pub(super) fn say(&self, message: CoordinatorMessage) {
        if self.outbox.try_send(message).is_err() {
            self.connection.close(Code::Canceled.number(), b"the control stream does not move");
        }
    }

    /// Says why, then ends the connection; its rights end now.
    pub(super) fn refuse(&self, code: RefuseCode, detail: String) {
        self.lock().clear();
        self.say(CoordinatorMessage::Refuse { code, detail });
        let connection = self.connection.clone();
        // A peer that reads nothing does not let the reason pass either.
        self.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(REFUSAL_DELIVERY_MS)).await;
            connection.close(Code::Refused.number(), b"refused");
        });
    }

    /// What this message gives or takes of rights to attempts.
    pub(super) fn note_rights(&self, message: &CoordinatorMessage) {
        let mut rights = self.lock();
        match message {
            CoordinatorMessage::Offer { epoch, job } => {
                rights.insert(job.attempt, *epoch);
            }
            CoordinatorMessage::Welcome { verdicts, .. } => {
                for (attempt, verdict) in verdicts {
                    match verdict {
                        Verdict::Keep { epoch, .. } => rights.insert(*attempt, *epoch),
                        Verdict::Committed | Verdict::Stop => rights.remove(attempt),
                    };
                }
            }
            CoordinatorMessage::Stop { attempt, .. } | CoordinatorMessage::Committed { attempt, .. } => {
                rights.remove(attempt);
            }
            CoordinatorMessage::BeatAck { .. }
            | CoordinatorMessage::Cancel { .. }
            | CoordinatorMessage::LogAck { .. }
            | CoordinatorMessage::Drain { .. }
            | CoordinatorMessage::Resume
            | CoordinatorMessage::Certificate { .. }
            | CoordinatorMessage::Peers { .. }
            | CoordinatorMessage::Knows { .. }
            | CoordinatorMessage::Refuse { .. } => {}
        }
    }

    /// Whether the agent holds the attempt by this right.
    pub(super) fn holds(&self, attempt: AttemptId, epoch: Epoch) -> bool {
        self.lock().get(&attempt) == Some(&epoch)
    }

    /// Those of the news that are about attempts held here.
    pub(super) fn held_among(&self, news: &BTreeMap<AttemptId, u64>) -> Vec<(AttemptId, u64)> {
        let rights = self.lock();
        rights.keys().filter_map(|attempt| Some((*attempt, *news.get(attempt)?))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttemptId, Epoch>> {
        self.rights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Comes back when a time has passed that may still be moved. Looks again meanwhile: clocks are set, and machines sleep.
pub(super) async fn past(until: impl Fn() -> WallMs) {
    loop {
        let left = until().0.saturating_add(1).saturating_sub(now().wall.0);
        if left == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left.min(CERT_LOOK_MS))).await;
    }
}

async fn write(
    connection: Connection,
    mut send: FramedSend,
    mut queue: mpsc::Receiver<CoordinatorMessage>,
    logs: LogStore,
) {
    while let Some(mut message) = queue.recv().await {
        fill_in_offsets(&mut message, &logs).await;
        let last = matches!(message, CoordinatorMessage::Refuse { .. });
        if let Err(error) = send.send_message(&message).await {
            tracing::debug!(%error, "control_write_failed");
            break;
        }
        if last {
            // The agent has to hear why before the connection goes.
            if send.finish().is_ok() {
                let _ = tokio::time::timeout(Duration::from_millis(REFUSAL_DELIVERY_MS), send.delivered()).await;
            }
            break;
        }
    }
    connection.close(Code::Done.number(), b"");
}

/// The core knows no log offsets: where sending goes on is what the log store holds.
async fn fill_in_offsets(message: &mut CoordinatorMessage, logs: &LogStore) {
    let CoordinatorMessage::Welcome { verdicts, .. } = message else { return };
    for (attempt, verdict) in verdicts {
        if let Verdict::Keep { log_offset, .. } = verdict {
            match logs.len(*attempt).await {
                Ok(len) => *log_offset = len.map_or(0, |len| len.durable),
                Err(error) => tracing::error!(%attempt, %error, "log_unreadable"),
            }
        }
    }
}
