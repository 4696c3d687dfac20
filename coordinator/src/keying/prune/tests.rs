//! Trees of what is declared: what is taken, what is refused, within which bounds.

use std::sync::Arc;

use windlass_cache::{RealFs, StoreOptions};

use super::*;

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    namespace: Namespace,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(Arc::new(RealFs), &dir.path().join("cache"), StoreOptions::default()).unwrap();
        Self { _dir: dir, store, namespace: Namespace::trusted("p") }
    }

    /// A tree of files at these paths, each with its path as its text; `path -> target` is a link.
    fn tree(&self, paths: &[&str]) -> Digest {
        let mut files = BTreeMap::new();
        for path in paths {
            let (path, node) = match path.split_once(" -> ") {
                Some((path, target)) => (path, Node::Symlink { target: target.as_bytes().to_vec() }),
                None => (*path, self.file(path)),
            };
            files.insert(path.to_owned(), node);
        }
        let root = self.store.put(&self.namespace, &Directory::default().encode()).unwrap();
        Trees::new(&self.store, &self.namespace).with_files(root, &files, Over::Files).unwrap()
    }

    fn file(&self, text: &str) -> Node {
        let digest = self.store.put(&self.namespace, text.as_bytes()).unwrap();
        Node::File { digest, len: text.len() as u64, mode: 0o644 }
    }

    fn directory(&self, entries: Vec<Entry>) -> Digest {
        self.store.put(&self.namespace, &Directory::new(entries).unwrap().encode()).unwrap()
    }

    fn paths(&self, root: Digest) -> Vec<String> {
        let mut found = Vec::new();
        let mut wanted = vec![(String::new(), root)];
        while let Some((path, digest)) = wanted.pop() {
            let directory = Trees::new(&self.store, &self.namespace).read(digest).unwrap();
            for entry in directory.entries() {
                let path = join(&path, &entry.name);
                match &entry.node {
                    Node::Directory { digest, .. } => wanted.push((path, *digest)),
                    Node::File { .. } | Node::Symlink { .. } => found.push(path),
                }
            }
        }
        found.sort();
        found
    }

    fn prune(&self, root: Digest, globs: &[&str]) -> Result<Pruned, TreeError> {
        let globs: Vec<String> = globs.iter().map(|glob| (*glob).to_owned()).collect();
        let mut selection = Selection::new(&globs, &["./plug".to_owned()]).unwrap();
        Trees::new(&self.store, &self.namespace).prune(root, &mut selection)
    }
}

const SOURCE: [&str; 9] = [
    ".buildkite/hooks/pre-command",
    ".buildkite/pipeline.yml",
    "Makefile",
    "doc/a.md",
    "plug/hooks/command",
    "src/a.c",
    "src/deep/b.c",
    "src/deep/l -> ../a.c",
    "src/x.h",
];

#[test]
fn only_what_is_declared_is_in_the_tree_and_what_decides_the_run_besides() {
    let world = World::new();
    let root = world.tree(&SOURCE);
    let always = [".buildkite/hooks/pre-command", "plug/hooks/command"];
    for (globs, taken) in [
        (vec!["src/*.c"], vec!["src/a.c"]),
        (vec!["**/*.c"], vec!["src/a.c", "src/deep/b.c"]),
        (vec!["src"], vec!["src/a.c", "src/deep/b.c", "src/deep/l", "src/x.h"]),
        (vec!["src/deep/**", "Makefile"], vec!["Makefile", "src/deep/b.c", "src/deep/l"]),
        (vec!["{Makefile,doc/*}"], vec!["Makefile", "doc/a.md"]),
    ] {
        let pruned = world.prune(root, &globs).unwrap();
        let mut wanted: Vec<&str> = always.into_iter().chain(taken).collect();
        wanted.sort_unstable();
        assert_eq!(world.paths(pruned.root), wanted, "{globs:?}");
        assert!(pruned.unmatched.is_empty(), "{globs:?}");
    }
}

#[test]
fn the_whole_tree_is_itself_and_what_is_left_out_changes_nothing() {
    let world = World::new();
    let root = world.tree(&SOURCE);
    assert_eq!(world.prune(root, &[]).unwrap().root, root);
    let other = world.tree(&[&SOURCE[..8], &["src/y.h", "new"]].concat());
    assert_ne!(other, root);
    let pruned = |root, globs: &[&str]| world.prune(root, globs).unwrap().root;
    assert_eq!(pruned(other, &["**/*.c"]), pruned(root, &["**/*.c"]));
    assert_ne!(pruned(other, &["src"]), pruned(root, &["src"]));
}

#[test]
fn a_glob_that_means_nothing_is_told_and_an_empty_tree_is_one() {
    let world = World::new();
    let root = world.tree(&["a", "b/c"]);
    let pruned = world.prune(root, &["a", "b", "x/**", "nothing*"]).unwrap();
    assert_eq!(pruned.unmatched, ["x/**", "nothing*"]);
    assert_eq!(world.prune(root, &["zz"]).unwrap().root, Digest::of(&Directory::default().encode()));
}

