//! What a workspace is made of, and what is left of it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::process::{getegid, geteuid};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Who runs the test: anybody may give files to himself.
fn me() -> User {
    User { uid: geteuid().as_raw(), gid: getegid().as_raw() }
}

#[test]
fn a_workspace_lets_nobody_else_in_and_is_not_made_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::at(dir.path().join("attempt"));
    workspace.create(Some(me()), &Source::Empty).unwrap();
    for path in [&workspace.root, &workspace.checkout, &workspace.home] {
        assert_eq!((mode(path), fs::metadata(path).unwrap().uid()), (0o700, me().uid), "{path:?}");
    }
    let again = workspace.create(None, &Source::Empty).unwrap_err();
    assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists, "what is there may be another job's");
}

#[test]
fn root_gives_a_checkout_away_when_git_is_done_with_it_and_nothing_that_a_link_in_it_leads_to() {
    if !geteuid().is_root() {
        // Nobody else can give files away at all.
        return;
    }
    let user = User { uid: 64_123, gid: 64_124 };
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::at(dir.path().join("attempt"));
    let source = Source::Git { repository: "r".to_owned(), commit: "c".to_owned(), branch: String::new() };
    workspace.create(Some(user), &source).unwrap();
    let owner = |path: &Path| fs::symlink_metadata(path).map(|it| (it.uid(), it.gid())).unwrap();
    assert_eq!((owner(&workspace.home), owner(&workspace.checkout)), ((64_123, 64_124), (0, 0)));
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "").unwrap();
    fs::create_dir_all(workspace.checkout.join("a/b")).unwrap();
    symlink(&outside, workspace.checkout.join("a/b/out")).unwrap();
    own(&workspace.checkout, Some(user)).unwrap();
    for path in ["", "a", "a/b", "a/b/out"] {
        assert_eq!(owner(&workspace.checkout.join(path)), (64_123, 64_124), "{path}");
    }
    assert_eq!((owner(&outside), owner(&outside.join("file"))), ((0, 0), (0, 0)));
}

#[tokio::test]
async fn whatever_a_job_did_to_its_files_they_are_wiped_and_what_they_led_to_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::at(dir.path().join("attempt"));
    workspace.create(None, &Source::Empty).unwrap();
    let outside = dir.path().join("outside");
    fs::write(&outside, "kept").unwrap();
    symlink(&outside, workspace.checkout.join("link")).unwrap();
    let closed = workspace.checkout.join("closed");
    fs::create_dir_all(closed.join("deeper")).unwrap();
    fs::write(closed.join("deeper/file"), "x").unwrap();
    for path in [closed.join("deeper"), closed, workspace.home.clone()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    }
    wipe(workspace.root.clone()).await;
    assert!(!workspace.root.exists());
    assert_eq!(fs::read_to_string(outside).unwrap(), "kept");
    // Wiping what is not there is no trouble: it may be tried again.
    wipe(workspace.root).await;
}

#[test]
fn a_workspace_without_a_file_goes_by_itself_and_not_what_a_link_in_its_place_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::at(dir.path().join("attempt"));
    workspace.create(None, &Source::Empty).unwrap();
    remove_empty(&workspace.root).unwrap();
    assert!(!workspace.root.exists());
    workspace.create(None, &Source::Empty).unwrap();
    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    for place in [&workspace.checkout, &workspace.home] {
        fs::remove_dir(place).unwrap();
        symlink(&outside, place).unwrap();
    }
    remove_empty(&workspace.root).unwrap_err();
    wipe_now(&workspace.root);
    assert!(!workspace.root.exists() && outside.exists());
}

#[test]
fn a_full_disk_is_told_as_what_it_is() {
    use std::io::{Error, ErrorKind};
    let kind = |error: ErrorKind| io_cause(&Error::from(error), Path::new("/w")).kind;
    assert_eq!(kind(ErrorKind::StorageFull), CauseKind::DiskFull);
    assert_eq!(kind(ErrorKind::QuotaExceeded), CauseKind::DiskFull);
    assert_eq!(kind(ErrorKind::PermissionDenied), CauseKind::Internal);
    let full = Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
    assert_eq!(io_cause(&full, Path::new("/w")).kind, CauseKind::DiskFull);
}
