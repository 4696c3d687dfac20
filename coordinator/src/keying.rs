//! The key of a step: everything that decides its result, found out before it runs (docs/design/030).
//!
//! | module | owns |
//! | --- | --- |
//! | `select`, `prune` | of a source only what is declared |
//! | [`recipe`] | the text that the key is the digest of, and in what two of them differ |

mod prune;
pub mod recipe;
mod select;
