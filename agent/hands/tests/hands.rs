//! The program with a stand-in for its agent, and a short run of the fuzz entries.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use windlass_hands::PROGRAM;
use windlass_hands::fuzz::ENTRIES;
use windlass_hands::plan::{BOOTSTRAP, Files, Plan};
use windlass_hands::wire::{self, Answer, Bad, Hello, Kind, LENGTH_BYTES, NewFile, Op, Seen, Stamp, Stream, VERSION};
use windlass_protocol::fuzz::Mutator;

struct World {
    dir: tempfile::TempDir,
    program: PathBuf,
    listener: UnixListener,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("windlass");
        fs::write(&program, PROGRAM).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let listener = UnixListener::bind(dir.path().join("job.sock")).unwrap();
        Self { program, listener, dir }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().env("WINDLASS_JOB_SOCKET", self.dir.path().join("job.sock"));
        command.current_dir(self.dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn accept(&self) -> Agent {
        let mut agent = Agent { stream: self.listener.accept().unwrap().0, hello: Hello::default() };
        agent.hello = Hello::decode(&agent.receive()).unwrap();
        agent
    }
}

struct Agent {
    stream: UnixStream,
    hello: Hello,
}

impl Agent {
    fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; wire::length(length).unwrap()];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn ask(&mut self, op: &Op) -> Answer {
        self.stream.write_all(&op.encode().unwrap()).unwrap();
        Answer::decode(&self.receive()).unwrap()
    }

    fn exit(&mut self, status: u8) {
        self.stream.write_all(&Op::Exit { status }.encode().unwrap()).unwrap();
    }
}

/// A git that says by its first call that the job is to end, and would take a minute for its next.
const HALTING_GIT: &str = "#!/bin/sh\necho \"$*\" >>calls\ncase \"$*\" in\n*checkout*) trap '' TERM; kill -TERM $PPID;;\n\
                           *clean*) sleep 60; exit 1;;\nesac\n";

#[test]
fn a_signal_between_two_children_of_a_phase_ends_the_next_one_at_once() {
    let world = World::new();
    let (bin, checkout) = (world.dir.path().join("bin"), world.dir.path().join("checkout"));
    fs::create_dir(&bin).unwrap();
    fs::create_dir_all(checkout.join(".git")).unwrap();
    let git = bin.join("git");
    fs::write(&git, HALTING_GIT).unwrap();
    let bootstrap = world.dir.path().join(BOOTSTRAP);
    fs::write(&bootstrap, PROGRAM).unwrap();
    for program in [&git, &bootstrap] {
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let plan = Plan {
        checkout: path(&checkout),
        files: Files::Fetched(b"HEAD".to_vec()),
        command: b"touch ran".to_vec(),
        ..Plan::default()
    };
    let file = world.dir.path().join("plan");
    fs::write(&file, plan.encode().unwrap()).unwrap();
    let began = Instant::now();
    let mut command = Command::new(&bootstrap);
    command.arg(&file).env_clear().env("WINDLASS_JOB_SOCKET", world.dir.path().join("job.sock"));
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())).current_dir(world.dir.path());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It says that its checkout failed.
    let mut agent = world.accept();
    assert_eq!(agent.hello.arguments[1..3], [b"failed".to_vec(), b"checkout".to_vec()]);
    agent.exit(0);
    let (_, said, _) = output(child);
    assert!(began.elapsed() < Duration::from_secs(30), "the next one ran on: {said}");
    let calls = fs::read_to_string(checkout.join("calls")).unwrap();
    assert!(calls.contains("checkout --detach"), "{calls}");
    assert!(!checkout.join("ran").exists(), "and no command began");
}

fn path(path: &Path) -> Vec<u8> {
    path.to_str().unwrap().as_bytes().to_vec()
}

