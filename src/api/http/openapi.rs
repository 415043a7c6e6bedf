//! The description of the REST interface at `/api/v1/openapi.json`, for tools and client generators.
//!
//! The file is `proto/openapi.json`. `tests/openapi` checks a node against it.

use super::message::Response;

/// The OpenAPI 3.1 document.
pub(super) const DESCRIPTION: &str = include_str!("../../../proto/openapi.json");

/// Returns the description, unchanged from the source tree.
pub(super) fn response() -> Response {
    Response::new(200, "application/json", DESCRIPTION).with("cache-control", "no-cache")
}
