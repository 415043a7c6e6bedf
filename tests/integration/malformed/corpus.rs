//! Valid input of every kind, as seeds for mutation.

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjType, ROOT};
use peat_ipc::frame::{put_cancel, put_credit, put_end, put_item, put_response};
use peat_node::identity::Identity;
use peat_node::relay::wire::{AllocationClaim, AllocationRequest, Answer, Handle, Header, RelayKey};
use peat_node::store::{KeyHash, Signed, VersionHash};
use peat_node::sync::frame;
use peat_node::sync::link::probe::{Message, ProbeKind, SECRET_BYTES, Secret};
use peat_node::sync::mesh::message::Body;
use peat_node::sync::mesh::{Ack, Auth, Batch, Cursor, Document, Hello, Latest, Merged, Plan, Want, document};
use peat_node::sync::mesh::{Command, CommandBody};
use peat_node::sync::proof::FormationKey;
use peat_node::sync::reconcile::{Differences, Item, Reconciler, Set};
use ring::digest::{SHA256, digest};

use super::targets;

pub(crate) fn ipc_frames() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    put_response(&mut all, 1, 3, |out| out.extend([8, 1, 0]));
    put_item(&mut all, 1 << 40, 300, |out| out.extend([7; 300]));
    put_end(&mut all, 2);
    put_cancel(&mut all, 3);
    put_credit(&mut all, 4, u32::MAX);
    vec![all, vec![0xff; 12], vec![]]
}

pub(crate) fn relay_datagrams() -> Vec<Vec<u8>> {
    let key = RelayKey::new(&FormationKey::new(vec![7; 32]).expect("long enough"));
    let request = AllocationRequest::new(&Identity::from_seed([1; 32]), [3; 8], AllocationClaim::default());
    let header = Header { token: [0; 5], node: Handle([1; 10]) };
    let deaf = Message { kind: ProbeKind::Deaf, number: 1 };
    vec![
        request.to_bytes(&key),
        Answer::Cookie { relay: [4; 16], cookie: [2; 16] }.to_bytes(&request, &key),
        Answer::Allocated { token: [0; 5], seconds: 40 }.to_bytes(&request, &key),
        [&header.to_bytes()[..], &[0x40; 20]].concat(),
        Secret::new([7; SECRET_BYTES]).write(true, deaf, 0),
    ]
}

pub(crate) fn mesh_frames() -> Vec<Vec<u8>> {
    let cursor =
        Cursor { kind: 1, database: vec![1; 16].into(), run: vec![2; 16].into(), sequence: 9, ..Cursor::default() };
    let named = |body| Document {
        key: vec![3; 16].into(),
        kind: 2,
        incarnation: 1,
        collection: "platforms".into(),
        doc_id: "a1".into(),
        origin: vec![4; 32].into(),
        dots: [&[1][..], &[0x0d; 8], &[1]].concat().into(),
        covered: [&[0, 1][..], &[0x0e; 8], &[2]].concat().into(),
        body: Some(body),
        ..Document::default()
    };
    let latest = Latest { counter: 7, run: vec![5; 16].into(), json: b"{}".to_vec().into(), ..Latest::default() };
    let documents = vec![
        named(document::Body::Latest(latest)),
        named(document::Body::Merged(Merged { chunks: vec![6; 50].into(), heads: Vec::new() })),
        named(document::Body::Tombstone(Default::default())),
        Document {
            kind: 3,
            collection: "commands".into(),
            doc_id: "k".into(),
            ..named(document::Body::Command(command()))
        },
    ];
    let bodies = [
        Body::Auth(Auth { proof: vec![1; 32].into() }),
        Body::Hello(Hello { run: vec![1; 16].into(), cursors: vec![cursor.clone()], ..Hello::default() }),
        Body::Plan(Plan { reconcile: true, fingerprint: vec![7; 8].into() }),
        Body::Batch(Batch {
            number: 1,
            documents,
            moved: vec![cursor],
            flush: true,
            answered: vec![vec![9; 16].into()],
        }),
        Body::Ack(Ack { lane: 3, number: 12, lacking: vec![vec![9; 16].into()] }),
        Body::Want(Want { key: vec![3; 16].into(), have: vec![vec![8; 32].into()], ..Want::default() }),
    ];
    let framed = |body: &Body| {
        let mut out = Vec::new();
        frame::encode(body.clone(), &mut out);
        out
    };
    let mut all: Vec<Vec<u8>> = bodies.iter().map(framed).collect();
    all.push(all.concat());
    all
}

