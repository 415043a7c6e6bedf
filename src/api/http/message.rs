//! A request and a response, whatever version of HTTP carried them.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use crate::api::Role;
use crate::fleet::Owner;

/// What a client asks.
#[derive(Clone, Debug, Default)]
pub(in crate::api) struct Request {
    /// `GET`, `POST`; case matters.
    pub(in crate::api) method: String,
    /// As it came, still percent-encoded; [`decode`] for a part of it.
    pub(in crate::api) path: String,
    /// What follows the question mark, still encoded.
    pub(in crate::api) query: String,
    pub(in crate::api) headers: Headers,
    /// Whole, unless the route takes a stream.
    pub(in crate::api) body: Bytes,
    /// What the caller may do; `None`: it has not shown the token that is asked for.
    pub(in crate::api) role: Option<Role>,
    /// Whose agents the caller's are.
    pub(in crate::api) owner: Option<Owner>,
}

impl Request {
    /// A parameter of the query, decoded.
    pub(in crate::api) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find(|(key, _)| *key == name).and_then(|(_, value)| decode(&value.replace('+', " ")))
    }

    /// `http://HOST:PORT` as the client reached this node; empty where it came over a unix socket or named no host.
    pub(in crate::api) fn base_url(&self) -> String {
        let host = self.headers.get("host").unwrap_or("");
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        let usable = self.owner == Some(Owner::Tcp) && !host.is_empty() && host.chars().all(plain);
        if usable { format!("http://{host}") } else { String::new() }
    }

    /// What the header `content-type` names, without its parameters, in lower case.
    pub(in crate::api) fn content_type(&self) -> String {
        let value = self.headers.get("content-type").unwrap_or("");
        value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
    }
}

/// Undoes percent-encoding; `None` when what results is no text.
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

/// Headers in the order they came, names in lower case. One text and where in it each is.
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

    /// The first value of a header; `name` is in lower case.
    pub(in crate::api) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Every value of a header.
    pub(in crate::api) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(key, _)| *key == name).map(|(_, value)| value)
    }

    pub(in crate::api) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (&self.text[name.clone()], &self.text[value.clone()]))
    }

    /// Whether a header's list of words has this one, whatever the case.
    pub(in crate::api) fn lists(&self, name: &str, word: &str) -> bool {
        self.all(name).flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
    }
}

/// Names only: values may be secrets.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

/// What a client is answered.
#[derive(Clone, Debug)]
pub(in crate::api) struct Response {
    pub(in crate::api) status: u16,
    pub(in crate::api) headers: Vec<(&'static str, String)>,
    pub(in crate::api) body: Body,
}

/// What follows a response's head.
#[derive(Clone, Debug)]
pub(in crate::api) enum Body {
    /// All of it.
    Whole(Bytes),
    /// What comes, until the end is said.
    Stream,
}

impl Response {
    /// A whole response.
    pub(in crate::api) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response {
        let headers = vec![("content-type", content_type.to_owned())];
        Response { status, headers, body: Body::Whole(body.into()) }
    }

    /// The head of a stream.
    pub(in crate::api) fn stream(status: u16, content_type: &str) -> Response {
        Response { body: Body::Stream, ..Response::new(status, content_type, Bytes::new()) }
    }

    /// Words for a person.
    pub(in crate::api) fn text(status: u16, words: impl Into<String>) -> Response {
        let mut words = words.into();
        words.push('\n');
        Response::new(status, "text/plain; charset=utf-8", words)
    }

    /// An object or a list.
    pub(in crate::api) fn json(status: u16, value: &serde_json::Value) -> Response {
        Response::new(status, "application/json", value.to_string())
    }

    /// With one more header.
    pub(in crate::api) fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}
