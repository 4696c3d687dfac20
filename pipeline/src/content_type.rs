//! What a file holds, by the end of its name.

/// What nothing is known of.
const UNKNOWN: &str = "application/octet-stream";

/// Ends of names, in order, and what they mean. Text is taken for UTF-8.
const KNOWN: &[(&str, &str)] = &[
    ("7z", "application/x-7z-compressed"),
    ("apk", "application/vnd.android.package-archive"),
    ("avif", "image/avif"),
    ("bz2", "application/x-bzip2"),
    ("css", "text/css; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("deb", "application/vnd.debian.binary-package"),
    ("gif", "image/gif"),
    ("gz", "application/gzip"),
    ("htm", "text/html; charset=utf-8"),
    ("html", "text/html; charset=utf-8"),
    ("ico", "image/vnd.microsoft.icon"),
    ("jar", "application/java-archive"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("js", "text/javascript; charset=utf-8"),
    ("json", "application/json"),
    ("log", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("rpm", "application/x-rpm"),
    ("svg", "image/svg+xml"),
    ("tar", "application/x-tar"),
    ("tgz", "application/gzip"),
    ("txt", "text/plain; charset=utf-8"),
    ("wasm", "application/wasm"),
    ("webm", "video/webm"),
    ("webp", "image/webp"),
    ("xml", "application/xml"),
    ("xz", "application/x-xz"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
    ("zst", "application/zstd"),
];

/// What a file of this path holds.
pub fn content_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or_default();
    let Some((_, end)) = name.rsplit_once('.') else { return UNKNOWN };
    let end = end.to_ascii_lowercase();
    match KNOWN.binary_search_by_key(&end.as_str(), |(known, _)| known) {
        Ok(at) => KNOWN.get(at).map_or(UNKNOWN, |(_, means)| means),
        Err(_) => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_end_of_a_name_says_what_it_holds() {
        assert!(KNOWN.is_sorted_by(|a, b| a.0 < b.0), "it is searched by halves");
        for (path, holds) in [
            ("a/b.TXT", "text/plain; charset=utf-8"),
            ("a.tar.gz", "application/gzip"),
            ("report.d/index.html", "text/html; charset=utf-8"),
            ("a.d/binary", UNKNOWN),
            ("core", UNKNOWN),
            ("x.", UNKNOWN),
        ] {
            assert_eq!(content_type(path), holds, "{path}");
        }
    }
}
