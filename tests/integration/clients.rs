//! The api thread over real sockets, with a real store and a stub sync thread that accepts every request.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, never};
use peat_ipc::sidecar::*;
use peat_ipc::{Client, Code, Target};
use peat_node::api::shell::{Shell, Stop, Wiring};
use peat_node::api::{ApiConfig, Engine, Policy, SYNC_OUTSTANDING};
use peat_node::clock::Now;
use peat_node::config::{Access, Listen, Secret, TokenFile};
use peat_node::fleet::commands::Settings;
use peat_node::identity::{EndpointId, Identity};
use peat_node::limits::STORE_QUEUE;
use peat_node::random::System;
use peat_node::store::shell::SharedTip;
use peat_node::store::{self, FileDisk, Store};
use peat_node::sync::{Answer, Control, ControlRequest, Event, Status};
use peat_node::thread_watchdog::ThreadWatchdog;
use tempfile::TempDir;

fn access() -> Access {
    Access {
        admin_group: None,
        socket_group: None,
        socket_mode: 0o660,
        token: None,
        insecure: false,
        open_documents: false,
    }
}

/// A running api thread with its dependencies; stopped when dropped.
struct Served {
    addresses: Vec<Listen>,
    stop: Stop,
    threads: Vec<JoinHandle<()>>,
    directory: TempDir,
}

impl Served {
    fn over_unix() -> Served {
        let directory = TempDir::new().expect("a directory");
        let listen = Listen::Unix(directory.path().join("node.sock"));
        Served::start(directory, &[listen], &access())
    }

    fn start(directory: TempDir, listen: &[Listen], access: &Access) -> Served {
        #[expect(clippy::disallowed_methods, reason = "this is a shell")]
        let now = Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 };
        let shell = Shell::bind(listen, access).expect("the listeners open");
        let disk = FileDisk::open(directory.path()).expect("a disk");
        let settings = store::StoreConfig::new(EndpointId([7; 32]));
        let store = Store::open(disk, settings, &mut System::default(), now).expect("a store");
        let token = access.token.as_ref().map(|file| file.token.clone());
        let policy = Policy {
            own_uid: rustix::process::geteuid().as_raw(),
            admin_group: None,
            tcp_token: token,
            insecure: false,
            open_documents: false,
        };
        let config = ApiConfig {
            node_id: "n1".into(),
            watched_agent: "n1".into(),
            policy,
            cache_bytes: 0,
            fleet: peat_node::fleet::Settings::default(),
            identity: Arc::new(Identity::from_seed([7; 32])),
            commands: Settings::default(),
        };
        let engine = Engine::new(config, store.reader(), now);

        let (requests, submitted) = bounded(2 * STORE_QUEUE);
        let (asked, asks) = bounded::<ControlRequest>(SYNC_OUTSTANDING);
        let (tells, events) = bounded(SYNC_OUTSTANDING + 1);
        let tip = Arc::new(SharedTip::default());
        let pulse = ThreadWatchdog::new("any", now.mono, None, Duration::ZERO);
        let (api, inlet) = store::shell::connect(STORE_QUEUE, shell.waker());
        let (sync, _unused) = store::shell::connect(64, shell.waker());
        let (jobs, worker) = store::shell::connect_worker();
        drop(thread("merge", move || worker.run()));
        let (tip_, pulse_) = (Arc::clone(&tip), pulse.clone());
        let wiring = store::shell::Wiring { requests: submitted, api, sync, tip: tip_, jobs, pulse: pulse_ };
        let store = thread("store", move || store::shell::run(store, &wiring));

        let waker = shell.waker();
        tells.send(Event::Status(Status { active: true, ..Status::default() })).expect("there is room");
        let sync = thread("sync", move || {
            for asked in asks {
                let answer = match asked.control {
                    Control::ListPeers => Answer::Peers(Vec::new()),
                    _ => Answer::Done,
                };
                tells.send(Event::Answered { call: asked.call, answer: Ok(answer) }).expect("the api thread listens");
                waker.wake().expect("a waker");
            }
        });

