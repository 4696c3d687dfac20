//! `artifact search|shasum`: what a query finds (reference 20.3).

use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

use windlass_protocol::hex;
use windlass_protocol::limits::{ARTIFACTS_FOUND_MAX, ARTIFACTS_PER_BUILD_MAX};
use windlass_protocol::message::{ArtifactQuery, Asked, FoundArtifact, FoundFiles, Told};

use super::super::{Call, Fail, fatal, untold};

/// An artifact, and what its file is.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    pub(super) of: FoundArtifact,
    /// Whether it may be executed.
    pub(super) executable: bool,
}

impl FoundFile {
    fn all(files: FoundFiles) -> Vec<Self> {
        let mut all: Vec<Self> = files.found.into_iter().map(|of| Self { of, executable: false }).collect();
        for place in files.executable {
            if let Some(file) = usize::try_from(place).ok().and_then(|place| all.get_mut(place)) {
                file.executable = true;
            }
        }
        all
    }
}

/// All that the command's query finds, newest first.
pub(super) async fn find(call: &mut Call<'_>, path: String) -> Result<Vec<FoundFile>, Fail> {
    let mut query = ArtifactQuery {
        build: call.build()?,
        path,
        step: call.line.text("step").to_owned(),
        retried: call.line.is_on("include-retried-jobs"),
        before: None,
    };
    let mut all = Vec::new();
    loop {
        let found = match call.ask(Asked::FindFiles(Box::new(query.clone())), &[]).await? {
            Told::Files(files) => FoundFile::all(*files),
            other => return Err(untold("failed to find artifacts", other)),
        };
        let (full, last) = (found.len() >= ARTIFACTS_FOUND_MAX, found.last().map(|found| found.of.id));
        all.extend(found);
        if !full || all.len() >= ARTIFACTS_PER_BUILD_MAX {
            return Ok(all);
        }
        query.before = last;
    }
}

/// Of artifacts, newest first, the newest one of each path, in the order of their paths.
pub(super) fn latest(found: Vec<FoundFile>) -> Vec<FoundFile> {
    let mut seen = BTreeSet::new();
    let mut latest: Vec<_> = found.into_iter().filter(|found| seen.insert(found.of.artifact.path.clone())).collect();
    latest.sort_by(|a, b| a.of.artifact.path.cmp(&b.of.artifact.path));
    latest
}

/// `artifact search QUERY`: a record for each, in the order in which they were made.
pub(in super::super) async fn search(call: &mut Call<'_>) -> Result<(), Fail> {
    let Some(query) = call.argument(0).map(str::to_owned) else { return Err(call.misused().await) };
    let mut found = find(call, query.clone()).await?;
    found.reverse();
    if found.is_empty() {
        let words = format!("No matches found for {query:?}");
        if call.line.is_on("allow-empty-results") {
            return call.note("notice", &words).await;
        }
        return Err(fatal(words));
    }
    let format = call.line.text("format").to_owned();
    let text: String = found.iter().map(|found| record(&format, &found.of)).collect();
    call.print(&text).await
}

/// `artifact shasum QUERY`: the digest of the one file that it finds.
pub(in super::super) async fn shasum(call: &mut Call<'_>) -> Result<(), Fail> {
    let Some(query) = call.argument(0).map(str::to_owned) else { return Err(call.misused().await) };
    let found = latest(find(call, query).await?);
    match found.as_slice() {
        [] => Err(fatal("No artifacts found for downloading")),
        [one] => {
            let digest = if call.line.is_on("sha256") {
                hex::to(&one.of.artifact.sha256)
            } else {
                hex::to(&one.of.artifact.sha1)
            };
            call.print(&format!("{digest}\n")).await
        }
        _ => Err(fatal("Multiple artifacts were found. Try being more specific with the search or scope by step")),
    }
}

/// One artifact as a format shows it.
fn record(format: &str, found: &FoundArtifact) -> String {
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        let then = characters.clone().next();
        let shown = match (character, then) {
            ('%', Some('i')) => found.id.to_string(),
            ('%', Some('p')) => found.artifact.path.clone(),
            ('%', Some('c')) => {
                let at = UNIX_EPOCH + Duration::from_millis(found.created_at.0);
                humantime::format_rfc3339_seconds(at).to_string()
            }
            ('%', Some('j')) => found.job.to_string(),
            ('%', Some('s')) => found.artifact.bytes.to_string(),
            ('%', Some('S')) => hex::to(&found.artifact.sha1),
            ('%', Some('T')) => hex::to(&found.artifact.sha256),
            ('%', Some('u')) => found.url.clone(),
            ('\\', Some('n')) => "\n".to_owned(),
            ('\\', Some('t')) => "\t".to_owned(),
            (other, _) => {
                out.push(other);
                continue;
            }
        };
        out.push_str(&shown);
        characters.next();
    }
    out
}

#[cfg(test)]
mod tests {
    use windlass_protocol::message::NewArtifact;
    use windlass_protocol::{ArtifactId, Digest, JobId, WallMs};

    use super::*;

    fn found(n: u8, path: &str) -> FoundArtifact {
        let artifact = NewArtifact {
            path: path.to_owned(),
            bytes: u64::from(n),
            digest: Digest::of(&[n]),
            sha1: [0xA1; 20],
            sha256: [0x0B; 32],
            content_type: "text/plain".to_owned(),
        };
        let (id, job) = (ArtifactId::from_bytes([n; 16]), JobId::from_bytes([9; 16]));
        FoundArtifact { id, job, created_at: WallMs(1_700_000_000_123), url: "http://w/a".to_owned(), artifact }
    }

    #[test]
    fn a_record_is_shown_as_its_format_says() {
        let one = found(7, "log/a b.txt");
        let job = one.job.to_string();
        assert_eq!(record("%j %p %c\n", &one), format!("{job} log/a b.txt 2023-11-14T22:13:20Z\n"));
        assert_eq!(record(r"%s\t%u\n%%p%x%", &one), "7\thttp://w/a\n%log/a b.txt%x%");
        assert_eq!(record("%S %T %i", &one), format!("{} {} {}", "a1".repeat(20), "0b".repeat(32), one.id));
    }

    #[test]
    fn of_each_path_the_newest_counts() {
        let found = vec![found(4, "b"), found(3, "a"), found(2, "b"), found(1, "c")];
        let all = FoundFile::all(FoundFiles { found, executable: vec![1] });
        let bytes: Vec<_> = latest(all).iter().map(|found| (found.of.artifact.bytes, found.executable)).collect();
        assert_eq!(bytes, [(3, true), (4, false), (1, false)]);
    }
}
