//! The description of the REST interface at `/api/v1/openapi.json`, for tools and for generators of clients.
//!
//! The file is `proto/openapi.json`. `tests/openapi` tries a node against it.

use super::message::Response;

/// OpenAPI 3.1.
pub(super) const DESCRIPTION: &str = include_str!("../../../proto/openapi.json");

/// The description as it is in the tree.
pub(super) fn response() -> Response {
    Response::new(200, "application/json", DESCRIPTION).with("cache-control", "no-cache")
}
