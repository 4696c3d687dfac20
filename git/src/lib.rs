//! Running git for others: where nobody may be asked a question, nothing secret may be said, and nothing may run on.
//!
//! | module | owns |
//! | --- | --- |
//! | [`repository`] | which texts name a repository, and the protocols that an operator allows |
//! | [`credentials`] | the operator's credentials, and taking them out of what git says |
//! | [`locks`] | what a git that was killed leaves |
//! | [`run`] | one git with all that it starts: its deadline, its output, its end |
//!
//! Coordinator and agent both stand on this crate; what they fetch, and for whom, is theirs.

pub mod credentials;
pub mod locks;
pub mod repository;
pub mod run;

pub use credentials::Credentials;
pub use repository::{BadRepository, Protocol, Protocols};
pub use run::{Bounds, GitError, run};
