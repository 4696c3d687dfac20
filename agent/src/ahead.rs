//! Orders of the coordinator to bring blobs ahead of jobs: each a stream that the coordinator opens, one at a time.
//!
//! What is ordered is brought by the grant that comes with it, as far as the cache has room, and for as long as the coordinator
//! keeps its end open and this agent takes work.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, interval};
use windlass_cache::Store;
use windlass_protocol::limits::{BRINGS_PER_AGENT, BROUGHT_EVERY_MS, DETAIL_MAX_BYTES};
use windlass_protocol::link::{FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{Bring, Brought, BroughtSoFar, SignedGrant};

use crate::bulk::{Bulk, Warrant};
use crate::stock::Trees;

/// Carries orders out; clones share the turn.
#[derive(Debug, Clone)]
pub(crate) struct Ahead {
    bulk: Arc<Bulk>,
    store: Store,
    trees: Trees,
    turn: Arc<Semaphore>,
    /// Whether the agent takes work: while it drains it brings nothing.
    takes: watch::Receiver<bool>,
}

impl Ahead {
    pub(crate) fn new(bulk: Arc<Bulk>, store: Store, trees: Trees, takes: watch::Receiver<bool>) -> Self {
        Self { bulk, store, trees, turn: Arc::new(Semaphore::new(BRINGS_PER_AGENT)), takes }
    }

    /// Takes orders until the connection ends.
    pub(crate) async fn serve(self, connection: Connection) {
        while let Ok((send, recv)) = connection.accept_bi().await {
            let ahead = self.clone();
            tokio::spawn(async move {
                if let Err(error) = ahead.answer(send, recv).await {
                    tracing::info!(%error, "order_ended");
                }
            });
        }
    }

    async fn answer(mut self, send: SendStream, recv: RecvStream) -> Result<(), LinkError> {
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        let Some(bring) = recv.recv_message::<Bring>().await? else { return Ok(()) };
        let turn = Arc::clone(&self.turn);
        let last = match (self.refusal(bring.bytes), turn.try_acquire()) {
            (Some(detail), _) => Brought::Not { detail },
            (None, Err(_)) => Brought::Not { detail: "it brings other things already".to_owned() },
            (None, Ok(_permit)) => self.carry_out(bring, &mut send, &mut recv).await?,
        };
        send.send_message(&last).await?;
        send.finish()
    }

    fn refusal(&self, bytes: u64) -> Option<String> {
        if !*self.takes.borrow() {
            return Some("it drains".to_owned());
        }
        let room = self.store.has_room_for(bytes);
        (!room).then(|| format!("its cache has no room for {bytes} bytes: they would take more than half of it"))
    }

    /// Brings what is ordered, and tells how far it is; answers what is said last.
    async fn carry_out(
        &mut self,
        bring: Bring,
        send: &mut FramedSend,
        recv: &mut FramedRecv,
    ) -> Result<Brought, LinkError> {
        let begun = Instant::now();
        let Bring { grant, trees, blobs, bytes: _ } = bring;
        let (warrant, (told, seen)) = (Warrant::new(grant), watch::channel(BroughtSoFar::default()));
        let bringing = self.bulk.bring(&warrant, (&trees, &blobs), &told);
        tokio::pin!(bringing);
        let mut tick = interval(Duration::from_millis(BROUGHT_EVERY_MS));
        let brought = loop {
            tokio::select! {
                brought = &mut bringing => break brought,
                // Without one nobody wants it any more.
                grant = recv.recv_message::<SignedGrant>() => {
                    if !warrant.renew(grant?.ok_or(LinkError::Ended)?) {
                        return Ok(Brought::Not { detail: "it was given a grant for something else".to_owned() });
                    }
                }
                changed = self.takes.changed() => {
                    if changed.is_err() || !*self.takes.borrow() {
                        return Ok(Brought::Not { detail: "it drains".to_owned() });
                    }
                }
                _ = tick.tick() => {
                    let so_far = *seen.borrow();
                    send.send_message(&Brought::Some(so_far)).await?;
                }
            }
        };
        Ok(match brought {
            Ok(so_far) => {
                if let ([root], []) = (trees.as_slice(), blobs.as_slice()) {
                    // It counts where steps are placed, as a tree that a job brought does.
                    self.trees.note(root, so_far.bytes, begun.elapsed());
                }
                tracing::info!(blobs = so_far.blobs, bytes = so_far.bytes, absent = so_far.absent, "brought_ahead");
                Brought::All(so_far)
            }
            Err(cause) => {
                let mut detail = cause.to_string();
                detail.truncate(detail.floor_char_boundary(DETAIL_MAX_BYTES));
                Brought::Not { detail }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use windlass_protocol::{Digest, Namespace};

    use super::*;
    use crate::bulk::kit::{granted, memory};
    use crate::link_kit::{Link, in_time};

    /// An order that nobody serves, so that it lasts; both ends of it, and what the agent says first.
    async fn order(coordinator: &Connection) -> (FramedSend, FramedRecv, Brought) {
        let (send, recv) = in_time(coordinator.open_bi()).await.unwrap();
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        let grant = granted(&Namespace::trusted("hello"));
        let bring = Bring { grant, trees: Vec::new(), blobs: vec![Digest::of(b"a")], bytes: 1 };
        send.send_message(&bring).await.unwrap();
        let said = in_time(recv.recv_message::<Brought>()).await.unwrap().unwrap();
        (send, recv, said)
    }

    fn not(detail: &str) -> Brought {
        Brought::Not { detail: detail.to_owned() }
    }

    #[tokio::test]
    async fn an_order_ends_with_who_gave_it_and_where_the_agent_drains_and_there_is_one_at_a_time() {
        let mut link = Link::new();
        let (ours, coordinator) = link.pair().await;
        let store = memory();
        let bulk = Bulk::new(link.bulk.clone(), store.clone(), link.peers());
        let (takes, taking) = watch::channel(true);
        tokio::spawn(Ahead::new(bulk, store, Trees::default(), taking).serve(ours));
        let so_far = Brought::Some(BroughtSoFar::default());
        let (mut send, mut recv, said) = order(&coordinator).await;
        assert_eq!(said, so_far);
        assert_eq!(order(&coordinator).await.2, not("it brings other things already"));
        send.finish().unwrap();
        in_time(async { while recv.recv_message::<Brought>().await.unwrap().is_some() {} }).await;
        let (_send, mut recv, said) = order(&coordinator).await;
        assert_eq!(said, so_far, "the first has ended");
        takes.send_replace(false);
        let last = async {
            loop {
                match recv.recv_message::<Brought>().await.unwrap().unwrap() {
                    Brought::Some(_) => {}
                    last => break last,
                }
            }
        };
        assert_eq!(in_time(last).await, not("it drains"));
        assert_eq!(order(&coordinator).await.2, not("it drains"));
    }
}
