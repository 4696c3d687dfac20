//! What of the language a graph needs served: the seam between what can be written and what can be run.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Broken, Command, Graph, Node, NodeKind, SERVICES};

macro_rules! features {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $harmless:literal;)*) => {
        /// A part of the language that a coordinator may or may not serve. Everything else is served by all.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Feature { $($(#[$doc])* $variant,)* }

        impl Feature {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As it is written in a pipeline.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether a step does its own work even where this is left out. What is not harmless is never skipped over.
            #[must_use]
            pub const fn is_harmless(self) -> bool {
                match self { $(Self::$variant => $harmless,)* }
            }
        }
    };
}

features! {
    /// Block steps.
    Block = "block", false;
    /// Input steps.
    Input = "input", false;
    /// Trigger steps.
    Trigger = "trigger", false;
    /// Jobs that know their group.
    Group = "group", false;
    /// Steps that a condition took away, as jobs in state `broken`.
    If = "if", false;
    /// The same, by branch.
    Branches = "branches", false;
    /// Jobs that know their values of a matrix.
    Matrix = "matrix", false;
    /// Keys that a later upload may bring.
    UnresolvedDependency = "depends_on", false;
    /// Concurrency groups.
    Concurrency = "concurrency", false;
    /// Plugins.
    Plugins = "plugins", false;
    /// Secrets.
    Secrets = "secrets", false;
    /// How the source is checked out.
    Checkout = "checkout", true;
    /// A key of the step's own for its checkout.
    CheckoutKey = "checkout.ssh_secret", false;
    /// A look whether the commit is on its branch.
    CommitVerification = "checkout.commit_verification", false;
    /// Files that are uploaded after the command.
    ArtifactPaths = "artifact_paths", true;
    /// Jobs that end when their build is failing.
    CancelOnBuildFailing = "cancel_on_build_failing", true;
    /// Directories that are kept by key.
    Cache = "cache", true;
    /// Directories that are kept between jobs, without a key: volumes.
    CacheVolume = "cache without key", true;
    /// Results of earlier runs.
    Reuse = "reuse", true;
    /// Notifications.
    Notify = "notify", true;
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Graph {
    /// What must be served for this graph to run as it says. Whoever takes a graph compares it with what he serves.
    #[must_use]
    pub fn requires(&self) -> BTreeSet<Feature> {
        let mut needs = BTreeSet::new();
        self.nodes.iter().for_each(|node| of_node(node, &mut needs));
        let notifies = self.notify.iter().chain(self.groups.iter().flat_map(|group| &group.notify));
        if notifies.chain(self.nodes.iter().flat_map(|node| &node.notify)).any(|entry| is_served(&entry.service)) {
            needs.insert(Feature::Notify);
        }
        needs
    }
}

/// Services that nobody serves are told of by the checker, and nothing waits for them.
pub(crate) fn is_served(service: &str) -> bool {
    SERVICES.iter().any(|known| known.served && known.name == service)
}

fn of_node(node: &Node, needs: &mut BTreeSet<Feature>) {
    needs.extend(node.place.group.map(|_| Feature::Group));
    needs.extend(node.broken.map(|broken| match broken {
        Broken::Branches => Feature::Branches,
        Broken::If | Broken::Replaced => Feature::If,
        Broken::Merged => Feature::Block,
    }));
    let told =
        [(!node.matrix.is_empty(), Feature::Matrix), (!node.unresolved.is_empty(), Feature::UnresolvedDependency)];
    needs.extend(told.into_iter().filter_map(|(needed, feature)| needed.then_some(feature)));
    match &node.kind {
        NodeKind::Command(command) => needs.extend(of_command(command)),
        NodeKind::Wait { .. } => {}
        NodeKind::Block(_) => needs.extend([Feature::Block]),
        NodeKind::Input(_) => needs.extend([Feature::Input]),
        NodeKind::Trigger(_) => needs.extend([Feature::Trigger]),
    }
}

fn of_command(command: &Command) -> impl Iterator<Item = Feature> {
    [
        (command.concurrency.is_some(), Feature::Concurrency),
        (!command.plugins.is_empty(), Feature::Plugins),
        (!command.secrets.is_empty(), Feature::Secrets),
        (command.checkout != super::Checkout::default(), Feature::Checkout),
        (command.checkout.ssh_secret.is_some(), Feature::CheckoutKey),
        (command.checkout.commit_verification.is_some(), Feature::CommitVerification),
        (!command.artifact_paths.is_empty(), Feature::ArtifactPaths),
        (command.cancel_on_build_failing, Feature::CancelOnBuildFailing),
        (command.cache.as_ref().is_some_and(|cache| cache.key.is_some()), Feature::Cache),
        (command.cache.as_ref().is_some_and(|cache| cache.key.is_none()), Feature::CacheVolume),
        (command.reuse.is_some(), Feature::Reuse),
    ]
    .into_iter()
    .filter_map(|(needed, feature)| needed.then_some(feature))
}
