//! Running git for others: where nobody may be asked a question, nothing secret may be said, and nothing may run on.
//!
//! | module | owns |
//! | --- | --- |
//! | [`changed`] | which files have changed, by git's word |
//! | [`credentials`] | the operator's credentials, and taking them out of what git says |
//! | [`dir_cache`] | directories that are made once, locked while they are used, and removed for room |
//! | [`key`] | a key for ssh that lies on no disk |
//! | [`locks`] | what a git that was killed leaves |
//! | [`mirror`] | making a bare mirror |
//! | [`policy`] | whose repositories the operator's credentials are for |
//! | [`repository`] | which texts name a repository, and the protocols that an operator allows |
//! | [`run`] | one git with all that it starts: its deadline, its output, its end |
//! | [`said`] | whose fault it is, by git's words |
//! | [`settings`] | what every git of ours is set to, and who it is to a server |
//!
//! Coordinator and agent both stand on this crate; what they fetch, and for whom, is theirs.

pub mod changed;
pub mod credentials;
pub mod dir_cache;
pub mod key;
pub mod locks;
pub mod mirror;
pub mod policy;
pub mod repository;
pub mod run;
pub mod said;
pub mod settings;

pub use credentials::Credentials;
pub use dir_cache::DirCache;
pub use key::SshKey;
pub use repository::{BadProtocol, BadRepository, Protocol, Protocols};
pub use run::{Bounds, GitError, run, run_holding};
pub use settings::Identity;
