//! The part of a command that its issuer signed. It is kept byte for byte, because another encoding of the same message would
//! not verify.

use std::collections::BTreeSet;

use prost::Message as _;
use ring::digest::{Context, SHA256};

use crate::identity::{EndpointId, Identity};
use crate::limits::{COMMAND_BODY_BYTES, COMMAND_PAYLOAD_BYTES, COMMAND_TARGETS, COMMAND_TTL, ID_BYTES};
use crate::mesh::CommandBody;
use crate::store::{COMMANDS, Key};

/// Prefix of the signed bytes, which separates these signatures from any others made with a node's key.
const DOMAIN: &[u8] = b"peat-command-v1\0";

/// Earliest plausible wall clock time, in Unix seconds: 2025-01-01. A clock that shows an earlier time was never set.
const CLOCK_SET: i64 = 1_735_689_600;
/// Tolerated difference between clocks that are set, in seconds: a day, which covers a local time taken for UTC.
const CLOCKS_DIFFER_S: i64 = 86_400;

/// A command's body and its issuer's signature.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Signed {
    /// Encoded [`CommandBody`].
    pub body: Vec<u8>,
    /// Ed25519 signature by the issuer.
    pub signature: [u8; 64],
}

fn message(body: &[u8]) -> Vec<u8> {
    [DOMAIN, body].concat()
}

impl Signed {
    /// Signs `body` as its issuer.
    #[must_use]
    pub fn sign(identity: &Identity, body: &CommandBody) -> Signed {
        let body = body.encode_to_vec();
        let signature = identity.sign(&message(&body));
        Signed { body, signature }
    }

    /// Decodes the body without checking it; empty if it cannot be decoded.
    #[must_use]
    pub fn read(&self) -> CommandBody {
        CommandBody::decode(self.body.as_slice()).unwrap_or_default()
    }

    /// Decodes the body, and checks that it is complete, within the limits, of this key and signed by its issuer.
    ///
    /// # Errors
    /// The first fault found, as a sentence.
    pub fn check(&self, key: &Key) -> Result<CommandBody, String> {
        if self.body.len() > COMMAND_BODY_BYTES {
            return Err(format!("command {key} has {} bytes; the limit is {COMMAND_BODY_BYTES}", self.body.len()));
        }
        let body =
            CommandBody::decode(self.body.as_slice()).map_err(|_| format!("command {key} has no readable body"))?;
        check(key, &body)?;
        let issuer = issuer(&body).ok_or_else(|| format!("command {key} names no issuer"))?;
        if issuer.verify(&message(&self.body), &self.signature) {
            Ok(body)
        } else {
            Err(format!("the signature of command {key} is not its issuer's"))
        }
    }

