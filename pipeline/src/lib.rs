//! The pipeline language, pure: no file, clock or network; the same text and variables give the same graph.
//!
//! The way of a text, one module a stop:
//! - [`yaml`]: documents as trees in which everything knows its place; aliases, merges and limits are dealt with here;
//! - `interpolate`: variables in those trees; [`render`] shows what comes of it, [`normal`] what an upload sends, and
//!   [`secret`] finds what must not be in there;
//! - `read` and `model`: the trees as typed steps;
//! - `check`: what only all steps together show;
//! - `decide`: what conditions take away before anything runs;
//! - `expand`: the steps as nodes of a [`graph`].
//!
//! [`condition`] reads and evaluates the expressions of `if`, [`glob`] matches paths and branches. `schema` gives the
//! language to editors. [`destination`] says where downloads go, [`plugin`] where a job's plugins are found and what their
//! hooks see. [`file`] names the files that a text is looked for in. [`cache_key`] and [`caches`] say what caches are kept by, and
//! [`content_type`] what a file holds.
//!
//! All stops report [`Diagnostic`]s and go on, so that one run tells everything that is wrong.

pub mod cache_key;
pub mod caches;
mod check;
mod compile;
pub mod condition;
pub mod content_type;
mod decide;
pub mod destination;
pub mod diagnostic;
mod expand;
pub mod file;
mod fuzz;
pub mod glob;
pub mod graph;
mod interpolate;
mod model;
pub mod normal;
pub mod plugin;
mod read;
pub mod render;
mod schema;
pub mod secret;
mod suggest;
pub mod yaml;

pub use compile::{Compiled, Inputs, check, compile, compile_with};
pub use diagnostic::{Diagnostic, Severity, Span};
pub use expand::{expand_document, numbered_label};
pub use fuzz::{fuzz, fuzz_condition, fuzz_document, fuzz_glob, fuzz_interpolation};
pub use interpolate::{Error as InterpolationError, identifiers};
pub use model::step_notify;
pub use schema::json_schema;
