//! What of the pipeline language this coordinator runs: one list, for whoever compiles for it and for its own door.

use windlass_pipeline::graph::{Feature, Graph};

use crate::error::Rejected;

/// What can be written and is run as written. What is not here is refused at submit, unless leaving it out is harmless.
pub const SERVED: &[Feature] = &[
    Feature::Block,
    Feature::Input,
    Feature::Trigger,
    Feature::Group,
    Feature::If,
    Feature::Branches,
    Feature::Matrix,
    Feature::UnresolvedDependency,
    Feature::Concurrency,
    Feature::CancelOnBuildFailing,
    Feature::Secrets,
    Feature::Plugins,
    Feature::Checkout,
    Feature::CheckoutKey,
    Feature::CommitVerification,
    Feature::ArtifactPaths,
    Feature::Notify,
    Feature::Cache,
    Feature::Reuse,
];

/// Refuses a graph that would run otherwise than it says: one that came past the compiler, or is of another version.
pub(crate) fn check(graph: &Graph) -> Result<(), Rejected> {
    check_by(graph, SERVED)
}

fn check_by(graph: &Graph, served: &[Feature]) -> Result<(), Rejected> {
    let missing = graph.requires().into_iter().find(|feature| !served.contains(feature) && !feature.is_harmless());
    match missing {
        Some(feature) => Err(Rejected::Graph(format!("`{feature}` is not served yet"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(step: &str) -> Graph {
        let text = format!("steps:\n  - command: a\n    {step}\n");
        windlass_pipeline::compile(&text, "pipeline.yml", &[]).graph.unwrap()
    }

    #[test]
    fn what_is_not_served_is_refused_unless_leaving_it_out_is_harmless() {
        let plugins = graph("plugins: [docker#v1]");
        let refused = Rejected::Graph("`plugins` is not served yet".to_owned());
        assert_eq!(check_by(&plugins, &[Feature::Secrets]), Err(refused));
        assert_eq!(check(&plugins), Ok(()));
        assert_eq!(check_by(&graph("artifact_paths: x"), &[]), Ok(()));
    }
}
