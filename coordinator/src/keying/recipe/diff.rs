//! What differs between two recipes: the very files, variables and versions, as far as whoever asks may see them.

use std::collections::{BTreeMap, BTreeSet};

use windlass_cache::{Directory, Entry, Node};
use windlass_protocol::Digest;
use windlass_protocol::limits::{
    REUSE_COMPARED_DIRECTORIES_MAX, REUSE_DIFFERENCES_MAX, REUSE_VALUE_SHOWN_MAX_CHARS, TREE_DEPTH_MAX,
};

use super::{INPUTS, Recipe, SYSTEM};

/// Something in which two recipes differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What: `command`, `env.CC`, `file src/main.c`.
    pub component: String,
    /// What it was; `None` where it was not there.
    pub before: Option<String>,
    /// What it is; `None` where it is not there any more.
    pub after: Option<String>,
}

/// What of the cache whoever asks may see.
pub trait Reads {
    /// A directory; `None` where there is none to be seen.
    fn directory(&mut self, digest: &Digest) -> Option<Directory>;

    /// A text that a component names by its digest; the same.
    fn text(&mut self, digest: &Digest) -> Option<String>;
}

/// In what two recipes differ, by component; of trees the files, as long as both can be read. At most
/// [`REUSE_DIFFERENCES_MAX`] are told.
pub fn diff(old: &Recipe, new: &Recipe, reads: &mut dyn Reads) -> Vec<Difference> {
    let mut walk = Walk { reads, found: Vec::new(), directories: 0 };
    let names: BTreeSet<&str> = old.components().chain(new.components()).map(|(name, _)| name).collect();
    // The files last: they may be many.
    let (trees, others): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| *name == INPUTS);
    for name in others.into_iter().chain(trees) {
        let (before, after) = (old.get(name), new.get(name));
        if before == after || is_set_in_one(name, old, new) {
            continue;
        }
        let told = match (name, before.and_then(digest), after.and_then(digest)) {
            (INPUTS, Some(before), Some(after)) => walk.trees(before, after),
            (SYSTEM, Some(before), Some(after)) => walk.texts(&before, &after),
            _ => false,
        };
        if !told {
            walk.tell(name.to_owned(), before.map(str::to_owned), after.map(str::to_owned));
        }
    }
    walk.found
}

/// Whether it says of a variable that it was not there which the other recipe has: that one is told.
fn is_set_in_one(name: &str, old: &Recipe, new: &Recipe) -> bool {
    let set = |variable: &str| format!("env {variable}");
    name.strip_prefix("no env ").map(set).is_some_and(|name| old.get(&name).is_some() || new.get(&name).is_some())
}

fn digest(text: &str) -> Option<Digest> {
    text.parse().ok()
}

struct Walk<'a> {
    reads: &'a mut dyn Reads,
    found: Vec<Difference>,
    directories: usize,
}

