//! What a node holds for one peer or one client stays bounded, however slow that one is.

use peat_node::api::{ConnectionId, Engine as Api};
use peat_node::sync::Engine as Sync;

use crate::seeds::Violation;

/// Bytes held for one peer, both ways, QUIC's own buffers aside: a few batches a lane.
const PEER_BYTES: usize = 1 << 20;
/// Bytes waiting for one client: the simulated ones grant a few items at a time.
const CLIENT_BYTES: usize = 512 << 10;

/// Looks at every peer of a node.
pub fn peers(sync: &Sync) -> Result<(), Violation> {
    match sync.buffered().find(|(_, bytes)| *bytes > PEER_BYTES) {
        Some((peer, bytes)) => Err(Violation::new("bounds", format!("{bytes} bytes held for {peer}"))),
        None => Ok(()),
    }
}

/// Looks at one client of a node.
pub fn client(api: &Api, id: ConnectionId) -> Result<(), Violation> {
    let bytes = api.output(id).len();
    if bytes <= CLIENT_BYTES { Ok(()) } else { Err(Violation::new("bounds", format!("{bytes} bytes wait for {id:?}"))) }
}
