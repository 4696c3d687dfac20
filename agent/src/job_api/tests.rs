//! The real program against a real door, as a job would call it.

mod artifact;
mod cache;
mod upload;

use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::mpsc;
use windlass_agent_runner::control::Request;
use windlass_agent_runner::launch::User;
use windlass_cache::{RealFs, Store, StoreOptions};
use windlass_hands::wire::{Answer, Hello, Kind, LENGTH_BYTES, Op};
use windlass_protocol::job::{Epoch, JobSpec};
use windlass_protocol::limits::{HANDS_ARGUMENTS_MAX, HANDS_PATH_MAX_BYTES};

use super::*;
use crate::link_kit::{Link, job};
use crate::right::Right;
use crate::secrets::Secrets;

const SLOT: User = User { uid: 64_124, gid: 64_124 };

/// A job's end, as it was: status, output, errors.
type Ended = (Option<i32>, String, String);

struct World {
    dir: tempfile::TempDir,
    home: Home,
    api: JobApi,
    spec: JobSpec,
    door: Option<Door>,
    env: Vec<(String, String)>,
    changes: Arc<Changes>,
    user: Option<User>,
    masked: mpsc::Receiver<Request>,
    answers: Answers,
    bulk: Arc<Bulk>,
    kit: Link,
    linked: watch::Sender<Option<Connection>>,
}

/// That of an agent which starts again.
fn again(world: &World) -> JobApi {
    JobApi::new(&world.home, watch::channel(None).1, Arc::clone(&world.bulk)).unwrap()
}

impl World {
    async fn new() -> Self {
        Self::of(job()).await
    }

    async fn of(spec: JobSpec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let user = rustix::process::geteuid().is_root().then_some(SLOT);
        let work = dir.path().join("checkout");
        fs::DirBuilder::new().mode(0o700).create(&work).unwrap();
        if let Some(user) = user {
            chown(&work, Some(user.uid), Some(user.gid)).unwrap();
        }
        let home = Home::open(&dir.path().join("agent")).unwrap();
        let kit = Link::new();
        let (linked, link) = watch::channel(None);
        let store = Store::open(Arc::new(RealFs), &home.cache(), StoreOptions::lazy(64 << 20)).unwrap();
        let bulk = Bulk::new(kit.bulk.clone(), store, kit.peers());
        let api = JobApi::new(&home, link, Arc::clone(&bulk)).unwrap();
        let mut env = vec![("A".to_owned(), "1".to_owned()), ("MY_TOKEN".to_owned(), "hunter22".to_owned())];
        api.variables(&spec, Slot { index: 3, user }, &mut env);
        let changes = Arc::new(Changes::load(dir.path(), env.clone()).unwrap());
        let (requests, masked) = mpsc::channel(16);
        let answers = Answers::default();
        let mut world =
            Self { home, api, spec, door: None, env, changes, user, masked, answers, bulk, kit, linked, dir };
        let party = world.party(Masking::new(requests, world.answers.clone()));
        world.door = Some(world.api.open(party).await.unwrap());
        world
    }

    fn party(&self, masking: Masking) -> Party {
        let right = Arc::new(Right::new(Epoch(1), true));
        let slot = Slot { index: 3, user: self.user };
        let (spec, changes) = (Arc::new(self.spec.clone()), Arc::clone(&self.changes));
        let (secrets, account) = (Secrets::default(), Account::default());
        Party { spec, right, slot, changes, masking, secrets, account }
    }

    /// Of a job that masks nothing.
    fn quiet(&self) -> Party {
        self.party(Masking::new(mpsc::channel(1).0, Answers::default()))
    }

    fn socket(&self) -> &str {
        self.env.iter().find(|(name, _)| name == SOCKET_VARIABLE).map(|(_, value)| value.as_str()).unwrap()
    }

