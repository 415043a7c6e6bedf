//! Rejects requests that foreign web pages make through a browser (cross-site request forgery, DNS rebinding).
//!
//! A browser sends the page's origin with every request that could change something, and a page cannot suppress it; the origin
//! must be the node itself. A page under a name that was made to resolve to this node (DNS rebinding) is recognized by its
//! `Host`: a node is addressed by IP address, as `localhost`, or by a name of the local network, never by a public name. No CORS
//! headers are sent.

use std::net::IpAddr;

use super::message::HttpRequest;

/// The trust in the `Host` header of a caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::api) enum Reach {
    /// The client uses a unix socket or has shown the token, which a foreign page cannot do.
    Proven,
    /// TCP with `--insecure-api`: every client is let in, and programs may name the node as they like.
    Open,
    /// Loopback without a token.
    Loopback,
}

/// Returns the reason to reject a request; `None` if it may pass.
pub(in crate::api) fn refusal(request: &HttpRequest, reach: Reach) -> Option<String> {
    let host = request.headers.get("host").unwrap_or("");
    let origin = request.headers.get("origin");
    let site = request.headers.get("sec-fetch-site");
    if let Some(origin) = origin
        && !origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
    {
        return Some(format!("a page of {origin} may not use this node"));
    }
    // A link to the node's own page may be followed from any site.
    let followed = request.method == "GET" && request.path == "/";
    if matches!(site, Some("cross-site" | "same-site")) && !followed {
        return Some("a page of another site may not use this node".to_owned());
    }
    let browser = origin.is_some() || site.is_some();
    let named = match reach {
        Reach::Proven => true,
        Reach::Open => !browser || is_local(host),
        Reach::Loopback => is_local(host),
    };
    (!named)
        .then(|| format!("the node is not known as '{host}'; use its address or localhost, or set --api-token-file"))
}

/// Returns true unless a host is a public name: true for an address, and for a name that only a local network resolves.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let local = [".localhost", ".local", ".internal"].iter().any(|end| name.ends_with(end));
    name.parse::<IpAddr>().is_ok() || !name.contains('.') || local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(headers: &[(&str, &str)], reach: Reach) -> bool {
        let mut request = HttpRequest { method: "POST".into(), path: "/x".into(), ..HttpRequest::default() };
        headers.iter().for_each(|(name, value)| request.headers.push(name, value));
        refusal(&request, reach).is_some()
    }

    #[test]
    fn a_page_elsewhere_is_refused_whatever_it_may_show() {
        for reach in [Reach::Proven, Reach::Open, Reach::Loopback] {
            for origin in ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"] {
                assert!(refused(&[("host", "127.0.0.1:50051"), ("origin", origin)], reach), "{origin}");
            }
            assert!(!refused(&[("host", "127.0.0.1:50051"), ("origin", "http://127.0.0.1:50051")], reach));
            assert!(refused(&[("host", "127.0.0.1:50051"), ("sec-fetch-site", "cross-site")], reach));
            assert!(!refused(&[("host", "127.0.0.1:50051"), ("sec-fetch-site", "same-origin")], reach));
        }
    }

    #[test]
    fn a_name_that_was_made_to_point_here_is_refused() {
        let rebound = [("host", "evil.example:50051"), ("origin", "http://evil.example:50051")];
        assert!(refused(&rebound, Reach::Loopback));
        assert!(refused(&rebound[..1], Reach::Loopback));
        assert!(refused(&rebound, Reach::Open), "a browser");
        assert!(!refused(&rebound[..1], Reach::Open), "a program");
        assert!(!refused(&rebound, Reach::Proven), "behind a token");
    }

    #[test]
    fn addresses_and_local_names_are_known() {
        for host in
            ["127.0.0.1:1", "[::1]:1", "[::1]", "localhost", "LOCALHOST:9", "peat-node:50051", "a.local:1", "10.0.0.1"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:1", "1.2.3.4.5"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