impl Walk<'_> {
    fn is_full(&self) -> bool {
        self.found.len() >= REUSE_DIFFERENCES_MAX
    }

    fn tell(&mut self, component: String, before: Option<String>, after: Option<String>) {
        if self.is_full() {
            return;
        }
        let cut = |text: String| match text.char_indices().nth(REUSE_VALUE_SHOWN_MAX_CHARS) {
            Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
            None => text,
        };
        self.found.push(Difference { component, before: before.map(cut), after: after.map(cut) });
    }

    fn directory(&mut self, digest: &Digest) -> Option<Directory> {
        self.directories += 1;
        if self.directories > REUSE_COMPARED_DIRECTORIES_MAX { None } else { self.reads.directory(digest) }
    }

    /// Whether anything was told of them. What is equal in both is never read: equal digests are equal trees.
    fn trees(&mut self, before: Digest, after: Digest) -> bool {
        let told = self.found.len();
        let mut wanted = vec![(String::new(), Some(before), Some(after), 0_usize)];
        while let Some((path, before, after, depth)) = wanted.pop() {
            if self.is_full() || depth > TREE_DEPTH_MAX {
                break;
            }
            let [before, after] = [before, after].map(|digest| digest.map(|digest| self.directory(&digest)));
            if matches!(before, Some(None)) || matches!(after, Some(None)) {
                self.tell(format!("directory {path}/"), None, Some("cannot be read any more".to_owned()));
                continue;
            }
            let (before, after) = (before.flatten().unwrap_or_default(), after.flatten().unwrap_or_default());
            let below = self.entries(&path, &before, &after);
            // The stack gives them back in the order of their names.
            wanted.extend(below.into_iter().rev().map(|(path, before, after)| (path, before, after, depth + 1)));
        }
        self.found.len() > told
    }

    /// Tells of files and links, and answers which directories are to be looked at.
    fn entries(&mut self, path: &str, before: &Directory, after: &Directory) -> Vec<Below> {
        let mut both: BTreeMap<&[u8], (Option<&Node>, Option<&Node>)> = BTreeMap::new();
        for Entry { name, node } in before.entries() {
            both.entry(name).or_default().0 = Some(node);
        }
        for Entry { name, node } in after.entries() {
            both.entry(name).or_default().1 = Some(node);
        }
        let mut below = Vec::new();
        for (name, (before, after)) in both.into_iter().filter(|(_, (before, after))| before != after) {
            let name = String::from_utf8_lossy(name);
            let path = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
            let [dir_before, dir_after] = [before, after].map(|node| match node {
                Some(Node::Directory { digest, .. }) => Some(*digest),
                Some(Node::File { .. } | Node::Symlink { .. }) | None => None,
            });
            let same = dir_before == dir_after;
            if dir_before.is_none() && dir_after.is_none() || same {
                self.tell(format!("file {path}"), before.map(shown), after.map(shown));
                continue;
            }
            // One of them may be a file.
            let [file_before, file_after] = [before, after].map(|node| node.filter(|node| !is_directory(node)));
            if file_before.is_some() || file_after.is_some() {
                self.tell(format!("file {path}"), file_before.map(shown), file_after.map(shown));
            }
            below.push((path, dir_before, dir_after));
        }
        below
    }

    /// Line by line: `name: value`.
    fn texts(&mut self, before: &Digest, after: &Digest) -> bool {
        let (Some(before), Some(after)) = (self.reads.text(before), self.reads.text(after)) else { return false };
        let lines = |text: &str| -> BTreeMap<String, String> {
            let line = |line: &str| {
                let (name, value) = line.split_once(": ").unwrap_or((line, ""));
                (name.to_owned(), value.to_owned())
            };
            text.lines().map(line).collect()
        };
        let (mut before, mut after) = (lines(&before), lines(&after));
        let names: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
        let told = self.found.len();
        for name in names {
            let (before, after) = (before.remove(&name), after.remove(&name));
            if before != after {
                self.tell(format!("host {name}"), before, after);
            }
        }
        self.found.len() > told
    }
}

/// A directory at a path that is to be looked at, before and after.
type Below = (String, Option<Digest>, Option<Digest>);

const fn is_directory(node: &Node) -> bool {
    matches!(node, Node::Directory { .. })
}