    /// A command of the job, found by its name.
    fn command(&self, line: &[&str], user: Option<User>) -> Command {
        let path = self.env.iter().find(|(name, _)| name == "PATH").unwrap().1.clone();
        let program = path.split(':').map(|dir| Path::new(dir).join(line[0])).find(|path| path.exists()).unwrap();
        let mut command = Command::new(program);
        command.args(&line[1..]).env_clear().envs(self.env.clone()).current_dir(self.dir.path().join("checkout"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    async fn run_with(&self, line: &[&str], input: &str) -> Ended {
        let mut child = self.command(line, self.user).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        ended(child).await
    }

    async fn run(&self, line: &[&str]) -> Ended {
        self.run_with(line, "").await
    }

    /// That it passes, and what it prints.
    async fn print(&self, line: &[&str]) -> String {
        let (status, output, errors) = self.run(line).await;
        assert_eq!((status, errors.as_str()), (Some(0), ""), "{line:?}");
        output
    }
}

async fn ended(child: tokio::process::Child) -> Ended {
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn variables_are_shown_set_and_unset_for_the_next_phases() {
    let world = World::new().await;
    assert_eq!(world.print(&["buildkite-agent", "env", "get", "A"]).await, "1\n");
    assert_eq!(world.print(&["windlass", "env", "get", "A", "MY_TOKEN"]).await, "A=1\nMY_TOKEN=hunter22\n");
    let (status, output, errors) = world.run(&["windlass", "env", "set", "-C=x"]).await;
    assert_eq!((status, errors.as_str()), (Some(1), "fatal: flag provided but not defined: -C\n"));
    assert!(output.starts_with("Incorrect Usage: flag provided but not defined: -C\n\nUsage:"), "{output}");
    let set = world.print(&["windlass", "env", "set", "A=one", "B=two words", "--output-format", "plain"]).await;
    assert_eq!(set, "Added:\n+ B\nUpdated:\n~ A\n");
    let (_, json, _) = world
        .run_with(&["windlass", "env", "set", "--input-format=json", "--output-format=json", "-"], "{\"C\":\"3\"}")
        .await;
    assert_eq!(json, "{\"added\":[\"C\"],\"updated\":[]}\n");
    assert_eq!(
        world.print(&["windlass", "env", "get", "--format", "json", "A", "B"]).await,
        "{\"A\":\"one\",\"B\":\"two words\"}\n"
    );
    assert_eq!(world.print(&["windlass", "env", "unset", "A", "NEVER"]).await, "Unset:\n- A\n");
    assert_eq!(world.print(&["windlass", "env", "unset", "A"]).await, "No variables unset.\n");
    let (status, output, errors) = world.run(&["windlass", "env", "get", "A", "B"]).await;
    assert_eq!((status, output.as_str(), errors.as_str()), (Some(1), "B=two words\n", "warning: \"A\" is not set\n"));
    let (status, _, errors) = world.run(&["windlass", "env", "set", "BUILDKITE_SHELL=x"]).await;
    assert_eq!(status, Some(1));
    assert!(errors.contains("protected, and cannot be modified: [BUILDKITE_SHELL]"), "{errors}");
    // Its own process has what it had.
    let dumped = world.print(&["windlass", "env", "dump"]).await;
    assert!(dumped.contains("\"A\":\"1\"") && !dumped.contains("\"B\""), "{dumped}");
    assert_eq!(world.changes.variables().get("B").map(String::as_str), Some("two words"));
}

#[tokio::test]
async fn a_directory_is_one_of_the_job_s() {
    let world = World::new().await;
    assert_eq!(world.print(&["windlass", "workdir", "set", "."]).await, "");
    let here = world.dir.path().canonicalize().unwrap().join("checkout/.");
    assert_eq!(Some(world.changes.since_the_start().directory.as_slice()), here.to_str().map(str::as_bytes));
    let (status, _, errors) = world.run(&["windlass", "workdir", "set", "nowhere"]).await;
    assert_eq!((status, errors.as_str()), (Some(1), "fatal: nowhere does not exist\n"));
}

#[tokio::test]
async fn a_command_that_masks_ends_when_the_supervisor_has_masked() {
    let mut world = World::new().await;
    let mut child = world.command(&["windlass", "redactor", "add", "--format", "json"], world.user).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"a":"first-secret","b":"abc","c":"second-secret"}"#).await.unwrap();
    let mut values = Vec::new();
    for _ in 0..2 {
        let Some(Request::Mask { ticket, value }) = world.masked.recv().await else { panic!("nothing is masked") };
        assert!(child.try_wait().unwrap().is_none(), "it waits until it is so");
        values.push(value);
        world.answers.heard(ticket, None);
    }
    assert_eq!(values, ["first-secret", "second-secret"]);
    let (status, _, errors) = ended(child).await;
    assert_eq!((status, errors.as_str()), (Some(0), "warning: a value of less than 6 bytes is not redacted\n"));

    let setting = world.command(&["windlass", "env", "set", "MY_PASSWORD=third-secret", "PLAIN=x"], world.user);
    let child = { setting }.spawn().unwrap();
    let Some(Request::Mask { ticket, value }) = world.masked.recv().await else { panic!("nothing is masked") };
    assert_eq!(value, "third-secret", "secret by its name");
    assert!(!world.changes.variables().contains_key("MY_PASSWORD"), "first masked, then known");
    world.answers.heard(ticket, Some("more than 1000 secrets".to_owned()));
    let (status, _, errors) = ended(child).await;
    assert_eq!(status, Some(1));
    assert!(errors.contains("more than 1000 secrets") && !errors.contains("third"), "{errors}");
}

#[tokio::test]
async fn locks_are_held_between_commands_and_wait() {
    let world = World::new().await;
    let token = world.print(&["buildkite-agent", "lock", "acquire", "a"]).await;
    assert!(token.starts_with("acquired(attempt="), "{token}");
    assert_eq!(world.print(&["windlass", "lock", "get", "a"]).await, token);
    let (status, _, errors) = world.run(&["windlass", "lock", "acquire", "a", "--lock-wait-timeout", "50ms"]).await;
    assert_eq!((status, errors.as_str()), (Some(1), "fatal: could not acquire lock: 50ms passed without it\n"));
    let (status, _, errors) = world.run(&["windlass", "lock", "release", "a", "nonsense"]).await;
    assert_eq!(status, Some(1));
    assert!(errors.starts_with("fatal: could not release lock: invalid lock state"), "{errors}");
    let mut waiting = world.command(&["windlass", "lock", "acquire", "a"], world.user).spawn().unwrap();
    assert_eq!(world.print(&["windlass", "lock", "release", "a", token.trim()]).await, "");
    assert!(waiting.wait().await.unwrap().success());
    assert_eq!(world.print(&["windlass", "lock", "do", "b"]).await, "do\n");
    assert_eq!(world.print(&["windlass", "lock", "done", "b"]).await, "");
    assert_eq!(world.print(&["windlass", "lock", "do", "b"]).await, "done\n");
    let (status, _, errors) = world.run(&["windlass", "lock", "get"]).await;
    assert_eq!(status, Some(1));
    assert!(errors.starts_with("Usage:\n\n    windlass lock get <key>"), "{errors}");
}

#[tokio::test]
async fn a_lock_that_its_waiter_does_not_live_to_have_goes_to_the_next() {
    let world = World::new().await;
    let token = world.print(&["windlass", "lock", "acquire", "a"]).await;
    let mut dead = world.command(&["windlass", "lock", "acquire", "a"], world.user).spawn().unwrap();
    let next = world.command(&["windlass", "lock", "acquire", "a"], world.user).spawn().unwrap();
    dead.kill().await.unwrap();
    assert_eq!(world.print(&["windlass", "lock", "release", "a", token.trim()]).await, "");
    let (status, output, _) = ended(next).await;
    assert_eq!(status, Some(0));
    assert_ne!(output, token);
}

#[tokio::test]
async fn help_says_what_there_is_and_what_is_not_there_fails() {
    let world = World::new().await;
    let help = world.print(&["buildkite-agent", "--help"]).await;
    assert!(
        help.starts_with("Usage:\n\n  buildkite-agent <command> [options...]\n\nAvailable commands are:\n"),
        "{help}"
    );
    assert!(help.contains("  lock "), "{help}");
    let help = world.print(&["windlass", "lock", "--help"]).await;
    assert!(help.contains("  acquire  Acquires a lock"), "{help}");
    let help = world.print(&["windlass", "lock", "acquire", "x", "--help"]).await;
    assert!(help.contains("--lock-wait-timeout value") && help.contains("[$BUILDKITE_LOCK_WAIT_TIMEOUT]"), "{help}");
    assert!(world.print(&["windlass", "--version"]).await.starts_with("windlass version "));
    for (line, words) in [
        (&["windlass"][..], ""),
        (&["windlass", "nonsense"], "windlass: unknown subcommand \"nonsense\"\n"),
        (&["windlass", "lock", "nonsense"], "windlass: unknown subcommand \"lock nonsense\"\n"),
    ] {
        let (status, output, errors) = world.run(line).await;
        assert_eq!((status, errors.as_str()), (Some(1), words), "{line:?}");
        assert!(output.starts_with("Usage:"), "{output}");
    }
}

#[tokio::test]
async fn only_the_slot_s_user_comes_in_and_only_root_can_change_the_program() {
    let world = World::new().await;
    let Some(user) = world.user else { return };
    let stranger = User { uid: user.uid + 1, gid: user.gid + 1 };
    let mut command = world.command(&["windlass", "env", "get", "A"], Some(stranger));
    command.current_dir("/");
    let (status, output, errors) = ended(command.spawn().unwrap()).await;
    assert_eq!((status, output.as_str()), (Some(1), ""));
    assert!(errors.contains("Permission denied"), "{errors}");
    for path in [&world.api.programs, &world.api.programs.join("windlass")] {
        let found = fs::metadata(path).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o755);
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&found), 0);
    }
}

