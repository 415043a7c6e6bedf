//! Parser of rtnetlink(7) messages, and a filter for those that are news. The kernel repeats itself: a router advertisement
//! renews an address every few seconds, and a radio reports its signal strength; neither changes where datagrams can go.

use std::collections::BTreeMap;

/// Maximum number of links, addresses and routes remembered. Beyond it all are forgotten, and each repetition counts as news
/// once.
const KNOWN: usize = 4_096;

const NEW_LINK: u16 = 16;
const DELETED_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DELETED_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DELETED_ROUTE: u16 = 25;

/// `IFF_UP`, `IFF_RUNNING`, `IFF_LOWER_UP`: flags of a link that can carry data.
const LINK_WORKS: u32 = 0x1 | 0x40 | 0x1_0000;
/// `IFA_F_DADFAILED`, `IFA_F_TENTATIVE`: flags of an address that is unusable, or not usable yet.
const ADDRESS_WAITS: u32 = 0x08 | 0x40;
/// `RTM_F_CLONED`: flag of a cache entry.
const ROUTE_CLONED: u32 = 0x200;

/// `IFA_ADDRESS`, `IFA_LOCAL`: attributes that identify an address.
const OF_ADDRESS: [u16; 2] = [1, 2];
/// `RTA_DST`, `RTA_OIF`, `RTA_GATEWAY`, `RTA_PRIORITY`: attributes that identify a route.
const OF_ROUTE: [u16; 4] = [1, 4, 5, 6];

const HEADER_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
const ROUTE_BYTES: usize = 12;

/// Link, address or route.
#[derive(Debug, Eq, PartialEq)]
struct Thing {
    /// Bytes that identify it.
    name: Vec<u8>,
    /// Relevant state; `None` once it is deleted.
    state: Option<u32>,
}

/// Last known state of each link, address and route.
#[derive(Debug, Default)]
pub(super) struct KnownRoutes(BTreeMap<Vec<u8>, u32>);

impl KnownRoutes {
    /// Takes the messages of one read; returns true if any is news.
    pub(super) fn note(&mut self, mut bytes: &[u8]) -> bool {
        let mut news = false;
        while let Some((kind, body, rest)) = split(bytes) {
            bytes = rest;
            if let Some(thing) = thing(kind, body) {
                news |= self.is_news(thing);
            }
        }
        // The kernel truncated the read: what followed may be news.
        news | !bytes.is_empty()
    }

    fn is_news(&mut self, thing: Thing) -> bool {
        let Some(state) = thing.state else {
            self.0.remove(&thing.name);
            return true;
        };
        if self.0.len() >= KNOWN {
            self.0.clear();
        }
        self.0.insert(thing.name, state) != Some(state)
    }
}

/// Splits off the first message; returns its type, its body, and the bytes that follow it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(number(bytes, 0)?).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER_BYTES..length)?;
    Some((kind, body, bytes.get(aligned(length)..).unwrap_or_default()))
}

fn thing(kind: u16, body: &[u8]) -> Option<Thing> {
    let (mut name, state) = match kind {
        NEW_LINK | DELETED_LINK => (body.get(4..8)?.to_vec(), number(body, 8)? & LINK_WORKS),
        NEW_ADDRESS | DELETED_ADDRESS => {
            let name = [body.get(..2)?, body.get(4..8)?, &attributes(body.get(ADDRESS_BYTES..)?, &OF_ADDRESS)].concat();
            (name, u32::from(body[2]) & ADDRESS_WAITS)
        }
        NEW_ROUTE | DELETED_ROUTE => {
            if number(body, 8)? & ROUTE_CLONED != 0 {
                return None;
            }
            ([body.get(..5)?, &attributes(body.get(ROUTE_BYTES..)?, &OF_ROUTE)].concat(), 0)
        }
        _ => return None,
    };
    let gone = matches!(kind, DELETED_LINK | DELETED_ADDRESS | DELETED_ROUTE);
    // The name of a link has 4 bytes, so links are never confused with others; the type in front tells addresses from routes.
    name.insert(0, if gone { u8::try_from(kind - 1).ok()? } else { u8::try_from(kind).ok()? });
    Some(Thing { name, state: (!gone).then_some(state) })
}

