//! The message that every peer carries, as long as a real node's.

#![allow(clippy::all, clippy::pedantic, unreachable_pub)]

include!(concat!(env!("OUT_DIR"), "/peat.sidecar.v1.rs"));

impl GetStatusResponse {
    /// Returns a response with identifiers as long as a node's.
    pub(crate) fn sample() -> GetStatusResponse {
        GetStatusResponse {
            node_id: "0b8a1b5e-6f2f-4a0f-9d0b-0c7f6a1e2d3c".into(),
            endpoint_addr: "5f".repeat(32),
            sync_active: true,
            connected_peers: 0,
            phase: 2,
        }
    }
}
