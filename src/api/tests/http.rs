//! HTTP on a client's connection, as bytes in and bytes out.

mod connect;
mod events;
mod fleet;
mod one;
mod shown;
mod two;

use super::{ROOT, World};
use crate::api::{Caller, ConnectionId};
use crate::store::Key;

/// A response as read from the wire.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl World {
    /// Opens a connection for a client that uses HTTP.
    pub(super) fn browse(&mut self, caller: Caller) -> ConnectionId {
        let id = self.open(caller);
        self.clients.get_mut(&id).expect("connected").text = Some(Vec::new());
        id
    }

    /// Sends a request verbatim, and takes the answer.
    fn ask(&mut self, id: ConnectionId, request: &str) -> Answer {
        self.send(id, request.as_bytes());
        self.response(id).expect("an answer")
    }

    /// Takes the next complete answer.
    fn response(&mut self, id: ConnectionId) -> Option<Answer> {
        let text = self.clients.get_mut(&id)?.text.as_mut()?;
        let end = text.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = String::from_utf8(text[..end].to_vec()).expect("a head is text");
        let status = head.split(' ').nth(1)?.parse().expect("a status");
        let mut answer = Answer { status, head, body: Vec::new() };
        let used = match (answer.header("content-length"), answer.header("transfer-encoding")) {
            (Some(length), None) => {
                let length: usize = length.parse().expect("a length");
                answer.body = text.get(end..end + length)?.to_vec();
                end + length
            }
            (None, Some("chunked")) => {
                let (body, used) = chunks(&text[end..]);
                answer.body = body;
                end + used
            }
            _ => end,
        };
        text.drain(..used);
        Some(answer)
    }
}

impl World {
    /// Takes the body received on a stream since the last call.
    fn streamed(&mut self, id: ConnectionId) -> String {
        let text = self.clients.get_mut(&id).and_then(|client| client.text.as_mut()).expect("HTTP");
        let (body, used) = chunks(text);
        text.drain(..used);
        String::from_utf8(body).expect("text")
    }

    /// Sends a JSON body and returns status and JSON of the answer.
    pub(super) fn ask_json(&mut self, id: ConnectionId, path: &str, body: &str) -> (u16, serde_json::Value) {
        let answer = self.ask(id, &post(path, "application/json", body));
        (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
    }

    /// Returns the stored content of a document.
    fn get_document(&self, collection: &str, id: &str) -> Option<String> {
        let key = Key::new(collection, id).expect("a key");
        let snapshot = self.store.reader().snapshot().expect("read");
        snapshot.document(&key).expect("read").map(|document| document.json)
    }

    fn get_json(&mut self, id: ConnectionId, path: &str) -> serde_json::Value {
        let answer = self.ask(id, &get(path));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("JSON")
    }
}

/// Decodes the complete chunks of a body; returns the body and the bytes they took.
fn chunks(mut text: &[u8]) -> (Vec<u8>, usize) {
    let (mut body, all) = (Vec::new(), text.len());
    while let Some(line) = text.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&text[..line]).expect("hex"), 16).expect("hex");
        let Some(chunk) = text.get(line + 2..line + 2 + size) else { break };
        body.extend_from_slice(chunk);
        text = &text[line + 4 + size..];
    }
    (body, all - text.len())
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn post(path: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}
