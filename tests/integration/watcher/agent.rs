//! A fake agent without peat-node support: an HTTP/1.1 server with scripted answers, malformed ones included.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

pub const STATUS: &str = "/status";
pub const PACKAGES: &str = "/zarfapi.v1.ZarfAPIService/ListPackages";
pub const PULLED: &str = "/registryapi.v1.RegistryService/ListPulledPackages";

/// The answer to a request.
#[derive(Clone)]
pub enum Reply {
    /// A valid JSON answer.
    Json(Value),
    /// Arbitrary bytes, after which the connection is closed.
    Bytes(Vec<u8>),
    /// An endless body, sent as fast as possible.
    Endless,
    /// A head that announces a short body, sent a byte at a time with pauses.
    Drip,
}

/// A fake agent.
pub struct Agent {
    address: String,
    replies: Arc<Mutex<BTreeMap<String, Reply>>>,
    polls: Arc<AtomicUsize>,
}

impl Agent {
    pub fn start() -> Agent {
        Agent::serve(None)
    }

    /// Starts an agent with a certificate for `localhost`, which requires client certificates of the same authority.
    pub fn with_mutual_tls() -> Agent {
        Agent::serve(Some(Arc::new(tls())))
    }

    fn serve(tls: Option<Arc<ServerConfig>>) -> Agent {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("localhost:{}", listener.local_addr().expect("bound").port());
        let agent = Agent { address, replies: Arc::default(), polls: Arc::default() };
        let (replies, polls) = (Arc::clone(&agent.replies), Arc::clone(&agent.polls));
        spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (replies, polls, tls) = (Arc::clone(&replies), Arc::clone(&polls), tls.clone());
                // A client that disconnects is not an error of the server.
                spawn(move || _ = serve_one(stream, tls, &replies, &polls));
            }
        });
        agent
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn https(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Sets the JSON answer for `path`.
    pub fn says(&self, path: &str, answer: Value) {
        self.replies(path, Reply::Json(answer));
    }

    pub fn replies(&self, path: &str, reply: Reply) {
        self.replies.lock().expect("not poisoned").insert(path.to_owned(), reply);
    }

    /// Returns the number of status polls so far.
    pub fn polls(&self) -> usize {
        self.polls.load(Ordering::Acquire)
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().name("stand-in".to_owned()).spawn(work).expect("a thread");
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/integration/tls/{name}", env!("CARGO_MANIFEST_DIR"))).expect("a fixture")
}

fn tls() -> ServerConfig {
    let certificate = |name| CertificateDer::from_pem_slice(&fixture(name)).expect("PEM");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")).expect("an authority");
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let key = PrivateKeyDer::from_pem_slice(&fixture("server.key")).expect("PEM");
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(rustls::ALL_VERSIONS);
    let builder = builder.expect("versions").with_client_cert_verifier(clients.expect("usable roots"));
    builder.with_single_cert(vec![certificate("server.pem")], key).expect("they belong together")
}

type Replies = Mutex<BTreeMap<String, Reply>>;

fn serve_one(
    stream: TcpStream,
    tls: Option<Arc<ServerConfig>>,
    replies: &Replies,
    polls: &AtomicUsize,
) -> io::Result<()> {
    match tls {
        None => converse(stream, replies, polls),
        Some(config) => {
            let connection = ServerConnection::new(config).map_err(io::Error::other)?;
            converse(StreamOwned::new(connection, stream), replies, polls)
        }
    }
}

/// Answers requests until the client or a malformed answer ends the connection.
fn converse(mut stream: impl Read + Write, replies: &Replies, polls: &AtomicUsize) -> io::Result<()> {
    loop {
        let path = request(&mut stream)?;
        if path == STATUS {
            polls.fetch_add(1, Ordering::AcqRel);
        }
        let reply = replies.lock().expect("not poisoned").get(&path).cloned();
        match reply {
            Some(Reply::Json(answer)) => stream.write_all(&ok(&answer.to_string()))?,
            Some(Reply::Bytes(bytes)) => return stream.write_all(&bytes),
            Some(Reply::Endless) => endless(&mut stream)?,
            Some(Reply::Drip) => drip(&mut stream)?,
            None => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?,
        }
    }
}

pub fn ok(body: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

/// Returns the path of a request; a body, if present, is `{}`.
fn request(stream: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let mut words = head.split(' ');
    if words.next() == Some("POST") {
        let mut body = [0; 2];
        stream.read_exact(&mut body)?;
        assert_eq!(&body, b"{}");
        assert!(head.to_ascii_lowercase().contains("content-type: application/json\r\n"), "{head}");
    }
    Ok(words.next().unwrap_or_default().to_owned())
}

fn endless(stream: &mut impl Write) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
    loop {
        stream.write_all(b"10000\r\n")?;
        stream.write_all(&[b' '; 0x10000])?;
        stream.write_all(b"\r\n")?;
    }
}

#[expect(clippy::disallowed_methods, reason = "a server that is slow on purpose")]
fn drip(stream: &mut impl Write) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")?;
    loop {
        stream.write_all(b" ")?;
        stream.flush()?;
        thread::sleep(Duration::from_millis(50));
    }
}
