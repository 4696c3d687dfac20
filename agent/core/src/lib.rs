//! The agent's pure state machine: slots, leases on its own clock, spool and drain.
