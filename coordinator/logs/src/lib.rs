//! Job logs at the coordinator: shared segments with group commit, sealed logs, live watchers.
