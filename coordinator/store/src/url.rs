//! What `--store` may say.

use std::fmt;

/// Which store to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreUrl {
    /// SQLite in the data directory.
    #[default]
    Sqlite,
}

/// A store that cannot be had. Nothing was opened; the program exits as for a usage error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// PostgreSQL is planned behind the same trait, and is not there yet.
    #[error("PostgreSQL as a store comes later; this version has `sqlite` only")]
    ComesLater,
    /// Neither of the two.
    #[error("`{text}` is no store (expected `sqlite` or `postgres://…`)")]
    Unknown {
        /// What was given, cut to 80 characters; what stands before an `@` is left out.
        text: String,
    },
}

impl StoreUrl {
    /// Reads the value of `--store`.
    ///
    /// # Errors
    /// [`StoreUrlError`]; a password in the text is never repeated.
    pub fn parse(text: &str) -> Result<Self, StoreUrlError> {
        if text == "sqlite" {
            return Ok(Self::Sqlite);
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Err(StoreUrlError::ComesLater);
        }
        // A mistyped URL may still carry a password: what stands before the last `@` is left out.
        let shown = text.rsplit_once('@').map_or(text, |(_, host)| host);
        Err(StoreUrlError::Unknown { text: shown.chars().take(80).collect() })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sqlite => "sqlite",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_is_told_to_come_later_and_a_password_is_never_repeated() {
        assert_eq!(StoreUrl::parse("sqlite"), Ok(StoreUrl::Sqlite));
        assert_eq!(StoreUrl::parse("postgres://u:hunter2@db/windlass"), Err(StoreUrlError::ComesLater));
        assert_eq!(StoreUrl::parse("postgresql:///w"), Err(StoreUrlError::ComesLater));
        let error = StoreUrl::parse("mysql://u:hunter2@db/w").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
