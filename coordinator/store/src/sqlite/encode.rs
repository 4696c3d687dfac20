//! Between rows and columns: JSON payloads, numbers, states by name, and SQLite's errors as ours.

use rusqlite::ErrorCode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fault::Fault;

/// A row as JSON.
pub(super) fn encode<T: Serialize>(row: &T) -> Result<String, Fault> {
    serde_json::to_string(row).map_err(|e| Fault::Io { doing: "encode a row", detail: e.to_string() })
}

/// A row from JSON; unknown fields are passed over, so that an older Windlass can read what a newer one added.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, json: &str) -> Result<T, Fault> {
    serde_json::from_str(json).map_err(|e| Fault::Corrupt { detail: format!("a {what} row cannot be read: {e}") })
}

/// A state's name, as it stands in JSON.
pub(super) fn name_of<T: Serialize>(state: T) -> Result<String, Fault> {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        other => Err(Fault::Io { doing: "encode a state", detail: format!("{other:?}") }),
    }
}

/// A number as SQL has it. Saturates: no number of ours comes near.
pub(super) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that we wrote with [`int`].
pub(super) fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What an error of SQLite means to us.
pub(crate) fn fault_of(doing: &'static str, error: rusqlite::Error) -> Fault {
    let detail = error.to_string();
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DiskFull => Fault::DiskFull,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Fault::Corrupt { detail },
            _ => Fault::Io { doing, detail },
        },
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::QueryReturnedNoRows => Fault::Corrupt { detail },
        _ => Fault::Io { doing, detail },
    }
}