#[tokio::test]
async fn an_agent_that_starts_again_serves_the_same_doors() {
    for image in [None, Some("tool:1".to_owned())] {
        let mut world = World::of(JobSpec { image: image.clone(), ..job() }).await;
        if image.is_some() {
            // In the container it would be found by the image's own path.
            let programs = world.api.programs.to_string_lossy().into_owned();
            world.env.push(("PATH".to_owned(), programs));
            // The directory above lets nobody pass.
            world.user = None;
        }
        let inode = |world: &World| {
            let place = Path::new(world.socket()).parent().unwrap();
            std::os::unix::fs::MetadataExt::ino(&fs::metadata(place).unwrap())
        };
        let before = inode(&world);
        drop(world.door.take());
        let waiting = world.command(&["windlass", "env", "get", "A"], world.user).spawn().unwrap();
        world.api = again(&world);
        world.api.tidy(|name| name == job().attempt.to_string()).unwrap();
        world.door = Some(world.api.open(world.quiet()).await.unwrap());
        let (status, output, _) = ended(waiting).await;
        assert_eq!((status, output.as_str()), (Some(0), "1\n"));
        assert_eq!(inode(&world), before, "a container keeps what was mounted");
        world.door.take().unwrap().close();
        assert_eq!(Path::new(world.socket()).exists(), image.is_none(), "a place's door stays for its next attempt");
        world.api.tidy(|_| false).unwrap();
        assert_eq!(Path::new(world.socket()).exists(), image.is_none());
    }
}

