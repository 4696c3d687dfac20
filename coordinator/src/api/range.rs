//! The `Range` header: which bytes of something a client asks for, and how the answer says which they are (RFC 9110, 14).

use axum::http::header::{ACCEPT_RANGES, CONTENT_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

use super::problem::{Kind, Problem};

/// Bytes that are asked for, of something that has `total` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ranged {
    /// All of them.
    Whole {
        /// How many.
        total: u64,
    },
    /// Those from `start` to before `end`.
    Part { start: u64, end: u64, total: u64 },
}

impl Ranged {
    /// What a request asks for of a `thing` with so many bytes; all of it where its header is not for us (several ranges,
    /// another unit).
    ///
    /// # Errors
    /// 416 where it asks for what lies past the end.
    pub(super) fn of(headers: &HeaderMap, total: u64, thing: &str) -> Result<Self, Problem> {
        let asked = headers.get(RANGE).and_then(|range| range.to_str().ok()).and_then(|range| parse(range, total));
        match asked {
            None => Ok(Self::Whole { total }),
            Some(Some((start, end))) => Ok(Self::Part { start, end, total }),
            Some(None) => {
                let all =
                    HeaderValue::from_str(&format!("bytes */{total}")).unwrap_or(HeaderValue::from_static("bytes */*"));
                let problem = Problem::new(Kind::RangeUnsatisfiable, format!("the {thing} has {total} bytes"));
                Err(problem.with_header(CONTENT_RANGE, all))
            }
        }
    }

    /// From where, and to before where.
    pub(super) const fn bounds(self) -> (u64, u64) {
        match self {
            Self::Whole { total } => (0, total),
            Self::Part { start, end, .. } => (start, end),
        }
    }

    /// Says in an answer which bytes it has.
    pub(super) fn describe(self, response: &mut Response) {
        response.headers_mut().insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        let Self::Part { start, end, total } = self else { return };
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        if let Ok(shown) = HeaderValue::from_str(&format!("bytes {start}-{}/{total}", end.saturating_sub(1))) {
            response.headers_mut().insert(CONTENT_RANGE, shown);
        }
    }
}

/// The range that the header names: `None` if it is not for us, `Some(None)` if it lies past the end.
fn parse(text: &str, total: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
    if first.is_empty() {
        let suffix: u64 = last.parse().ok()?;
        return Some((suffix > 0 && total > 0).then(|| (total.saturating_sub(suffix), total)));
    }
    let start: u64 = first.parse().ok()?;
    let end = if last.is_empty() { total } else { last.parse::<u64>().ok()?.saturating_add(1) };
    if end <= start && !last.is_empty() {
        return None;
    }
    Some((start < total).then(|| (start, end.min(total))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_standard_says() {
        for (text, range) in [
            ("bytes=0-3", Some(Some((0, 4)))),
            ("bytes=4-", Some(Some((4, 10)))),
            ("bytes=-3", Some(Some((7, 10)))),
            ("bytes=-30", Some(Some((0, 10)))),
            ("bytes=8-18446744073709551615", Some(Some((8, 10)))),
            ("bytes=9-9", Some(Some((9, 10)))),
            ("bytes=10-", Some(None)),
            ("bytes=-0", Some(None)),
            ("bytes=5-2", None),
            ("bytes=0-1,3-4", None),
            ("lines=0-3", None),
            ("bytes=x-", None),
        ] {
            assert_eq!(parse(text, 10), range, "{text}");
        }
        assert_eq!(parse("bytes=-3", 0), Some(None), "of nothing there is no part");
    }
}
