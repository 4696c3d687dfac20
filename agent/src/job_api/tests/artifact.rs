//! Artifacts: the real program, the real link, and a coordinator that the test plays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use quinn::{RecvStream, SendStream};
use windlass_protocol::link::{Code, FramedRecv, FramedSend};
use windlass_protocol::message::{
    Ask, AskRefused, Asked, BlobHeader, BulkAsk, CacheQuery, FoundArtifact, FoundCache, FoundFiles, NewArtifact,
    NewCache, StoreAnswer, StoreRefused, Told, Wanted, WantedBlob,
};
use windlass_protocol::{ArtifactId, Digest, WallMs};

use super::*;

/// What the coordinator has, and how it is disposed.
#[derive(Default)]
pub(super) struct State {
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
    rows: Vec<NewArtifact>,
    /// Paths of those that may be executed.
    programs: BTreeSet<String>,
    /// Caches by scope and key.
    pub(super) caches: BTreeMap<(Digest, String), NewCache>,
    /// How many blobs were sent to it, in all.
    pub(super) sent: usize,
    /// Requests to add, by their numbers.
    calls: Vec<[u8; 16]>,
    /// Offers are refused.
    pub(super) full: bool,
    /// The next request to add finds nothing.
    forget: bool,
    /// The link breaks once so many bytes of a blob came, once; what came is remembered.
    breaks_after: Option<usize>,
    /// What came of blobs whose link broke.
    begun: BTreeMap<Digest, Vec<u8>>,
    /// Bytes of blobs that came, in all.
    received: usize,
    /// This file gets other bytes before an offer is answered.
    pub(super) rewrite: Option<PathBuf>,
}

/// A coordinator.
#[derive(Clone, Default)]
pub(super) struct Played {
    state: Arc<Mutex<State>>,
}

impl Played {
    /// Connects a world to one.
    async fn to(world: &mut World) -> Self {
        let played = Self::default();
        let (ours, theirs) = world.kit.pair().await;
        world.linked.send_replace(Some(ours));
        let control = played.clone();
        tokio::spawn(async move {
            while let Ok((send, recv)) = theirs.accept_bi().await {
                tokio::spawn(control.clone().answer(send, recv));
            }
        });
        played
    }