/// How `env set A=stolen` is called.
fn theft() -> Vec<u8> {
    let words = ["windlass", "env", "set", "A=stolen"].map(|word| word.as_bytes().to_vec());
    Hello { arguments: words.to_vec(), directory: b"/".to_vec(), ..Hello::default() }.encode().unwrap()
}

#[tokio::test]
async fn what_was_said_at_a_place_s_door_before_an_attempt_is_not_said_by_it() {
    let mut world = World::new().await;
    world.door.take().unwrap().close();
    let mut late = Vec::new();
    for _ in 0..100 {
        let mut stream = UnixStream::connect(world.socket()).await.unwrap();
        stream.write_all(&theft()).await.unwrap();
        late.push(stream);
    }
    world.door = Some(world.api.open(world.quiet()).await.unwrap());
    for mut stream in late {
        // Ended, or reset because it was not read.
        let read = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
        assert!(read.is_err(), "{read:?}");
    }
    assert_eq!(world.print(&["windlass", "env", "get", "A"]).await, "1\n");
    let mut own = UnixStream::connect(world.socket()).await.unwrap();
    own.write_all(&theft()).await.unwrap();
    tokio::io::AsyncReadExt::read_u8(&mut own).await.unwrap();
    assert_eq!(world.print(&["windlass", "env", "get", "A"]).await, "stolen\n", "it would have counted");
}

#[tokio::test]
async fn a_place_s_door_is_given_on_when_nobody_serves_it_for_the_attempt_before() {
    let mut world = World::new().await;
    let mut open = UnixStream::connect(world.socket()).await.unwrap();
    assert_eq!(world.print(&["windlass", "env", "get", "A"]).await, "1\n");
    let api = &world.api;
    let mut next = std::pin::pin!(api.open(world.quiet()));
    assert!(futures_util::poll!(next.as_mut()).is_pending());
    world.door.take().unwrap().close();
    let next = tokio::time::timeout(std::time::Duration::from_secs(20), next).await.unwrap().unwrap();
    assert!(tokio::io::AsyncReadExt::read_u8(&mut open).await.is_err(), "a call that was under way has ended");
    next.close();
}

