//! Requests and responses, independent of the version of HTTP.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::api::Role;
use crate::fleet::Owner;

/// A request of a client.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct HttpRequest {
    /// `GET`, `POST`; case-sensitive.
    pub(in crate::api) method: String,
    /// Path as received, still percent-encoded; use [`decode`] on its segments.
    pub(in crate::api) path: String,
    /// Part after the question mark, still encoded.
    pub(in crate::api) query: String,
    pub(in crate::api) headers: Headers,
    /// Complete, unless the method takes a stream.
    pub(in crate::api) body: Bytes,
    /// Role of the caller; `None` if it has not shown the required token.
    pub(in crate::api) role: Option<Role>,
    /// Owner recorded for agents that this caller registers.
    pub(in crate::api) owner: Option<Owner>,
}

impl HttpRequest {
    /// Returns a parameter of the query, decoded.
    pub(in crate::api) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(key, _)| *key == name).and_then(|(_, value)| decode(&value.replace('+', " ")))
    }

    /// Returns `http://HOST:PORT` as the client addressed this node; empty for a unix socket or without a usable host.
    pub(in crate::api) fn base_url(&self) -> String {
        let host = self.headers.get("host").unwrap_or("");
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        let usable = self.owner == Some(Owner::Tcp) && !host.is_empty() && host.chars().all(plain);
        if usable { format!("http://{host}") } else { String::new() }
    }

    /// Returns the media type of `content-type` in lower case, without parameters.
    pub(in crate::api) fn content_type(&self) -> String {
        let value = self.headers.get("content-type").unwrap_or("");
        value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
    }
}

/// Decodes percent-encoding; `None` if malformed or not UTF-8.
pub(in crate::api) fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Headers in the order received, with names in lower case. Stored as one string with the ranges of names and values.
#[derive(Clone, Default)]
pub(in crate::api) struct Headers {
    text: String,
    fields: Vec<(Range<usize>, Range<usize>)>,
}

impl Headers {
    pub(in crate::api) fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len();
        self.text.push_str(name);
        self.text[start..].make_ascii_lowercase();
        let middle = self.text.len();
        self.text.push_str(value);
        self.fields.push((start..middle, middle..self.text.len()));
    }

    /// Returns the first value of a header; `name` is in lower case.
    pub(in crate::api) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Returns every value of a header.
    pub(in crate::api) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    pub(in crate::api) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }

    /// Returns true if the comma-separated list of a header contains this word, ignoring case.
    pub(in crate::api) fn lists(&self, name: &str, word: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    }
}

/// Formats names only, because values may be secrets.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// A response to a client.
#[derive(Clone, Debug)]
pub(in crate::api) struct Response {
    pub(in crate::api) status: u16,
    pub(in crate::api) headers: Vec<(&'static str, String)>,
    pub(in crate::api) body: Body,
}

/// The body of a response.
#[derive(Clone, Debug)]
pub(in crate::api) enum Body {
    /// Complete.
    Whole(Bytes),
    /// Written piece by piece until it is finished.
    Stream,
}

impl Response {
    /// Creates a complete response.
    pub(in crate::api) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response {
        let headers = vec![("content-type", content_type.to_owned())];
        Response { status, headers, body: Body::Whole(body.into()) }
    }

    /// Creates the head of a stream.
    pub(in crate::api) fn stream(status: u16, content_type: &str) -> Response {
        Response { body: Body::Stream, ..Response::new(status, content_type, Bytes::new()) }
    }

    /// Creates a plain-text response for a person to read.
    pub(in crate::api) fn text(status: u16, words: impl Into<String>) -> Response {
        let mut words = words.into();
        words.push('\n');
        Response::new(status, "text/plain; charset=utf-8", words)
    }

    /// Creates a response with a JSON value.
    pub(in crate::api) fn json(status: u16, value: &serde_json::Value) -> Response {
        Response::new(status, "application/json", value.to_string())
    }

    /// Adds a header.
    pub(in crate::api) fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}
