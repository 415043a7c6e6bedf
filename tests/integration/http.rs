//! HTTP to a real node, on the socket and the port that also accept native frames.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::node::{Node, directory, eventually, run};

/// Returns the port in the node's log.
fn port(node: &Node) -> String {
    eventually("a TCP address in the log", || {
        let log = node.log();
        let rest = log.split("tcp://").nth(1)?;
        Some(rest.split(|end: char| end.is_whitespace() || end == ',').next()?.to_owned())
    })
}

/// Sends a request and returns all bytes until the node closes the connection.
fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn tcp(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream
}

fn status(host: &str, more: &str) -> String {
    format!(
        "POST /peat.sidecar.v1.PeatSidecar/GetStatus HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\
         Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}"
    )
}

#[test]
fn one_socket_and_one_port_take_frames_and_http() {
    let home = directory();
    let node = Node::start(home.path(), &["--listen", "tcp://127.0.0.1:0"]);
    let address = port(&node);
    let id = node.json("status", &[])["endpointAddr"].as_str().expect("an id").to_owned();
    let framed = run(&["status", "--json", "--node", &format!("tcp://{address}")]).ok();
    assert!(framed.contains(&id), "{framed}");
    let socket = node.target().replace("unix://", "");
    for answer in [
        ask(UnixStream::connect(socket).expect("connected"), &status("node", "")),
        ask(tcp(&address), &status(&address, "")),
        ask(tcp(&address), &status("localhost", "Connect-Protocol-Version: 1\r\nConnect-Timeout-Ms: 5000\r\n")),
    ] {
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains(&id), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    }
}

#[test]
fn a_node_on_loopback_is_no_name_of_the_internet() {
    let home = directory();
    let node = Node::start(home.path(), &["--listen", "tcp://127.0.0.1:0"]);
    let address = port(&node);
    for request in [
        status("evil.example", ""),
        status(&address, "Origin: http://evil.example\r\n"),
        status(&address, "Sec-Fetch-Site: cross-site\r\n"),
    ] {
        let answer = ask(tcp(&address), &request);
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    }
}

#[test]
fn the_token_is_asked_for_over_http_too() {
    let home = directory();
    let file = home.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("a mode");
    let token = file.to_str().expect("a path");
    let node = Node::start(home.path(), &["--listen", "tcp://127.0.0.1:0", "--api-token-file", token]);
    let address = port(&node);
    for (more, expected) in [
        ("", "401"),
        ("Authorization: Bearer 0123456789abcdee\r\n", "401"),
        ("Authorization: Bearer 0123456789abcdef\r\n", "200"),
    ] {
        let answer = ask(tcp(&address), &status("node.example", more));
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{more}: {answer}");
    }
}

#[test]
fn a_request_that_could_be_smuggled_ends_the_connection() {
    let home = directory();
    let node = Node::start(home.path(), &["--listen", "tcp://127.0.0.1:0"]);
    let address = port(&node);
    let hidden = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for head in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked", hidden.len()),
        "Content-Length: 0\r\nContent-Length: 6".to_owned(),
        "Transfer-Encoding: chunked\r\n , identity".to_owned(),
    ] {
        let request = format!("POST /healthz HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n0\r\n\r\n{hidden}");
        let answer = ask(tcp(&address), &request);
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.matches("HTTP/1.1").count() == 1, "{answer}");
    }
}
