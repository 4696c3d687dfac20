//! Where a download goes, and by which path a build knows a file (reference 20.2, 20.4).

/// A path without `.`, `..` and doubled slashes, as its words say it: links are not looked at. `directory` is where it begins
/// if it is no whole path.
#[must_use]
pub fn absolute(path: &str, directory: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    format!("/{}", parts(&whole).join("/"))
}

/// The path below a directory, given whole, at which an artifact of this path is put: below it always. Where the directory's
/// name is what the artifact's path begins with, it is not doubled.
#[must_use]
pub fn target(destination: &str, path: &str) -> String {
    let (mut below, path) = (parts(destination), parts(path));
    if path.len() > 1 && below.last() == path.first() {
        below.pop();
    }
    below.extend(path);
    format!("/{}", below.join("/"))
}

/// A file's path in the build: relative to the working directory, or where it lies outside, whole without the first `/`.
/// No `.` and no `..` remain.
#[must_use]
pub fn path_in_build(path: &str, directory: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{directory}/{path}") };
    let (whole, directory) = (parts(&whole), parts(directory));
    whole.strip_prefix(directory.as_slice()).unwrap_or(&whole).join("/")
}

fn parts(path: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn downloads_go_where_the_reference_says() {
        for (destination, path, expected) in [
            ("/b", "a.txt", "/b/a.txt"),
            ("/b", "log/a.txt", "/b/log/a.txt"),
            ("/foo/app", "app/logs/a", "/foo/app/logs/a"),
            ("/foo/app", "logs/app/a", "/foo/app/logs/app/a"),
            ("/foo/app", "apple/a", "/foo/app/apple/a"),
            ("/pkg", "pkg/foo.txt", "/pkg/foo.txt"),
            // A file of the directory's name is put in it, not over it.
            ("/foo/app", "app", "/foo/app/app"),
            ("/", "a/b", "/a/b"),
            // No path leads out, whatever a coordinator says.
            ("/b/c", "../../x", "/b/c/x"),
            ("/b/c", "/etc/passwd", "/b/c/etc/passwd"),
            ("/b/c", "a/../../../x", "/b/c/x"),
            ("/b/c", "./a//b", "/b/c/a/b"),
        ] {
            assert_eq!(target(destination, path), expected, "{path} into {destination}");
        }
    }

    #[test]
    fn a_directory_is_meant_from_where_the_command_runs() {
        for (path, expected) in [
            (".", "/b/here"),
            ("", "/b/here"),
            ("x/", "/b/here/x"),
            ("../y", "/b/y"),
            ("/tmp//z/.", "/tmp/z"),
            ("../../..", "/"),
        ] {
            assert_eq!(absolute(path, "/b/here"), expected, "{path}");
        }
    }

    #[test]
    fn a_file_s_path_in_the_build_is_relative_or_whole_and_leads_nowhere() {
        let of = |path| path_in_build(path, "/b/here");
        assert_eq!(of("log/a.txt"), "log/a.txt");
        assert_eq!(of("./log//a.txt"), "log/a.txt");
        assert_eq!(of("/b/here/log/a.txt"), "log/a.txt");
        assert_eq!(of("../other/a.txt"), "b/other/a.txt");
        assert_eq!(of("log/../../../../a"), "a");
        assert_eq!(of("/tmp/a"), "tmp/a");
        assert_eq!(of("/b/hereafter/a"), "b/hereafter/a", "not below a directory of a longer name");
    }
}
