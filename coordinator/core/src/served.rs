//! What of the pipeline language this coordinator runs: one list, for whoever compiles for it and for its own door.

use windlass_pipeline::graph::{Feature, Graph};

use crate::error::Rejected;

/// What can be written and is run as written. What is not here is refused at submit, unless leaving it out is harmless.
pub const SERVED: &[Feature] = &[
    Feature::Block,
    Feature::Input,
    Feature::Group,
    Feature::If,
    Feature::Branches,
    Feature::Matrix,
    Feature::UnresolvedDependency,
    Feature::Concurrency,
    Feature::CancelOnBuildFailing,
    Feature::Plugins,
    Feature::Checkout,
];

/// Refuses a graph that would run otherwise than it says: one that came past the compiler, or is of another version.
pub(crate) fn check(graph: &Graph) -> Result<(), Rejected> {
    let missing = graph.requires().into_iter().find(|feature| !SERVED.contains(feature) && !feature.is_harmless());
    match missing {
        Some(feature) => Err(Rejected::Graph(format!("`{feature}` is not served yet"))),
        None => Ok(()),
    }
}
