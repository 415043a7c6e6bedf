"""Both clients against a node that leaves every answer to the test."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import pytest

import peat
from fakenode import PATIENCE, FakeNode, eventually
from peat import Method
from peat._frames import PAYLOAD_BYTES, encode
from peat._mux import CONNECTION_CALLS, WINDOW
from peat._target import Target
from peat.ipc.v1.ipc_pb2 import Error, Frame
from peat.sidecar.v1 import sidecar_pb2 as pb

T = TypeVar("T")


def later(function: Callable[[], T]) -> Future[T]:
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def change(sequence: int, id: str = "", kind: pb.ChangeType = pb.CHANGE_TYPE_UPSERT) -> bytes:
    return pb.DocumentChange(doc_id=id, change_type=kind, sequence=sequence, run=b"r" * 16).SerializeToString()


def test_targets_are_unix_paths_and_tcp_addresses() -> None:
    assert Target.parse("unix:///run/socket") == Target(path="/run/socket")
    assert Target.parse("tcp://10.0.0.7:80") == Target(host="10.0.0.7", port=80)
    assert Target.parse("http://[::1]:80/") == Target(host="::1", port=80)
    for wrong in (
        "",
        "/run/socket",
        "unix://run/socket",
        "unix:///",
        "tcp://host",
        "tcp://:80",
        "tcp://h:99999",
        "https://h:1",
    ):
        with pytest.raises(peat.InvalidArgument, match="expected"):
            Target.parse(wrong)


def test_connecting_fails_where_no_node_listens(home: object) -> None:
    with pytest.raises(peat.Unavailable):
        peat.Client(f"unix://{home}/none").connect()

    async def dial() -> None:
        with pytest.raises(peat.Unavailable):
            await peat.AsyncClient(f"unix://{home}/none").connect()

    asyncio.run(dial())


def test_answers_come_in_any_order_to_any_thread(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client, ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.list, "a")
        connection = fake.next()
        one, _ = connection.request(Method.ListDocuments)
        second = pool.submit(client.list, "b")
        two, _ = connection.request(Method.ListDocuments)
        connection.respond(two, pb.ListDocumentsResponse(doc_ids=["2"]).SerializeToString())
        assert second.result(PATIENCE) == ["2"]
        connection.respond(one, pb.ListDocumentsResponse(doc_ids=["1"]).SerializeToString())
        assert first.result(PATIENCE) == ["1"]


def test_errors_carry_their_code_message_and_method(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        call = later(lambda: client.delete("notes", "n1"))
        connection = fake.next()
        number, _ = connection.request(Method.DeleteDocument)
        connection.fail(number, 7, "not yours")
        with pytest.raises(peat.PermissionDenied) as caught:
            call.result(PATIENCE)
        assert (caught.value.code, caught.value.message) == (peat.Code.PERMISSION_DENIED, "not yours")
        assert str(caught.value) == "DeleteDocument: PERMISSION_DENIED: not yours"


def test_a_deadline_travels_with_the_call_and_its_end_cancels_it(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        call = later(lambda: client.status(timeout=0.2))
        connection = fake.next()
        number, request = connection.request(Method.GetStatus)
        assert 0 < request.deadline_ms <= 200
        with pytest.raises(TimeoutError) as caught:
            call.result(PATIENCE)
        assert isinstance(caught.value, peat.DeadlineExceeded)
        cancelled = connection.frame()
        assert cancelled.call == number
        assert cancelled.HasField("cancel")
        # The connection is as good as before.
        again = later(client.status)
        number, request = connection.request(Method.GetStatus)
        assert request.deadline_ms == 0
        connection.respond(number)
        again.result(PATIENCE)


def test_a_timeout_of_nothing_is_refused(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client, pytest.raises(peat.InvalidArgument):
        client.status(timeout=0)


def test_a_token_travels_with_every_call(fake: FakeNode) -> None:
    with peat.Client(fake.address, token="secret") as client:
        call = later(client.status)
        connection = fake.next()
        number, request = connection.request(Method.GetStatus)
        assert request.token == "secret"
        connection.respond(number)
        call.result(PATIENCE)
        assert "secret" not in repr(client)


def test_a_lost_connection_fails_its_calls_and_the_next_dials_again(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        call = later(client.status)
        connection = fake.next()
        connection.request(Method.GetStatus)
        connection.drop()
        with pytest.raises(peat.ConnectionLost):
            call.result(PATIENCE)
        call = later(client.status)
        connection = fake.next()
        number, _ = connection.request(Method.GetStatus)
        connection.respond(number)
        call.result(PATIENCE)
        # Lost while no call waits: noticed before the next.
        connection.drop()
        call = later(client.status)
        connection = fake.next()
        number, _ = connection.request(Method.GetStatus)
        connection.respond(number)
        call.result(PATIENCE)


def test_a_request_that_the_socket_did_not_take_is_sent_again(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        connection = fake.next()
        huge = "x" * (2 << 20)
        connection.socket.shutdown(socket.SHUT_RD)
        call = later(lambda: client.put("notes", "n1", huge))
        again = fake.next()
        number, _ = again.request(Method.PutDocument)
        again.respond(number)
        call.result(PATIENCE)


def test_the_nodes_last_words_are_the_error(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        call = later(client.status)
        connection = fake.next()
        connection.request(Method.GetStatus)
        connection.fail(0, 14, "shutting down")
        connection.drop()
        with pytest.raises(peat.ConnectionLost, match="shutting down"):
            call.result(PATIENCE)


def test_what_is_no_frame_ends_the_connection(fake: FakeNode) -> None:
    frames = [
        b"\x00",
        b"\xff\xff\xff\xff\xff",
        b"\x02\xff\xff",
        b"\x02\x08\x01",
    ]
    for frame in frames:
        with peat.Client(fake.address) as client:
            call = later(client.status)
            connection = fake.next()
            connection.request(Method.GetStatus)
            connection.socket.sendall(frame)
            with pytest.raises(peat.ProtocolError):
                call.result(PATIENCE)
            connection.gone()


def test_a_request_over_the_limit_is_refused_here(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        with pytest.raises(peat.ResourceExhausted, match="the limit is"):
            client.put("notes", "n1", "x" * (PAYLOAD_BYTES + 1))
        call = later(client.status)
        connection = fake.next()
        number, _ = connection.request(Method.GetStatus)
        connection.respond(number)
        call.result(PATIENCE)


def test_what_is_no_json_is_refused_here(fake: FakeNode) -> None:
    loop: list[object] = []
    loop.append(loop)
    with peat.Client(fake.address) as client:
        for wrong in (object(), float("nan"), {"a": {1}}, loop, b"\xff"):
            with pytest.raises(peat.InvalidArgument, match="not JSON"):
                client.put("notes", "n1", wrong)


def test_a_closed_client_says_so_and_ends_what_waits(fake: FakeNode) -> None:
    client = peat.Client(fake.address).connect()
    call = later(client.status)
    subscription = client.subscribe("notes")
    waits = later(subscription.next)
    connection = fake.next()
    connection.frame()
    connection.frame()
    client.close()
    for ended in (call, waits):
        with pytest.raises(peat.Closed):
            ended.result(PATIENCE)
    with pytest.raises(peat.Closed):
        client.status()


def test_no_more_calls_are_unfinished_than_the_node_takes(fake: FakeNode) -> None:
    async def calls() -> None:
        async with peat.AsyncClient(fake.address) as client:
            tasks = [asyncio.create_task(client.status()) for _ in range(CONNECTION_CALLS + 8)]
            connection = await asyncio.to_thread(fake.next)
            numbers = [
                (await asyncio.to_thread(connection.request, Method.GetStatus))[0] for _ in range(CONNECTION_CALLS)
            ]
            # What is beyond waits for a place; those that are cancelled meanwhile take none.
            await asyncio.sleep(0)
            assert connection.quiet()
            tasks[-1].cancel()
            tasks[-2].cancel()
            for number in numbers:
                connection.respond(number)
            for _ in range(6):
                connection.respond((await asyncio.to_thread(connection.request, Method.GetStatus))[0])
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert sum(isinstance(result, asyncio.CancelledError) for result in done) == 2
            assert sum(isinstance(result, pb.GetStatusResponse) for result in done) == CONNECTION_CALLS + 6

    asyncio.run(asyncio.wait_for(calls(), PATIENCE))


def test_a_cancelled_task_cancels_its_call_at_the_node(fake: FakeNode) -> None:
    async def cancel() -> None:
        async with peat.AsyncClient(fake.address) as client:
            task = asyncio.create_task(client.status())
            connection = await asyncio.to_thread(fake.next)
            number, _ = await asyncio.to_thread(connection.request, Method.GetStatus)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            frame = await asyncio.to_thread(connection.frame)
            assert (frame.call, frame.WhichOneof("body")) == (number, "cancel")
            with pytest.raises(peat.DeadlineExceeded):
                await client.status(timeout=0.05)

    asyncio.run(asyncio.wait_for(cancel(), PATIENCE))


def test_a_stream_stays_within_its_credit_and_grants_what_was_taken(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        subscription = client.subscribe("notes")
        first = later(subscription.next)
        connection = fake.next()
        number, request = connection.request(Method.Subscribe)
        assert request.credit == WINDOW
        for sequence in range(WINDOW):
            connection.send(Frame(call=number, item=change(sequence, f"n{sequence}")))
        assert first.result(PATIENCE).id == "n0"  # type: ignore[union-attr]
        for sequence in range(1, WINDOW // 2 + 1):
            assert subscription.next(PATIENCE).id == f"n{sequence}"  # type: ignore[union-attr]
        granted = connection.frame()
        assert (granted.call, granted.credit) == (number, WINDOW // 2)
        subscription.close()
        assert connection.frame().HasField("cancel")


def test_a_node_that_sends_more_than_was_granted_loses_the_connection(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        subscription = client.subscribe("notes")
        first = later(subscription.next)
        connection = fake.next()
        number, _ = connection.request(Method.Subscribe)
        items = [Frame(call=number, item=change(sequence, f"n{sequence}")) for sequence in range(WINDOW + 1)]
        connection.socket.sendall(b"".join(encode(item) for item in items))
        first.result(PATIENCE)
        connection.gone()


def test_a_subscription_resumes_where_it_was(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        subscription = client.subscribe("notes", resume_after=peat.Token(b"r" * 16, 5))
        next_change = later(subscription.next)
        connection = fake.next()
        number, request = connection.request(Method.Subscribe)
        asked = pb.SubscribeRequest.FromString(request.payload)
        assert (asked.resume_after, asked.resume_run, asked.snapshot) == (5, b"r" * 16, False)
        connection.send(Frame(call=number, item=change(7, "n7")))
        found = next_change.result(PATIENCE)
        assert found is not None
        assert peat.Token.parse(str(found.token)) == peat.Token(b"r" * 16, 7)
        next_change = later(subscription.next)
        connection.drop()
        connection = fake.next()
        number, request = connection.request(Method.Subscribe)
        assert pb.SubscribeRequest.FromString(request.payload).resume_after == 7
        connection.send(Frame(call=number, item=change(8, "n8")))
        assert next_change.result(PATIENCE).id == "n8"  # type: ignore[union-attr]


def test_a_stale_token_is_followed_by_a_reset_and_a_snapshot(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        subscription = client.subscribe("notes", resume_after=peat.Token(b"r" * 16, 5))
        next_change = later(subscription.next)
        connection = fake.next()
        number, _ = connection.request(Method.Subscribe)
        connection.fail(number, 11, "no such point")
        assert next_change.result(PATIENCE).type is peat.ChangeType.RESET  # type: ignore[union-attr]
        next_change = later(subscription.next)
        number, request = connection.request(Method.Subscribe)
        assert pb.SubscribeRequest.FromString(request.payload).snapshot
        connection.send(Frame(call=number, item=change(9, kind=pb.CHANGE_TYPE_SNAPSHOT_END)))
        assert next_change.result(PATIENCE).type is peat.ChangeType.SNAPSHOT_END  # type: ignore[union-attr]


def test_a_snapshot_that_breaks_off_begins_again(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        subscription = client.subscribe("notes", snapshot=True)
        next_change = later(subscription.next)
        connection = fake.next()
        number, _ = connection.request(Method.Subscribe)
        connection.send(Frame(call=number, item=change(1, "n1")))
        next_change.result(PATIENCE)
        next_change = later(subscription.next)
        connection.drop()
        assert next_change.result(PATIENCE).type is peat.ChangeType.RESET  # type: ignore[union-attr]
        next_change = later(subscription.next)
        _, request = fake.next().request(Method.Subscribe)
        assert pb.SubscribeRequest.FromString(request.payload).snapshot


def test_a_subscription_ends_with_a_refusal_and_goes_on_after_a_timeout(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        subscription = client.subscribe("notes")
        with pytest.raises(peat.DeadlineExceeded):
            subscription.next(0.05)
        connection = fake.next()
        number, _ = connection.request(Method.Subscribe)
        connection.send(Frame(call=number, item=change(1, "n1")))
        assert subscription.next(PATIENCE).id == "n1"  # type: ignore[union-attr]
        connection.send(Frame(call=number, error=Error(code=7, message="not yours")))
        with pytest.raises(peat.PermissionDenied, match="Subscribe"):
            subscription.next(PATIENCE)


def test_a_cancelled_wait_loses_no_change(fake: FakeNode) -> None:
    async def wait() -> None:
        async with peat.AsyncClient(fake.address) as client, client.subscribe("notes") as subscription:
            task = asyncio.create_task(subscription.next())
            connection = await asyncio.to_thread(fake.next)
            number, _ = await asyncio.to_thread(connection.request, Method.Subscribe)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for sequence in (1, 2):
                connection.send(Frame(call=number, item=change(sequence, f"n{sequence}")))
            assert [(await subscription.next()).id for _ in range(2)] == ["n1", "n2"]  # type: ignore[union-attr]

    asyncio.run(asyncio.wait_for(wait(), PATIENCE))


def test_fleet_reads_show_documents_of_any_shape(fake: FakeNode) -> None:
    documents = {
        "a1": '{"name": "first", "version": 3, "labels": {"site": "north"}, "capabilities": ["c"], "group": {"no": 1}}',
        "a2": "[]",
        "a3": '{"agent_id": "other", "labels": {"n": 1}, "capabilities": [1]}',
    }
    with peat.Client(fake.address) as client:
        read = later(client.fleet_platforms)
        connection = fake.next()
        number, _ = connection.request(Method.Subscribe)
        for id, text in documents.items():
            item = pb.DocumentChange(
                collection="platforms", doc_id=id, change_type=pb.CHANGE_TYPE_UPSERT, json_data=text
            )
            connection.send(Frame(call=number, item=item.SerializeToString()))
        connection.send(Frame(call=number, item=change(3, kind=pb.CHANGE_TYPE_SNAPSHOT_END)))
        assert connection.frame().HasField("cancel")
        number, _ = connection.request(Method.GetPlatforms)
        live = pb.Platform(id="a1", liveness=peat.LIVE, via="n1", age_ms=1500)
        connection.respond(number, pb.GetPlatformsResponse(platforms=[live]).SerializeToString())
        first, second, third = read.result(PATIENCE)
        assert (first.name, first.version, first.group, first.agent_id) == ("first", "3", "", "a1")
        assert (first.labels, first.capabilities) == ({"site": "north"}, ["c"])
        assert (first.liveness, first.via, first.age) == (peat.LIVE, "n1", 1.5)
        assert (second.id, second.name, second.json) == ("a2", "", "[]")
        assert (third.agent_id, third.labels, third.capabilities) == ("other", {}, [])


def test_many_threads_share_one_connection(fake: FakeNode) -> None:
    def answer() -> None:
        connection = fake.next()
        for _ in range(400):
            number, request = connection.request(Method.GetDocument)
            id = pb.GetDocumentRequest.FromString(request.payload).doc_id
            connection.respond(number, pb.GetDocumentResponse(json_data=f'"{id}"').SerializeToString())

    with peat.Client(fake.address) as client, ThreadPoolExecutor(16) as pool:
        answers = later(answer)
        read = pool.map(lambda n: client.get("notes", f"n{n}").decode() == f"n{n}", range(400))
        assert all(read)
        answers.result(PATIENCE)
    eventually("the node has seen all", answers.done)


def test_a_response_in_parts_is_one_response(fake: FakeNode) -> None:
    payload = pb.GetDocumentResponse(json_data='{"a":"' + "x" * 100 + '"}').SerializeToString()
    with peat.Client(fake.address) as client:
        first, second = later(lambda: client.get("notes", "a")), later(lambda: client.get("notes", "b"))
        connection = fake.next()
        one, request = connection.request(Method.GetDocument)
        two, _ = connection.request(Method.GetDocument)
        assert request.takes_parts
        # Messages in parts of two calls may alternate.
        for call in (one, two):
            connection.send(Frame(call=call, part=payload[:10]))
        for call in (one, two):
            connection.send(Frame(call=call, part=payload[10:50]))
            connection.respond(call, payload[50:])
        assert len(first.result(PATIENCE).json) == len(second.result(PATIENCE).json) == 108


def test_an_item_in_parts_is_one_item_of_one_credit(fake: FakeNode) -> None:
    async def follow() -> None:
        async with peat.AsyncClient(fake.address) as client, client.subscribe("notes") as changes:
            first = asyncio.create_task(changes.next(PATIENCE))
            connection = await asyncio.to_thread(fake.next)
            call, _ = await asyncio.to_thread(connection.request, Method.Subscribe)
            for n in range(WINDOW):
                payload = change(n + 1, f"n{n}")
                connection.send(Frame(call=call, part=payload[:4]))
                connection.send(Frame(call=call, item=payload[4:]))
            got = [await first] + [await changes.next(PATIENCE) for _ in range(WINDOW - 1)]
            assert [item.id for item in got if item] == [f"n{n}" for n in range(WINDOW)]

    asyncio.run(asyncio.wait_for(follow(), PATIENCE))


def test_parts_over_the_limit_end_the_connection(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        read = later(lambda: client.get("notes", "a"))
        connection = fake.next()
        call, _ = connection.request(Method.GetDocument)
        for _ in range(17):
            connection.send(Frame(call=call, part=bytes(4_000_000)))
        with pytest.raises(peat.ProtocolError, match="messages in parts"):
            read.result(PATIENCE)


def test_parts_of_a_cancelled_call_are_dropped(fake: FakeNode) -> None:
    with peat.Client(fake.address) as client:
        late = later(lambda: client.get("notes", "a", timeout=0.2))
        connection = fake.next()
        call, _ = connection.request(Method.GetDocument)
        connection.send(Frame(call=call, part=b"beginning"))
        with pytest.raises(peat.DeadlineExceeded):
            late.result(PATIENCE)
        connection.send(Frame(call=call, part=b"middle"))
        connection.respond(call, b"end")
        read = later(lambda: client.list("notes"))
        assert connection.frame().HasField("cancel")
        call, _ = connection.request(Method.ListDocuments)
        connection.respond(call, pb.ListDocumentsResponse(doc_ids=["1"]).SerializeToString())
        assert read.result(PATIENCE) == ["1"]


def test_a_change_that_is_too_long_is_an_event_and_moves_the_token(fake: FakeNode) -> None:
    with (
        peat.Client(fake.address) as client,
        client.subscribe("notes", exclude=("agents",), max_change_bytes=1000) as changes,
    ):
        next = later(lambda: changes.next(PATIENCE))
        connection = fake.next()
        call, request = connection.request(Method.Subscribe)
        asked = pb.SubscribeRequest.FromString(request.payload)
        assert (list(asked.exclude), asked.max_change_bytes) == (["agents"], 1000)
        kind = pb.CHANGE_TYPE_OVERSIZED
        item = pb.DocumentChange(doc_id="n1", change_type=kind, sequence=7, run=b"r", error="too long")
        connection.send(Frame(call=call, item=item.SerializeToString()))
        got = next.result(PATIENCE)
        assert got is not None
        assert (got.type, got.id, got.error) == (peat.ChangeType.OVERSIZED, "n1", "too long")
        assert got.token == peat.Token(b"r", 7)


def test_a_limit_that_fits_no_request_is_refused() -> None:
    with pytest.raises(peat.InvalidArgument, match="max_change_bytes"):
        peat.Client("unix:///s").subscribe("notes", max_change_bytes=-1)