#[test]
fn what_another_namespace_has_is_absent_directory_or_file() {
    let mut world = World::new();
    let root = world.tree(&["a", "b/c"]);
    world.namespace = Namespace::trusted("q");
    let told = world.prune(root, &["a"]).unwrap_err();
    assert!(matches!(told, TreeError::Absent { what: "the directory", digest } if digest == root), "{told}");
    // A stranger can name what he has not.
    let node = Node::File { digest: Digest::of(b"a"), len: 1, mode: 0o644 };
    let named = world.directory(vec![Entry { name: b"a".to_vec(), node }]);
    for globs in [&["a"][..], &[]] {
        let told = world.prune(named, globs).unwrap_err();
        assert!(matches!(told, TreeError::Absent { what: "the file", .. }), "{told}");
    }
}

#[test]
fn hostile_trees_are_refused_within_their_bounds() {
    let world = World::new();
    let dir = |digest| Node::Directory { digest, mode: 0o755 };
    let mut deep = world.directory(vec![]);
    for _ in 0..=TREE_DEPTH_MAX {
        deep = world.directory(vec![Entry { name: b"d".to_vec(), node: dir(deep) }]);
    }
    for globs in [&[][..], &["**/x"]] {
        assert!(matches!(world.prune(deep, globs), Err(TreeError::TooDeep)), "{globs:?}");
    }
    // Ten directories, each named ten times by the next: ten thousand million paths.
    let mut wide = world.directory(vec![Entry { name: b"f".to_vec(), node: world.file("f") }]);
    for _ in 0..10 {
        let entry = |at: u8| Entry { name: vec![b'a' + at], node: dir(wide) };
        wide = world.directory((0..10).map(entry).collect());
    }
    assert_eq!(world.prune(wide, &[]).unwrap().root, wide, "each is read once");
    assert!(matches!(world.prune(wide, &["**/none"]), Err(TreeError::TooMany)));
    let not = world.store.put(&world.namespace, b"no directory").unwrap();
    assert!(matches!(world.prune(not, &[]), Err(TreeError::Bad(_))));
}

#[test]
fn files_are_put_at_their_paths_in_the_place_of_what_lies_there() {
    let world = World::new();
    let root = world.tree(&["a", "b/c", "l -> a"]);
    let put = |paths: &[&str]| {
        let files = paths.iter().map(|path| ((*path).to_owned(), world.file("new"))).collect();
        Trees::new(&world.store, &world.namespace).with_files(root, &files, Over::Files)
    };
    let made = put(&["b/c", "b/x/y", "l", "z"]).unwrap();
    assert_eq!(world.paths(made), ["a", "b/c", "b/x/y", "l", "z"]);
    assert_eq!(put(&[]).unwrap(), root);
    for path in ["b", "a/x", "l/x"] {
        assert!(matches!(put(&[path]), Err(TreeError::InTheWay(_))), "{path}");
    }
}

#[test]
fn a_tree_is_as_git_would_have_it_whatever_modes_a_clone_has_and_whatever_empty_directories() {
    let world = World::new();
    let entry = |name: &str, node: Node| Entry { name: name.as_bytes().to_vec(), node };
    let file = |text: &str, mode| {
        let Node::File { digest, len, .. } = world.file(text) else { unreachable!() };
        Node::File { digest, len, mode }
    };
    let tree = |plain: u16, program: u16, dir: u16, empty: bool| {
        let below = |digest| Node::Directory { digest, mode: dir };
        let nothing = world.directory(vec![]);
        let mut src = vec![entry("a", file("a", plain)), entry("run", file("run", program))];
        if empty {
            src.insert(1, entry("none", below(world.directory(vec![entry("none", below(nothing))]))));
        }
        world.directory(vec![entry("src", below(world.directory(src))), entry("x", file("x", plain))])
    };
    let of_git = tree(0o644, 0o755, 0o755, false);
    for globs in [&[][..], &["src"], &["src/*", "x"]] {
        let pruned = |root| world.prune(root, globs).unwrap().root;
        let wanted = pruned(of_git);
        for other in [
            tree(0o664, 0o775, 0o775, true),
            tree(0o600, 0o700, 0o700, false),
            tree(0o444, 0o555, 0o755, true),
            tree(0o655, 0o744, 0o711, true),
        ] {
            assert_eq!(pruned(other), wanted, "{globs:?}");
        }
        assert_ne!(pruned(tree(0o755, 0o755, 0o755, false)), wanted, "what may be run counts");
    }
    assert_eq!(world.prune(of_git, &[]).unwrap().root, of_git, "it is that tree itself");
}
