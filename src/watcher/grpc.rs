//! gRPC framing of the watched agent's answers: an envelope around JSON or protobuf, and a status in trailers.
//!
//! Protobuf is converted to the JSON of the other protocols, so that one reader serves all. The field numbers are those of
//! `tests/standin/proto`.

use http::HeaderMap;
use peat_ipc::prost::{self, Message};
use serde_json::{Value, json};

use super::answer::Question;
use super::failure::Failure;

/// Bytes in front of a message: one flag for compression, which must be 0, and four of length.
const HEAD: usize = 5;

/// Returns a message in its envelope.
pub(super) fn wrap(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], message].concat()
}

/// Returns true if an answer is gRPC. A server that supports gRPC alone may answer any request so, with HTTP status 200.
pub(super) fn is_answer(headers: &HeaderMap) -> bool {
    let kind = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or("");
    headers.contains_key("grpc-status") || kind == "application/grpc" || kind.starts_with("application/grpc+")
}

/// Returns the only message of a body, after checking the gRPC status in the trailers or headers.
///
/// # Errors
/// The call failed, or its answer is not exactly one message.
pub(super) fn unwrap<'a>(headers: &HeaderMap, body: &'a [u8], trailers: &HeaderMap) -> Result<&'a [u8], Failure> {
    let outcome = [trailers, headers].into_iter().find(|map| map.contains_key("grpc-status"));
    let text = |name| outcome.and_then(|map| map.get(name)).and_then(|value| value.to_str().ok()).unwrap_or("");
    match text("grpc-status") {
        "0" => {}
        "" => return Err(Failure::Unusable("it is no answer of gRPC".into())),
        code => {
            let message: String = text("grpc-message").chars().take(200).collect();
            return Err(Failure::Unusable(format!("gRPC status {code}: {message}")));
        }
    }
    let wrong = || Failure::Unusable("it is not one message of gRPC".into());
    let (head, message) = body.split_first_chunk::<HEAD>().ok_or_else(wrong)?;
    let [0, length @ ..] = *head else { return Err(wrong()) };
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if message.len() == length { Ok(message) } else { Err(wrong()) }
}

/// Converts a protobuf message to JSON.
///
/// # Errors
/// The bytes are not the message that was requested.
pub(super) fn to_json(question: Question, message: &[u8]) -> Result<Vec<u8>, Failure> {
    let value = match question {
        Question::Packages => Packages::decode(message).map(|packages| packages.to_json()),
        Question::Pulled => Pulled::decode(message).map(|pulled| pulled.to_json()),
        Question::Status => return Err(Failure::Unusable("it is no answer of gRPC".into())),
    };
    let value = value.map_err(|cause| Failure::Unusable(format!("it is not the message asked for: {cause}")))?;
    Ok(value.to_string().into_bytes())
}

