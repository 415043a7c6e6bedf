//! Settings that change while the node runs: the formation key, the peers, and the rates of links.

use std::collections::BTreeSet;

use super::{Engine, PeerSpec};
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::store::{PeerSetting, SavedPeer};
use crate::sync::link::{CloseCode, LinkRates};
use crate::sync::peers::Address;
use crate::sync::proof::FormationKey;

/// Settings that a reload may change.
#[derive(Debug)]
pub struct Reloaded {
    /// Formation key for new links; existing links stay up.
    pub formation_key: Option<FormationKey>,
    /// All peers of the configuration.
    pub peers: Vec<PeerSpec>,
    /// Rates at which links may send.
    pub link_rates: LinkRates,
}

impl Engine {
    /// Applies a reloaded configuration. Disconnects peers that are no longer named, unless ConnectPeer named them; peers
    /// refused by DisconnectPeer stay refused.
    pub fn handle_reloaded(&mut self, now: Now, reloaded: Reloaded) {
        self.reload_relay_key(now, reloaded.formation_key.as_ref());
        self.formation_key = reloaded.formation_key;
        self.links.set_rates(reloaded.link_rates);
        let saved = self.reader.snapshot().and_then(|snapshot| snapshot.links()).unwrap_or_default();
        let before = std::mem::replace(&mut self.named, reloaded.peers);
        let named: BTreeSet<EndpointId> = self.named.iter().map(|spec| spec.id).collect();
        for id in before.iter().map(|spec| spec.id).filter(|id| !named.contains(id)) {
            match connected_to(&saved, id) {
                Some(addresses) => self.set_addresses(id, addresses),
                None => self.unname(now, id),
            }
        }
        let changed: Vec<PeerSpec> = self.named.iter().filter(|spec| !before.contains(spec)).cloned().collect();
        for spec in changed {
            self.name(now, spec, &saved);
        }
        self.know_relays(now);
        self.settle(now);
    }

    fn name(&mut self, now: Now, spec: PeerSpec, saved: &[SavedPeer]) {
        let mut addresses = spec.addresses;
        addresses.extend(connected_to(saved, spec.id).into_iter().flatten());
        self.set_addresses(spec.id, addresses);
        if let Some(peer) = self.peers.get_mut(&spec.id)
            && peer.session.is_none()
        {
            peer.dial_now(now);
        }
    }

    fn set_addresses(&mut self, id: EndpointId, addresses: Vec<Address>) {
        let Some(peer) = self.peers.entry(id) else { return };
        (peer.pinned, peer.addresses) = (true, Vec::new());
        for address in addresses {
            if !peer.addresses.contains(&address) {
                peer.addresses.push(address);
            }
        }
    }

    fn unname(&mut self, now: Now, id: EndpointId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.pinned = false;
        peer.addresses.clear();
        peer.resolving.clear();
        let links = [peer.session.take(), peer.dialling.take()];
        for link in links.into_iter().flatten() {
            self.drop_session(link);
            self.links.close(now, link, CloseCode::NotAdmitted, "this node is no longer told to link with you");
        }
    }
}

/// Returns the addresses at which ConnectPeer has a peer dialled; `None` if it was not called for the peer.
fn connected_to(saved: &[SavedPeer], id: EndpointId) -> Option<Vec<Address>> {
    saved.iter().filter(|link| link.peer == id).find_map(|link| match &link.wish {
        PeerSetting::Connect(addresses) => Some(addresses.iter().filter_map(|text| Address::parse(text)).collect()),
        PeerSetting::Refuse(_) | PeerSetting::Seen(_) => None,
    })
}
