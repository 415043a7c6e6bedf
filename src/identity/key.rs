//! The private half of who a node is.

use std::fmt;

use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::identity::EndpointId;
use crate::random::{Random, RandomExt};

/// Everything of a PKCS#8 Ed25519 private key (RFC 8410, version 1) but the 32 bytes of seed that follow.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Everything of a SubjectPublicKeyInfo for Ed25519 (RFC 8410) but the 32 bytes of key that follow.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// A node's Ed25519 key pair.
pub struct Identity {
    seed: [u8; 32],
    pair: Ed25519KeyPair,
    id: EndpointId,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, secret ***)", self.id)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.seed.fill(0);
    }
}

impl Identity {
    /// A new identity.
    #[must_use]
    pub fn generate(random: &mut dyn Random) -> Identity {
        Identity::from_seed(random.array())
    }

    /// The identity a seed stands for.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Identity {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("any 32 bytes are an Ed25519 seed");
        let id = EndpointId(pair.public_key().as_ref().try_into().expect("an Ed25519 public key has 32 bytes"));
        Identity { seed, pair, id }
    }

    /// The same identity for another owner.
    #[must_use]
    pub(crate) fn duplicate(&self) -> Identity {
        Identity::from_seed(self.seed)
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.id
    }

    /// An Ed25519 signature.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// A secret of this node for `purpose`, the same at every start.
    #[must_use]
    pub(crate) fn derive(&self, purpose: &str) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.seed);
        ring::hmac::sign(&key, purpose.as_bytes()).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    /// PKCS#8 version 1, DER.
    pub(crate) fn pkcs8(&self) -> Vec<u8> {
        [&PKCS8_PREFIX[..], &self.seed].concat()
    }
}

impl EndpointId {
    /// SubjectPublicKeyInfo, DER: 44 bytes.
    pub(crate) fn to_spki(self) -> Vec<u8> {
        [&SPKI_PREFIX[..], &self.0].concat()
    }

    /// The id in a SubjectPublicKeyInfo, if it is an Ed25519 key in the only encoding DER allows.
    pub(crate) fn from_spki(spki: &[u8]) -> Option<EndpointId> {
        spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(EndpointId)
    }

    /// Returns true if `signature` is this node's over `message`.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, &self.0);
        key.verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_the_public_key() {
        // RFC 8032, section 7.1, test 1.
        let seed =
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60".parse::<EndpointId>().expect("hex");
        let identity = Identity::from_seed(seed.0);
        assert_eq!(identity.id().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
    }

    #[test]
    fn only_the_holder_of_the_key_signs_for_the_id() {
        let (ours, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        assert!(ours.id().verify(b"m", &ours.sign(b"m")));
        assert!(!ours.id().verify(b"n", &ours.sign(b"m")));
        assert!(!ours.id().verify(b"m", &other.sign(b"m")));
    }

    #[test]
    fn the_secret_does_not_show_itself() {
        let identity = Identity::from_seed([0xab; 32]);
        assert!(!format!("{identity:?}").contains("abab"));
    }

    #[test]
    fn a_public_key_survives_its_encoding() {
        let id = Identity::from_seed([1; 32]).id();
        assert_eq!(EndpointId::from_spki(&id.to_spki()), Some(id));
        assert_eq!(EndpointId::from_spki(&id.to_spki()[..43]), None);
    }
}
