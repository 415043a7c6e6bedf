//! Compares frames with prost's delimited encoding, whole and in pieces, and checks that malformed bytes are rejected.

use peat_ipc::envelope::frame::Body;
use peat_ipc::envelope::{Cancel, End, Error, Frame, Request};
use peat_ipc::frame::{
    Decoder, FRAME_BYTES, FrameError, PAYLOAD_BYTES, RequestHeader, locate, put_cancel, put_credit, put_end, put_error,
    put_item, put_item_in_parts, put_request, put_response, put_response_in_parts,
};
use peat_ipc::prost::Message;
use peat_ipc::prost::bytes::Bytes;
use peat_ipc::sidecar::{GetDocumentRequest, GetDocumentResponse, GetStatusRequest};
use peat_ipc::{CallError, Code};

fn delimited(call: u64, body: Body) -> Vec<u8> {
    Frame { call, body: Some(body) }.encode_length_delimited_to_vec()
}

fn document() -> GetDocumentRequest {
    GetDocumentRequest { collection: "platforms".into(), doc_id: "a".repeat(300) }
}

#[test]
fn requests_are_prosts_delimited_form() {
    for (call, deadline_ms, credit, token) in [(1, 0, 0, ""), (u64::MAX, u32::MAX, 256, "secret"), (300, 1, 0, "")] {
        let mut ours = Vec::new();
        put_request(
            &mut ours,
            call,
            RequestHeader { method: 6, deadline_ms, credit, token, takes_parts: false },
            &document(),
        );
        let payload = Bytes::from(document().encode_to_vec());
        let request = Request { method: 6, payload, deadline_ms, credit, token: token.into(), takes_parts: false };
        assert_eq!(ours, delimited(call, Body::Request(request)));
    }
}

#[test]
fn a_request_without_fields_is_prosts_delimited_form() {
    let mut ours = Vec::new();
    put_request(&mut ours, 1, RequestHeader { method: 1, ..Default::default() }, &GetStatusRequest {});
    assert_eq!(ours, delimited(1, Body::Request(Request { method: 1, ..Default::default() })));
}

#[test]
fn responses_and_items_are_prosts_delimited_form() {
    let message = GetDocumentResponse { json_data: Some("{}".repeat(5_000)), version: vec![1; 40], durable: true };
    let payload = Bytes::from(message.encode_to_vec());
    let mut ours = Vec::new();
    put_response(&mut ours, 9, payload.len(), |out| message.encode_raw(out));
    assert_eq!(ours, delimited(9, Body::Response(payload.clone())));
    ours.clear();
    put_item(&mut ours, 9, payload.len(), |out| message.encode_raw(out));
    assert_eq!(ours, delimited(9, Body::Item(payload)));
    ours.clear();
    put_response(&mut ours, 9, 0, |_| ());
    assert_eq!(ours, delimited(9, Body::Response(Bytes::new())));
}

#[test]
fn small_frames_are_prosts_delimited_form() {
    let error = CallError::new(Code::NotFound, "no such document");
    type Put = fn(&mut Vec<u8>, &CallError);
    let cases: [(Put, Body); 4] = [
        (|out, _| put_end(out, 5), Body::End(End {})),
        (|out, _| put_cancel(out, 5), Body::Cancel(Cancel {})),
        (|out, _| put_credit(out, 5, 0), Body::Credit(0)),
        (|out, error| put_error(out, 5, error), Body::Error(Error { code: 5, message: error.message.clone() })),
    ];
    for (put, body) in cases {
        let mut ours = Vec::new();
        put(&mut ours, &error);
        assert_eq!(ours, delimited(5, body));
    }
}

#[test]
fn frames_come_out_whole_however_the_bytes_are_cut() {
    let mut bytes = Vec::new();
    for call in 1..=20 {
        put_request(&mut bytes, call, RequestHeader { method: 6, ..Default::default() }, &document());
    }
    for piece in [1, 2, 7, 321, 10_000] {
        let mut decoder = Decoder::default();
        let mut calls = Vec::new();
        for part in bytes.chunks(piece) {
            decoder.extend(part);
            while let Some((call, _)) = decoder.next_frame().expect("these are frames") {
                calls.push(call);
            }
        }
        assert!(calls.into_iter().eq(1..=20), "in pieces of {piece}");
        assert_eq!(decoder.buffered(), 0);
    }
}

