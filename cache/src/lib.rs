//! The content-addressed store: blobs, trees, snapshots and their layout.
