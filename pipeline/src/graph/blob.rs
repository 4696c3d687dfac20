//! Blobs that a step reads, each named by what it holds. Ours.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use windlass_protocol::{Digest, hex};

/// A blob of the cache that lies among a step's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedBlob {
    /// Where: parts joined by `/`, none of them empty, `.` or `..`.
    pub path: String,
    /// Which.
    pub digest: BlobName,
    /// It may be executed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
}

/// By what a blob is named: `b3:` or `sha256:`, and 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum BlobName {
    /// Its name here.
    Blake3(Digest),
    /// What other tools say of it.
    Sha256([u8; 32]),
}

/// A text that names no blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no `b3:` or `sha256:` with 64 hex digits")]
pub struct NotABlobName;

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blake3(digest) => digest.fmt(f),
            Self::Sha256(bytes) => write!(f, "sha256:{}", hex::to(bytes)),
        }
    }
}

impl FromStr for BlobName {
    type Err = NotABlobName;

    /// As it is shown; `blake3:` is `b3:`, and digits may be of either case.
    fn from_str(text: &str) -> Result<Self, NotABlobName> {
        let (kind, digits) = text.split_once(':').ok_or(NotABlobName)?;
        let bytes: [u8; 32] = hex::from(digits).and_then(|bytes| bytes.try_into().ok()).ok_or(NotABlobName)?;
        match kind {
            "b3" | "blake3" => Ok(Self::Blake3(Digest::from_bytes(bytes))),
            "sha256" => Ok(Self::Sha256(bytes)),
            _ => Err(NotABlobName),
        }
    }
}

impl TryFrom<String> for BlobName {
    type Error = NotABlobName;

    fn try_from(text: String) -> Result<Self, NotABlobName> {
        text.parse()
    }
}

impl From<BlobName> for String {
    fn from(name: BlobName) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_s_name_is_read_back_as_it_is_shown_and_nothing_else_is_one() {
        let digits = "0f".repeat(32);
        for (text, shown) in [("b3", "b3"), ("blake3", "b3"), ("sha256", "sha256")] {
            let name: BlobName = format!("{text}:{digits}").parse().unwrap();
            assert_eq!(name.to_string(), format!("{shown}:{digits}"));
            assert_eq!(name.to_string().parse(), Ok(name));
            assert_eq!(format!("{text}:{}", digits.to_uppercase()).parse(), Ok(name));
        }
        for bad in ["", "b3:", &digits, &format!("md5:{digits}"), &format!("b3:{digits}0"), "sha256:0g"] {
            assert_eq!(bad.parse::<BlobName>(), Err(NotABlobName), "{bad}");
        }
    }

    #[test]
    fn a_row_of_before_has_no_blobs_and_one_without_any_says_nothing_of_them() {
        let old = r#"{"inputs":["a"],"artifacts":[],"outputs":[],"env":[],"secrets":false,"verify_ppm":0}"#;
        let reuse: super::super::Reuse = serde_json::from_str(old).unwrap();
        assert!(reuse.blobs.is_empty());
        assert_eq!(serde_json::to_string(&reuse).unwrap(), old);
    }
}