fn command() -> Command {
    let identity = Identity::from_seed([9; 32]);
    let body = CommandBody {
        id: "k".into(),
        issuer: identity.id().0.to_vec().into(),
        targets: vec!["a1".into()],
        command_type: "replay".into(),
        payload: b"{}".to_vec().into(),
        ..CommandBody::default()
    };
    let signed = Signed::sign(&identity, &body);
    Command {
        body: signed.body.into(),
        signature: signed.signature.to_vec().into(),
        statuses: vec![1].into(),
        time_left_ms: 5_000,
        ..Command::default()
    }
}

/// Returns the messages of honest reconciliations with a target's set, each with its length prefix.
pub(crate) fn reconciliations() -> Vec<Vec<u8>> {
    (0..=80).step_by(8).flat_map(|choice| [conversation(choice), conversation(choice | 1)]).collect()
}

fn conversation(choice: u8) -> Vec<u8> {
    let item = |key| Item { hash: KeyHash([key; 16]), version: VersionHash([0; 16]) };
    let (ours, other) = (targets::set(choice), Set::build((0..100).map(item).collect()));
    let we_respond = choice & 1 == 0;
    let (initiator, responder) = if we_respond { (other, ours) } else { (ours, other) };
    let (initiator, first) = Reconciler::initiate(initiator);
    let mut sides = [Reconciler::respond(responder), initiator];
    let mut bytes = vec![choice];
    let (mut message, mut turn) = (Some(first), 0);
    while let Some(sent) = message {
        if (turn % 2 == 0) == we_respond {
            bytes.extend(u16::try_from(sent.len()).expect("a short message").to_le_bytes());
            bytes.extend(&sent);
        }
        message = sides[turn % 2].handle(&sent, &mut Differences::default()).expect("an honest message");
        turn += 1;
        message = message.filter(|_| !sides[turn % 2].is_done());
    }
    bytes
}

pub(crate) fn chunks() -> Vec<Vec<u8>> {
    let mut document = AutoCommit::new().with_actor(ActorId::from([1; 16]));
    let list = document.put_object(ROOT, "list", ObjType::List).expect("a list");
    for number in 0..20i64 {
        document.insert(&list, 0, number).expect("an insert");
        document.put(ROOT, "last", format!("number {number}")).expect("a put");
        document.commit();
    }
    let changes = document.get_changes(&[]).iter().map(|change| change.raw_bytes().to_vec()).collect::<Vec<_>>();
    [vec![document.save_nocompress(), document.save()], changes].concat()
}

/// Returns the chunk with a corrected checksum, if it is long enough to contain one.
pub(crate) fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.len() > 8 {
        let checksum = digest(&SHA256, &bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.as_ref()[..4]);
    }
    bytes
}

pub(crate) fn json_texts() -> Vec<Vec<u8>> {
    let texts = [
        r#"{"id":"a1","position":{"lat":59.91,"lon":-10.75e-3},"battery":18446744073709551615,"ok":true}"#,
        r#"{"":null,"list":[[],[{}],-9223372036854775808,0.1,1e308],"text":"\u00e6\ud83e\udd80 \"quoted\" \\ \n"}"#,
        r#"{"a":{"a":{"a":{"a":{"a":[[[[[1]]]]]}}}}}"#,
        " { \"b\" : 1 , \"a\" : 2 } ",
    ];
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    texts.iter().map(|text| text.as_bytes().to_vec()).chain([deep.into_bytes()]).collect()
}

/// Returns possible answers of a watched agent, each prefixed by the number of the question.
pub(crate) fn watched_answers() -> Vec<Vec<u8>> {
    let status = r#"{"version":"1","k8sVersion":"v1.31","runMode":2,"systemTime":"17","labels":{"a":"b"}}"#;
    let packages = r#"{"packages":[{"name":"p","version":"1","status":"DEPLOY_PACKAGE_STATUS_DEPLOYED","flavor":null},
        {"name":"q","status":2,"namespace_override":"n","annotations":{"k":"v"}}]}"#;
    let pulled = r#"{"registries":[{"name":"r","host":"h","packages":[{"repoName":"x","packageName":"y","tags":[
        {"reference":"1","arch":"a","totalBytes":"1e3","pullInfo":{"downloadedBytes":1,"status":"PULL_STATUS_PULLED"}}]}]}]}"#;
    let numbered = (0..).zip([status, packages, pulled]);
    numbered.map(|(number, body)| [&[number], body.as_bytes()].concat()).collect()
}
