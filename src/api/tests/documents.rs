//! Documents and typed objects, from request to answer.

use peat_ipc::Code;
use peat_ipc::sidecar::*;

use super::{ROOT, World, code};

fn put(collection: &str, id: &str, json: &str) -> PutDocumentRequest {
    PutDocumentRequest {
        collection: collection.into(),
        doc_id: id.into(),
        json_data: json.into(),
        ..PutDocumentRequest::default()
    }
}

fn get(collection: &str, id: &str) -> GetDocumentRequest {
    GetDocumentRequest { collection: collection.into(), doc_id: id.into() }
}

#[test]
fn a_put_document_is_read_listed_and_deleted() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let written = world.call(client, &put("notes", "a", r#"{"b":1,"a":2}"#)).expect("put");
    let read = world.call(client, &get("notes", "a")).expect("get");
    assert_eq!(read.json_data.as_deref(), Some(r#"{"a":2,"b":1}"#));
    assert_eq!(read.version, written.version);
    assert!(read.durable && written.durable);
    let list = ListDocumentsRequest { collection: "notes".into() };
    assert_eq!(world.call(client, &list).expect("list").doc_ids, ["a"]);
    let delete = DeleteDocumentRequest { collection: "notes".into(), doc_id: "a".into() };
    world.call(client, &delete).expect("delete");
    assert_eq!(world.call(client, &get("notes", "a")).expect("get"), GetDocumentResponse::default());
}

#[test]
fn a_latest_write_says_that_it_is_not_on_disk_yet_unless_asked_to_be() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let written = world.call(client, &put("tracks", "t", "{}")).expect("put");
    assert!(!written.durable);
    assert!(!world.call(client, &get("tracks", "t")).expect("get").durable);
    let durable = PutDocumentRequest { durable: true, ..put("tracks", "t", r#"{"n":1}"#) };
    assert!(world.call(client, &durable).expect("put").durable);
    assert!(world.call(client, &get("tracks", "t")).expect("get").durable);
}

#[test]
fn a_patch_touches_what_it_names() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    world.call(client, &put("notes", "a", r#"{"keep":1,"drop":2}"#)).expect("put");
    let patch = PatchDocumentRequest {
        collection: "notes".into(),
        doc_id: "a".into(),
        patch_json: r#"{"drop":null,"new":3}"#.into(),
        ..PatchDocumentRequest::default()
    };
    world.call(client, &patch).expect("patch");
    let read = world.call(client, &get("notes", "a")).expect("get");
    assert_eq!(read.json_data.as_deref(), Some(r#"{"keep":1,"new":3}"#));
}

#[test]
fn a_base_that_is_not_current_is_refused_by_the_collections_rule() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let old = world.call(client, &put("tracks", "t", "{}")).expect("put").version;
    world.call(client, &put("tracks", "t", r#"{"n":1}"#)).expect("put");
    let stale = PutDocumentRequest { base: old, ..put("tracks", "t", r#"{"n":2}"#) };
    assert_eq!(code(world.call(client, &stale)), Code::Aborted);
    let odd = PutDocumentRequest { base: vec![1, 2, 3], ..put("notes", "a", "{}") };
    assert_eq!(code(world.call(client, &odd)), Code::InvalidArgument);
}

#[test]
fn compacting_keeps_the_content() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    for n in 0..5 {
        world.call(client, &put("notes", "a", &format!(r#"{{"n":{n}}}"#))).expect("put");
    }
    let compact = CompactDocumentRequest { collection: "notes".into(), doc_id: "a".into() };
    world.call(client, &compact).expect("compact");
    assert_eq!(world.call(client, &get("notes", "a")).expect("get").json_data.as_deref(), Some(r#"{"n":4}"#));
    let absent = CompactDocumentRequest { collection: "notes".into(), doc_id: "b".into() };
    assert_eq!(code(world.call(client, &absent)), Code::NotFound);
}

#[test]
fn a_typed_put_keeps_the_keys_it_does_not_know() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    world.call(client, &put("platforms", "a1", r#"{"agent_id":"a1","last_seen":5}"#)).expect("heartbeat");
    let platform = Platform { id: "a1".into(), name: "Raven".into(), ..Platform::default() };
    world.call(client, &PutPlatformRequest { platform: Some(platform.clone()) }).expect("put");
    let shown = Platform { liveness: Liveness::Live.into(), via: "n1".into(), ..platform };
    assert_eq!(world.call(client, &GetPlatformsRequest {}).expect("get").platforms, [shown]);
    let json = world.call(client, &get("platforms", "a1")).expect("get").json_data.expect("there");
    assert!(json.contains(r#""last_seen":5"#), "{json}");
}

#[test]
fn cells_tracks_and_commands_are_listed_by_id() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    for id in ["b", "a"] {
        world.call(client, &PutCellRequest { cell: Some(Cell { id: id.into(), ..Cell::default() }) }).expect("cell");
        world
            .call(client, &PutTrackRequest { track: Some(Track { id: id.into(), ..Track::default() }) })
            .expect("track");
    }
    let cells = world.call(client, &GetCellsRequest {}).expect("cells").cells;
    assert!(cells.iter().map(|cell| cell.id.as_str()).eq(["a", "b"]));
    assert_eq!(world.call(client, &GetTracksRequest {}).expect("tracks").tracks.len(), 2);
    assert_eq!(code(world.call(client, &PutTrackRequest { track: None })), Code::InvalidArgument);
}

#[test]
fn a_commands_body_stands_and_its_status_only_climbs() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let command = |status: CommandStatus| Command {
        id: "k".into(),
        target_id: "a1".into(),
        command_type: "replay".into(),
        status: status.into(),
        ..Command::default()
    };
    let put = |command| PutCommandRequest { command: Some(command) };
    world.call(client, &put(command(CommandStatus::Unspecified))).expect("issue");
    world.call(client, &put(command(CommandStatus::Executing))).expect("accept");
    world.call(client, &put(command(CommandStatus::Pending))).expect("an old report is no error");
    let held = world.call(client, &GetCommandsRequest::default()).expect("get").commands;
    assert_eq!((held.len(), held[0].status(), held[0].target_id.as_str()), (1, CommandStatus::Executing, "a1"));
    let other = Command { target_id: "a2".into(), ..command(CommandStatus::Completed) };
    assert_eq!(code(world.call(client, &put(other))), Code::AlreadyExists);
}

#[test]
fn a_document_in_commands_is_validated_as_a_command() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    assert_eq!(code(world.call(client, &put("commands", "k", r#"{"x":1}"#))), Code::InvalidArgument);
    let json = r#"{"target_id":"a1","command_type":"replay"}"#;
    let written = world.call(client, &put("commands", "k", json)).expect("put");
    let again = world.call(client, &put("commands", "k", json)).expect("the same again");
    assert_eq!(written.version, again.version);
}

#[test]
fn what_a_field_must_not_hold_is_named() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    for (request, word) in [
        (put("", "a", "{}"), "collection"),
        (put("notes", "", "{}"), "document id"),
        (put("notes", "a\u{7}b", "{}"), "control character"),
        (put("notes", &"x".repeat(513), "{}"), "512"),
        (put("notes", "a", "[1]"), "notes/a"),
        (put("notes", "a", "{"), "notes/a"),
        (put("notes", "a", r#"{"a":1,"a":2}"#), "notes/a"),
        (put("notes", "a", &"[".repeat(100_000)), "notes/a"),
        (put("notes", "a", &format!("{{\"a\":{}1{}}}", "[".repeat(64), "]".repeat(64))), "64"),
        (put("notes", "a", r#"{"n":1e999}"#), "notes/a"),
    ] {
        let error = world.call(client, &request).expect_err(&request.json_data);
        assert_eq!(error.code, Code::InvalidArgument, "{error}");
        assert!(error.message.contains(word), "{error}");
    }
    let large = put("notes", "a", &format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20)));
    assert_eq!(code(world.call(client, &large)), Code::ResourceExhausted);
}

#[test]
fn status_and_health_are_answered_without_asking_anybody() {
    let mut world = World::new();
    world.store_runs = false;
    let client = world.connect(ROOT);
    let status = world.call(client, &GetStatusRequest {}).expect("status");
    assert_eq!((status.node_id.as_str(), status.phase()), ("n1", NodePhase::Ready));
    assert_eq!(status.endpoint_addr, "07".repeat(32));
    assert!(status.sync_active);
    let health = world.call(client, &GetHealthRequest {}).expect("health");
    assert!(health.healthy, "{:?}", health.problems);
}

#[test]
fn a_store_that_does_not_answer_shows_in_health() {
    let mut world = World::new();
    world.store_runs = false;
    let client = world.connect(ROOT);
    world.start(client, &put("notes", "a", "{}"));
    world.wait(std::time::Duration::from_secs(11));
    let health = world.call(client, &GetHealthRequest {}).expect("health");
    assert_eq!(health.problems, ["the store has not answered for 11 s"]);
}

#[test]
fn a_thread_that_does_not_answer_shows_in_health_until_it_does() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    world.engine.set_silent(vec!["sync"]);
    let health = world.call(client, &GetHealthRequest {}).expect("health");
    assert_eq!((health.healthy, health.problems), (false, vec!["the sync thread does not answer".to_owned()]));
    world.engine.set_silent(Vec::new());
    assert!(world.call(client, &GetHealthRequest {}).expect("health").healthy);
}