    /// Serves the connection for blobs, which is dialled with the first of them.
    pub(super) async fn serve_bulk(self, connection: Connection) {
        while let Ok((send, recv)) = connection.accept_bi().await {
            tokio::spawn(self.clone().bulk(send, recv));
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(self, send: SendStream, recv: RecvStream) {
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        let Ask { what, call, .. } = recv.recv_message().await.unwrap().unwrap();
        let told = self.told(what, call);
        send.send_message(&told).await.unwrap();
        send.finish().unwrap();
    }

    fn told(&self, what: Asked, call: [u8; 16]) -> Told {
        let mut state = self.lock();
        match what {
            Asked::AddFiles { artifacts, executable } => {
                let gone = std::mem::take(&mut state.forget);
                if gone {
                    state.blobs.clear();
                }
                if artifacts.iter().any(|artifact| !state.blobs.contains_key(&artifact.digest)) {
                    return Told::Refused { code: AskRefused::NotFound, detail: "not stored".to_owned() };
                }
                state.calls.push(call);
                state.programs.extend(executable.iter().map(|place| artifacts[*place as usize].path.clone()));
                state.rows.extend(artifacts);
                Told::Done
            }
            Asked::FindFiles(query) => {
                let wanted = windlass_pipeline::glob::PathQuery::new(&query.path);
                let rows = state.rows.iter().enumerate().rev();
                let mut files = FoundFiles { found: vec![], executable: vec![] };
                for (at, row) in rows.filter(|(_, row)| wanted.matches(&row.path)) {
                    if state.programs.contains(&row.path) {
                        files.executable.push(u32::try_from(files.found.len()).unwrap());
                    }
                    files.found.push(FoundArtifact {
                        id: ArtifactId::from_bytes([u8::try_from(at).unwrap(); 16]),
                        job: job().job,
                        created_at: WallMs(1_700_000_000_000),
                        url: "http://w/a".to_owned(),
                        artifact: row.clone(),
                    });
                }
                Told::Files(Box::new(files))
            }
            Asked::FindCache(query) => {
                let CacheQuery { scope, key, restore_keys } = *query;
                let exact = state.caches.get(&(scope, key));
                let beginning = |key: &String| {
                    state
                        .caches
                        .iter()
                        .find(|((of, other), _)| *of == scope && other.starts_with(key))
                        .map(|(_, new)| new)
                };
                Told::Cache(exact.or_else(|| restore_keys.iter().find_map(beginning)).map(found_cache))
            }
            Asked::SaveCache(new) => {
                assert!(state.blobs.contains_key(&new.manifest), "bytes first");
                let name = (new.scope, new.key.clone());
                Told::Cache(Some(found_cache(state.caches.entry(name).or_insert(*new))))
            }
            other => panic!("{other:?}"),
        }
    }

    async fn bulk(self, send: SendStream, recv: RecvStream) {
        let (mut send, mut recv) = (FramedSend::new(send), FramedRecv::new(recv));
        match recv.recv_message().await.unwrap().unwrap() {
            BulkAsk::Fetch(fetch) => {
                let (Wanted::Whole(digests) | Wanted::Parts(digests)) = fetch.wanted else {
                    panic!("nothing here is large: {fetch:?}");
                };
                for digest in digests {
                    let blob = self.lock().blobs.get(&digest).cloned();
                    let Some(blob) = blob else {
                        send.send_message(&BlobHeader::Absent).await.unwrap();
                        continue;
                    };
                    send.send_message(&BlobHeader::Found { bytes: blob.len() as u64 }).await.unwrap();
                    send.send_raw(blob.into()).await.unwrap();
                }
            }
            BulkAsk::Parts(offer) => panic!("nobody said that parts are taken: {offer:?}"),
            BulkAsk::Grant(ask) => panic!("there are no peers: {ask:?}"),
            BulkAsk::Store(offer) => {
                if let Some(path) = &self.lock().rewrite {
                    fs::write(path, vec![b'!'; usize::try_from(fs::metadata(path).unwrap().len()).unwrap()]).unwrap();
                }
                if self.lock().full {
                    let detail = "the coordinator's disk has no room".to_owned();
                    send.send_message(&StoreAnswer::Refused { code: StoreRefused::Full, detail }).await.unwrap();
                    return send.finish().unwrap();
                }
                let missing = |(_, (digest, _)): &(u32, &(Digest, u64))| !self.lock().blobs.contains_key(digest);
                let wanted = (0..).zip(&offer.blobs).filter(missing).map(|(place, (digest, _))| {
                    let offset = self.lock().begun.get(digest).map_or(0, |came| came.len() as u64);
                    WantedBlob { place, offset }
                });
                let wanted: Vec<_> = wanted.collect();
                send.send_message(&StoreAnswer::Wanted(wanted.clone())).await.unwrap();
                for WantedBlob { place, .. } in wanted {
                    let (digest, bytes) = offer.blobs[place as usize];
                    let mut blob = self.lock().begun.remove(&digest).unwrap_or_default();
                    while (blob.len() as u64) < bytes {
                        let Ok(piece) = recv.recv_raw(bytes - blob.len() as u64).await else { return };
                        self.lock().received += piece.len();
                        blob.extend_from_slice(&piece);
                        let broken = self.lock().breaks_after.take_if(|most| blob.len() >= *most).is_some();
                        if broken {
                            self.lock().begun.insert(digest, blob);
                            recv.stop(Code::Refused);
                            send.reset(Code::Canceled);
                            return;
                        }
                    }
                    if Digest::of(&blob) != digest {
                        let (code, detail) = (StoreRefused::WrongBytes, "wrong bytes".to_owned());
                        let _ = send.send_message(&StoreAnswer::Refused { code, detail }).await;
                        return;
                    }
                    let mut state = self.lock();
                    state.sent += 1;
                    state.blobs.insert(digest, blob);
                }
                let _ = send.send_message(&StoreAnswer::Stored).await;
            }
        }
        let _ = send.finish();
    }
}

fn found_cache(new: &NewCache) -> Box<FoundCache> {
    let NewCache { scope: _, key, manifest, manifest_bytes } = new.clone();
    Box::new(FoundCache { key, manifest, manifest_bytes, files: 0, bytes: 0, created_at: WallMs(1) })
}

/// A world with a coordinator, and its jobs' working directory.
pub(super) async fn connected() -> (World, Played, PathBuf) {
    let mut world = World::new().await;
    let played = Played::to(&mut world).await;
    let work = world.dir.path().join("checkout");
    (world, played, work)
}

/// Runs a command while the connection for blobs is served, from its first use on.
async fn run(world: &mut World, played: &Played, line: &[&str]) -> Ended {
    let command = world.command(&[&["buildkite-agent", "artifact"], line].concat(), world.user);
    serve(world, played, command).await
}

pub(super) async fn serve(world: &mut World, played: &Played, mut command: Command) -> Ended {
    let child = command.spawn().unwrap();
    let ending = ended(child);
    tokio::pin!(ending);
    loop {
        tokio::select! {
            ended = &mut ending => return ended,
            connection = world.kit.accepted() => drop(tokio::spawn(played.clone().serve_bulk(connection))),
        }
    }
}

pub(super) fn put(work: &Path, path: &str, bytes: &[u8]) {
    let mut folder = work.to_owned();
    for part in Path::new(path).parent().unwrap() {
        folder.push(part);
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    fs::write(work.join(path), bytes).unwrap();
}

fn paths(played: &Played) -> Vec<String> {
    let mut rows = std::mem::take(&mut played.lock().rows);
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    rows.into_iter().map(|row| row.path).collect()
}

#[tokio::test]
async fn patterns_mean_files_once_by_their_paths_in_the_build() {
    let (mut world, played, work) = connected().await;
    for (path, text) in [("log/a.txt", "1"), ("log/deep/b.txt", "22"), ("log/c.bin", ""), (".hidden.txt", "x")] {
        put(&work, path, text.as_bytes());
    }
    std::os::unix::fs::symlink("deep", work.join("log/link")).unwrap();
    std::os::unix::fs::symlink("nowhere", work.join("log/broken.txt")).unwrap();
    let whole = format!("{}/log/c.bin", work.canonicalize().unwrap().display());
    for (line, expected) in [
        (&["log/**/*.txt; *.txt ;log/a.txt"][..], &[".hidden.txt", "log/a.txt", "log/deep/b.txt"][..]),
        (&["log/**.txt", "--glob-resolve-follow-symlinks"], &["log/a.txt", "log/deep/b.txt", "log/link/b.txt"]),
        (&[&whole], &["log/c.bin"]),
        (&["log/[a].txt", "--literal"], &[]),
        (&["log/*.nothing"], &[]),
        (&["log/a.txt,.hidden.txt", "--delimiter", ","], &[".hidden.txt", "log/a.txt"]),
        (&["log/{a.txt,c.bin}"], &["log/a.txt", "log/c.bin"]),
    ] {
        let (status, output, errors) = run(&mut world, &played, &[&["upload"], line].concat()).await;
        assert_eq!((status, output.as_str()), (Some(0), ""), "{line:?}: {errors}");
        assert_eq!(paths(&played), expected, "{line:?}");
    }
    let (status, _, errors) = run(&mut world, &played, &["upload", "log/*.nothing"]).await;
    assert_eq!((status, errors.as_str()), (Some(0), "notice: No files matched paths: log/*.nothing\n"));
    for line in [&["upload", "log/[a"][..], &["upload", "log/a.txt", "s3://bucket"], &["upload"]] {
        let (status, _, errors) = run(&mut world, &played, line).await;
        assert_eq!(status, Some(1), "{errors}");
    }
    assert_eq!(paths(&played), [""; 0]);
}

#[tokio::test]
async fn what_is_uploaded_is_sent_once_with_all_its_digests_and_is_noted_by_a_number_of_its_own() {
    let (mut world, played, work) = connected().await;
    let large = vec![b'x'; 700_000];
    put(&work, "log/a.txt", b"hello\n");
    put(&work, "big.bin", &large);
    put(&work, "none", b"");
    let (status, _, errors) = run(&mut world, &played, &["upload", "log/*;big.bin;none"]).await;
    assert_eq!(status, Some(0), "{errors}");
    assert!(errors.contains("Found 3 files that match \"log/*;big.bin;none\""), "{errors}");
    assert!(errors.contains("Successfully uploaded artifact \"log/a.txt\" (6 bytes)"), "{errors}");
    assert!(errors.ends_with("Artifact uploads completed successfully\n"), "{errors}");
    let rows = std::mem::take(&mut played.lock().rows);
    let by_path = |path: &str| rows.iter().find(|row| row.path == path).unwrap();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = by_path("log/a.txt");
    assert_eq!(hex(&text.sha1), "f572d396fae9206628714fb2ce00f72e94f2258f");
    assert_eq!(hex(&text.sha256), "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    assert_eq!((text.digest, text.content_type.as_str()), (Digest::of(b"hello\n"), "text/plain; charset=utf-8"));
    assert_eq!((by_path("big.bin").bytes, by_path("none").bytes), (700_000, 0));
    assert_eq!(played.lock().blobs.get(&Digest::of(&large)), Some(&large));
    assert_eq!(played.lock().sent, 3);
    // The same again costs no bytes; two commands never have the same number.
    let (status, ..) = run(&mut world, &played, &["upload", "log/*;big.bin", "--content-type", "x/y"]).await;
    assert_eq!((status, played.lock().sent), (Some(0), 3));
    assert!(played.lock().rows.iter().all(|row| row.content_type == "x/y"));
    let calls = played.lock().calls.clone();
    assert_eq!((calls.len(), calls[0] != calls[1]), (2, true));
}

#[tokio::test]
async fn of_a_blob_whose_link_breaks_the_rest_is_sent() {
    let (mut world, played, work) = connected().await;
    let large: Vec<u8> = (0..900_000_u32).flat_map(u32::to_le_bytes).collect();
    put(&work, "big.bin", &large);
    put(&work, "small", b"small");
    played.lock().breaks_after = Some(2_000_000);
    let (status, _, errors) = run(&mut world, &played, &["upload", "big.bin;small"]).await;
    assert_eq!(status, Some(0), "{errors}");
    let state = played.lock();
    assert!(state.breaks_after.is_none(), "it broke");
    assert_eq!(state.blobs.get(&Digest::of(&large)), Some(&large));
    assert_eq!((state.received, state.sent), (large.len() + 5, 2), "no byte came twice");
}

#[tokio::test]
async fn many_files_go_in_batches_and_what_was_let_go_meanwhile_is_sent_again() {
    let (mut world, played, work) = connected().await;
    for n in 0..65 {
        put(&work, &format!("many/{n}"), format!("{n}").as_bytes());
    }
    played.lock().forget = true;
    let (status, _, errors) = run(&mut world, &played, &["upload", "many/*"]).await;
    assert_eq!(status, Some(0), "{errors}");
    let state = played.lock();
    assert_eq!((state.rows.len(), state.calls.len()), (65, 3));
    assert_eq!(state.sent, 95, "the first thirty came twice");
}

#[tokio::test]
async fn a_file_that_changes_or_cannot_be_read_fails_alone_and_a_full_disk_fails_all() {
    let (mut world, played, work) = connected().await;
    put(&work, "changing", &vec![b'x'; 300_000]);
    put(&work, "good", b"good");
    put(&work, "secret", b"secret");
    fs::set_permissions(work.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    played.lock().rewrite = Some(work.join("changing"));
    let (status, _, errors) = run(&mut world, &played, &["upload", "*"]).await;
    assert_eq!(status, Some(1));
    assert!(errors.contains("Error uploading artifact \"changing\": it changed while it was uploaded"), "{errors}");
    let unreadable = world.user.is_some();
    assert_eq!(
        errors.contains("Error uploading artifact \"secret\": secret: Permission denied"),
        unreadable,
        "{errors}"
    );
    let failed = if unreadable { 2 } else { 1 };
    let words = format!("fatal: failed to upload artifacts: {failed} of 3 could not be uploaded\n");
    assert!(errors.ends_with(&words), "{errors}");
    assert!(paths(&played).contains(&"good".to_owned()));
    played.lock().rewrite = None;
    played.lock().full = true;
    let (status, _, errors) = run(&mut world, &played, &["upload", "good"]).await;
    assert_eq!(status, Some(1));
    assert!(errors.ends_with("failed to upload artifacts: the coordinator's disk has no room\n"), "{errors}");
    assert_eq!(paths(&played), [""; 0]);
}

#[tokio::test]
async fn a_program_is_one_where_it_was_uploaded_and_where_it_is_downloaded() {
    let (mut world, played, work) = connected().await;
    for (path, mode) in [("bin/tool", 0o755), ("bin/text", 0o644), ("bin/of-others", 0o655)] {
        put(&work, path, path.as_bytes());
        fs::set_permissions(work.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let (status, _, errors) = run(&mut world, &played, &["upload", "bin/*"]).await;
    assert_eq!(status, Some(0), "{errors}");
    assert_eq!(played.lock().programs, ["bin/tool".to_owned()].into(), "what its owner may execute");
    // A large one comes another way, past the agent's cache.
    row(&played, "bin/large", &vec![7; 5 << 20]);
    played.lock().programs.insert("bin/large".to_owned());
    fs::create_dir(work.join("got")).unwrap();
    if let Some(user) = world.user {
        chown(work.join("got"), Some(user.uid), Some(user.gid)).unwrap();
    }
    let (status, _, errors) = run(&mut world, &played, &["download", "bin/*", "got"]).await;
    assert_eq!(status, Some(0), "{errors}");
    for (path, runs) in [("tool", true), ("large", true), ("text", false), ("of-others", false)] {
        let mode = fs::metadata(work.join("got/bin").join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o100 != 0, runs, "{path}: {mode:o}");
        assert_eq!(mode & 0o022, 0, "the umask holds for {path}: {mode:o}");
    }
}

fn row(played: &Played, path: &str, bytes: &[u8]) {
    let artifact = NewArtifact {
        path: path.to_owned(),
        bytes: bytes.len() as u64,
        digest: Digest::of(bytes),
        sha1: [1; 20],
        sha256: [2; 32],
        content_type: "text/plain".to_owned(),
    };
    let mut state = played.lock();
    state.rows.push(artifact);
    state.blobs.insert(Digest::of(bytes), bytes.to_vec());
}

#[tokio::test]
async fn the_newest_of_each_path_is_put_where_the_reference_says_whole_and_over_what_was_there() {
    let (mut world, played, work) = connected().await;
    row(&played, "log/a.txt", b"old");
    row(&played, "log/a.txt", b"new");
    row(&played, "log/deep/b.txt", &vec![b'b'; 600_000]);
    row(&played, "pkg/c", b"");
    for folder in ["out", "out/pkg"] {
        fs::create_dir(work.join(folder)).unwrap();
        if let Some(user) = world.user {
            chown(work.join(folder), Some(user.uid), Some(user.gid)).unwrap();
        }
    }
    fs::write(work.join("elsewhere"), "untouched").unwrap();
    std::os::unix::fs::symlink("../elsewhere", work.join("out/log")).unwrap();
    let (status, _, errors) = run(&mut world, &played, &["download", "log/*", "out"]).await;
    assert_eq!(status, Some(1), "a link that leads to a file is no directory: {errors}");
    fs::remove_file(work.join("out/log")).unwrap();
    let (status, output, errors) = run(&mut world, &played, &["download", "log/*", "out/"]).await;
    assert_eq!((status, output.as_str()), (Some(0), ""), "{errors}");
    assert!(errors.contains("Found 2 artifacts. Starting to download to: "), "{errors}");
    let digest = "02".repeat(32);
    assert!(
        errors.contains(&format!("Successfully downloaded \"log/a.txt\" (3 bytes) with SHA256 {digest}")),
        "{errors}"
    );
    assert_eq!(fs::read(work.join("out/log/a.txt")).unwrap(), b"new");
    assert_eq!(fs::read(work.join("out/log/deep/b.txt")).unwrap().len(), 600_000);
    // A link at the file's own place is replaced, not followed.
    fs::remove_file(work.join("out/log/a.txt")).unwrap();
    std::os::unix::fs::symlink("../../elsewhere", work.join("out/log/a.txt")).unwrap();
    let (status, ..) = run(&mut world, &played, &["download", "log/a.txt", "out"]).await;
    assert_eq!(status, Some(0));
    assert_eq!(fs::read(work.join("elsewhere")).unwrap(), b"untouched");
    assert_eq!(fs::read(work.join("out/log/a.txt")).unwrap(), b"new");
    let (status, ..) = run(&mut world, &played, &["download", "pkg/*", "out/pkg"]).await;
    assert_eq!((status, fs::read(work.join("out/pkg/c")).unwrap()), (Some(0), Vec::new()));
    let left: Vec<_> = fs::read_dir(work.join("out/log")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".windlass")), "{left:?}");
    for line in [
        &["download", "log/*", "nowhere"][..],
        &["download", "log/*", "elsewhere"],
        &["download", "nothing", "out"],
        &["download", "log/*"],
    ] {
        assert_eq!(run(&mut world, &played, line).await.0, Some(1), "{line:?}");
    }
    // What has gone from the coordinator fails, and the rest is there.
    played.lock().blobs.clear();
    row(&played, "log/new", b"fresh");
    row(&played, "log/gone", b"gone");
    played.lock().blobs.remove(&Digest::of(b"gone"));
    let (status, _, errors) = run(&mut world, &played, &["download", "log/gone", "out"]).await;
    assert_eq!(status, Some(1));
    assert!(errors.contains("not in the cache any more"), "{errors}");
}

#[tokio::test]
async fn artifacts_are_searched_and_their_digests_printed() {
    let (mut world, played, _) = connected().await;
    row(&played, "a.txt", b"1");
    row(&played, "b.txt", b"22");
    row(&played, "a.txt", b"333");
    let (status, output, _) = run(&mut world, &played, &["search", "*.txt", "--format", "%p %s\\n"]).await;
    assert_eq!((status, output.as_str()), (Some(0), "a.txt 1\nb.txt 2\na.txt 3\n"));
    let (status, output, errors) = run(&mut world, &played, &["search", "none"]).await;
    assert_eq!((status, output.as_str(), errors.as_str()), (Some(1), "", "fatal: No matches found for \"none\"\n"));
    assert_eq!(run(&mut world, &played, &["search", "none", "--allow-empty-results"]).await.0, Some(0));
    let (status, output, _) = run(&mut world, &played, &["shasum", "a.txt"]).await;
    assert_eq!((status, output), (Some(0), format!("{}\n", "01".repeat(20))));
    let (status, output, _) = run(&mut world, &played, &["shasum", "a.txt", "--sha256"]).await;
    assert_eq!((status, output), (Some(0), format!("{}\n", "02".repeat(32))));
    assert_eq!(run(&mut world, &played, &["shasum", "*"]).await.0, Some(1), "several");
    assert_eq!(run(&mut world, &played, &["shasum", "none"]).await.0, Some(1), "none");
}
