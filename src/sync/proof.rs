//! Formation proof: shows knowledge of the formation key on one connection, and is worthless on any other.
//!
//! HMAC-SHA-256 over fields that are each preceded by their length (u32, big endian): "peat-formation-v1", the prover's role
//! ("dialler" or "acceptor"), the app id, the prover's id, the verifier's id, and the TLS exporter of the connection. A proof
//! cannot be reflected (role), relayed (ids) or replayed (exporter).

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use crate::identity::EndpointId;
use crate::limits::FORMATION_KEY_BYTES;

/// First field of every proof; a new version of the scheme takes a new label.
const LABEL: &[u8] = b"peat-formation-v1";

/// Secret shared by the nodes of a formation.
#[derive(Clone)]
pub struct FormationKey(hmac::Key);

impl fmt::Debug for FormationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FormationKey(***)")
    }
}

/// Reason why a text is not a formation key. Never contains the text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FormationKeyError {
    /// The text is not standard base64.
    Encoding,
    /// The key has only this many bytes.
    Short(usize),
}

impl fmt::Display for FormationKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormationKeyError::Encoding => {
                write!(f, "the formation key is not base64; `peat-node keygen` makes one")
            }
            FormationKeyError::Short(bytes) => write!(
                f,
                "the formation key has {bytes} bytes; at least {FORMATION_KEY_BYTES} are needed, `peat-node keygen` \
                 makes one"
            ),
        }
    }
}

impl std::error::Error for FormationKeyError {}

impl FormationKey {
    /// Parses standard base64, ignoring white space around it.
    ///
    /// # Errors
    /// The text is not base64 or the key is too short.
    pub fn parse(text: &str) -> Result<FormationKey, FormationKeyError> {
        FormationKey::new(BASE64_STANDARD.decode(text.trim()).map_err(|_| FormationKeyError::Encoding)?)
    }

    /// Creates a key from its bytes, and wipes them.
    ///
    /// # Errors
    /// The key is too short.
    pub fn new(mut bytes: Vec<u8>) -> Result<FormationKey, FormationKeyError> {
        if bytes.len() < FORMATION_KEY_BYTES {
            return Err(FormationKeyError::Short(bytes.len()));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        bytes.fill(0);
        Ok(FormationKey(key))
    }

    /// Derives a secret for another purpose, known to all holders of the key.
    #[must_use]
    pub(crate) fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        hmac::sign(&self.0, purpose).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// End of the connection that proves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// The end that dialled; it proves first.
    Dialler,
    /// The end that was dialled; it proves only after it has verified the dialler's proof.
    Acceptor,
}

/// Returns the proof that `sender`, at this end of the connection, knows the key; valid for `receiver` only.
#[must_use]
pub fn prove(
    key: &FormationKey,
    role: Role,
    app_id: &str,
    sender: &EndpointId,
    receiver: &EndpointId,
    exporter: &[u8; 32],
) -> [u8; 32] {
    let tag = hmac::sign(&key.0, &message(role, app_id, sender, receiver, exporter));
    tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Returns true if `proof` equals the result of [`prove`] for the same arguments. Takes constant time.
#[must_use]
pub fn verify(
    key: &FormationKey,
    role: Role,
    app_id: &str,
    sender: &EndpointId,
    receiver: &EndpointId,
    exporter: &[u8; 32],
    proof: &[u8],
) -> bool {
    hmac::verify(&key.0, &message(role, app_id, sender, receiver, exporter), proof).is_ok()
}

fn message(role: Role, app_id: &str, sender: &EndpointId, receiver: &EndpointId, exporter: &[u8; 32]) -> Vec<u8> {
    let role: &[u8] = match role {
        Role::Dialler => b"dialler",
        Role::Acceptor => b"acceptor",
    };
    let fields = [LABEL, role, app_id.as_bytes(), &sender.0, &receiver.0, exporter];
    let mut message = Vec::with_capacity(fields.iter().map(|field| 4 + field.len()).sum());
    for field in fields {
        let length = u32::try_from(field.len()).expect("an app id is shorter than 4 GiB");
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(field);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EndpointId = EndpointId([1; 32]);
    const B: EndpointId = EndpointId([2; 32]);
    const EXPORTER: [u8; 32] = [3; 32];

    fn key() -> FormationKey {
        FormationKey::new(vec![7; 32]).expect("long enough")
    }

    fn proof() -> [u8; 32] {
        prove(&key(), Role::Dialler, "fleet", &A, &B, &EXPORTER)
    }

    #[test]
    fn a_proof_holds_for_what_it_was_made_for() {
        assert!(verify(&key(), Role::Dialler, "fleet", &A, &B, &EXPORTER, &proof()));
    }

    #[test]
    fn a_reflected_proof_fails() {
        assert!(!verify(&key(), Role::Acceptor, "fleet", &B, &A, &EXPORTER, &proof()));
        assert!(!verify(&key(), Role::Acceptor, "fleet", &A, &B, &EXPORTER, &proof()));
    }

    #[test]
    fn a_replayed_proof_fails() {
        assert!(!verify(&key(), Role::Dialler, "fleet", &A, &B, &[4; 32], &proof()));
    }

    #[test]
    fn a_relayed_proof_fails() {
        let other = EndpointId([9; 32]);
        assert!(!verify(&key(), Role::Dialler, "fleet", &other, &B, &EXPORTER, &proof()));
        assert!(!verify(&key(), Role::Dialler, "fleet", &A, &other, &EXPORTER, &proof()));
    }

    #[test]
    fn a_proof_for_another_application_fails() {
        assert!(!verify(&key(), Role::Dialler, "flee", &A, &B, &EXPORTER, &proof()));
    }

    #[test]
    fn a_proof_by_another_key_a_short_one_or_none_fails() {
        let other = FormationKey::new(vec![8; 32]).expect("long enough");
        assert!(!verify(&other, Role::Dialler, "fleet", &A, &B, &EXPORTER, &proof()));
        assert!(!verify(&key(), Role::Dialler, "fleet", &A, &B, &EXPORTER, &proof()[..31]));
        assert!(!verify(&key(), Role::Dialler, "fleet", &A, &B, &EXPORTER, b""));
    }

    #[test]
    fn a_key_is_parsed_from_base64_and_short_or_garbled_ones_are_refused() {
        let parsed = FormationKey::parse(" BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").expect("a key");
        assert_eq!(prove(&parsed, Role::Dialler, "fleet", &A, &B, &EXPORTER), proof());
        assert_eq!(FormationKey::parse("BwcHBwcHBwcHBwcHBwcH").unwrap_err(), FormationKeyError::Short(15));
        assert_eq!(FormationKey::parse("not a key").unwrap_err(), FormationKeyError::Encoding);
    }

    #[test]
    fn a_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", key()), "FormationKey(***)");
    }
}