    /// Returns a hash that distinguishes two bodies under one id; the smaller wins.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut context = Context::new(&SHA256);
        context.update(&self.signature);
        context.update(&self.body);
        context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

/// Returns the issuer that a body names.
pub(crate) fn issuer(body: &CommandBody) -> Option<EndpointId> {
    body.issuer.as_ref().try_into().ok().map(EndpointId)
}

/// Checks that a body is one that a node may issue and others accept.
///
/// # Errors
/// The first fault found, as a sentence without a full stop.
pub(crate) fn check(key: &Key, body: &CommandBody) -> Result<(), String> {
    let ttl_ms = u64::try_from(COMMAND_TTL.as_millis()).unwrap_or(u64::MAX);
    let distinct: BTreeSet<&String> = body.targets.iter().collect();
    match body {
        _ if key.collection() != COMMANDS => Err(format!("{key} is not in collection {COMMANDS}, but is a command")),
        _ if key.id().contains(':') => Err(format!("the id of command {key} contains a colon")),
        _ if body.id != key.id() => Err(format!("command {key} says that it is '{}'", cut(&body.id))),
        _ if body.command_type.is_empty() => Err(format!("command {key} has no type")),
        _ if body.command_type.len() > ID_BYTES => Err(format!("the type of command {key} is over {ID_BYTES} bytes")),
        _ if body.targets.is_empty() => Err(format!("command {key} is for nobody")),
        _ if body.targets.len() > COMMAND_TARGETS => {
            Err(format!("command {key} is for {} agents; the limit is {COMMAND_TARGETS}", body.targets.len()))
        }
        _ if distinct.len() < body.targets.len() => Err(format!("command {key} names an agent twice")),
        _ if body.payload.len() > COMMAND_PAYLOAD_BYTES => Err(format!(
            "the payload of command {key} is {} bytes; the limit is {COMMAND_PAYLOAD_BYTES}",
            body.payload.len()
        )),
        _ if !body.payload.is_empty() && !is_json(&body.payload) => {
            Err(format!("the payload of command {key} is not JSON"))
        }
        _ if body.ttl_ms > ttl_ms => Err(format!(
            "command {key} has a time to live of {} s; the limit is {} s",
            body.ttl_ms / 1_000,
            COMMAND_TTL.as_secs()
        )),
        _ => body.targets.iter().try_for_each(|agent| result_key(key, agent).map(drop)),
    }
}

/// Returns true if the time to accept a command has passed by more than clocks may differ. The command was withheld then, and
/// the time left that its sender claims contradicts the issuer. A clock that was never set, here or at the issuer, decides
/// nothing.
pub(crate) fn is_long_past(expires_at: i64, wall_ms: i64) -> bool {
    let now = wall_ms.div_euclid(1_000);
    expires_at >= CLOCK_SET && now >= CLOCK_SET && now.saturating_sub(expires_at) > CLOCKS_DIFFER_S
}

/// Returns true if two commands expire at the same time, or equally long after their creation.
pub(crate) fn same_time(held: (i64, i64), given: (i64, i64)) -> bool {
    let length = |(created_at, expires_at): (i64, i64)| {
        let timed = created_at != 0 && expires_at != 0;
        timed.then(|| expires_at.checked_sub(created_at)).flatten()
    };
    held.1 == given.1 || length(held).is_some_and(|held| length(given) == Some(held))
}

pub(crate) fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Returns the key of a target's result.
///
/// # Errors
/// The agent's id is not a document id, or is too long together with the command's.
pub(crate) fn result_key(command: &Key, agent: &str) -> Result<Key, String> {
    let wrong = |cause| format!("command {command} for agent '{}': {cause}", cut(agent));
    Key::new(COMMANDS, agent).map_err(wrong)?;
    Key::new(COMMANDS, format!("{}:{agent}", command.id())).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::command_body::Addressed;

    fn key() -> Key {
        Key::new(COMMANDS, "k").unwrap()
    }

    fn body(identity: &Identity) -> CommandBody {
        CommandBody {
            id: "k".into(),
            issuer: identity.id().0.to_vec().into(),
            addressed: Some(Addressed::Agent("a1".into())),
            targets: vec!["a1".into()],
            command_type: "replay".into(),
            payload: bytes::Bytes::from_static(b"{}"),
            ttl_ms: 60_000,
            ..CommandBody::default()
        }
    }

    #[test]
    fn a_command_verifies_only_as_its_issuer_signed_it() {
        let (ours, other) = (Identity::from_seed([1; 32]), Identity::from_seed([2; 32]));
        let signed = Signed::sign(&ours, &body(&ours));
        assert_eq!(signed.check(&key()), Ok(body(&ours)));
        let missing = Signed { signature: [0; 64], ..signed.clone() };
        let forged = Signed::sign(&other, &body(&ours));
        let changed = Signed { body: body(&other).encode_to_vec(), ..signed.clone() };
        for wrong in [missing, forged, changed] {
            assert!(wrong.check(&key()).unwrap_err().contains("is not its issuer's"), "{wrong:?}");
        }
        let plain = Signed { signature: ours.sign(&signed.body), ..signed };
        assert!(plain.check(&key()).is_err(), "signed for another purpose");
    }

    #[test]
    fn only_clocks_that_are_set_say_that_a_command_is_long_past() {
        let year_ms = 365 * 86_400_000;
        let now_ms = 1_790_000_000_000;
        let long_past = |expires_at, wall_ms| is_long_past(expires_at, wall_ms);
        assert!(long_past(1_790_000_000 - 86_401, now_ms) && long_past(1_790_000_000, now_ms + year_ms));
        assert!(!long_past(1_790_000_000 - 86_400, now_ms), "clocks differ");
        assert!(!long_past(60, now_ms), "the issuer's clock is not set");
        assert!(!long_past(1_790_000_000, 0) && !long_past(1_790_000_000, 1_700_000_000_000), "this node's is not");
        assert!(!long_past(i64::MAX, now_ms) && !long_past(i64::MIN, i64::MIN) && !long_past(0, now_ms));
    }

    #[test]
    fn a_command_has_the_same_time_by_its_end_or_by_its_length() {
        assert!(same_time((100, 160), (101, 161)), "a second later");
        assert!(same_time((100, 160), (0, 160)) && same_time((100, 0), (200, 0)));
        assert!(
            !same_time((100, 160), (101, 160 + 2))
                && !same_time((100, 160), (0, 161))
                && !same_time((100, 160), (100, 0))
        );
        assert!(!same_time((i64::MIN, i64::MAX), (i64::MIN, 1)), "what has no length");
    }

    #[test]
    fn what_no_command_may_hold_is_refused_by_name() {
        let identity = Identity::from_seed([1; 32]);
        let good = body(&identity);
        let wrong = [
            (CommandBody { id: "other".into(), ..good.clone() }, "says that it is 'other'"),
            (CommandBody { targets: vec![], ..good.clone() }, "is for nobody"),
            (CommandBody { targets: vec!["a".into(), "a".into()], ..good.clone() }, "names an agent twice"),
            (CommandBody { targets: vec!["a".into(); COMMAND_TARGETS + 1], ..good.clone() }, "the limit is 1024"),
            (CommandBody { targets: vec!["a".repeat(ID_BYTES - 1)], ..good.clone() }, "the limit is 512"),
            (CommandBody { targets: vec!["a\n".into()], ..good.clone() }, "control character"),
            (CommandBody { command_type: String::new(), ..good.clone() }, "has no type"),
            (CommandBody { payload: bytes::Bytes::from_static(b"{"), ..good.clone() }, "is not JSON"),
            (CommandBody { ttl_ms: u64::MAX, ..good.clone() }, "the limit is 315360000 s"),
            (CommandBody { issuer: bytes::Bytes::new(), ..good.clone() }, "names no issuer"),
        ];
        for (body, why) in wrong {
            let refused = Signed::sign(&identity, &body).check(&key()).unwrap_err();
            assert!(refused.contains(why), "{refused}");
        }
        let colon = Key::new(COMMANDS, "k:a").unwrap();
        assert!(Signed::sign(&identity, &good).check(&colon).unwrap_err().contains("contains a colon"));
        let elsewhere = Key::new("cells", "k").unwrap();
        assert!(Signed::sign(&identity, &good).check(&elsewhere).is_err());
        let garbage = Signed { body: vec![0xff; 9], signature: [0; 64] };
        assert!(garbage.check(&key()).unwrap_err().contains("no readable body"));
    }
}