#[tokio::test]
async fn a_command_of_another_attempt_is_refused_at_its_place_s_door() {
    let mut world = World::new().await;
    let ours = ("WINDLASS_ATTEMPT_ID".to_owned(), job().attempt.to_string());
    world.env.push(ours);
    assert_eq!(world.print(&["windlass", "env", "get", "A"]).await, "1\n");
    let other = AttemptId::from_bytes([9; 16]);
    world.env.last_mut().unwrap().1 = other.to_string();
    let (status, output, errors) = world.run(&["windlass", "env", "get", "A"]).await;
    assert_eq!((status, output.as_str()), (Some(1), ""));
    assert_eq!(errors, format!("fatal: this process is of attempt {other}, which is over\n"));
}

#[tokio::test]
async fn who_speaks_the_protocol_by_itself_gains_nothing_and_holds_nobody_up() {
    let world = World::new().await;
    let mut hostile = Vec::new();
    for bytes in [&b"\xff\xff\xff\xff"[..], b"\x01\0\0\0\x09", b"\x05\0\0\0\x01aaaa", b"\0\0\0\0", b"\x01"] {
        let mut stream = UnixStream::connect(world.socket()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        hostile.push(stream);
    }
    // One that says hello and then answers what it likes.
    let words = ["windlass", "redactor", "add", "/etc/shadow"].map(|word| word.as_bytes().to_vec());
    let hello = Hello { arguments: words.to_vec(), directory: b"/".to_vec(), ..Hello::default() };
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    stream.write_all(&hello.encode().unwrap()).await.unwrap();
    let mut frame = [0; 4 + 5 + 11];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut frame).await.unwrap();
    let op = Op::decode(&frame[LENGTH_BYTES..]).unwrap();
    assert_eq!(op, Op::OpenFile { path: b"/etc/shadow".to_vec() }, "the agent asks, and opens nothing itself");
    stream.write_all(b"\x01\0\0\0\x00").await.unwrap();
    assert_eq!(world.print(&["windlass", "env", "get", "A"]).await, "1\n");
    drop(hostile);
}

/// Speaks the protocol as a hostile job would, with what `answer` says to all but writing: the status, what was said, and how
/// often something was asked.
async fn spoken(world: &World, words: &[&[u8]], mut answer: impl FnMut(&Op) -> Answer) -> (u8, String, usize) {
    let arguments = words.iter().map(|word| word.to_vec()).collect();
    let hello = Hello { arguments, directory: b"/".to_vec(), ..Hello::default() };
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    stream.write_all(&hello.encode().unwrap()).await.unwrap();
    let (mut said, mut asked) = (Vec::new(), 0);
    loop {
        let mut length = [0; LENGTH_BYTES];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut length).await.unwrap();
        let mut frame = vec![0; windlass_hands::wire::length(length).unwrap()];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut frame).await.unwrap();
        let answer = match Op::decode(&frame).unwrap() {
            Op::Exit { status } => return (status, String::from_utf8(said).unwrap(), asked),
            Op::Write { bytes, .. } => {
                said.extend(bytes);
                Answer::Done
            }
            other => {
                asked += 1;
                answer(&other)
            }
        };
        stream.write_all(&answer.encode().unwrap()).await.unwrap();
    }
}

#[tokio::test]
async fn an_input_has_one_end_however_often_it_is_meant() {
    let world = World::new().await;
    let mut given = [b"A\n".to_vec(), b"B\n".to_vec(), Vec::new()].into_iter().cycle();
    let words: [&[u8]; 6] = [b"windlass", b"env", b"unset", b"-", b"-", b"-"];
    let ended = spoken(&world, &words, |_| Answer::Bytes(given.next().unwrap())).await;
    assert_eq!(ended, (0, "Unset:\n- A\n".to_owned(), 3));
}

