//! For tests: a coordinator that serves blobs of a store of its own, and counts what it gives.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use quinn::{Connection, RecvStream, SendStream};
use windlass_cache::vfs::recorded::RecordingFs;
use windlass_cache::{Blob, PackedChunk, Store, StoreOptions};
use windlass_protocol::host::now;
use windlass_protocol::identity::GrantKey;
use windlass_protocol::limits::{GRANT_LIFE_MS, PARTS_MIN_BYTES};
use windlass_protocol::link::endpoint::peer_identity;
use windlass_protocol::link::{Code, FramedRecv, FramedSend, LinkError};
use windlass_protocol::message::{BlobHeader, BulkAsk, Claim, FetchBlobs, Grant, SignedGrant, Wanted};
use windlass_protocol::{AgentId, Digest, Namespace, Secret, Trust};

/// A store in memory.
pub(crate) fn memory() -> Store {
    Store::open(Arc::new(RecordingFs::new()), Path::new("/s"), StoreOptions::default()).unwrap()
}

pub(crate) fn noise(seed: usize, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

/// What was given, and what is to happen.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// How often each chunk, by blob and place.
    pub(crate) chunks: BTreeMap<(Digest, u32), usize>,
    /// Bytes of them, as they crossed.
    pub(crate) chunk_bytes: usize,
    /// How often each small blob.
    pub(crate) small: BTreeMap<Digest, usize>,
    pub(crate) manifests: usize,
    /// For peers that showed a grant.
    pub(crate) on_behalf: usize,
    /// The connection breaks after so many requests for chunks.
    pub(crate) breaks_after: Option<usize>,
    pub(crate) broke: bool,
}

/// A coordinator's end, and its blobs.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) store: Store,
    pub(crate) namespace: Namespace,
    given: Arc<Mutex<Given>>,
}

/// What this coordinator signs grants with.
pub(crate) fn grant_key() -> GrantKey {
    GrantKey::derive(&Secret::new("the tests' ca".to_owned()), &Digest::of(b"")).unwrap()
}

/// What the coordinator lets the agent of a link read ahead of jobs.
pub(crate) fn granted(namespace: &Namespace) -> SignedGrant {
    let (agent, zone, expires_at) = (AgentId::from_bytes([7; 16]), "z".to_owned(), now().wall.plus_ms(GRANT_LIFE_MS));
    grant_key().sign(Grant { agent, zone, trust: Trust::Trusted, namespace: namespace.clone(), expires_at }).unwrap()
}

impl Origin {
    pub(crate) fn new(namespace: &Namespace) -> Self {
        Self { store: memory(), namespace: namespace.clone(), given: Arc::default() }
    }

    pub(crate) fn given(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap()
    }

    pub(crate) fn put(&self, blob: &[u8]) -> Digest {
        self.store.put(&self.namespace, blob).unwrap()
    }

    /// Serves a bulk connection until it ends.
    pub(crate) async fn serve(self, connection: Connection) {
        while let Ok((send, recv)) = connection.accept_bi().await {
            let (this, connection) = (self.clone(), connection.clone());
            tokio::spawn(async move {
                // A test breaks connections.
                let _ = this.answer(&connection, send, recv).await;
            });
        }
    }

    async fn answer(&self, connection: &Connection, send: SendStream, recv: RecvStream) -> Result<(), LinkError> {
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        match recv.recv_message::<BulkAsk>().await? {
            Some(BulkAsk::Fetch(FetchBlobs { by, wanted })) => {
                if let Claim::Grant(grant) = by {
                    let shown_by = peer_identity(connection)?.unwrap();
                    grant.verify(&grant_key().public().unwrap(), &shown_by, now().wall).unwrap();
                    if grant.grant.namespace != self.namespace {
                        send.reset(Code::Refused);
                        return Ok(());
                    }
                    self.given().on_behalf += 1;
                }
                self.give(connection, wanted, &mut send).await?;
            }
            Some(BulkAsk::Grant(_)) => {
                let bearer = peer_identity(connection)?.unwrap();
                let (agent, zone, trust) = (bearer.agent, bearer.zone, bearer.trust);
                let expires_at = now().wall.plus_ms(GRANT_LIFE_MS);
                let grant = Grant { agent, zone, trust, namespace: self.namespace.clone(), expires_at };
                send.send_message(&grant_key().sign(grant).unwrap()).await?;
            }
            Some(BulkAsk::Parts(offer)) => panic!("nobody said that parts are taken: {offer:?}"),
            Some(BulkAsk::Store(offer)) => panic!("nothing is stored here: {offer:?}"),
            None => {}
        }
        // Done already where it was waited for.
        let _ = send.finish();
        Ok(())
    }

    /// How many chunks a blob has.
    pub(crate) fn find_chunks(&self, digest: &Digest) -> usize {
        self.find(digest).unwrap().manifest().unwrap().chunks().len()
    }

    fn find(&self, digest: &Digest) -> Option<Blob> {
        self.store.get(&self.namespace, digest).unwrap()
    }

    async fn give(&self, connection: &Connection, wanted: Wanted, send: &mut FramedSend) -> Result<(), LinkError> {
        match wanted {
            Wanted::Whole(digests) | Wanted::Parts(digests) => {
                for digest in digests {
                    let Some(blob) = self.find(&digest) else {
                        send.send_message(&BlobHeader::Absent).await?;
                        continue;
                    };
                    let manifest = blob.manifest().filter(|_| blob.len() > PARTS_MIN_BYTES).map(|m| m.encode());
                    let (header, bytes) = match manifest {
                        Some(manifest) => {
                            self.given().manifests += 1;
                            (BlobHeader::Manifest { bytes: manifest.len() as u64 }, manifest)
                        }
                        None => {
                            *self.given().small.entry(digest).or_default() += 1;
                            (BlobHeader::Found { bytes: blob.len() }, blob.into_vec().unwrap())
                        }
                    };
                    send.send_message(&header).await?;
                    send.send_raw(bytes.into()).await?;
                }
            }
            Wanted::Chunks { blob, places } => {
                let left = self.given().breaks_after.take();
                if left == Some(0) {
                    self.given().broke = true;
                    connection.close(Code::Canceled.number(), b"a test breaks it");
                    return Ok(());
                }
                let blob = self.find(&blob).unwrap();
                for place in places {
                    let (header, chunk) = match blob.packed_chunk(place as usize).unwrap() {
                        Some(PackedChunk::Frame(chunk)) => (BlobHeader::Packed { bytes: chunk.len() as u64 }, chunk),
                        Some(PackedChunk::Plain(chunk)) => (BlobHeader::Found { bytes: chunk.len() as u64 }, chunk),
                        None => {
                            send.send_message(&BlobHeader::Absent).await?;
                            continue;
                        }
                    };
                    self.given().chunk_bytes += chunk.len();
                    send.send_message(&header).await?;
                    send.send_raw(chunk.into()).await?;
                    *self.given().chunks.entry((blob.digest(), place)).or_default() += 1;
                }
                if let Some(left) = left {
                    send.finish()?;
                    send.delivered().await?;
                    self.given().breaks_after = Some(left - 1);
                }
            }
        }
        Ok(())
    }
}
