//! Tests of the whole: simulation, end to end, crashes, real parts.
//!
//! | module | owns |
//! | --- | --- |
//! | [`sim`] | the core simulation |

#![allow(clippy::cast_possible_truncation, reason = "sizes of a simulated world are small")]

pub mod sim;
