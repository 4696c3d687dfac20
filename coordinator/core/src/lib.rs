//! The coordinator's pure state machine: builds, jobs, leases, queues, agents and tokens.
