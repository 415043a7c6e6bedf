//! Queries over the fleet's state, as the local node knows it.

use crate::sidecar::{ChangeType, GetPlatformsRequest, Platform, SubscribeRequest};
use crate::{Client, Error};

/// One document of the `deployments` collection.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Deployment {
    /// The document's id, `{agent}:{package}`.
    pub id: String,
    /// The agent that runs the package.
    pub agent_id: String,
    /// The package that it runs.
    pub package: String,
    /// The version of the package.
    pub version: String,
    /// The deployment's status; a number if the document holds the enum as one.
    pub status: String,
    /// The whole document.
    pub json_data: String,
}

impl Client {
    /// Returns every platform this node knows, with the liveness of its agent.
    ///
    /// # Errors
    /// The node answered with an error, or the connection failed.
    pub fn fleet_platforms(&mut self) -> Result<Vec<Platform>, Error> {
        Ok(self.get_platforms(&GetPlatformsRequest {})?.platforms)
    }

    /// Returns every deployment this node knows. Reads a snapshot stream, so the result is not limited by the size of a
    /// response.
    ///
    /// # Errors
    /// The node answered with an error, or the connection failed.
    pub fn fleet_deployments(&mut self) -> Result<Vec<Deployment>, Error> {
        let collections = vec!["deployments".to_owned()];
        let request = SubscribeRequest { collections, snapshot: true, ..SubscribeRequest::default() };
        let mut deployments = Vec::new();
        for change in self.subscribe(&request)? {
            let change = change?;
            match (change.change_type(), change.json_data) {
                (ChangeType::SnapshotEnd, _) => break,
                (_, Some(json)) => deployments.push(Deployment::from_document(change.doc_id, json)),
                (_, None) => {}
            }
        }
        Ok(deployments)
    }
}

impl Deployment {
    fn from_document(id: String, json_data: String) -> Deployment {
        let text = |name| field(&json_data, name).unwrap_or_default();
        let (agent_id, package, version, status) = (text("agent_id"), text("package"), text("version"), text("status"));
        Deployment { id, agent_id, package, version, status, json_data }
    }
}

/// Returns a field of a JSON object in the node's compact encoding: a string unescaped, any other value as its text. Much
/// smaller than a JSON parser, which this crate does not depend on.
fn field(json: &str, name: &str) -> Option<String> {
    let mut rest = json.strip_prefix('{')?;
    loop {
        let (key, after) = string(rest)?;
        let after = after.strip_prefix(':')?;
        let length = value(after)?;
        let (found, after) = after.split_at(length);
        if key == name {
            return Some(string(found).map_or_else(|| found.to_owned(), |(text, _)| text));
        }
        rest = after.strip_prefix(',')?;
    }
}

/// Parses the string that `text` begins with; returns it and the remainder.
fn string(text: &str) -> Option<(String, &str)> {
    let mut chars = text.strip_prefix('"')?.char_indices();
    let mut out = String::new();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 2..])),
            '\\' => out.push(escape(&mut chars)?),
            c => out.push(c),
        }
    }
    None
}

fn escape(chars: &mut std::str::CharIndices<'_>) -> Option<char> {
    match chars.next()?.1 {
        'n' => Some('\n'),
        't' => Some('\t'),
        'r' => Some('\r'),
        'b' => Some('\u{8}'),
        'f' => Some('\u{c}'),
        'u' => {
            let unit = unit(chars)?;
            if !(0xd800..0xdc00).contains(&unit) {
                return char::from_u32(unit);
            }
            // The second half of a surrogate pair.
            (chars.next()?.1 == '\\' && chars.next()?.1 == 'u').then_some(())?;
            char::from_u32(0x10000 + ((unit - 0xd800) << 10) + unit_low(chars)?)
        }
        plain => Some(plain),
    }
}

fn unit(chars: &mut std::str::CharIndices<'_>) -> Option<u32> {
    (0..4).try_fold(0, |unit, _| Some(unit * 16 + chars.next()?.1.to_digit(16)?))
}

fn unit_low(chars: &mut std::str::CharIndices<'_>) -> Option<u32> {
    unit(chars)?.checked_sub(0xdc00).filter(|low| *low < 0x400)
}

/// Returns the length in bytes of the value that `text` begins with.
fn value(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        match text.as_bytes()[at] {
            // Skip to the closing quote.
            b'"' => at = text.len() - string(&text[at..])?.1.len() - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth > 0 => depth -= 1,
            b',' | b'}' | b']' if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_whatever_stands_before_it() {
        let json =
            r#"{"a":{"status":"no","x":[1,"]}"]},"b":"q\"\\\u00e9\ud83d\ude00","n":-1.5e3,"status":"yes","z":null}"#;
        assert_eq!(field(json, "status").as_deref(), Some("yes"));
        assert_eq!(field(json, "b").as_deref(), Some("q\"\\é😀"));
        assert_eq!(field(json, "n").as_deref(), Some("-1.5e3"));
        assert_eq!(field(json, "z").as_deref(), Some("null"));
        assert_eq!(field(json, "x"), None);
    }

    #[test]
    fn what_is_no_object_has_no_fields() {
        for json in
            ["", "{}", "[", "{\"a\"", "{\"a\":", "{\"a\":\"x", "{\"a\":1", "{\"\\ud800x\":1}", "{\"a\":{\"b\":1"]
        {
            assert_eq!(field(json, "a"), None, "{json}");
        }
    }
}
