//! Memory bounds: the bytes that a node buffers for one peer or one client are limited, however slowly it reads.

use peat_node::api::{ConnectionId, Engine as Api};
use peat_node::sync::Engine as Sync;

use crate::seeds::Violation;

/// Maximum number of bytes buffered for one peer, in both directions, without QUIC's own buffers: a few batches per lane.
const PEER_BYTES: usize = 1 << 20;
/// Maximum number of bytes queued for one client. The simulated clients grant credit for a few items at a time.
const CLIENT_BYTES: usize = 512 << 10;

/// Checks every peer of a node.
pub fn peers(sync: &Sync) -> Result<(), Violation> {
    match sync.buffered().find(|(_, bytes)| *bytes > PEER_BYTES) {
        Some((peer, bytes)) => Err(Violation::new("bounds", format!("{bytes} bytes held for {peer}"))),
        None => Ok(()),
    }
}

/// Checks one client of a node.
pub fn client(api: &Api, id: ConnectionId) -> Result<(), Violation> {
    let bytes = api.output(id).len();
    if bytes <= CLIENT_BYTES { Ok(()) } else { Err(Violation::new("bounds", format!("{bytes} bytes wait for {id:?}"))) }
}
