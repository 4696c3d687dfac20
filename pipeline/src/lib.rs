//! The pipeline language, pure: YAML with spans, model, checks, step graph.
