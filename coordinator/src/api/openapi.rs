//! The document that describes the API (OpenAPI 3.1); a copy is checked in, so that a review sees what changes.

use axum::Json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Document, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use super::problem;

#[derive(Debug, OpenApi)]
#[openapi(
    info(
        title = "Windlass",
        description = "A build fleet: builds, logs, agents and a content-addressed cache. Errors are problem+json \
                       (RFC 9457) with a stable `type`.",
        version = "1"
    ),
    paths(
        super::build::list,
        super::build::show,
        super::build::show_by_number,
        super::build::cancel,
        super::build::retry,
        super::annotation::list,
        super::notification::list,
        super::artifact::list,
        super::artifact::show,
        super::artifact::read,
        super::upload_artifact::put,
        super::cache::list,
        super::cache::pin,
        super::cache::unpin,
        super::cache::remove,
        super::cache_stats::show,
        super::pin::list,
        super::pin::show,
        super::pin::put,
        super::pin::delete,
        super::prefetch::start,
        super::meta_data::list,
        super::meta_data::show,
        super::meta_data::set,
        super::pipeline::list,
        super::pipeline::show,
        super::pipeline::create,
        super::pipeline::update,
        super::schedule::list,
        super::schedule::add,
        super::schedule::remove,
        super::submit::submit,
        super::submit::rebuild,
        super::event::stream,
        super::job::retry,
        super::job::cancel,
        super::job::unblock,
        super::job::why,
        super::reuse::explain,
        super::laptop::terms,
        super::laptop::lookup,
        super::laptop::image,
        super::laptop::file,
        super::laptop::log,
        super::upload::pipeline,
        super::log::read,
        super::log::stream,
        super::agent::list,
        super::agent::show,
        super::agent::drain,
        super::agent::drain_many,
        super::agent::resume,
        super::agent::revoke,
        super::agent::pools,
        super::token::list,
        super::token::show,
        super::token::current,
        super::token::create,
        super::token::revoke,
        super::audit::list,
        super::secret::set,
        super::secret::list,
        super::secret::remove,
        super::blob::head,
        super::blob::get,
        super::blob::put,
        super::blob::missing,
        super::blob::pack,
        super::gc::start,
        super::gc::show,
        super::verify::start,
        super::verify::show,
        super::resumable::create,
        super::resumable::head,
        super::resumable::append,
        super::resumable::cancel,
        super::oidc::configuration,
        super::oidc::jwks,
        super::metric::healthy,
        super::metric::ready,
        super::metric::metrics
    ),
    components(schemas(problem::Document)),
    security(("token" = [])),
    modifiers(&Common)
)]
struct Api;

/// What all paths share: how a client shows its token, and what an error looks like.
#[derive(Debug)]
struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("wla_…")
            .description(Some("An API token, as `windlass token create --scope` makes it"));
        components.add_security_scheme("token", SecurityScheme::Http(token.build()));
        let schema = utoipa::openapi::Ref::from_schema_name("Problem");
        let response = ResponseBuilder::new()
            .description("What went wrong")
            .content("application/problem+json", Content::new(Some(RefOr::Ref(schema))));
        let response = response.build();
        for item in document.paths.paths.values_mut() {
            let operations =
                [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete, &mut item.head];
            for operation in operations.into_iter().flatten() {
                operation.responses.responses.insert("default".to_owned(), RefOr::T(response.clone()));
            }
        }
    }
}

/// The document.
pub(super) fn build() -> Document {
    Api::openapi()
}

/// The document, for clients.
pub(super) async fn document() -> Json<Document> {
    Json(build())
}
