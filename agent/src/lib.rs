//! The agent: its link to the coordinator, workspaces, log sending and the loop around its core.