/// Returns the attributes of these types, in the order of the message.
fn attributes(mut bytes: &[u8], wanted: &[u16]) -> Vec<u8> {
    let mut found = Vec::new();
    while let Some(head) = bytes.get(..4) {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]);
        let Some(attribute) = bytes.get(..length).filter(|_| length >= head.len()) else { break };
        if wanted.contains(&kind) {
            found.extend_from_slice(attribute);
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    found
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + body.len()).expect("short");
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn link(kind: u16, index: u32, flags: u32) -> Vec<u8> {
        message(kind, &[&[0; 4][..], &index.to_ne_bytes(), &flags.to_ne_bytes(), &[0xff; 4]].concat())
    }

    /// Returns an address message with a lifetime in its `IFA_CACHEINFO` attribute.
    fn address(kind: u16, flags: u8, last: u8, valid: u32) -> Vec<u8> {
        let head = [&[2, 24, flags, 0][..], &3_u32.to_ne_bytes()].concat();
        let local = [&8_u16.to_ne_bytes()[..], &2_u16.to_ne_bytes(), &[10, 0, 0, last]].concat();
        let validity = [&8_u16.to_ne_bytes()[..], &6_u16.to_ne_bytes(), &valid.to_ne_bytes()].concat();
        message(kind, &[head, local, validity].concat())
    }

    fn route(kind: u16, flags: u32, interface: u32) -> Vec<u8> {
        let head = [&[2, 0, 0, 0, 254, 0, 0, 0][..], &flags.to_ne_bytes()].concat();
        let out = [&8_u16.to_ne_bytes()[..], &4_u16.to_ne_bytes(), &interface.to_ne_bytes()].concat();
        message(kind, &[head, out].concat())
    }

    #[test]
    fn a_link_that_comes_up_or_goes_down_is_news_and_its_signal_is_not() {
        let mut known = KnownRoutes::default();
        assert!(known.note(&link(NEW_LINK, 3, 0x1_0041)));
        assert!(!known.note(&link(NEW_LINK, 3, 0x1_1041)), "another flag");
        assert!(known.note(&link(NEW_LINK, 3, 0x1)), "the cable is out");
        assert!(known.note(&link(NEW_LINK, 3, 0x1_0041)));
        assert!(known.note(&link(DELETED_LINK, 3, 0)));
    }

    #[test]
    fn an_address_that_is_renewed_is_no_news() {
        let mut known = KnownRoutes::default();
        assert!(known.note(&address(NEW_ADDRESS, 0x40, 1, 60)), "not usable yet");
        assert!(known.note(&address(NEW_ADDRESS, 0, 1, 60)), "usable");
        assert!(!known.note(&address(NEW_ADDRESS, 0, 1, 90)), "renewed");
        assert!(known.note(&address(NEW_ADDRESS, 0, 2, 90)), "a second one");
        assert!(known.note(&address(DELETED_ADDRESS, 0, 1, 0)));
        assert!(known.note(&address(NEW_ADDRESS, 0, 1, 60)), "back again");
    }

    #[test]
    fn a_route_is_news_unless_it_is_a_cached_one() {
        let mut known = KnownRoutes::default();
        assert!(known.note(&route(NEW_ROUTE, 0, 3)));
        assert!(!known.note(&route(NEW_ROUTE, 0, 3)));
        assert!(!known.note(&route(NEW_ROUTE, ROUTE_CLONED, 4)));
        assert!(known.note(&route(DELETED_ROUTE, 0, 3)));
    }

    #[test]
    fn a_read_that_was_cut_short_is_news() {
        let mut known = KnownRoutes::default();
        let both = [link(NEW_LINK, 3, 1), route(NEW_ROUTE, 0, 3)].concat();
        assert!(known.note(&both) && !known.note(&both));
        assert!(known.note(&both[..both.len() - 4]));
    }

    #[test]
    fn one_read_holds_many_messages_and_whatever_is_in_it_nothing_breaks() {
        let mut known = KnownRoutes::default();
        let both = [link(NEW_LINK, 3, 1), message(2, &[0; 4]), route(NEW_ROUTE, 0, 3)].concat();
        assert!(known.note(&both) && !known.note(&both));
        for cut in 0..both.len() {
            known.note(&both[..cut]);
            let mut bent = both.clone();
            bent[cut] ^= 0xff;
            known.note(&bent);
        }
        assert!(known.0.len() <= KNOWN);
    }
}
