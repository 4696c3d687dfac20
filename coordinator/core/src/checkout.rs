//! A step's `checkout` as the variables that its agent reads (reference 11.7).

use windlass_pipeline::graph::Checkout;

/// What the step's own `env` wins over.
pub(crate) fn beneath(checkout: &Checkout) -> Vec<(String, String)> {
    let flags = &checkout.flags;
    let given = [
        ("BUILDKITE_GIT_CLONE_FLAGS", flags.clone.clone()),
        ("BUILDKITE_GIT_FETCH_FLAGS", flags.fetch.clone()),
        ("BUILDKITE_GIT_CHECKOUT_FLAGS", flags.checkout.clone()),
        ("BUILDKITE_GIT_CLEAN_FLAGS", flags.clean.clone()),
        ("BUILDKITE_GIT_SPARSE_CHECKOUT_PATHS", Some(checkout.sparse.join(",")).filter(|paths| !paths.is_empty())),
    ];
    named(given)
}

/// What wins over the step's own `env`, which says what the flags are by now.
pub(crate) fn above(checkout: &Checkout, env: &[(String, String)]) -> Vec<(String, String)> {
    let switch = |value: Option<bool>| value.map(|value| value.to_string());
    let mut all = named([
        ("BUILDKITE_SKIP_CHECKOUT", switch(checkout.skip)),
        ("BUILDKITE_GIT_SUBMODULES", switch(checkout.submodules)),
        ("BUILDKITE_GIT_LFS_ENABLED", switch(checkout.lfs)),
        // A rule of whoever wrote the step, and no default of his.
        ("BUILDKITE_GIT_COMMIT_VERIFICATION", checkout.commit_verification.map(|how| how.word().to_owned())),
        // Which secret, never what it is: the agent asks for it by its right to the attempt.
        ("WINDLASS_CHECKOUT_SSH_SECRET", checkout.ssh_secret.clone()),
    ]);
    if let Some(depth) = checkout.depth {
        for name in ["BUILDKITE_GIT_CLONE_FLAGS", "BUILDKITE_GIT_FETCH_FLAGS"] {
            let flags = env.iter().rev().find(|(known, _)| known == name).map_or("", |(_, flags)| flags.as_str());
            all.push((name.to_owned(), format!("{flags} --depth={depth}").trim().to_owned()));
        }
    }
    all
}

fn named<const N: usize>(given: [(&str, Option<String>); N]) -> Vec<(String, String)> {
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

#[cfg(test)]
mod tests {
    use windlass_pipeline::graph::{CheckoutFlags, CommitVerification};

    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_key_becomes_its_variable() {
        let checkout = Checkout {
            skip: Some(true),
            submodules: Some(false),
            lfs: Some(true),
            depth: Some(5),
            flags: CheckoutFlags {
                clone: Some("-v".to_owned()),
                fetch: None,
                checkout: Some("-f -q".to_owned()),
                clean: Some("-fd".to_owned()),
            },
            sparse: vec!["a".to_owned(), "b/c".to_owned()],
            ssh_secret: Some("DEPLOY_KEY".to_owned()),
            commit_verification: Some(CommitVerification::Strict),
        };
        let beneath = beneath(&checkout);
        let wanted = pairs(&[
            ("BUILDKITE_GIT_CLONE_FLAGS", "-v"),
            ("BUILDKITE_GIT_CHECKOUT_FLAGS", "-f -q"),
            ("BUILDKITE_GIT_CLEAN_FLAGS", "-fd"),
            ("BUILDKITE_GIT_SPARSE_CHECKOUT_PATHS", "a,b/c"),
        ]);
        assert_eq!(beneath, wanted);
        let wanted = pairs(&[
            ("BUILDKITE_SKIP_CHECKOUT", "true"),
            ("BUILDKITE_GIT_SUBMODULES", "false"),
            ("BUILDKITE_GIT_LFS_ENABLED", "true"),
            ("BUILDKITE_GIT_COMMIT_VERIFICATION", "strict"),
            ("WINDLASS_CHECKOUT_SSH_SECRET", "DEPLOY_KEY"),
            ("BUILDKITE_GIT_CLONE_FLAGS", "-v --depth=5"),
            ("BUILDKITE_GIT_FETCH_FLAGS", "--depth=5"),
        ]);
        assert_eq!(above(&checkout, &beneath), wanted);
        assert_eq!((super::beneath(&Checkout::default()), above(&Checkout::default(), &[])), (vec![], vec![]));
    }
}
