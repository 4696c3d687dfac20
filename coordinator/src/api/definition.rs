//! Where a build's pipeline comes from when the client does not send it: its source tree (reference 1.1).

use std::collections::BTreeMap;

use windlass_cache::{Directory, Node, Store};
use windlass_pipeline::file::{BUILDKITE, OWN, choose};
use windlass_protocol::limits::{PIPELINE_MAX_BYTES, TREE_DIR_MAX_BYTES};
use windlass_protocol::{Digest, Namespace};

use super::problem::{Kind, Problem};

/// A pipeline's text and the file that it stands in.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) file: String,
    pub(crate) text: String,
}

/// Reads the pipeline of a tree, where `file` says or else where it is always looked for. Blocks on the disk.
pub(crate) fn of_tree(
    store: &Store,
    namespace: &Namespace,
    root: &Digest,
    file: Option<&str>,
) -> Result<Definition, Problem> {
    let tree = Tree { store, namespace };
    if let Some(file) = file {
        let digest = tree.file(root, file)?;
        let absent = || invalid(format!("the source has no {file}, where the pipeline is registered to be"));
        return tree.text(file, &digest.ok_or_else(absent)?);
    }
    let mut there = BTreeMap::new();
    for path in [OWN].into_iter().chain(BUILDKITE) {
        there.extend(tree.file(root, path)?.map(|digest| (path, digest)));
    }
    let path = choose(|path| there.contains_key(path)).map_err(|why| invalid(why.to_string()))?;
    let digest = there.get(path).ok_or_else(|| invalid(format!("{path} is not there")))?;
    tree.text(path, digest)
}

fn invalid(detail: String) -> Problem {
    Problem::new(Kind::PipelineInvalid, detail)
}

struct Tree<'a> {
    store: &'a Store,
    namespace: &'a Namespace,
}

impl Tree<'_> {
    /// The digest of a file by its path; symlinks are not followed.
    fn file(&self, root: &Digest, path: &str) -> Result<Option<Digest>, Problem> {
        let mut at = *root;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let directory = self.directory(&at)?;
            let entry = directory.entries().iter().find(|entry| entry.name == name.as_bytes());
            match (entry.map(|entry| &entry.node), names.peek()) {
                (Some(Node::Directory { digest, .. }), Some(_)) => at = *digest,
                (Some(Node::File { digest, .. }), None) => return Ok(Some(*digest)),
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    fn directory(&self, digest: &Digest) -> Result<Directory, Problem> {
        let bytes = self.blob(digest, TREE_DIR_MAX_BYTES)?;
        let bad = |reason| Problem::new(Kind::Invalid, format!("the tree's directory {digest} is not valid: {reason}"));
        Directory::decode(&bytes).map_err(bad)
    }

    fn text(&self, path: &str, digest: &Digest) -> Result<Definition, Problem> {
        let bytes = self.blob(digest, PIPELINE_MAX_BYTES as u64)?;
        let text = String::from_utf8(bytes).map_err(|_| invalid(format!("{path} is not UTF-8")))?;
        if text.is_empty() {
            return Err(invalid(format!("{path} is empty")));
        }
        Ok(Definition { file: path.to_owned(), text })
    }

    fn blob(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, Problem> {
        let missing = || Problem::new(Kind::SourceMissing, format!("{digest} of the source is not in the cache"));
        let blob = self.store.get(self.namespace, digest)?.ok_or_else(missing)?;
        if blob.len() > limit_bytes {
            return Err(invalid(format!("{digest} of the source has more than {limit_bytes} bytes")));
        }
        Ok(blob.into_vec()?)
    }
}
