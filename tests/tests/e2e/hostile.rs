//! A hostile pull request, which tries by every route there is to get a byte of its own into a trusted build, or to learn whether
//! somebody has a blob; and does not get through (I7, I12).

mod api;
mod engine;
mod ground;
mod jobs;
mod links;
mod names;
mod parts;
mod source;

use std::collections::BTreeSet;

/// What a stranger may come in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Route {
    Api,
    Triggers,
    ArtifactBuild,
    RestoreKeys,
    MetaData,
    DynamicUpload,
    Tags,
    GitCheckouts,
    EngineState,
    Peers,
    BlobsByName,
    ManifestsOfOthersChunks,
}

/// All of them, in the order of the issue that asks for this.
const ROUTES: [Route; 12] = [
    Route::Api,
    Route::Triggers,
    Route::ArtifactBuild,
    Route::RestoreKeys,
    Route::MetaData,
    Route::DynamicUpload,
    Route::Tags,
    Route::GitCheckouts,
    Route::EngineState,
    Route::Peers,
    Route::BlobsByName,
    Route::ManifestsOfOthersChunks,
];

/// Which test tries which of them, and where it stands.
const TRIED: [(Route, &str, &str); 15] = [
    (
        Route::Api,
        include_str!("hostile/api.rs"),
        "a_stranger_s_token_changes_nothing_that_a_trusted_build_runs_or_knows",
    ),
    (
        Route::Tags,
        include_str!("hostile/api.rs"),
        "a_stranger_s_token_changes_nothing_that_a_trusted_build_runs_or_knows",
    ),
    (Route::Tags, include_str!("hostile/engine.rs"), "no_agent_runs_jobs_of_both_trusts_whatever_it_says_of_itself"),
    (Route::Triggers, include_str!("hostile/source.rs"), "what_a_pull_request_triggers_is_as_little_trusted_as_itself"),
    (Route::GitCheckouts, include_str!("hostile/source.rs"), "a_pull_request_changes_no_checkout_of_a_trusted_build"),
    (
        Route::ArtifactBuild,
        include_str!("hostile/jobs.rs"),
        "nothing_that_a_hostile_job_leaves_is_there_for_a_trusted_one",
    ),
    (
        Route::RestoreKeys,
        include_str!("hostile/jobs.rs"),
        "nothing_that_a_hostile_job_leaves_is_there_for_a_trusted_one",
    ),
    (Route::MetaData, include_str!("hostile/jobs.rs"), "nothing_that_a_hostile_job_leaves_is_there_for_a_trusted_one"),
    (
        Route::DynamicUpload,
        include_str!("hostile/jobs.rs"),
        "nothing_that_a_hostile_job_leaves_is_there_for_a_trusted_one",
    ),
    (
        Route::EngineState,
        include_str!("hostile/engine.rs"),
        "no_agent_runs_jobs_of_both_trusts_whatever_it_says_of_itself",
    ),
    (
        Route::Peers,
        include_str!("hostile/links.rs"),
        "an_agent_of_strangers_gets_nothing_from_trusted_ones_nor_by_a_grant_that_it_made",
    ),
    (
        Route::BlobsByName,
        include_str!("hostile/names.rs"),
        "a_blob_that_others_have_is_answered_for_as_one_that_nobody_has",
    ),
    (
        Route::BlobsByName,
        include_str!("hostile/links.rs"),
        "an_agent_of_strangers_gets_nothing_from_trusted_ones_nor_by_a_grant_that_it_made",
    ),
    (
        Route::ManifestsOfOthersChunks,
        include_str!("hostile/links.rs"),
        "an_agent_of_strangers_gets_nothing_from_trusted_ones_nor_by_a_grant_that_it_made",
    ),
    (
        Route::ManifestsOfOthersChunks,
        include_str!("hostile/names.rs"),
        "a_tree_that_names_what_others_have_brings_none_of_it",
    ),
];

#[test]
fn every_route_is_tried() {
    let tried: BTreeSet<Route> = TRIED.iter().map(|(route, ..)| *route).collect();
    let missing: Vec<_> = ROUTES.iter().filter(|route| !tried.contains(route)).collect();
    assert!(missing.is_empty(), "nobody tries {missing:?}");
    for (route, text, test) in TRIED {
        assert!(text.contains(&format!("#[test]\nfn {test}(")), "{route:?}: there is no test {test}");
    }
    assert_eq!(ROUTES.iter().collect::<BTreeSet<_>>().len(), ROUTES.len());
}
