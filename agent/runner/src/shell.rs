//! The shell that runs a command, and the commands that do not need one.
//!
//! A command is one script for `/bin/bash -e -c` (reference 18.6). Starting that shell costs twice what starting the
//! program does, and for a single plain program the shell does nothing but replace itself by it. Such a command is
//! started without the shell, as make does: the program sees exactly what it would have seen. Whatever might mean more
//! to a shell than words between spaces goes to the shell, and so does a program that cannot be started, so that
//! errors are the shell's own.

use std::path::Path;

const BASH: &str = "/bin/bash";

/// The shell that runs a command: absolute path of the program, then its arguments.
#[must_use]
pub fn shell(command: &str) -> Vec<String> {
    let shell = if Path::new(BASH).exists() { BASH } else { "/bin/sh" };
    [shell, "-e", "-c", command].map(str::to_owned).to_vec()
}

/// A plain program with its arguments, if the shell's `argv` with this environment would do nothing but become it.
pub(crate) fn plain(argv: &[String], env: &[(String, String)]) -> Option<Vec<String>> {
    let [shell, flag, script, command] = argv else { return None };
    if (shell.as_str(), flag.as_str(), script.as_str()) != (BASH, "-e", "-c") || !env.iter().all(passes) {
        return None;
    }
    let words: Vec<String> = command.trim_matches([' ', '\t', '\n']).split(' ').map(str::to_owned).collect();
    let (program, arguments) = words.split_first()?;
    // A name with a slash is neither builtin, keyword, alias nor looked for in PATH; with `=` it may be an assignment.
    let is_program = program.contains('/') && program.bytes().all(is_plain) && !program.contains('=');
    let are_words =
        arguments.iter().all(|word| !word.is_empty() && word.bytes().all(|byte| is_plain(byte) || byte == b'='));
    (is_program && are_words).then_some(words)
}

/// The variables that bash gives to a program that it becomes, if its environment passed [`plain`].
pub(crate) fn variables(program: &str, directory: &Path) -> [(String, String); 3] {
    let directory = directory.to_string_lossy().into_owned();
    [("PWD", directory.as_str()), ("SHLVL", "0"), ("_", program)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// A byte that means nothing to a shell wherever it stands in a word.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'/' | b'.' | b',' | b':' | b'@' | b'+' | b'-')
}

/// Whether bash hands a variable on as it is and is not moved by it.
fn passes((name, _): &(String, String)) -> bool {
    let mut bytes = name.bytes();
    let is_name = bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    // Bash sources BASH_ENV, obeys its options, complains of a locale that is missing, and sets the others itself.
    let moves = matches!(name.as_str(), "SHELLOPTS" | "POSIXLY_CORRECT" | "LC_ALL" | "PWD" | "OLDPWD" | "SHLVL" | "_");
    is_name && !moves && !name.starts_with("BASH")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    fn env() -> Vec<(String, String)> {
        [("PATH", "/usr/bin:/bin"), ("LANG", "C.UTF-8"), ("A", "b c"), ("EMPTY", "")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    fn is_plain_command(command: &str) -> bool {
        plain(&shell(command), &env()).is_some()
    }

    #[test]
    fn what_could_mean_more_to_a_shell_goes_to_the_shell() {
        for command in ["/bin/true", "./run", "scripts/test.sh --level=3 a:b,c@d +x", " /bin/true \n", "../x -j8"] {
            assert!(is_plain_command(command), "{command:?}");
        }
        let shells = [
            "true",
            "echo hi",
            "make",
            "/bin/echo $A",
            "/bin/echo 'a b'",
            "/bin/echo \"a\"",
            "/bin/echo a\\ b",
            "/bin/a;/bin/b",
            "/bin/a\n/bin/b",
            "/bin/a | /bin/b",
            "/bin/a & ",
            "/bin/a && b",
            "/bin/echo *",
            "/bin/echo ?",
            "/bin/echo [a]",
            "/bin/echo {a,b}",
            "/bin/echo ~",
            "~/bin/x",
            "A=/b /bin/x",
            "A=/bin/x",
            "/bin/x >out",
            "/bin/x <in",
            "/bin/echo `x`",
            "/bin/echo (x)",
            "! /bin/true",
            "/bin/echo #x",
            "/bin/echo  two",
            "/bin/echo\ta",
            "",
            " ",
            "/bin/echo %1",
            "/bin/echo a!b",
            "/bin/echo ^x",
            "/bin/\u{e9}",
            "/bin/echo \r",
        ];
        for command in shells {
            assert!(!is_plain_command(command), "{command:?}");
        }
    }

    #[test]
    fn an_environment_that_moves_bash_goes_to_bash() {
        let moving = [
            "BASH_ENV",
            "BASHOPTS",
            "SHELLOPTS",
            "BASH_FUNC_x%%",
            "LC_ALL",
            "PWD",
            "OLDPWD",
            "SHLVL",
            "_",
            "1X",
            "A-B",
        ];
        for name in moving {
            let mut env = env();
            env.push((name.to_owned(), "x".to_owned()));
            assert!(plain(&shell("/bin/true"), &env).is_none(), "{name}");
        }
        assert!(plain(&["/bin/sh".into(), "-e".into(), "-c".into(), "/bin/true".into()], &env()).is_none());
    }

    #[test]
    fn a_program_without_its_shell_sees_what_it_would_have_seen_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let show = dir.join("show");
        std::fs::copy("/usr/bin/env", &show).unwrap();
        for command in ["/usr/bin/env", "./show", " /usr/bin/env A=c"] {
            let argv = shell(command);
            let words = plain(&argv, &env()).unwrap();
            let with =
                Command::new(&argv[0]).args(&argv[1..]).env_clear().envs(env()).current_dir(&dir).output().unwrap();
            let without = Command::new(dir.join(&words[0]))
                .arg0(&words[0])
                .args(&words[1..])
                .env_clear()
                .envs(env())
                .envs(variables(&words[0], &dir))
                .current_dir(&dir)
                .output()
                .unwrap();
            assert!(with.status.success() && without.status.success());
            let sorted = |out: Vec<u8>| {
                let mut lines: Vec<String> = String::from_utf8(out).unwrap().lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(sorted(with.stdout), sorted(without.stdout), "{command}");
        }
    }
}