fn shown(node: &Node) -> String {
    match node {
        Node::File { digest, len, mode } => {
            let hex = digest.to_hex();
            format!("{}, {len} bytes, mode {mode:o}", hex.get(..16).unwrap_or(&hex))
        }
        Node::Symlink { target } => format!("link to {}", String::from_utf8_lossy(target)),
        Node::Directory { mode, .. } => format!("a directory of mode {mode:o}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_came_or_went_is_one_difference() {
        let with = |name: &str, value: &str| {
            let mut recipe = Recipe::default();
            recipe.set(name, value);
            recipe
        };
        let (unset, set) = (with("no env CC", ""), with("env CC", "gcc"));
        let told = |old, new| -> Vec<(String, Option<String>, Option<String>)> {
            let found = diff(old, new, &mut Seen::default()).into_iter();
            found.map(|it| (it.component, it.before, it.after)).collect()
        };
        let (name, value) = ("env CC".to_owned(), Some("gcc".to_owned()));
        assert_eq!(told(&unset, &set), [(name.clone(), None, value.clone())]);
        assert_eq!(told(&set, &unset), [(name, value, None)]);
        let undeclared = Recipe::default();
        assert_eq!(told(&undeclared, &unset).len(), 1, "it is declared by now, and was not");
    }

    #[derive(Default)]
    struct Seen(BTreeMap<Digest, Vec<u8>>);

    impl Seen {
        fn put(&mut self, bytes: Vec<u8>) -> Digest {
            let digest = Digest::of(&bytes);
            self.0.insert(digest, bytes);
            digest
        }

        fn directory_of(&mut self, entries: &[(&str, Node)]) -> Digest {
            let entry = |(name, node): &(&str, Node)| Entry { name: name.as_bytes().to_vec(), node: node.clone() };
            let bytes = Directory::new(entries.iter().map(entry).collect()).unwrap().encode();
            self.put(bytes)
        }
    }

    impl Reads for Seen {
        fn directory(&mut self, digest: &Digest) -> Option<Directory> {
            Directory::decode(self.0.get(digest)?).ok()
        }

        fn text(&mut self, digest: &Digest) -> Option<String> {
            String::from_utf8(self.0.get(digest)?.clone()).ok()
        }
    }

    fn file(text: &str) -> Node {
        Node::File { digest: Digest::of(text.as_bytes()), len: text.len() as u64, mode: 0o644 }
    }

    fn recipe(components: &[(&str, &str)]) -> Recipe {
        let mut recipe = Recipe::default();
        components.iter().for_each(|(name, value)| recipe.set(*name, *value));
        recipe
    }

    fn told(old: &Recipe, new: &Recipe, seen: &mut Seen) -> String {
        let line = |it: Difference| {
            let side = |side: Option<String>| side.unwrap_or_else(|| "-".to_owned());
            format!("{}: {} > {}", it.component, side(it.before), side(it.after))
        };
        diff(old, new, seen).into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_very_files_variables_and_versions_are_told_that_differ() {
        let mut seen = Seen::default();
        let link = Node::Symlink { target: b"a".to_vec() };
        let same = seen.directory_of(&[("x", file("x"))]);
        let dir = |digest| Node::Directory { digest, mode: 0o755 };
        let src = seen.directory_of(&[("a.c", file("1")), ("gone", file("g")), ("kind", file("k"))]);
        let old = seen.directory_of(&[("l", link), ("same", dir(same)), ("src", dir(src))]);
        let kind = seen.directory_of(&[("in", file("i"))]);
        let src = seen.directory_of(&[("a.c", file("22")), ("kind", dir(kind)), ("new", file("n"))]);
        let new = seen.directory_of(&[
            ("l", Node::Symlink { target: b"b".to_vec() }),
            ("same", Node::Directory { digest: same, mode: 0o700 }),
            ("src", dir(src)),
        ]);
        seen.0.remove(&same);
        let (before, after) =
            (seen.put(b"os: linux\ncc --version: 12\n".to_vec()), seen.put(b"os: linux\ncc --version: 13\n".to_vec()));
        let old =
            recipe(&[("command", "make"), ("env.A", "1"), (SYSTEM, &before.to_string()), (INPUTS, &old.to_string())]);
        let new =
            recipe(&[("command", "make"), ("env.B", "2"), (SYSTEM, &after.to_string()), (INPUTS, &new.to_string())]);
        insta::assert_snapshot!(told(&old, &new, &mut seen), @"
        env.A: 1 > -
        env.B: - > 2
        host cc --version: 12 > 13
        file l: link to a > link to b
        file same: a directory of mode 755 > a directory of mode 700
        file src/a.c: d63bd9a826af91c1, 1 bytes, mode 644 > 93aed7df61cdeed8, 2 bytes, mode 644
        file src/gone: 805a31dee1a2a0d3, 1 bytes, mode 644 > -
        file src/kind: 5cbcb0cee824b918, 1 bytes, mode 644 > -
        file src/new: - > a74e0b1433b54b7a, 1 bytes, mode 644
        file src/kind/in: - > e9c0ba08015769a0, 1 bytes, mode 644
        ");
        assert_eq!(told(&new, &new, &mut seen), "");
    }

    #[test]
    fn what_cannot_be_read_any_more_is_told_as_what_it_is() {
        let mut seen = Seen::default();
        let (a, b) = (Digest::of(b"a").to_string(), Digest::of(b"b").to_string());
        let told = told(&recipe(&[(SYSTEM, &a), (INPUTS, &a)]), &recipe(&[(SYSTEM, &b), (INPUTS, &b)]), &mut seen);
        assert_eq!(told, format!("{SYSTEM}: {a} > {b}\ndirectory /: - > cannot be read any more"));
    }

    #[test]
    fn of_very_many_differences_some_are_told() {
        let mut seen = Seen::default();
        let names: Vec<String> = (0..REUSE_DIFFERENCES_MAX + 50).map(|at| format!("f{at}")).collect();
        let entries: Vec<(&str, Node)> = names.iter().map(|name| (name.as_str(), file(name))).collect();
        let (old, new) = (seen.directory_of(&[]), seen.directory_of(&entries));
        let (old, new) = (recipe(&[(INPUTS, &old.to_string())]), recipe(&[(INPUTS, &new.to_string())]));
        assert_eq!(diff(&old, &new, &mut seen).len(), REUSE_DIFFERENCES_MAX);
    }
}
