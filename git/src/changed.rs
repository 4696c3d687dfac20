//! Which files have changed, as `if_changed` asks (reference 11.1): one rule, wherever git is run.

/// What a name means that nobody else said a base by.
const DEFAULT_BRANCH: &str = "main";

/// Somebody who runs git in the repository that is meant, and gives what it prints.
pub trait Looks {
    /// Why it was not done; nothing is known of the files then.
    type Error;

    /// Runs git with these arguments to its end.
    fn git(&mut self, arguments: &[&str]) -> impl Future<Output = Result<String, Self::Error>> + Send;
}

/// What the base is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// The files as they lie there: what is tracked and not committed has changed too.
    WorkTree,
    /// The commit alone.
    Commit,
}

/// What the files are compared with: the first of these that is not empty. The first one is a name of git's, the others are
/// branches of the server.
#[must_use]
pub fn base(given: &str, pull_request_base: &str, default_branch: &str) -> String {
    if !given.is_empty() {
        return given.to_owned();
    }
    let branch = [pull_request_base, default_branch].into_iter().find(|branch| !branch.is_empty());
    format!("origin/{}", branch.unwrap_or(DEFAULT_BRANCH))
}

/// The paths that differ between where two commits parted and the second one; what the second one changed itself, where it
/// is a part of the first one's history. What was moved has changed in both places: git compares no contents for this, which
/// a mirror does not have.
///
/// # Errors
/// What [`Looks::git`] failed with.
pub async fn files<L: Looks>(repository: &mut L, base: &str, head: &str, with: With) -> Result<Vec<String>, L::Error> {
    let parted = repository.git(&["merge-base", base, head]).await?;
    let parted = parted.trim();
    let names = if parted == head {
        // Nothing lies between them: what the last commit changed is meant.
        let last = ["log", "--first-parent", "-1", "--name-only", "--no-renames", "-z", "--pretty=format:", head];
        repository.git(&last).await?
    } else {
        let mut arguments = vec!["diff", "--name-only", "--no-renames", "-z", parted];
        arguments.extend((with == With::Commit).then_some(head));
        repository.git(&arguments).await?
    };
    Ok(names.split(['\0', '\n']).filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::*;

    struct At<'a>(&'a Path);

    impl Looks for At<'_> {
        type Error = String;

        async fn git(&mut self, arguments: &[&str]) -> Result<String, String> {
            let output = Command::new("git").args(arguments).current_dir(self.0).output().unwrap();
            if !output.status.success() {
                return Err(String::from_utf8(output.stderr).unwrap());
            }
            Ok(String::from_utf8(output.stdout).unwrap())
        }
    }

    fn sh(dir: &Path, script: &str) -> String {
        let identity = ["GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"];
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(dir).envs(identity.map(|name| (name, "t@example.invalid")));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn the_base_is_the_first_that_is_said() {
        assert_eq!(base("v1", "a", "b"), "v1");
        assert_eq!(base("", "a", "b"), "origin/a");
        assert_eq!(base("", "", "b"), "origin/b");
        assert_eq!(base("", "", ""), "origin/main");
    }

    #[tokio::test]
    async fn what_a_branch_changed_is_told_from_what_its_base_changed_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let commit = |name: &str| {
            sh(dir.path(), &format!("echo {name} >{name}; git add -A; git commit -q -m {name}; git rev-parse HEAD"))
        };
        sh(dir.path(), "git init -q -b main");
        let first = commit("a");
        let main = commit("b");
        sh(dir.path(), &format!("git checkout -q -b topic {first}"));
        commit("c");
        sh(dir.path(), "git mv a moved; git commit -q -m moved");
        let topic = sh(dir.path(), "git rev-parse HEAD");
        let mut at = At(dir.path());
        let of = async |at: &mut At<'_>, base: &str, head: &str, with| files(at, base, head, with).await;
        assert_eq!(of(&mut at, &main, &topic, With::Commit).await.unwrap(), ["a", "c", "moved"]);
        assert_eq!(of(&mut at, &topic, &topic, With::Commit).await.unwrap(), ["a", "moved"], "the last commit's");
        assert_eq!(of(&mut at, &main, &first, With::Commit).await.unwrap(), ["a"], "its base has moved on");
        std::fs::write(dir.path().join("c"), "other").unwrap();
        std::fs::write(dir.path().join("moved"), "other").unwrap();
        assert_eq!(of(&mut at, &first, &topic, With::WorkTree).await.unwrap(), ["a", "c", "moved"]);
        sh(dir.path(), "git checkout -q --orphan other; git commit -q -m other");
        let other = sh(dir.path(), "git rev-parse HEAD");
        assert!(of(&mut at, &main, &other, With::Commit).await.is_err(), "they have nothing in common");
    }
}
