//! Keeps web pages of elsewhere from driving a node that a browser can reach.
//!
//! A browser names the page's origin with every request that could change something, and cannot be made to leave it out;
//! it must be the node itself. Of a page whose own name was made to point here (DNS rebinding) the `Host` tells: a node is
//! reached by address, as `localhost`, or by a name of the local network, never by a name of the public one. There are no
//! CORS headers at all.

use std::net::IpAddr;

use super::message::Request;

/// How far a caller over TCP is trusted with its `Host`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::api) enum Reach {
    /// The socket belongs to this machine's users, or the caller has shown the token: no page elsewhere can.
    Proven,
    /// Whoever reaches the listener is let in, by the operator's explicit wish: programs name the node as they like.
    Open,
    /// Loopback without a token.
    Loopback,
}

/// Why a request is refused; `None` when it may pass.
pub(in crate::api) fn refusal(request: &Request, reach: Reach) -> Option<String> {
    let host = request.headers.get("host").unwrap_or("");
    let origin = request.headers.get("origin");
    let site = request.headers.get("sec-fetch-site");
    if let Some(origin) = origin
        && !origin.split_once("://").is_some_and(|(_, origin)| origin.eq_ignore_ascii_case(host))
    {
        return Some(format!("a page of {origin} may not use this node"));
    }
    // A link to the node's own page may be followed from anywhere.
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

/// Whether a host is no name of the public internet: an address, or a name that only a local network resolves.
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
        let mut request = Request { method: "POST".into(), path: "/x".into(), ..Request::default() };
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
