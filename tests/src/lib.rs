//! Tests of the whole: simulation, end to end, crashes, real parts.
