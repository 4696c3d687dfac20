//! How a build that is followed is shown: lines of JSON for programs, states and logs for people.

mod human;
mod json;
pub(crate) mod words;

pub(crate) use human::Human;
pub(crate) use json::Json;