#[derive(Clone, PartialEq, prost::Message)]
struct Packages {
    #[prost(message, repeated, tag = "1")]
    packages: Vec<Package>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Package {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
    #[prost(int32, tag = "3")]
    status: i32,
    #[prost(string, tag = "4")]
    flavor: String,
    #[prost(string, tag = "5")]
    namespace_override: String,
    #[prost(btree_map = "string, string", tag = "6")]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pulled {
    #[prost(message, repeated, tag = "1")]
    registries: Vec<Registry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Registry {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    host: String,
    #[prost(message, repeated, tag = "3")]
    packages: Vec<PulledPackage>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PulledPackage {
    #[prost(string, tag = "1")]
    repo_name: String,
    #[prost(string, tag = "2")]
    package_name: String,
    #[prost(message, repeated, tag = "3")]
    tags: Vec<Tag>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Tag {
    #[prost(string, tag = "1")]
    reference: String,
    #[prost(string, tag = "2")]
    arch: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(int64, tag = "4")]
    total_bytes: i64,
    #[prost(message, optional, tag = "5")]
    pull_info: Option<PullInfo>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct PullInfo {
    #[prost(int64, tag = "1")]
    downloaded_bytes: i64,
    #[prost(int32, tag = "2")]
    status: i32,
}

impl Packages {
    fn to_json(&self) -> Value {
        let package = |package: &Package| {
            json!({
                "name": package.name,
                "version": package.version,
                "status": package.status,
                "flavor": package.flavor,
                "namespaceOverride": package.namespace_override,
                "annotations": package.annotations,
            })
        };
        json!({ "packages": self.packages.iter().map(package).collect::<Vec<_>>() })
    }
}

impl Pulled {
    fn to_json(&self) -> Value {
        let tag = |tag: &Tag| {
            json!({
                "reference": tag.reference,
                "arch": tag.arch,
                "version": tag.version,
                "totalBytes": tag.total_bytes,
                "pullInfo": { "status": tag.pull_info.map_or(0, |info| info.status) },
            })
        };
        let package = |package: &PulledPackage| {
            let tags: Vec<_> = package.tags.iter().map(tag).collect();
            json!({ "repoName": package.repo_name, "packageName": package.package_name, "tags": tags })
        };
        let registry = |registry: &Registry| {
            let packages: Vec<_> = registry.packages.iter().map(package).collect();
            json!({ "name": registry.name, "host": registry.host, "packages": packages })
        };
        json!({ "registries": self.registries.iter().map(registry).collect::<Vec<_>>() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
    }

    #[test]
    fn the_outcome_is_in_the_trailers_or_where_there_are_none_in_the_head() {
        let (none, good) = (HeaderMap::new(), map(&[("grpc-status", "0")]));
        let bad = map(&[("grpc-status", "12"), ("grpc-message", "no such method")]);
        let body = wrap(b"message");
        assert_eq!(unwrap(&none, &body, &good), Ok(&b"message"[..]));
        assert!(matches!(unwrap(&bad, b"", &none), Err(Failure::Unusable(why)) if why.contains("12: no such method")));
        unwrap(&none, &body, &none).expect_err("no outcome");
        for body in [&body[..4], &body[..11], &wrap(b"more")[..4], b"", b"\x01\0\0\0\0"] {
            unwrap(&none, body, &good).expect_err("not one message");
        }
    }

    #[test]
    fn an_answer_of_grpc_is_told_by_its_head() {
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc+json"] {
            assert!(is_answer(&map(&[("content-type", kind)])), "{kind}");
        }
        assert!(is_answer(&map(&[("grpc-status", "12")])));
        for kind in ["application/json", "application/grpc-web", "application/grpc-web+proto"] {
            assert!(!is_answer(&map(&[("content-type", kind)])), "{kind}");
        }
        assert!(!is_answer(&HeaderMap::new()));
    }

    #[test]
    fn protobuf_says_what_json_says() {
        let annotations = [("a".to_owned(), "b".to_owned())].into();
        let package = Package { name: "p".into(), version: "1".into(), status: 2, annotations, ..Package::default() };
        let bytes = Packages { packages: vec![package] }.encode_to_vec();
        let text = String::from_utf8(to_json(Question::Packages, &bytes).expect("read")).expect("text");
        let said = super::super::answer::read("n1", Question::Packages, text.as_bytes()).expect("an answer");
        let document = said.documents.values().next().expect("one");
        assert_eq!((&document["status"], &document["version"]), (&json!(2), &json!("1")));

        let pull_info = Some(PullInfo { downloaded_bytes: 1, status: 3 });
        let tag =
            Tag { reference: "r".into(), arch: "amd64".into(), total_bytes: 1 << 40, pull_info, ..Tag::default() };
        let package = PulledPackage { package_name: "p".into(), tags: vec![tag], ..PulledPackage::default() };
        let registry = Registry { host: "h".into(), packages: vec![package], ..Registry::default() };
        let bytes = Pulled { registries: vec![registry] }.encode_to_vec();
        let json = to_json(Question::Pulled, &bytes).expect("read");
        let said = super::super::answer::read("n1", Question::Pulled, &json).expect("an answer");
        let document = said.documents.values().next().expect("one");
        assert_eq!((&document["pull_status"], &document["total_bytes"]), (&json!(3), &json!(1_u64 << 40)));
        to_json(Question::Pulled, &[0xff; 9]).expect_err("no message");
    }
}
