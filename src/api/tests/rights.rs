//! Rights of callers.

use peat_ipc::Code;
use peat_ipc::frame::RequestHeader;
use peat_ipc::sidecar::*;

use super::{ROOT, SOMEBODY, World, code};
use crate::api::{Caller, Policy};
use crate::config::Secret;

fn command(status: CommandStatus) -> PutCommandRequest {
    let command = Command {
        id: "k".into(),
        target_id: "a1".into(),
        command_type: "replay".into(),
        status: status.into(),
        ..Command::default()
    };
    PutCommandRequest { command: Some(command) }
}

#[test]
fn an_agent_may_not_touch_peers_nor_sync_nor_issue_commands() {
    let mut world = World::new();
    let agent = world.connect(SOMEBODY);
    let id = "07".repeat(32);
    let connect = ConnectPeerRequest { endpoint_id: id.clone(), ..ConnectPeerRequest::default() };
    assert_eq!(code(world.call(agent, &connect)), Code::PermissionDenied);
    assert_eq!(code(world.call(agent, &DisconnectPeerRequest { endpoint_id: id })), Code::PermissionDenied);
    assert_eq!(code(world.call(agent, &StartSyncRequest {})), Code::PermissionDenied);
    assert_eq!(code(world.call(agent, &StopSyncRequest {})), Code::PermissionDenied);
    assert_eq!(code(world.call(agent, &command(CommandStatus::Pending))), Code::PermissionDenied);
    let document = PutDocumentRequest {
        collection: "commands".into(),
        doc_id: "k".into(),
        json_data: r#"{"target_id":"a1","command_type":"replay"}"#.into(),
        ..PutDocumentRequest::default()
    };
    assert_eq!(code(world.call(agent, &document)), Code::PermissionDenied);
    let patch = PatchDocumentRequest { collection: "commands".into(), doc_id: "k".into(), ..Default::default() };
    assert_eq!(code(world.call(agent, &patch)), Code::InvalidArgument);
    let delete = DeleteDocumentRequest { collection: "commands".into(), doc_id: "k".into() };
    assert_eq!(code(world.call(agent, &delete)), Code::PermissionDenied);
    assert!(world.asked.is_empty());
}

#[test]
fn an_agent_may_write_documents_and_report_on_commands() {
    let mut world = World::new();
    let (admin, agent) = (world.connect(ROOT), world.connect(SOMEBODY));
    world.call(admin, &command(CommandStatus::Pending)).expect("issue");
    world.call(agent, &command(CommandStatus::Executing)).expect("report");
    let platform = Platform { id: "a1".into(), ..Platform::default() };
    world.call(agent, &PutPlatformRequest { platform: Some(platform) }).expect("heartbeat");
    world.call(agent, &GetCommandsRequest::default()).expect("read");
    world.start(agent, &ListPeersRequest::default());
    assert_eq!(world.asked.len(), 1);
}

#[test]
fn a_tcp_caller_shows_the_token_with_every_call() {
    let mut world = World::new();
    let tcp_token = Some(Secret::new(b"0123456789abcdef".to_vec()));
    world.reload(|settings| {
        settings.policy = Policy { own_uid: 0, admin_group: None, tcp_token, insecure: false, open_documents: false }
    });
    let client = world.connect(Caller::Tcp);
    assert_eq!(code(world.call(client, &GetStatusRequest {})), Code::Unauthenticated);
    let header = RequestHeader { token: "0123456789abcdef", ..RequestHeader::default() };
    let call = world.start_with(client, &GetStatusRequest {}, header);
    world.answer::<GetStatusRequest>(client, call).expect("answered").expect("let in");
    assert_eq!(code(world.call(client, &GetStatusRequest {})), Code::Unauthenticated);
}
