//! Detects the variables that Kubernetes sets in every pod of a namespace for each Service in it, unless `enableServiceLinks` is
//! false.
//!
//! A Service `peat-node-hub` causes `PEAT_NODE_HUB_SERVICE_HOST`, `PEAT_NODE_HUB_PORT=tcp://10.0.0.2:50051`,
//! `PEAT_NODE_HUB_PORT_50051_TCP_ADDR` and others, with the prefix of this program's settings. They are recognized by the form of
//! name and value together, so that a misspelt setting is still an error.

use std::net::{IpAddr, SocketAddr};

/// Returns true for a variable that Kubernetes sets for a Service.
pub(super) fn is_service_link(name: &str, value: &str) -> bool {
    let is_port = |text: &str| text.parse::<u16>().is_ok();
    let is_address = |text: &str| text.parse::<IpAddr>().is_ok();
    if let Some((_, port)) = name.rsplit_once("_SERVICE_PORT") {
        // The suffix is empty, or `_NAME` for a named port.
        return (port.is_empty() || port.starts_with('_')) && is_port(value);
    }
    if name.ends_with("_SERVICE_HOST") {
        return is_address(value);
    }
    if name.ends_with("_PORT") && is_url(value) {
        return true;
    }
    // `_PORT_NUMBER_PROTOCOL`, optionally followed by `_PROTO`, `_PORT` or `_ADDR`.
    let parts: Vec<&str> = name.split('_').collect();
    let said = match parts.as_slice() {
        [.., "PORT", number, protocol] if is_port(number) && is_protocol(protocol) => return is_url(value),
        [.., "PORT", number, protocol, said] if is_port(number) && is_protocol(protocol) => *said,
        _ => return false,
    };
    match said {
        "PROTO" => is_protocol(value),
        "PORT" => is_port(value),
        "ADDR" => is_address(value),
        _ => false,
    }
}

/// Returns true for a value such as `tcp://10.0.0.2:50051`.
fn is_url(value: &str) -> bool {
    let split = value.split_once("://");
    split.is_some_and(|(protocol, address)| is_protocol(protocol) && address.parse::<SocketAddr>().is_ok())
}

fn is_protocol(text: &str) -> bool {
    ["tcp", "udp", "sctp"].iter().any(|protocol| text.eq_ignore_ascii_case(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_of_a_service_is_told_by_its_shape() {
        for service in ["PEAT_NODE", "PEAT_NODE_HUB", "PEAT_NODE_PEERS", "PEAT_NODE_7_PORT"] {
            for (ending, value) in [
                ("SERVICE_HOST", "10.0.0.2"),
                ("SERVICE_HOST", "fd00::2"),
                ("SERVICE_PORT", "50051"),
                ("SERVICE_PORT_API", "50051"),
                ("SERVICE_PORT_GRPC_WEB", "50051"),
                ("PORT", "tcp://10.0.0.2:50051"),
                ("PORT", "tcp://[fd00::2]:50051"),
                ("PORT", "udp://10.0.0.2:4242"),
                ("PORT_50051_TCP", "tcp://10.0.0.2:50051"),
                ("PORT_50051_TCP_PROTO", "tcp"),
                ("PORT_50051_TCP_PORT", "50051"),
                ("PORT_50051_TCP_ADDR", "10.0.0.2"),
                ("PORT_4242_UDP_ADDR", "fd00::2"),
                ("PORT_9_SCTP", "sctp://10.0.0.2:9"),
            ] {
                assert!(is_service_link(&format!("{service}_{ending}"), value), "{service}_{ending}={value}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        for (name, value) in [
            ("PEAT_NODE_PORT", "4242"),
            ("PEAT_NODE_HUB_PORT", "http://10.0.0.2:50051"),
            ("PEAT_NODE_HUB_PORT", "tcp://hub:50051"),
            ("PEAT_NODE_SERVICE_HOST", "hub"),
            ("PEAT_NODE_SERVICE_PORT", "many"),
            ("PEAT_NODE_SERVICE_PORTS", "1"),
            ("PEAT_NODE_PORT_TCP", "tcp://10.0.0.2:50051"),
            ("PEAT_NODE_PORT_50051_TCP_NAME", "x"),
            ("PEAT_NODE_PORT_70000_TCP_PORT", "1"),
            ("PEAT_NODE_BIND", "0.0.0.0:4242"),
        ] {
            assert!(!is_service_link(name, value), "{name}={value}");
        }
    }
}