fn output(child: Child) -> (Option<i32>, String, String) {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_says_how_it_was_called_and_ends_as_it_is_told() {
    let world = World::new();
    let child = world.command(&["env", "get", "\u{e9} x"]).env("A", "b=c").spawn().unwrap();
    let mut agent = world.accept();
    let words: Vec<_> = agent.hello.arguments.iter().map(|word| String::from_utf8_lossy(word)).collect();
    assert_eq!(words[1..], ["env", "get", "\u{e9} x"]);
    assert_eq!(agent.hello.directory, path(&world.dir.path().canonicalize().unwrap()));
    assert!(agent.hello.environment.contains(&b"A=b=c".to_vec()));
    assert_eq!(agent.hello.streams, 0, "nothing is a terminal, and the input is a device");
    let write = |to, text: &str| Op::Write { to, bytes: text.as_bytes().to_vec() };
    assert_eq!(agent.ask(&write(Stream::Output, "to the output\n")), Answer::Done);
    assert_eq!(agent.ask(&write(Stream::Errors, "to the errors\n")), Answer::Done);
    agent.exit(100);
    assert_eq!(output(child), (Some(100), "to the output\n".into(), "to the errors\n".into()));
}

#[test]
fn it_reads_and_writes_what_it_is_told_to() {
    let world = World::new();
    let mut child = world.command(&["x"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut agent = world.accept();
    child.stdin.take().unwrap().write_all(b"given").unwrap();
    assert_eq!(agent.hello.streams, 8, "the input is a pipe");
    assert_eq!(agent.ask(&Op::ReadInput), Answer::Bytes(b"given".to_vec()));
    assert_eq!(agent.ask(&Op::ReadInput), Answer::Bytes(Vec::new()));

    let (folder, file) = (world.dir.path().join("a/b"), world.dir.path().join("a/b/file"));
    assert_eq!(agent.ask(&Op::MakeDirectories { path: b"a/b".to_vec() }), Answer::Done, "against its own directory");
    let Answer::Handle(handle) = agent.ask(&Op::Create { path: b"a/b/new".to_vec(), mode: 0o640 }) else { panic!() };
    assert_eq!(agent.ask(&Op::Put { handle, bytes: b"one".to_vec() }), Answer::Done);
    assert_eq!(agent.ask(&Op::Put { handle, bytes: b" two".to_vec() }), Answer::Done);
    assert_eq!(agent.ask(&Op::Close { handle }), Answer::Done);
    assert_eq!(agent.ask(&Op::Put { handle, bytes: Vec::new() }), Answer::Failed(0), "it is closed");
    assert_eq!(agent.ask(&Op::Rename { from: path(&folder.join("new")), to: path(&file) }), Answer::Done);
    assert_eq!(fs::read(&file).unwrap(), b"one two");

    let found = agent.ask(&Op::Stat { path: path(&file), follow: true });
    let Answer::Found(found) = found else { panic!() };
    assert!(matches!(found, Seen { kind: Kind::File, bytes: 7, mode: 0o640, changed: 1.., .. }), "{found:?}");
    std::os::unix::fs::symlink(&folder, folder.join("link")).unwrap();
    let link = |follow| Op::Stat { path: path(&folder.join("link")), follow };
    assert!(matches!(agent.ask(&link(false)), Answer::Found(Seen { kind: Kind::Link, .. })));
    assert!(matches!(agent.ask(&link(true)), Answer::Found(Seen { kind: Kind::Directory, .. })));

    let Answer::Handle(handle) = agent.ask(&Op::OpenDirectory { path: path(&folder) }) else { panic!() };
    let Answer::Entries(mut entries) = agent.ask(&Op::Entries { handle }) else { panic!() };
    entries.sort();
    assert_eq!(entries, [(b"file".to_vec(), Kind::File), (b"link".to_vec(), Kind::Link)]);
    assert_eq!(agent.ask(&Op::Entries { handle }), Answer::Entries(Vec::new()));

    let Answer::Handle(handle) = agent.ask(&Op::OpenFile { path: path(&file) }) else { panic!() };
    assert_eq!(agent.ask(&Op::Read { handle }), Answer::Bytes(b"one two".to_vec()));
    assert_eq!(agent.ask(&Op::Read { handle }), Answer::Bytes(Vec::new()));
    assert_eq!(agent.ask(&Op::OpenFile { path: b"nowhere".to_vec() }), Answer::Failed(2));
    assert_eq!(agent.ask(&Op::Remove { path: path(&file) }), Answer::Done);
    assert!(!file.exists());
    agent.exit(0);
    assert_eq!(output(child).0, Some(0));
}

#[test]
fn it_runs_programs_as_the_job_would_and_says_how_they_ended() {
    let world = World::new();
    let child = world.command(&["x"]).env("PATH", "/usr/bin:/bin").env("A", "its own").spawn().unwrap();
    let mut agent = world.accept();
    let run = |script: &str| Op::Run {
        directory: path(world.dir.path()),
        arguments: ["sh", "-c", script].map(|word| word.as_bytes().to_vec()).to_vec(),
    };
    let Answer::Handle(handle) = agent.ask(&run("echo \"$A in $PWD\"; echo dropped >&2; cat; exit 3")) else {
        panic!()
    };
    let here = world.dir.path().canonicalize().unwrap();
    assert_eq!(agent.ask(&Op::Read { handle }), Answer::Bytes(format!("its own in {}\n", here.display()).into_bytes()));
    assert_eq!(agent.ask(&Op::Read { handle }), Answer::Bytes(Vec::new()), "its input was empty");
    assert_eq!(agent.ask(&Op::Wait { handle }), Answer::Ended(3));
    assert_eq!(agent.ask(&Op::Wait { handle }), Answer::Failed(0), "it is over");
    let Answer::Handle(handle) = agent.ask(&run("kill -9 $$")) else { panic!() };
    assert_eq!(agent.ask(&Op::Wait { handle }), Answer::Ended(137));
    let Answer::Handle(handle) = agent.ask(&run("exec sleep 600")) else { panic!() };
    assert_eq!(agent.ask(&Op::Close { handle }), Answer::Done, "one that is not wanted any more is ended");
    let nothing = Op::Run { directory: path(world.dir.path()), arguments: vec![b"no-such-program".to_vec()] };
    assert_eq!(agent.ask(&nothing), Answer::Failed(2));
    agent.exit(0);
    assert_eq!(output(child), (Some(0), String::new(), String::new()));
}

#[test]
fn a_call_that_touched_nothing_begins_anew_with_an_agent_that_started_again() {
    let world = World::new();
    let child = world.command(&["meta-data", "get", "a"]).spawn().unwrap();
    let first = world.accept();
    let call = first.hello.call;
    drop(first);
    let mut second = world.accept();
    assert_eq!(second.hello.call, call, "it is the same call");
    second.exit(0);
    assert_eq!(output(child).0, Some(0));

    let child = world.command(&["meta-data", "get", "a"]).spawn().unwrap();
    let mut third = world.accept();
    assert_ne!(third.hello.call, call, "it is another call");
    assert_eq!(third.ask(&Op::ReadInput), Answer::Bytes(Vec::new()));
    drop(third);
    let (status, _, errors) = output(child);
    assert_eq!(status, Some(1), "its input is gone");
    assert!(errors.contains("the agent cannot be reached"), "{errors}");
}

#[test]
fn outside_of_a_job_it_says_so() {
    let world = World::new();
    let child = world.command(&["env"]).env_remove("WINDLASS_JOB_SOCKET").spawn().unwrap();
    let (status, _, errors) = output(child);
    assert_eq!(status, Some(1));
    assert!(errors.contains("WINDLASS_JOB_SOCKET"), "{errors}");
}

#[test]
fn a_socket_whose_path_is_too_long_for_an_address_is_reached() {
    let world = World::new();
    let long = world.dir.path().join("x".repeat(120));
    fs::create_dir(&long).unwrap();
    fs::rename(world.dir.path().join("job.sock"), long.join("job.sock")).unwrap();
    let child = world.command(&["env"]).env("WINDLASS_JOB_SOCKET", long.join("job.sock")).spawn().unwrap();
    world.accept().exit(7);
    assert_eq!(output(child).0, Some(7));
}

#[test]
fn the_program_is_small_and_static() {
    assert!(PROGRAM.len() < 1_500_000, "{} bytes", PROGRAM.len());
    assert!(PROGRAM.starts_with(b"\x7fELF"));
    // The table of program headers of a 64-bit file, and the kind of each; 3 asks for a loader.
    let number = |at: usize, bytes: usize| {
        PROGRAM[at..at + bytes].iter().rev().fold(0, |all, byte| all << 8 | usize::from(*byte))
    };
    let (table, each, count) = (number(32, 8), number(54, 2), number(56, 2));
    assert!(count > 0 && (0..count).all(|index| number(table + index * each, 4) != 3), "it asks for a dynamic loader");
}

fn good() -> Vec<Vec<u8>> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    let hello = Hello {
        call: [7; 16],
        streams: 13,
        arguments: vec![bytes("windlass"), bytes("env"), bytes("get")],
        directory: bytes("/a/b"),
        environment: vec![bytes("A=b"), bytes("PATH=/bin")],
    };
    let ops = [
        Op::Exit { status: 3 },
        Op::Write { to: Stream::Errors, bytes: bytes("text") },
        Op::ReadInput,
        Op::Stat { path: bytes("p"), follow: true },
        Op::OpenDirectory { path: bytes("p") },
        Op::Entries { handle: 1 },
        Op::OpenFile { path: bytes("p") },
        Op::Read { handle: 2 },
        Op::Create { path: bytes("p"), mode: 0o644 },
        Op::Put { handle: 3, bytes: bytes("text") },
        Op::Close { handle: 4 },
        Op::MakeDirectories { path: bytes("p/q") },
        Op::Rename { from: bytes("p"), to: bytes("q") },
        Op::Remove { path: bytes("p") },
        Op::Run { directory: bytes("/a"), arguments: vec![bytes("git"), bytes("diff")] },
        Op::Wait { handle: 6 },
        Op::ReadLink { path: bytes("p") },
        Op::MakeLink { path: bytes("p"), target: bytes("q") },
        Op::SetAttributes { path: bytes("p"), mode: 0o600, changed: -7 },
        Op::Skip { handle: 7, bytes: 9 },
        Op::Stage { path: bytes("p") },
        Op::Settle { from: bytes("p"), to: bytes("q") },
        Op::Look { handle: 8 },
        Op::Lay { files: vec![NewFile { path: bytes("p"), mode: 0o644, changed: 1, bytes: bytes("text") }] },
    ];
    let stamp = Stamp { touched: -4, inode: 5, device: 6 };
    let seen = Seen { kind: Kind::Link, bytes: 9, mode: 0o777, changed: -3, stamp };
    let answers = [
        Answer::Done,
        Answer::Bytes(bytes("text")),
        Answer::Found(seen),
        Answer::Looked(vec![(bytes("a"), seen), (bytes("b"), seen)]),
        Answer::Laid { at: 5, stamps: vec![seen.stamp; 2] },
        Answer::Handle(5),
        Answer::Entries(vec![(bytes("a"), Kind::File), (bytes("b"), Kind::Directory)]),
        Answer::Failed(2),
        Answer::Ended(128),
    ];
    let mut all = vec![hello.encode().unwrap()];
    all.extend(ops.iter().map(|op| op.encode().unwrap()));
    all.extend(answers.iter().map(|answer| answer.encode().unwrap()));
    all.iter().map(|frame| frame[LENGTH_BYTES..].to_vec()).collect()
}

#[test]
fn what_is_laid_out_takes_its_place_whole_or_goes_with_the_program() {
    let world = World::new();
    let child = world.command(&["x"]).spawn().unwrap();
    let mut agent = world.accept();
    let at = |name: &str| world.dir.path().join(name);
    let bytes = |text: &str| text.as_bytes().to_vec();
    fs::create_dir(at("cache")).unwrap();
    fs::write(at("cache/old"), "old").unwrap();
    for name in [".one", ".two"] {
        assert_eq!(agent.ask(&Op::Stage { path: bytes(name) }), Answer::Done);
        assert_eq!(agent.ask(&Op::MakeDirectories { path: bytes(name) }), Answer::Done);
        let path = bytes(&format!("{name}/new"));
        let Answer::Handle(handle) = agent.ask(&Op::Create { path: path.clone(), mode: 0o600 }) else { panic!() };
        assert_eq!(agent.ask(&Op::Put { handle, bytes: bytes("a") }), Answer::Done);
        assert_eq!(agent.ask(&Op::Skip { handle, bytes: 1 << 20 }), Answer::Done);
        assert_eq!(agent.ask(&Op::Close { handle }), Answer::Done);
        let link = Op::MakeLink { path: bytes(&format!("{name}/link")), target: b"\xff/..".to_vec() };
        assert_eq!(agent.ask(&link), Answer::Done);
        assert_eq!(agent.ask(&Op::SetAttributes { path, mode: 0o751, changed: -1_500_000_000 }), Answer::Done);
        let read_only = Op::SetAttributes { path: bytes(name), mode: 0o555, changed: 1 };
        assert_eq!(agent.ask(&read_only), Answer::Done);
    }
    assert_eq!(agent.ask(&Op::ReadLink { path: bytes(".one/link") }), Answer::Bytes(b"\xff/..".to_vec()));
    let other = Op::Settle { from: bytes("cache"), to: bytes("elsewhere") };
    assert_eq!(agent.ask(&other), Answer::Failed(0), "it was not laid out by this program");
    let nowhere = Op::Settle { from: bytes(".one"), to: bytes("no/folder") };
    assert_eq!(agent.ask(&nowhere), Answer::Failed(2));
    assert_eq!(fs::read_to_string(at("cache/old")).unwrap(), "old");
    // Only what is moved twice is ever moved aside, and there is nothing in the place meanwhile.
    fs::write(at(".one.old"), "").unwrap();
    assert_eq!(agent.ask(&Op::Settle { from: bytes(".one"), to: bytes("cache") }), Answer::Done);
    assert!(at(".one.old").exists() && !at(".one").exists(), "they change places at once");
    let Answer::Found(found) = agent.ask(&Op::Stat { path: bytes("cache/new"), follow: false }) else { panic!() };
    let told = (found.kind, found.bytes, found.mode, found.changed);
    assert_eq!(told, (Kind::File, 1 + (1 << 20), 0o751, -1_500_000_000));
    let disk = std::os::unix::fs::MetadataExt::blocks(&at("cache/new").metadata().unwrap()) * 512;
    assert!(disk < 1 << 20, "a hole takes no room: {disk}");
    assert!(!at("cache/old").exists());
    // The agent dies.
    drop(agent);
    output(child);
    assert!(at("cache/new").exists() && !at(".two").exists(), "what was not finished is gone");
}

#[test]
fn many_files_are_laid_out_at_once_and_looked_at_at_once() {
    let world = World::new();
    let child = world.command(&["x"]).spawn().unwrap();
    let mut agent = world.accept();
    let bytes = |text: &str| text.as_bytes().to_vec();
    let file = |name: &str, mode| NewFile { path: bytes(name), mode, changed: 1_500_000_000, bytes: bytes(name) };
    assert_eq!(agent.ask(&Op::MakeDirectories { path: bytes("d/e") }), Answer::Done);
    let files = vec![file("d/a", 0o666), file("d/b", 0o401)];
    let Answer::Laid { at, stamps } = agent.ask(&Op::Lay { files: files.clone() }) else { panic!() };
    assert!(
        stamps.iter().all(|stamp| stamp.touched <= at && stamp.touched > at - 10_000_000_000),
        "{stamps:?} at {at}"
    );
    assert_eq!(agent.ask(&Op::Lay { files }), Answer::Failed(17), "nothing is written over");
    let Answer::Handle(handle) = agent.ask(&Op::OpenDirectory { path: bytes("d") }) else { panic!() };
    let Answer::Looked(mut looked) = agent.ask(&Op::Look { handle }) else { panic!() };
    assert_eq!(agent.ask(&Op::Look { handle }), Answer::Looked(Vec::new()));
    looked.sort_by(|a, b| a.0.cmp(&b.0));
    let told: Vec<_> = looked.iter().map(|(name, seen)| (name.as_slice(), seen.kind, seen.mode & 0o777)).collect();
    assert_eq!(told[..2], [(&b"a"[..], Kind::File, 0o666), (&b"b"[..], Kind::File, 0o401)]);
    assert_eq!((told[2].0, told[2].1), (&b"e"[..], Kind::Directory));
    assert_eq!(looked.iter().take(2).map(|(_, seen)| seen.stamp).collect::<Vec<_>>(), stamps);
    assert_eq!((looked[0].1.bytes, looked[0].1.changed), (3, 1_500_000_000));
    agent.exit(0);
    assert_eq!(output(child).0, Some(0));
}

#[test]
fn no_bytes_make_a_decoder_panic_and_every_message_has_one_form() {
    let seeds = good();
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(100_000, |text| text.parse::<u64>().unwrap());
    for (name, entry) in ENTRIES {
        assert!(seeds.iter().any(|seed| entry(seed)), "{name} decodes one of the seeds");
        let mut mutator = Mutator::new(1);
        let mut decoded = 0;
        for _ in 0..rounds {
            let (one, other) = (mutator.below(seeds.len()), mutator.below(seeds.len()));
            decoded += u64::from(entry(&mutator.mutate(&seeds[one], &seeds[other])));
        }
        assert!(decoded > 0 && decoded < rounds, "{name} decoded {decoded} of {rounds}");
    }
}

#[test]
fn what_is_too_much_or_of_another_version_is_refused() {
    assert_eq!(wire::length(u32::MAX.to_le_bytes()), Err(Bad::TooLong));
    let mut hello = good().swap_remove(0);
    hello[0] = VERSION + 1;
    assert_eq!(Hello::decode(&hello), Err(Bad::Version(VERSION + 1)));
    // A count that promises more than the frame can hold makes no room for it.
    assert_eq!(Answer::decode(&[4, 0, 4, 0, 0]), Err(Bad::Short));
    assert_eq!(Answer::decode(&[4, 255, 255, 255, 255]), Err(Bad::Limit));
    let up = Answer::Entries(vec![(b"..".to_vec(), Kind::Directory)]).encode().unwrap();
    assert_eq!(Answer::decode(&up[LENGTH_BYTES..]), Err(Bad::Unknown), "no name leads out of its directory");
}
