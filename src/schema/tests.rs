//! Protobuf's rules for JSON, message by message.

use peat_ipc::sidecar as pb;

use super::*;

fn plain<M: Described>(message: &M) -> String {
    json(message, Style::Plain)
}

fn full<M: Described>(message: &M) -> String {
    json(message, Style::Full)
}

fn parse<M: Described + Default>(text: &str) -> Result<M, String> {
    read(M::INDEX, text.as_bytes()).map(|bytes| M::decode(bytes.as_slice()).expect("a message"))
}

fn parsed<M: Described + Default>(text: &str) -> M {
    parse(text).expect(text)
}

#[test]
fn what_has_its_default_is_left_out_or_there_as_asked() {
    let status = pb::GetStatusResponse { node_id: "a\"b".into(), phase: 2, ..Default::default() };
    assert_eq!(plain(&status), r#"{"nodeId":"a\"b","phase":"NODE_PHASE_READY"}"#);
    let all = r#"{"nodeId":"a\"b","endpointAddr":"","syncActive":false,"connectedPeers":0,"phase":"NODE_PHASE_READY","heartbeatIntervalMs":0,"staleAfterMs":0,"deadAfterMs":0}"#;
    assert_eq!(full(&status), all);
    assert_eq!(plain(&pb::StartSyncResponse {}), "{}");
    assert_eq!(full(&pb::ListPeersResponse::default()), r#"{"peers":[]}"#);
}

#[test]
fn an_absent_optional_is_left_out_and_an_empty_one_is_not() {
    let gone = pb::DocumentChange { change_type: 2, sequence: u64::MAX, ..Default::default() };
    assert!(!full(&gone).contains("jsonData"));
    assert_eq!(plain(&gone), r#"{"changeType":"CHANGE_TYPE_DELETE","sequence":"18446744073709551615"}"#);
    let found = pb::GetDocumentResponse { json_data: Some(String::new()), ..Default::default() };
    assert_eq!(plain(&found), r#"{"jsonData":""}"#);
    assert_eq!(parsed::<pb::GetDocumentResponse>(r#"{"jsonData":""}"#), found);
    assert_eq!(parsed::<pb::GetDocumentResponse>(r#"{"jsonData":null}"#).json_data, None);
}

#[test]
fn an_enum_value_of_a_newer_node_is_its_number() {
    for number in [77, -5] {
        let change = pb::DocumentChange { change_type: number, ..Default::default() };
        assert_eq!(plain(&change), format!(r#"{{"changeType":{number}}}"#));
        assert_eq!(parsed::<pb::DocumentChange>(&plain(&change)), change);
    }
}

#[test]
fn numbers_may_be_texts_and_texts_numbers() {
    for text in [r#"{"expiresAt":"-3"}"#, r#"{"expires_at":-3}"#, r#"{"expiresAt":-3.0}"#, r#"{"expiresAt":"-3e0"}"#] {
        assert_eq!(parsed::<pb::Command>(text).expires_at, -3, "{text}");
    }
    let largest = r#"{"sequence":"18446744073709551615"}"#;
    assert_eq!(parsed::<pb::DocumentChange>(largest).sequence, u64::MAX);
    for text in [
        r#"{"sequence":-1}"#,
        r#"{"sequence":"18446744073709551616"}"#,
        r#"{"sequence":1.5}"#,
        r#"{"sequence":"x"}"#,
        r#"{"sequence":" 1"}"#,
        r#"{"sequence":true}"#,
        r#"{"sequence":[1]}"#,
    ] {
        assert!(parse::<pb::DocumentChange>(text).expect_err(text).contains("sequence"), "{text}");
    }
}

#[test]
fn doubles_have_names_for_what_json_cannot_write() {
    for (number, text) in [
        (f64::INFINITY, r#""Infinity""#),
        (f64::NEG_INFINITY, r#""-Infinity""#),
        (1.5e300, "1.5e300"),
        (-0.25, "-0.25"),
        (3.0, "3"),
    ] {
        let track = pb::Track { altitude_m: Some(number), ..Default::default() };
        assert_eq!(plain(&track).replace("e+", "e"), format!(r#"{{"altitudeM":{text}}}"#));
        assert_eq!(parsed::<pb::Track>(&plain(&track)), track);
    }
    assert!(parsed::<pb::Track>(r#"{"altitudeM":"NaN"}"#).altitude_m.expect("there").is_nan());
    assert_eq!(parsed::<pb::Track>(r#"{"altitudeM":"1e3"}"#).altitude_m, Some(1000.0));
    for text in ["inf", "nan", "infinity", "", "1 "] {
        parse::<pb::Track>(&format!(r#"{{"altitudeM":"{text}"}}"#)).expect_err(text);
    }
}

#[test]
fn bytes_are_base64_in_either_alphabet() {
    let response = pb::PutDocumentResponse { version: vec![0xfb, 0xff, 0, 1], durable: false };
    assert_eq!(plain(&response), r#"{"version":"-_8AAQ"}"#);
    assert_eq!(full(&response), r#"{"version":"-_8AAQ","durable":false}"#);
    for text in ["+/8AAQ==", "-_8AAQ==", "-_8AAQ", "+/8AAQ"] {
        assert_eq!(parsed::<pb::PutDocumentResponse>(&format!(r#"{{"version":"{text}"}}"#)), response);
    }
    parse::<pb::PutDocumentResponse>(r#"{"version":"not base64"}"#).expect_err("spaces");
}

#[test]
fn both_spellings_of_a_name_are_taken_and_unknown_ones_passed_over() {
    let text = r#"{"docId":"a","what":{"is":["this",{}]},"collection":"c","json_data":"{}","@x":null}"#;
    let request: pb::PutDocumentRequest = parsed(text);
    assert_eq!((request.doc_id.as_str(), request.collection.as_str(), request.json_data.as_str()), ("a", "c", "{}"));
}

#[test]
fn messages_lists_and_maps_nest() {
    let labels = [("a".to_owned(), "1".to_owned()), ("".to_owned(), "\u{1f600}".to_owned())].into();
    let agent = pb::Agent { labels, capabilities: vec!["x".into(), "".into()], liveness: 1, ..Default::default() };
    let response = pb::ListAgentsResponse { agents: vec![agent, pb::Agent::default()], ..Default::default() };
    for text in [plain(&response), full(&response)] {
        assert_eq!(parsed::<pb::ListAgentsResponse>(&text), response, "{text}");
    }
    assert!(plain(&response).ends_with(",{}]}"), "{}", plain(&response));
    assert!(full(&pb::AgentChange::default()).starts_with(r#"{"changeType""#), "an absent message is left out");
}

#[test]
fn a_list_of_enums_is_names_or_numbers() {
    let request: pb::GetCommandsRequest = parsed(r#"{"status":["COMMAND_STATUS_PENDING",3]}"#);
    assert_eq!(request.status, [1, 3]);
    assert_eq!(plain(&request), r#"{"status":["COMMAND_STATUS_PENDING","COMMAND_STATUS_COMPLETED"]}"#);
    assert!(full(&pb::GetCommandsRequest::default()).contains(r#""status":[]"#));
    parse::<pb::GetCommandsRequest>(r#"{"status":"COMMAND_STATUS_PENDING"}"#).expect_err("no list");
}

#[test]
fn what_is_of_another_kind_is_refused_by_name() {
    for (text, name) in [
        (r#"{"platform":[]}"#, "platform"),
        (r#"{"platform":{"capabilities":"x"}}"#, "capabilities"),
        (r#"{"platform":{"capabilities":[null]}}"#, "capabilities"),
        (r#"{"platform":{"name":1}}"#, "name"),
        (r#"{"platform":{"status":"READY"}}"#, "READY"),
        (r#"{"platform":{"latitude":true}}"#, "latitude"),
    ] {
        assert!(parse::<pb::PutPlatformRequest>(text).expect_err(text).contains(name), "{text}");
    }
    for text in ["", "[]", "null", "1", "{}x", "{", r#"{"platform":{}"#] {
        parse::<pb::PutPlatformRequest>(text).expect_err(text);
    }
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
    parse::<pb::PutPlatformRequest>(&deep).expect("what is passed over may be deep");
}

#[test]
fn a_request_without_fields_is_an_empty_object() {
    assert_eq!(parsed::<pb::GetStatusRequest>("{}"), pb::GetStatusRequest {});
    assert_eq!(parsed::<pb::PutPlatformRequest>(r#"{"platform":{}}"#).platform, Some(pb::Platform::default()));
}

#[test]
fn requests_and_responses_of_every_method_are_in_the_tables() {
    assert_eq!(METHODS.len(), peat_ipc::Method::ALL.len());
    assert_eq!(method(peat_ipc::Method::GetStatus), (pb::GetStatusRequest::INDEX, pb::GetStatusResponse::INDEX));
    assert_eq!(method(peat_ipc::Method::WatchAgents).1, pb::AgentChange::INDEX);
}
