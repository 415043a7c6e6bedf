//! Parser of peers on the command line.

use crate::identity::EndpointId;
use crate::sync::{Address, PeerSpec};

/// Parses `ID`, or `ID@HOST:PORT+HOST:PORT` with an optional `relay:` before each address.
///
/// # Errors
/// A sentence that names the wrong part.
pub fn parse_peer(text: &str) -> Result<PeerSpec, String> {
    let (id, addresses) = match text.split_once('@') {
        Some((id, addresses)) => (id, addresses.split('+').map(|part| address(text, part)).collect::<Result<_, _>>()?),
        None => (text, Vec::new()),
    };
    let id = id.parse::<EndpointId>().map_err(|cause| cause.to_string())?;
    Ok(PeerSpec { id, addresses })
}

fn address(peer: &str, text: &str) -> Result<Address, String> {
    let expected = "expected HOST:PORT or relay:HOST:PORT";
    Address::parse(text).ok_or_else(|| format!("'{text}' in '{peer}' is not an address; {expected}"))
}

/// Parses all peers of a configuration. Each text may hold several, separated by commas.
pub(super) fn parse_all<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<PeerSpec>, String> {
    let mut peers: Vec<PeerSpec> = Vec::new();
    for text in texts.flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
        let peer = parse_peer(text)?;
        if peers.iter().any(|known| known.id == peer.id) {
            return Err(format!("peer {} is named twice; write its addresses together, ID@A:1+B:2", peer.id));
        }
        peers.push(peer);
    }
    Ok(peers)
}

/// Returns an error if one of the peers is the node itself.
///
/// # Errors
/// A sentence that names the id.
pub fn refuse_ourselves(peers: &[PeerSpec], ourselves: EndpointId) -> Result<(), super::Error> {
    if peers.iter().any(|peer| peer.id == ourselves) {
        Err(super::Error::new("--peer", format!("{ourselves} is this node itself; leave it out")))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn a_peer_has_an_id_and_any_number_of_addresses() {
        let (a, b) = (id('a'), id('b'));
        let text = format!("{a}@10.0.0.1:4242+[2001:db8::1]:4242+edge.local:4242+relay:hub:4243,{b}");
        let peers = parse_all([text.as_str()].into_iter()).expect("valid");
        let shown: Vec<String> = peers[0].addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.0.0.1:4242", "[2001:db8::1]:4242", "edge.local:4242", "relay:hub:4243"]);
        assert_eq!(peers[1].addresses, []);
    }

    #[test]
    fn a_wrong_part_is_named() {
        let a = id('a');
        for (text, named) in [
            ("abc@10.0.0.1:1".to_owned(), "abc"),
            (format!("{a}@10.0.0.1"), "'10.0.0.1'"),
            (format!("{a}@"), "''"),
            (format!("{a}@h:0"), "'h:0'"),
            (format!("{a}@h:65536"), "'h:65536'"),
            (format!("{a}@h:1+:2"), "':2'"),
            (format!("{a}@relay:h"), "'relay:h'"),
            (format!("{a},{a}@h:1"), "twice"),
        ] {
            let reason = parse_all([text.as_str()].into_iter()).expect_err(&text);
            assert!(reason.contains(named), "{text}: {reason}");
        }
    }

    #[test]
    fn our_own_id_is_refused() {
        let peer = parse_peer(&id('a')).expect("valid");
        refuse_ourselves(std::slice::from_ref(&peer), peer.id).expect_err("ourselves");
        refuse_ourselves(&[peer], EndpointId([1; 32])).expect("somebody else");
    }
}
