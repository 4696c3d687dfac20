//! Where a build's pipeline comes from when the client does not send it: its source tree (reference 1.1).

use windlass_cache::{Directory, Node, Store};
use windlass_pipeline::file::{BUILDKITE, OWN};
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
    if let Some(digest) = tree.file(root, OWN)? {
        return tree.text(OWN, &digest);
    }
    let mut found = Vec::new();
    for path in BUILDKITE {
        found.extend(tree.file(root, path)?.map(|digest| (path, digest)));
    }
    match found.as_slice() {
        [(path, digest)] => tree.text(path, digest),
        [] => Err(invalid(format!("the source has no pipeline: write {OWN}, or name a file with --pipeline"))),
        several => {
            let names: Vec<_> = several.iter().map(|(path, _)| *path).collect();
            Err(invalid(format!("the source has several pipelines ({}): keep one", names.join(", "))))
        }
    }
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
