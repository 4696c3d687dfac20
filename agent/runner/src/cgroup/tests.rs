//! Which files are written for which limits, on hierarchies of plain files; and what the kernel does, where it lets us.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

const ATTEMPT: AttemptId = AttemptId::from_bytes([0xc6; 16]);

const LIMITS: Limits = Limits { memory_bytes: 64 << 20, cpu_millis: 1_500 };

/// A hierarchy of plain files, whose kernel has given our directory's children these controllers.
fn unified(available: &str, given: &str) -> (tempfile::TempDir, Cgroups) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    fs::create_dir_all(dir.path().join("agent.service/windlass")).unwrap();
    write("agent.service/cgroup.controllers", available);
    write("agent.service/cgroup.subtree_control", given);
    write("agent.service/windlass/cgroup.subtree_control", given);
    let mounts = format!("proc /proc proc rw 0 0\ncgroup2 {} cgroup2 rw,nosuid 0 0\n", dir.path().display());
    let cgroups = Cgroups::of(&mounts, "0::/agent.service\n");
    (dir, cgroups)
}

fn read(dir: &Path, name: &str) -> Option<String> {
    fs::read_to_string(dir.join(name)).ok()
}

#[test]
fn a_pure_v2_machine_limits_memory_processes_and_weight_by_the_unified_files() {
    let (_dir, cgroups) = unified("cpuset cpu io memory pids", "cpu memory pids");
    assert!(cgroups.limits_memory());
    assert_eq!(cgroups.to_string(), "v2 (cpu memory pids)");
    let job = cgroups.create(ATTEMPT, &LIMITS).unwrap();
    let dirs = job.dirs();
    let [group] = dirs.as_slice() else { panic!("{dirs:?}") };
    assert!(group.ends_with(format!("agent.service/windlass/{ATTEMPT}")), "{group:?}");
    assert_eq!(read(group, "memory.max"), Some((64 << 20).to_string()));
    assert_eq!(read(group, "pids.max"), Some(JOB_PROCESSES_MAX.to_string()));
    assert_eq!(read(group, "cpu.weight"), Some("150".to_owned()));
    assert!(job.counts_processes && job.birth().is_some() && job.tasks().unwrap().is_empty());
    fs::write(group.join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
    fs::write(group.join("memory.peak"), "4096\n").unwrap();
    assert_eq!((job.oom_kills(), job.peak_memory_bytes()), (2, Some(4_096)));
}

#[test]
fn where_there_is_swap_a_v2_job_gets_none() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("memory.swap.max"), "max").unwrap();
    limit_memory_v2(dir.path(), 4_096).unwrap();
    assert_eq!(read(dir.path(), "memory.swap.max"), Some("0".to_owned()));
    limit_memory_v2(dir.path(), 0).unwrap();
    assert_eq!(read(dir.path(), "memory.max"), Some("4096".to_owned()), "no limit is no write");
}

#[test]
fn controllers_that_the_kernel_does_not_give_are_asked_for_and_not_written_to() {
    // Plain files keep what was written last, and so show that it was asked, and give nothing.
    let (dir, cgroups) = unified("cpu memory pids", "");
    assert!(!cgroups.limits_memory());
    for asked in ["agent.service/cgroup.subtree_control", "agent.service/windlass/cgroup.subtree_control"] {
        assert_eq!(read(dir.path(), asked), Some("+pids".to_owned()), "the last of them");
    }
    let job = cgroups.create(ATTEMPT, &LIMITS).unwrap();
    assert!(!job.counts_processes);
    for group in job.dirs() {
        assert_eq!(fs::read_dir(group).unwrap().count(), 0);
    }
}

#[test]
fn on_a_hybrid_machine_v1_limits_what_v2_does_not() {
    let (dir, _) = unified("pids", "pids");
    let memory = dir.path().join("memory");
    fs::create_dir_all(memory.join("box")).unwrap();
    let root = dir.path().display();
    let mounts = format!(
        "cgroup2 {root} cgroup2 rw 0 0\ncgroup {root}/memory cgroup rw,memory 0 0\ncgroup {root}/pids cgroup rw,pids 0 0\n"
    );
    let cgroups = Cgroups::of(&mounts, "4:memory:/box\n3:pids:/\n0::/agent.service\n");
    assert_eq!(cgroups.to_string(), "hybrid (v1: memory; v2 kills)", "the mount of pids is not there");
    let mut job = cgroups.create(ATTEMPT, &LIMITS).unwrap();
    let group = memory.join("box/windlass").join(ATTEMPT.to_string());
    assert_eq!(read(&group, "memory.limit_in_bytes"), Some((64 << 20).to_string()));
    assert_eq!(job.dirs().len(), 2);
    // Files keep a directory of a plain file system; a group's do not.
    assert!(!job.remove_now());
    assert_eq!(cgroups.left_by(ATTEMPT).dirs(), job.dirs(), "found again by the attempt's name alone");
    assert!(cgroups.left_by(AttemptId::from_bytes([1; 16])).dirs().is_empty());
}

#[test]
fn a_machine_without_groups_has_none_and_says_so() {
    let cgroups = Cgroups::of("proc /proc proc rw 0 0\n", "0::/\n");
    assert_eq!(cgroups, Cgroups::default());
    assert!(cgroups.to_string().starts_with("none"));
    let mut job = cgroups.create(ATTEMPT, &LIMITS).unwrap();
    assert!(job.dirs().is_empty() && job.remove_now());
}

/// The kernel's unified hierarchy alone, as a machine without v1 would show it; `None` where we may not use it.
fn real() -> Option<Cgroups> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    Some(Cgroups::of(line, &own)).filter(|cgroups| cgroups.unified.is_some())
}

/// As `tests/skips.txt` asks for.
fn skip(why: &str) {
    let line = format!("cgroup-v2: {why}\n");
    io::stderr().write_all(format!("skipped: {line}").as_bytes()).unwrap();
    if let Some(path) = std::env::var_os("WINDLASS_SKIPS") {
        fs::OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(line.as_bytes()).unwrap();
    }
}

fn until(what: &str, mut good: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !good() {
        assert!(Instant::now() < end, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A shell that waits for a line, then starts `sleep` in a session of its own and another one.
fn family() -> Child {
    let script = "read go; setsid sleep 600 & sleep 600";
    Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn the_kernel_kills_all_of_a_v2_group_at_once_and_it_can_be_removed() {
    let Some(cgroups) = real() else { return skip("no unified hierarchy is writable here") };
    let attempt = AttemptId::from_bytes([0xc7; 16]);
    let mut job = cgroups.create(attempt, &Limits::default()).unwrap();
    let group = job.dirs().remove(0);
    let mut child = family();
    fs::write(group.join("cgroup.procs"), child.id().to_string()).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    until("three processes", || job.processes().len() == 3);
    assert!(!job.remove_now(), "a group with processes stays");
    assert_eq!(cgroups.left_by(attempt).dirs(), std::slice::from_ref(&group));
    // By what an agent that starts again has: paths on disk.
    JobCgroup::from_dirs(std::slice::from_ref(&group)).kill();
    until("the end of the first", || child.try_wait().unwrap().is_some());
    until("the end of all", || job.processes().is_empty());
    until("the group's removal", || job.remove_now());
    assert!(!group.exists());
}