#[test]
fn a_length_of_zero_is_refused() {
    assert_eq!(locate(&[0]), Err(FrameError::Empty));
    assert_eq!(locate(&[0x80, 0x00]), Err(FrameError::Empty));
}

#[test]
fn a_length_over_the_limit_is_refused_before_its_bytes_come() {
    let mut bytes = Vec::new();
    peat_ipc::prost::encoding::encode_varint(FRAME_BYTES as u64 + 1, &mut bytes);
    assert_eq!(locate(&bytes), Err(FrameError::TooLong(FRAME_BYTES as u64 + 1)));
    bytes.clear();
    peat_ipc::prost::encoding::encode_varint(FRAME_BYTES as u64, &mut bytes);
    assert_eq!(locate(&bytes), Ok(None));
}

#[test]
fn a_length_that_is_no_varint_is_refused() {
    assert_eq!(locate(&[0xff; 10]), Err(FrameError::Length));
    assert_eq!(locate(&[0xff; 9]), Ok(None));
    assert_eq!(
        locate(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        Err(FrameError::TooLong(u64::MAX))
    );
}

#[test]
fn garbage_of_the_right_length_is_refused() {
    let mut decoder = Decoder::default();
    decoder.extend(&[3, 0xff, 0xff, 0xff]);
    assert!(matches!(decoder.next_frame(), Err(FrameError::Message(_))));
}

#[test]
fn invalid_utf8_in_an_envelope_is_refused() {
    let mut decoder = Decoder::default();
    // call 1, request { token: "\xff" }
    decoder.extend(&[7, 0x08, 0x01, 0x12, 0x03, 0x2a, 0x01, 0xff]);
    assert!(matches!(decoder.next_frame(), Err(FrameError::Message(_))));
}

#[test]
fn a_frame_without_a_body_is_refused() {
    let mut decoder = Decoder::default();
    decoder.extend(&[2, 0x08, 0x01]);
    assert_eq!(decoder.next_frame(), Err(FrameError::NoBody));
}

#[test]
fn a_message_over_a_frame_comes_in_parts_and_whole_out_of_a_joining_decoder() {
    let message: Vec<u8> = (0..PAYLOAD_BYTES + 5_000_000).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let mut bytes = Vec::new();
    put_item_in_parts(&mut bytes, 7, message.len(), |out| out.extend_from_slice(&message));
    put_response_in_parts(&mut bytes, 8, 3, |out| out.extend_from_slice(b"end"));
    let mut decoder = Decoder::joining();
    let mut whole = Vec::new();
    for some in bytes.chunks(300_000) {
        decoder.extend(some);
        while let Some(frame) = decoder.next_frame().unwrap() {
            whole.push(frame);
        }
    }
    assert_eq!(whole, [(7, Body::Item(message.into())), (8, Body::Response(b"end".as_slice().into()))]);

    let mut plain = Decoder::default();
    plain.extend(&bytes);
    assert!(matches!(plain.next_frame(), Ok(Some((7, Body::Part(_))))));
}

#[test]
fn a_call_that_ends_with_an_error_leaves_no_parts() {
    let mut bytes = Vec::new();
    let long = vec![1; PAYLOAD_BYTES + 1];
    put_item_in_parts(&mut bytes, 7, long.len(), |out| out.extend_from_slice(&long));
    bytes.truncate(3_000_000);
    let mut decoder = Decoder::joining();
    decoder.extend(&bytes);
    assert_eq!(decoder.next_frame(), Ok(None));
    let begun = bytes.len() - decoder.buffered();
    bytes.truncate(begun);
    put_error(&mut bytes, 7, &CallError::new(Code::Internal, "no"));
    put_item_in_parts(&mut bytes, 7, 1, |out| out.push(9));
    let mut decoder = Decoder::joining();
    decoder.extend(&bytes);
    assert!(matches!(decoder.next_frame(), Ok(Some((7, Body::Error(_))))));
    assert_eq!(decoder.next_frame(), Ok(Some((7, Body::Item(vec![9].into())))));
}

#[test]
fn parts_without_an_end_are_bounded() {
    let mut decoder = Decoder::joining();
    let part = Frame { call: 1, body: Some(Body::Part(vec![0; 4 << 20 >> 1].into())) }.encode_length_delimited_to_vec();
    let refused = (0..40).find_map(|_| {
        decoder.extend(&part);
        decoder.next_frame().err()
    });
    assert_eq!(refused, Some(FrameError::LongParts));
}