#[tokio::test]
async fn a_list_of_files_holds_no_more_of_the_agent_s_memory_than_a_job_may() {
    let world = World::new().await;
    let listing = |kind: Kind, count: usize, bytes: usize| {
        let mut made = 0_usize;
        move |op: &Op| match op {
            Op::OpenDirectory { .. } => Answer::Handle(1),
            Op::Entries { .. } if made < count => {
                let entries = (made..made + 100).map(|at| (format!("{at:08}{}", "x".repeat(bytes)).into_bytes(), kind));
                made += 100;
                Answer::Entries(entries.collect())
            }
            Op::Entries { .. } => Answer::Entries(Vec::new()),
            _ => Answer::Done,
        }
    };
    let words: [&[u8]; 4] = [b"windlass", b"artifact", b"upload", b"y*"];
    // What was looked at and is not meant is forgotten: these would be more than a job may hold.
    let (status, said, _) = spoken(&world, &words, listing(Kind::File, 17_000, 4_080)).await;
    assert_eq!((status, said.as_str()), (0, "notice: No files matched paths: y*\n"));
    // Directories have to be remembered, until they are looked into.
    let words: [&[u8]; 4] = [b"windlass", b"artifact", b"upload", b"[y]/**"];
    let (status, said, _) = spoken(&world, &words, listing(Kind::Directory, 17_000, 4_080)).await;
    assert_eq!(status, 1);
    assert!(said.starts_with("fatal: this job's commands hold 67108864 bytes of their agent's memory"), "{said}");
    // What cannot be opened is not.
    let mut first = true;
    let mut once = |op: &Op| match op {
        Op::Entries { .. } if std::mem::take(&mut first) => {
            Answer::Entries(vec![(vec![b'x'; HANDS_PATH_MAX_BYTES - 3], Kind::Directory)])
        }
        Op::Entries { .. } => Answer::Entries(Vec::new()),
        Op::OpenDirectory { .. } => Answer::Handle(1),
        _ => Answer::Done,
    };
    let words: [&[u8]; 4] = [b"windlass", b"artifact", b"upload", b"/tmp/**"];
    let (status, _, asked) = spoken(&world, &words, &mut once).await;
    assert_eq!((status, asked), (0, 4));
    assert_eq!(world.print(&["windlass", "env", "get", "A"]).await, "1\n", "what was held is given back");
}

#[tokio::test]
async fn a_directory_that_a_pattern_means_by_its_name_is_told_and_others_are_not() {
    let world = World::new().await;
    let work = world.dir.path().join("checkout");
    fs::create_dir_all(work.join("log/deep")).unwrap();
    for path in ["log", "log/deep"] {
        fs::set_permissions(work.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (_, _, errors) = world.run(&["windlass", "artifact", "upload", "log/deep"]).await;
    let told = "warning: \"log/deep\" is a directory, and is not uploaded\n";
    assert_eq!(errors, format!("{told}notice: No files matched paths: log/deep\n"));
    let (_, _, errors) = world.run(&["windlass", "artifact", "upload", "log/*"]).await;
    assert_eq!(errors, "notice: No files matched paths: log/*\n");
}

#[tokio::test]
async fn what_no_coordinator_could_hear_is_refused_without_one() {
    let world = World::new().await;
    let long = "x".repeat(1_100);
    let (status, _, errors) = world.run(&["windlass", "meta-data", "set", &long, "v"]).await;
    assert_eq!((status, errors.as_str()), (Some(1), "fatal: a key has at most 1024 bytes, and this one has 1100\n"));
    let (status, _, errors) = world.run(&["windlass", "step", "get", "label", "--step", &long]).await;
    assert_eq!(status, Some(1));
    assert!(errors.starts_with("fatal: failed to get step: ") && errors.contains("at most 200 bytes"), "{errors}");
    let large: Vec<String> = (0..11).map(|at| format!("key-{at}={}", "v".repeat(100 << 10))).collect();
    let mut line = vec!["windlass", "meta-data", "set-batch"];
    line.extend(large.iter().map(String::as_str));
    let (status, _, errors) = world.run(&line).await;
    assert_eq!(status, Some(1));
    assert!(errors.ends_with("bytes together, and 786432 are the most\n"), "{errors}");
}

#[tokio::test]
async fn a_call_that_is_larger_than_a_job_may_hold_is_told_so() {
    let world = World::new().await;
    // As many words as there may be, and not one byte in them.
    let words = vec![Vec::new(); HANDS_ARGUMENTS_MAX];
    let hello = Hello { arguments: words.clone(), environment: words, directory: b"/".to_vec(), ..Hello::default() };
    let mut streams = Vec::new();
    let mut told = 0;
    for _ in 0..6 {
        let mut stream = UnixStream::connect(world.socket()).await.unwrap();
        stream.write_all(&hello.encode().unwrap()).await.unwrap();
        streams.push(stream);
    }
    for mut stream in streams {
        let mut frame = [0; 64];
        let count = tokio::io::AsyncReadExt::read(&mut stream, &mut frame).await.unwrap();
        told += usize::from(String::from_utf8_lossy(&frame[..count]).contains("this job's commands hold"));
    }
    assert!((1..6).contains(&told), "{told}");
}
