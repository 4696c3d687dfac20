//! Tests of the whole: simulation, end to end, crashes, real parts.
//!
//! | module | owns |
//! | --- | --- |
//! | [`sim`] | the core simulation |
//! | [`kit`] | real coordinators, agents and clients in a world of their own |

pub mod kit;
pub mod sim;