        let (addresses, stop) = (shell.addresses(), shell.stop());
        let wiring = Wiring {
            requests,
            inlet,
            tip,
            asked,
            sync: shell.waker(),
            events,
            pulse,
            watched: Vec::new(),
            reloads: never(),
            dropped_log_lines: || 0,
        };
        let api = thread("api", move || shell.run(engine, wiring).expect("the poll works"));
        Served { addresses, stop, threads: vec![api, sync, store], directory }
    }

    fn target(&self) -> Target {
        self.addresses[0].to_string().parse().expect("a target")
    }

    fn client(&self) -> Client {
        Client::connect(&self.target()).expect("the node listens")
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("node.sock")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.stop();
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a thread panicked");
        }
    }
}

fn thread(name: &str, run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name(name.into()).spawn(run).expect("a thread")
}

fn put(id: &str, json: &str) -> PutDocumentRequest {
    PutDocumentRequest {
        collection: "notes".into(),
        doc_id: id.into(),
        json_data: json.into(),
        ..PutDocumentRequest::default()
    }
}

fn get(id: &str) -> GetDocumentRequest {
    GetDocumentRequest { collection: "notes".into(), doc_id: id.into() }
}

#[test]
fn a_client_writes_reads_and_asks() {
    let served = Served::over_unix();
    let mut client = served.client();
    assert_eq!(client.get_status(&GetStatusRequest {}).expect("status").node_id, "n1");
    let written = client.put_document(&put("a", r#"{"n":1}"#)).expect("put");
    let read = client.get_document(&get("a")).expect("get");
    assert_eq!((read.json_data.as_deref(), read.version), (Some(r#"{"n":1}"#), written.version));
    assert!(client.list_peers(&ListPeersRequest::default()).expect("peers").peers.is_empty());
    let waiting = PutDocumentRequest { wait_peers: 3, ..put("a", "{}") };
    assert!(client.put_document(&waiting).expect("confirmed").durable);
    let error = client.put_document(&put("a", "no json")).expect_err("refused");
    assert_eq!(error.call().expect("an answer").code, Code::InvalidArgument);
    assert!(client.get_health(&GetHealthRequest {}).expect("health").healthy);
}

#[test]
fn many_calls_in_flight_are_answered_each_by_its_own() {
    let served = Served::over_unix();
    let mut client = served.client();
    let writes: Vec<_> =
        (0..200).map(|n| client.start(&put(&format!("d{n}"), &format!(r#"{{"n":{n}}}"#))).expect("sent")).collect();
    for write in writes {
        client.finish(write).expect("written");
    }
    let reads: Vec<_> = (0..200).map(|n| client.start(&get(&format!("d{n}"))).expect("sent")).collect();
    // Calls may be finished in an order other than that of their start.
    for (n, read) in reads.into_iter().enumerate().rev() {
        assert_eq!(client.finish(read).expect("read").json_data, Some(format!(r#"{{"n":{n}}}"#)));
    }
}

#[test]
fn a_subscription_follows_and_the_client_is_free_again_after_it() {
    let served = Served::over_unix();
    let (mut reader, mut writer) = (served.client(), served.client());
    for hundred in 0..10 {
        let writes: Vec<_> =
            (0..100).map(|n| writer.start(&put(&format!("d{hundred}-{n}"), "{}")).expect("sent")).collect();
        for write in writes {
            writer.finish(write).expect("written");
        }
    }
    writer.put_document(&put("last", "{}")).expect("put");
    let mut changes = reader.subscribe(&SubscribeRequest { snapshot: true, ..Default::default() }).expect("subscribed");
    let end = changes.by_ref().map(|change| change.expect("a change"));
    let snapshot = end.take_while(|change| change.change_type() != ChangeType::SnapshotEnd).count();
    assert_eq!(snapshot, 1_001);
    writer.put_document(&put("live", "{}")).expect("put");
    assert_eq!(changes.next().expect("goes on").expect("a change").doc_id, "live");
    drop(changes);
    reader.get_status(&GetStatusRequest {}).expect("the client goes on");
}

#[test]
fn the_socket_has_its_mode_and_goes_when_the_node_does() {
    let served = Served::over_unix();
    let path = served.path();
    let mode = std::fs::metadata(&path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let mut client = served.client();
    client.get_status(&GetStatusRequest {}).expect("status");
    drop(served);
    assert!(!path.exists());
    client.get_status(&GetStatusRequest {}).expect_err("the node is gone");
}

#[test]
fn a_dead_nodes_socket_is_replaced_and_a_running_ones_is_not() {
    let directory = TempDir::new().expect("a directory");
    let listen = [Listen::Unix(directory.path().join("node.sock"))];
    drop(UnixListener::bind(directory.path().join("node.sock")).expect("a socket"));
    let served = Served::start(directory, &listen, &access());
    let error = Shell::bind(&listen, &access()).expect_err("it is taken");
    assert!(error.to_string().contains("running node"), "{error}");
    served.client().get_status(&GetStatusRequest {}).expect("the first one goes on");
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("file");
    std::fs::write(&path, "precious").expect("a file");
    Shell::bind(&[Listen::Unix(path.clone())], &access()).expect_err("not a socket");
    assert_eq!(std::fs::read(&path).expect("still there"), b"precious");
}

#[test]
fn a_tcp_listener_beyond_loopback_needs_a_token_or_a_word() {
    let anywhere = [Listen::Tcp("0.0.0.0:0".parse().expect("an address"))];
    let error = Shell::bind(&anywhere, &access()).expect_err("exposed").to_string();
    assert!(error.contains("--api-token-file") && error.contains("--insecure-api"), "{error}");
    Shell::bind(&anywhere, &Access { insecure: true, ..access() }).expect("asked for");
}

#[test]
fn tcp_callers_show_their_token() {
    let token = TokenFile { path: "token".into(), token: Secret::new(b"0123456789abcdef".to_vec()) };
    let access = Access { token: Some(token), ..access() };
    let listen = [Listen::Tcp("127.0.0.1:0".parse().expect("an address"))];
    let served = Served::start(TempDir::new().expect("a directory"), &listen, &access);
    let error = served.client().get_status(&GetStatusRequest {}).expect_err("no token");
    assert_eq!(error.call().expect("an answer").code, Code::Unauthenticated);
    let mut client = served.client().with_token("0123456789abcdef");
    client.put_document(&put("a", "{}")).expect("let in");
}

#[test]
fn a_thousand_idle_clients_and_one_that_sends_garbage_leave_others_alone() {
    let served = Served::over_unix();
    let idle: Vec<UnixStream> = (0..1_000).map_while(|_| UnixStream::connect(served.path()).ok()).collect();
    let mut garbage = UnixStream::connect(served.path()).expect("connected");
    garbage.write_all(b"\0peat/1\n\0\0\0\0").expect("sent");
    let mut answer = Vec::new();
    garbage.read_to_end(&mut answer).expect("closed by the node");
    assert!(String::from_utf8_lossy(&answer).contains("length 0"));
    served.client().get_status(&GetStatusRequest {}).expect("served");
    assert!(idle.len() > 900, "the test has the file descriptors it needs");
}

#[test]
fn what_a_client_sent_before_it_closed_still_happens() {
    let served = Served::over_unix();
    let mut hasty = served.client();
    for n in 0..50 {
        let _ = hasty.start(&put(&format!("d{n}"), "{}")).expect("sent");
    }
    hasty.flush().expect("sent");
    drop(hasty);
    let list = ListDocumentsRequest { collection: "notes".into() };
    crate::node::eventually("all documents are there", || {
        let ids = served.client().list_documents(&list).expect("list").doc_ids;
        (ids.len() == 50).then_some(())
    });
}

#[test]
fn a_client_side_deadline_is_kept_by_the_node() {
    let served = Served::over_unix();
    let mut client = served.client();
    let options = peat_ipc::CallOptions { deadline: Some(Duration::from_secs(5)), limit: None };
    client.call(&get("nothing"), options).expect("in time");
}

#[test]
fn answers_larger_than_the_sockets_buffer_come_whole() {
    let served = Served::over_unix();
    let mut client = served.client();
    let json = format!(r#"{{"text":"{}"}}"#, "x".repeat(900_000));
    client.put_document(&put("large", &json)).expect("put");
    let reads: Vec<_> = (0..20).map(|_| client.start(&get("large")).expect("sent")).collect();
    client.flush().expect("sent");
    for read in reads {
        assert_eq!(client.finish(read).expect("read").json_data.as_deref(), Some(json.as_str()));
    }
    client.get_status(&GetStatusRequest {}).expect("the connection goes on");
}
