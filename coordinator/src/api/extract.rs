//! What comes in: queries, JSON bodies, ids; and pages that go out.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Query as AxumQuery, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use windlass_protocol::limits::{BODY_MAX_BYTES, PAGE_MAX_ITEMS};

use super::Ground;
use super::problem::{Kind, Problem};

/// Items of a page of which nobody said how many.
const PAGE_ITEMS: usize = 50;

/// A query string; names that mean nothing are refused.
#[derive(Debug)]
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequestParts<Ground> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Ground) -> Result<Self, Problem> {
        let query = AxumQuery::try_from_uri(&parts.uri);
        let AxumQuery(query) = query.map_err(|error| Problem::invalid(format!("the query: {}", innermost(&error))))?;
        Ok(Self(query))
    }
}

/// The last cause, which is the one that says what is wrong.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A JSON body; an empty one is `{}`. Its bytes come with it.
#[derive(Debug)]
pub(crate) struct JsonBody<T> {
    pub(crate) value: T,
    pub(crate) bytes: Bytes,
}

impl<T: DeserializeOwned> FromRequest<Ground> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Ground) -> Result<Self, Problem> {
        let bytes = body(request.into_body()).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value = serde_json::from_slice(text).map_err(|error| Problem::invalid(format!("the body: {error}")))?;
        Ok(Self { value, bytes })
    }
}

async fn body(body: Body) -> Result<Bytes, Problem> {
    to_bytes(body, BODY_MAX_BYTES).await.map_err(|error| {
        use std::error::Error as _;
        // The limit's error is the source of axum's.
        if error.source().is_some_and(|source| source.to_string().contains("length limit")) {
            return Problem::new(Kind::TooLarge, format!("a body has at most {BODY_MAX_BYTES} bytes"));
        }
        Problem::new(Kind::BadRequest, "the body ended before it was whole")
    })
}

/// An id out of a path; a text that cannot be one names nothing.
pub(crate) fn id<T: std::str::FromStr>(what: &str, text: &str) -> Result<T, Problem> {
    let cut: String = text.chars().take(64).collect();
    text.parse().map_err(|_| Problem::not_found(what, cut))
}

/// How a list is asked for.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// Where the last page ended.
    pub(crate) cursor: Option<String>,
    /// 1 to 500; 50 if it is left out.
    pub(crate) limit: Option<usize>,
}

impl Paging {
    /// How many items.
    pub(crate) fn limit(&self) -> Result<usize, Problem> {
        limit(self.limit)
    }
}

/// A page of what one pipeline has, or all have.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfPipeline {
    /// Of this pipeline; of all without it.
    pub(crate) pipeline: Option<String>,
    /// Where the last page ended.
    pub(crate) cursor: Option<String>,
    /// 1 to 500; 50 if it is left out.
    pub(crate) limit: Option<usize>,
}

/// How many items a page has.
pub(crate) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked {
        None => Ok(PAGE_ITEMS),
        Some(limit) if (1..=PAGE_MAX_ITEMS).contains(&limit) => Ok(limit),
        Some(_) => Err(Problem::invalid(format!("limit: 1 to {PAGE_MAX_ITEMS}"))),
    }
}

/// A cursor that the store gave.
pub(crate) fn cursor<T: std::str::FromStr>(text: Option<&str>) -> Result<Option<T>, Problem> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|_| Problem::invalid("cursor: take it from next_cursor of the page before"))
}

/// One page of a list, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The items.
    pub(crate) items: Vec<T>,
    /// Where the next page begins; null at the end.
    pub(crate) next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of what is all in memory, by a key that is larger the newer the item is.
    pub(crate) fn of(all: Vec<(String, T)>, paging: &Paging) -> Result<Self, Problem> {
        let limit = paging.limit()?;
        let mut rest: Vec<_> =
            all.into_iter().filter(|(key, _)| paging.cursor.as_ref().is_none_or(|at| key < at)).collect();
        rest.sort_by(|(one, _), (other, _)| other.cmp(one));
        let more = rest.len() > limit;
        rest.truncate(limit);
        let next_cursor = rest.last().filter(|_| more).map(|(key, _)| key.clone());
        Ok(Self { items: rest.into_iter().map(|(_, item)| item).collect(), next_cursor })
    }
}
