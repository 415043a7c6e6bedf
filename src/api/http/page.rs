//! The web page at `/`: the fleet as this node sees it, for a person.
//!
//! A single file without external resources. It contains no secrets; its script requests the data.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use super::message::Response;

const PAGE: &str = include_str!("page.html");

/// Returns the page with a policy that lets the browser run only its inline style and script, and connect only to this node.
pub(in crate::api) fn response() -> Response {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash_of("style"),
        hash_of("script")
    );
    Response::new(200, "text/html; charset=utf-8", PAGE)
        .with("content-security-policy", policy)
        .with("x-content-type-options", "nosniff")
        .with("referrer-policy", "no-referrer")
        .with("cache-control", "no-cache")
}

/// Returns the hash of an inline element as a source of the policy (w3.org/TR/CSP3, "hash-source").
fn hash_of(element: &str) -> String {
    let content =
        PAGE.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    let content = content.map_or("", |(content, _)| content);
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, content.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_asks_nobody_but_its_node() {
        assert!(PAGE.len() <= 14 << 10, "{} bytes", PAGE.len());
        for outside in
            ["http:", "https:", "//www", "@import", "url(", "innerHTML", "outerHTML", "document.write", "eval("]
        {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "").contains(outside);
            assert!(!found, "{outside}");
        }
        assert_eq!((PAGE.matches("<style>").count(), PAGE.matches("<script>").count()), (1, 1));
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="));
    }
}
