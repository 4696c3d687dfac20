//! Orders to agents to bring blobs ahead of their jobs: a stream each, by a grant that is renewed for as long as it lasts
//! (docs/design/047).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval_at, sleep_until, timeout};
use windlass_protocol::host::now;
use windlass_protocol::limits::{BRING_TAKEN_MS, BROUGHT_SILENCE_MS, GRANT_LIFE_MS};
use windlass_protocol::link::{FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{Bring, Brought, BroughtSoFar, Grant, SignedGrant};
use windlass_protocol::{AgentId, Digest, Namespace};

use super::conn::Conn;
use super::{Ground, Switchboard};

/// What is to be brought, for whom.
#[derive(Debug)]
pub(crate) struct Order {
    /// Whose: it is visible to the agent by this.
    pub(crate) namespace: Namespace,
    /// One after the other, each as much as a message holds.
    pub(crate) parts: Vec<Part>,
    /// The bytes of all of them.
    pub(crate) bytes: u64,
}

/// What one message names.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) trees: Vec<Digest>,
    pub(crate) blobs: Vec<Digest>,
}

/// Whether an agent can be given an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It can.
    Ready,
    /// It is not connected.
    Away,
    /// Its version knows no orders.
    Old,
    /// It runs jobs of the other trust (I12).
    OtherTrust,
}

impl Switchboard {
    /// Whether an agent can be told to bring what a namespace reads.
    pub(crate) fn standing(&self, agent: AgentId, namespace: &Namespace) -> Standing {
        match self.current(agent) {
            None => Standing::Away,
            Some(conn) if conn.zone.trust != namespace.trust() => Standing::OtherTrust,
            Some(conn) if !conn.brings => Standing::Old,
            Some(_) => Standing::Ready,
        }
    }

    /// Has an agent bring what is ordered, and tells how far it is. Dropped, the order ends.
    ///
    /// # Errors
    /// Why it brings nothing more, for people.
    pub(crate) async fn bring(
        &self,
        ground: &Ground,
        agent: AgentId,
        order: &Order,
        mut told: impl FnMut(BroughtSoFar),
    ) -> Result<BroughtSoFar, String> {
        let mut sum = BroughtSoFar::default();
        for part in &order.parts {
            let conn = self.current(agent).ok_or("it is not connected")?;
            if conn.zone.trust != order.namespace.trust() {
                return Err("it runs jobs of another trust".to_owned());
            }
            let done = bring_part(&conn, ground, (order, part), |so_far| told(sum_of(sum, so_far))).await?;
            sum = sum_of(sum, done);
        }
        Ok(sum)
    }
}

const fn sum_of(one: BroughtSoFar, other: BroughtSoFar) -> BroughtSoFar {
    BroughtSoFar {
        blobs: one.blobs.saturating_add(other.blobs),
        bytes: one.bytes.saturating_add(other.bytes),
        absent: one.absent.saturating_add(other.absent),
        came: one.came.saturating_add(other.came),
    }
}

async fn bring_part(
    conn: &Arc<Conn>,
    ground: &Ground,
    (order, part): (&Order, &Part),
    mut told: impl FnMut(BroughtSoFar),
) -> Result<BroughtSoFar, String> {
    let broken = |error: LinkError| format!("its connection broke: {error}");
    let opening = timeout(Duration::from_millis(BRING_TAKEN_MS), conn.connection.open_bi());
    let (send, recv) = opening.await.map_err(|_| "it takes no order")?.map_err(|error| broken(error.into()))?;
    let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
    let Part { trees, blobs } = part;
    let grant = grant(conn, ground, &order.namespace)?;
    let bring = Bring { grant, trees: trees.clone(), blobs: blobs.clone(), bytes: order.bytes };
    send.send_message(&bring).await.map_err(broken)?;
    let half = Duration::from_millis(GRANT_LIFE_MS / 2);
    let mut renewal = interval_at(Instant::now() + half, half);
    let silence = Duration::from_millis(BROUGHT_SILENCE_MS);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            said = recv.recv_message::<Brought>() => match said.map_err(broken)? {
                Some(Brought::Some(so_far)) => {
                    heard = Instant::now();
                    told(so_far);
                }
                Some(Brought::All(so_far)) => return Ok(so_far),
                Some(Brought::Not { detail }) => return Err(detail),
                None => return Err("it ended the order without a word".to_owned()),
            },
            _ = renewal.tick() => {
                let newer = self::grant(conn, ground, &order.namespace)?;
                send.send_message(&newer).await.map_err(broken)?;
            }
            () = sleep_until(heard + silence) => return Err("it says nothing any more".to_owned()),
        }
    }
}

/// What the agent may read for the order, as long as any grant is good; as for its jobs (I12).
fn grant(conn: &Conn, ground: &Ground, namespace: &Namespace) -> Result<SignedGrant, String> {
    let grant = Grant {
        agent: conn.agent,
        zone: conn.zone.zone.clone(),
        trust: conn.zone.trust,
        namespace: namespace.clone(),
        expires_at: now().wall.plus_ms(GRANT_LIFE_MS),
    };
    let revoked = *ground.views.revoked().borrow();
    ground.authority.grant(grant, &revoked).map_err(|error| format!("it cannot be given a right: {error}"))
}
