//! Runs jobs: spawner, supervisor, process and Docker runners, masking and the log spool.
