//! The table of routes. A path that is not listed is a service method, or unknown.

use super::message::HttpRequest;
use super::openapi;
use super::page;
use super::reply::Reply;
use crate::api::Engine;
use crate::clock::Now;

/// Handles a request with access to the engine's state.
pub(in crate::api) type Handler = fn(&mut Engine, Now, &HttpRequest) -> Reply;

/// One entry of the table.
#[derive(Debug)]
pub(in crate::api) struct Route {
    method: &'static str,
    /// Path of the route; `*` matches one non-empty segment.
    path: &'static str,
    /// True if the route may be called without the token.
    pub(in crate::api) open: bool,
    pub(in crate::api) handler: Handler,
}

const fn get(path: &'static str, handler: Handler) -> Route {
    Route { method: "GET", path, open: false, handler }
}

const fn post(path: &'static str, handler: Handler) -> Route {
    Route { method: "POST", path, open: false, handler }
}

/// Creates a route that needs no token, for answers that reveal only that the node is there.
const fn open(path: &'static str, handler: Handler) -> Route {
    Route { method: "GET", path, open: true, handler }
}

const ROUTES: &[Route] = &[
    open("/", |_, _, _| Reply::Now(page::response())),
    open("/healthz", Engine::route_healthz),
    open("/readyz", Engine::route_readyz),
    open("/api/v1/openapi.json", |_, _, _| Reply::Now(openapi::response())),
    get("/metrics", Engine::route_metrics),
    get("/api/v1/overview", Engine::route_overview),
    get("/api/v1/agents", Engine::route_agents),
    post("/api/v1/agents", Engine::route_register),
    get("/api/v1/agents/*", Engine::route_agent),
    get("/api/v1/agents/*/commands", Engine::route_agent_commands),
    get("/api/v1/commands/*", Engine::route_command),
    post("/api/v1/agents/commands", Engine::route_send_to_all),
    post("/api/v1/agents/groups/*/commands", Engine::route_send_to_group),
    post("/api/v1/agents/*/heartbeat", Engine::route_heartbeat),
    post("/api/v1/agents/*/commands", Engine::route_send_to_agent),
    post("/api/v1/agents/*/commands/*/ack", Engine::route_ack),
    get("/api/v1/agents/*/events", Engine::route_events),
];

/// Result of a look-up.
#[derive(Debug)]
pub(in crate::api) enum Found {
    Route(&'static Route),
    /// The path exists with other methods, which are listed.
    Methods(String),
    Nothing,
}

/// Finds the route of a request.
pub(in crate::api) fn find(request: &HttpRequest) -> Found {
    let at_path: Vec<&Route> = ROUTES.iter().filter(|route| matches(route.path, &request.path)).collect();
    // A path that accepts GET accepts HEAD too.
    let method = if request.method == "HEAD" { "GET" } else { &request.method };
    match at_path.iter().find(|route| route.method == method) {
        Some(route) => Found::Route(route),
        None if at_path.is_empty() => Found::Nothing,
        None => Found::Methods(at_path.iter().map(|route| route.method).collect::<Vec<_>>().join(", ")),
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    let same = pattern.split('/').all(|wanted| match parts.next() {
        Some(part) if wanted == "*" => !part.is_empty(),
        part => part == Some(wanted),
    });
    same && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the routes of an OpenAPI description: method and path, with `*` for each parameter.
    fn described(description: &str) -> Vec<(String, String)> {
        let document: serde_json::Value = serde_json::from_str(description).expect("JSON");
        let mut routes = Vec::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            let parts = path.split('/').map(|part| if part.starts_with('{') { "*" } else { part });
            let path = parts.collect::<Vec<_>>().join("/");
            let methods = item.as_object().expect("a path").keys().filter(|key| *key != "parameters");
            routes.extend(methods.map(|method| (method.to_ascii_uppercase(), path.clone())));
        }
        routes.sort();
        routes
    }

    #[test]
    fn proto_openapi_json_describes_these_routes_and_no_others() {
        let mut routes: Vec<_> = ROUTES.iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
        routes.sort();
        assert_eq!(described(openapi::DESCRIPTION), routes);
    }

    #[test]
    fn what_is_open_is_described_as_open() {
        let document: serde_json::Value = serde_json::from_str(openapi::DESCRIPTION).expect("JSON");
        for route in ROUTES {
            let path = document["paths"].as_object().expect("paths").iter().find(|(path, _)| matches(route.path, path));
            let operation = &path.expect("described").1[route.method.to_ascii_lowercase()];
            let open = operation["security"].as_array().is_some_and(Vec::is_empty);
            assert_eq!(open, route.open, "{} {}", route.method, route.path);
        }
    }

    #[test]
    fn a_star_stands_for_one_part() {
        assert!(matches("/a/*/b", "/a/x/b"));
        for path in ["/a//b", "/a/x/y/b", "/a/x/b/", "/a/x", "a/x/b"] {
            assert!(!matches("/a/*/b", path), "{path}");
        }
        assert!(matches("/", "/"));
    }

    #[test]
    fn a_path_with_another_method_says_which_there_are() {
        let request = |method: &str, path: &str| HttpRequest {
            method: method.into(),
            path: path.into(),
            ..HttpRequest::default()
        };
        assert!(matches!(find(&request("GET", "/healthz")), Found::Route(_)));
        assert!(matches!(find(&request("HEAD", "/healthz")), Found::Route(_)));
        assert!(matches!(find(&request("PUT", "/healthz")), Found::Methods(methods) if methods == "GET"));
        assert!(matches!(find(&request("GET", "/nowhere")), Found::Nothing));
    }
}
