"""Both clients and both agents against real nodes."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from test_client import later

import peat
from fakenode import PATIENCE, eventually
from peat import Agent, Command, Registration
from testnode import Node


class Proxy:
    """Stands between an agent and its node, and cuts them apart."""

    def __init__(self, node: Node, path: Path) -> None:
        self.address, self._path, self._to = f"unix://{path}", path, node.address.removeprefix("unix://")
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                try:
                    near, _ = listener.accept()
                except OSError:
                    return
                far = socket.socket(socket.AF_UNIX)
                try:
                    far.connect(self._to)
                except OSError:
                    near.close()
                    far.close()
                    continue
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with source:
            with contextlib.suppress(OSError):
                while data := source.recv(65536):
                    sink.sendall(data)
            for end in (source, sink):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            self._path.unlink()
            listener.shutdown(socket.SHUT_RDWR)
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.clear()


def shows(client: peat.Client, id: str, liveness: peat.Liveness) -> None:
    """Waits until the node shows an agent like this."""
    eventually(f"agent {id}", lambda: any(a.agent_id == id and a.liveness == liveness for a in client.agents()))


def handle(agent: Agent, handler: Callable[[Command], object]) -> None:
    threading.Thread(target=agent.handle, args=(handler,), daemon=True).start()


def test_every_call_works_against_a_node(node: Node, client: peat.Client) -> None:
    assert client.status().node_id == "edge"
    assert client.health().healthy
    written = client.put("notes", "n1", {"text": "☂", "n": 1}, durable=True, timeout=PATIENCE)
    assert written.durable
    client.patch("notes", "n1", {"n": None, "m": 2}, base=written.version)
    document = client.get("notes", "n1")
    assert document.decode() == {"text": "☂", "m": 2}
    assert client.compact("notes", "n1").version != document.version
    assert client.list("notes") == ["n1"]
    client.delete("notes", "n1")
    with pytest.raises(peat.NotFound, match="there is no notes/n1"):
        client.get("notes", "n1")
    first = client.put("tracks", "t2", '{"n": 1}')
    client.put("tracks", "t2", b'{"n": 2}', base=first.version)
    with pytest.raises(peat.Aborted):
        client.put("tracks", "t2", {"n": 3}, base=first.version)
    with pytest.raises(peat.InvalidArgument):
        client.put("", "n1", {})
    with pytest.raises(peat.DeadlineExceeded):
        client.put("notes", "n2", {}, wait_peers=1, timeout=0.5)
    assert client.get("notes", "n2").json == "{}"

    client.put_platform(peat.Platform(id="p1", name="first", status=peat.READY))
    client.put_cell(peat.Cell(id="c1", name="cell"))
    client.put_track(peat.Track(id="t1", classification="car", altitude_m=0))
    assert [(p.name, p.liveness) for p in client.platforms()] == [("first", peat.LIVE)]
    assert client.cells()[0].name == "cell"
    assert any(track.classification == "car" and track.HasField("altitude_m") for track in client.tracks())
    assert [p.name for p in client.fleet_platforms()] == ["first"]

    other = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
    client.connect_peer(other, ["127.0.0.1:9"])
    assert [(p.endpoint_id, p.connected) for p in client.peers()] == [(other, False)]
    client.disconnect_peer(other)
    client.stop_sync()
    assert not client.sync_stats().sync_active
    client.start_sync()
    assert client.status().sync_active

    id = client.send_command("work", {"n": 1}, agent="absent", ttl=1)
    assert [command.id for command in client.commands("absent", pending_only=True)] == [id]
    assert client.wait_command(id, timeout=PATIENCE).status == peat.EXPIRED
    endless = client.send_command("work", agent="absent", ttl=None, id="endless")
    assert client.command(endless).expires_at == 0
    with pytest.raises(peat.DeadlineExceeded, match="is not over"):
        client.wait_command(endless, timeout=0.2)
    assert [target.agent_id for target in client.cancel_command(endless)] == ["absent"]
    with pytest.raises(peat.NotFound):
        client.command("no such")
    with pytest.raises(peat.FailedPrecondition):
        client.send_command("work", group="no such")


def test_every_call_works_from_coroutines(node: Node) -> None:
    async def calls() -> None:
        async with peat.AsyncClient(node.address) as client:
            written = await client.put("notes", "n1", {"n": 1})
            await client.patch("notes", "n1", {"m": 2}, base=written.version)
            assert (await client.get("notes", "n1")).decode() == {"n": 1, "m": 2}
            assert await client.list("notes") == ["n1"]
            await client.compact("notes", "n1")
            await client.put_platform(peat.Platform(id="p1", name="first"))
            await client.put_cell(peat.Cell(id="c1"))
            await client.put_track(peat.Track(id="t1"))
            assert len(await client.platforms()) == len(await client.cells()) == len(await client.tracks()) == 1
            assert [p.liveness for p in await client.fleet_platforms()] == [peat.LIVE]
            assert await client.fleet_deployments() == []
            id = await client.send_command("work", agent="absent", ttl=1)
            assert len(await client.commands("absent")) == 1
            assert (await client.wait_command(id, timeout=PATIENCE)).status == peat.EXPIRED
            assert (await client.cancel_command(id))[0].status == peat.EXPIRED
            await client.stop_sync()
            await client.start_sync()
            assert (await client.sync_stats()).sync_active
            assert await client.peers() == []
            with pytest.raises(peat.NotFound):
                await client.disconnect_peer("7" * 64)
            with pytest.raises(peat.FailedPrecondition):
                await client.connect_peer("8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c")
            async with client.watch_agents() as agents:
                while (change := await agents.next(PATIENCE)) is not None:
                    if change.type is peat.ChangeType.SNAPSHOT_END:
                        break
            await client.delete("notes", "n1")
            assert (await client.health()).healthy
            assert (await client.status()).node_id == "edge"
            assert [a.agent_id for a in await client.agents()] == ["p1"]

    asyncio.run(asyncio.wait_for(calls(), 2 * PATIENCE))


def test_lists_are_whole_for_any_size_of_a_page(client: peat.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peat._calls.PAGE", 2)
    for n in range(5):
        client.put_platform(peat.Platform(id=f"p{n}"))
        client.send_command("work", agent="a1", id=f"c{n}", ttl=None)
    assert [agent.agent_id for agent in client.agents()] == [f"p{n}" for n in range(5)]
    assert sorted(command.id for command in client.commands("a1")) == [f"c{n}" for n in range(5)]


def test_a_tcp_listener_takes_calls_with_its_token(start: Callable[..., Node], home: Path) -> None:
    token = home / "token"
    token.write_text("a-token-of-more-than-sixteen-characters\n")
    token.chmod(0o600)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    start("--listen", address, "--api-token-file", str(token))
    with peat.Client(address) as client, pytest.raises(peat.Unauthenticated):
        client.status()
    secret = token.read_text().strip()
    with peat.Client(address, token=secret) as client:
        client.put("notes", "n1", {})
    with Agent(address, Registration("a1"), token=secret) as agent:
        agent.wait_registered(PATIENCE)
        assert agent.client.list("notes") == ["n1"]


def test_many_threads_and_tasks_share_a_connection(node: Node, client: peat.Client) -> None:
    def put(worker: int) -> None:
        for n in range(25):
            client.put("tracks", f"t{worker}-{n}", {"n": n})

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(put, range(16)))
    assert len(client.list("tracks")) == 400

    async def read() -> None:
        async with peat.AsyncClient(node.address) as client:
            reads = [client.get("tracks", f"t{n % 16}-{n % 25}") for n in range(1000)]
            assert [document.decode() for document in await asyncio.gather(*reads)] == [
                {"n": n % 25} for n in range(1000)
            ]

    asyncio.run(asyncio.wait_for(read(), PATIENCE))


def test_a_subscription_misses_nothing_while_the_node_crashes(node: Node, client: peat.Client) -> None:
    with client.subscribe("notes", snapshot=True) as changes:
        assert changes.next(PATIENCE).type is peat.ChangeType.SNAPSHOT_END  # type: ignore[union-attr]
        client.put("notes", "n1", {}, durable=True)
        change = changes.next(PATIENCE)
        assert change is not None
        assert change.id == "n1"
        node.kill()
        node.resume()
        with peat.Client(node.address) as other:
            other.put("notes", "n2", {}, durable=True)
        assert changes.next(PATIENCE).id == "n2"  # type: ignore[union-attr]
        token = peat.Token.parse(str(change.token))
    # Another process, with the token.
    with client.subscribe("notes", resume_after=token) as changes:
        assert changes.next(PATIENCE).id == "n2"  # type: ignore[union-attr]


def test_coroutines_miss_nothing_while_the_node_crashes(node: Node) -> None:
    async def follow() -> None:
        async with peat.AsyncClient(node.address) as client:
            seen = []
            async for change in client.subscribe("notes", snapshot=True):
                if change.type is peat.ChangeType.SNAPSHOT_END:
                    await client.put("notes", "n1", {}, durable=True)
                elif change.id == "n1":
                    seen.append(change.id)
                    await asyncio.to_thread(node.kill)
                    await asyncio.to_thread(node.resume)
                    await client.put("notes", "n2", {}, durable=True)
                elif change.id == "n2":
                    return

    asyncio.run(asyncio.wait_for(follow(), 2 * PATIENCE))


def test_the_fleet_shows_what_an_agent_reports(node: Node, client: peat.Client) -> None:
    registration = Registration("a1", name="first", group="g", labels={"site": "north"}, status=peat.READY)
    with Agent(node.address, registration) as agent:
        agent.report_deployment(peat.Workload("web", version="2", status="running"), timeout=PATIENCE)
        eventually("the workload is there", lambda: len(client.fleet_deployments()) == 1)
        platform = client.fleet_platforms()[0]
        assert (platform.id, platform.name, platform.group, platform.liveness) == ("a1", "first", "g", peat.LIVE)
        assert [(d.agent_id, d.package, d.version) for d in client.fleet_deployments()] == [("a1", "web", "2")]
        assert [a.agent_id for a in client.agents(liveness=peat.LIVE, group="g")] == ["a1"]
        agent.heartbeat(peat.State(status=peat.BUSY, labels={"site": "south"}), timeout=PATIENCE)
        eventually("the workload is gone", lambda: client.fleet_deployments() == [])
        eventually("the status", lambda: client.agents()[0].status == peat.BUSY)
        with pytest.raises(peat.InvalidArgument):
            agent.report_deployment(peat.Workload(""), timeout=PATIENCE)
        agent.wait_registered(PATIENCE)
    eventually("it took leave", lambda: client.agents()[0].liveness == peat.STALE)


def test_watch_agents_gives_all_of_them_and_then_every_change(node: Node, client: peat.Client) -> None:
    with Agent(node.address, Registration("a1")) as agent:
        agent.wait_registered(PATIENCE)
        with client.watch_agents() as changes:
            change = changes.next(PATIENCE)
            assert change is not None
            assert change.agent is not None
            assert change.agent.agent_id == "a1"
            assert changes.next(PATIENCE).type is peat.ChangeType.SNAPSHOT_END  # type: ignore[union-attr]
            agent.close()
            while change is None or change.agent is None or change.agent.liveness != peat.STALE:
                change = changes.next(PATIENCE)


def test_a_command_has_its_effect_and_its_result_is_told(node: Node, client: peat.Client, home: Path) -> None:
    running: dict[str, str] = {}

    def deploy(command: Command) -> object:
        wanted = command.decode()
        if "version" not in wanted:
            raise ValueError("which version?")
        command.progress(50, "half way")
        running[wanted["name"]] = wanted["version"]
        return {"deployed": wanted["name"]}

    with Agent(node.address, Registration("a1", group="g"), directory=home / "record") as agent:
        agent.wait_registered(PATIENCE)
        handle(agent, deploy)
        id = client.send_command("deploy", {"name": "radar", "version": "2"}, agent="a1")
        record = client.wait_command(id, timeout=PATIENCE)
        assert (record.status, record.result_json, running) == (peat.COMPLETED, '{"deployed":"radar"}', {"radar": "2"})
        id = client.send_command("deploy", '{"name": "radar"}', group="g")
        record = client.wait_command(id, timeout=PATIENCE)
        assert (record.status, record.error) == (peat.FAILED, "which version?")
        # The same order under the same id changes nothing.
        assert client.command(id).status == peat.FAILED


def test_a_cut_in_the_middle_of_the_work_is_one_execution(node: Node, client: peat.Client, home: Path) -> None:
    proxy, begun, finish, runs = Proxy(node, home / "proxy"), threading.Event(), threading.Event(), []

    def work(command: Command) -> str:
        def attempt(_: peat.Attempt) -> object:
            runs.append(command.id)
            begun.set()
            assert finish.wait(PATIENCE)
            return {"took": "a while"}

        return command.once("deploy radar 2", attempt)

    with Agent(proxy.address, Registration("a1"), directory=home / "record") as agent:
        agent.wait_registered(PATIENCE)
        handle(agent, work)
        first = client.send_command("deploy", agent="a1")
        assert begun.wait(PATIENCE)
        proxy.cut()
        shows(client, "a1", peat.STALE)
        # Its sender sees nothing come back, and sends it again.
        retry = client.send_command("deploy", agent="a1")
        assert client.command(first).status == peat.EXECUTING
        finish.set()
        proxy.mend()
        for id in (first, retry):
            record = client.wait_command(id, timeout=PATIENCE)
            assert (record.status, record.result_json) == (peat.COMPLETED, '{"took":"a while"}')
        assert runs == [first]
        proxy.cut()
        agent.close(patience=0.01)


def test_a_node_that_crashes_in_the_middle_of_the_work_loses_nothing(node: Node, client: peat.Client) -> None:
    begun, finish, runs = threading.Event(), threading.Event(), []

    def work(command: Command) -> int:
        runs.append(command.id)
        begun.set()
        assert finish.wait(PATIENCE)
        return 1

    with Agent(node.address, Registration("a1")) as agent:
        agent.wait_registered(PATIENCE)
        handle(agent, work)
        id = client.send_command("work", agent="a1", ttl=None)
        assert begun.wait(PATIENCE)
        node.kill()
        finish.set()
        node.resume()
        record = client.wait_command(id, timeout=PATIENCE)
        assert (record.status, record.result_json, runs) == (peat.COMPLETED, "1", [id])


def test_an_agent_that_is_restarted_does_not_run_the_same_command_again(
    node: Node, client: peat.Client, home: Path
) -> None:
    proxy = Proxy(node, home / "proxy")
    before = Agent(proxy.address, Registration("a1"), directory=home / "record")
    before.wait_registered(PATIENCE)
    id = client.send_command("work", agent="a1", ttl=None)
    command = before.next_command(PATIENCE)
    assert command is not None
    command.accept(PATIENCE)
    proxy.cut()
    assert not before.close(patience=0.01)
    runs: list[str] = []
    with Agent(node.address, Registration("a1"), directory=home / "record") as after:
        handle(after, lambda command: runs.append(command.id))
        record = client.wait_command(id, timeout=PATIENCE)
        assert (record.status, record.error, runs) == (
            peat.FAILED,
            "the agent was restarted while the command ran",
            [],
        )


def test_a_cancel_is_requested_until_the_agent_confirms_it(node: Node, client: peat.Client) -> None:
    async def main() -> None:
        async with peat.AsyncAgent(node.address, Registration("a1")) as agent:
            begun = asyncio.Event()

            async def work(command: peat.AsyncCommand) -> None:
                begun.set()
                await asyncio.Event().wait()

            handling = asyncio.create_task(agent.handle(work))
            await agent.wait_registered(PATIENCE)
            id = await agent.client.send_command("work", agent="a1")
            await begun.wait()
            targets = await agent.client.cancel_command(id)
            assert [target.agent_id for target in targets] == ["a1"]
            assert (await agent.client.wait_command(id, timeout=PATIENCE)).status == peat.CANCELLED
            await agent.close()
            await handling

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_second_agent_of_the_same_id_takes_over(node: Node, client: peat.Client) -> None:
    with Agent(node.address, Registration("a1", version="1")) as first:
        first.wait_registered(PATIENCE)
        with Agent(node.address, Registration("a1", version="2")) as second:
            second.wait_registered(PATIENCE)
            eventually("the first knows", lambda: not first.connected)
            eventually("the second's version", lambda: client.agents()[0].version == "2")


def test_commands_run_once_and_all_end_through_cuts_and_crashes(node: Node, home: Path) -> None:
    seed = time.time_ns()
    print("seed", seed)
    chance, proxy, lock = random.Random(seed), Proxy(node, home / "proxy"), threading.Lock()
    runs: dict[str, int] = {}

    def work(command: Command) -> object:
        with lock:
            runs[command.id] = runs.get(command.id, 0) + 1
        if command.wait_stop(0.002):
            raise RuntimeError("stopped")
        return {"ran": True}

    def start() -> Agent:
        agent = Agent(proxy.address, Registration("a1"), directory=home / "record")
        handle(agent, work)
        return agent

    def send(id: str) -> None:
        with peat.Client(node.address) as sender:
            sender.send_command("work", agent="a1", ttl=None, id=id)

    agent = start()
    ids = [f"c{n}" for n in range(40)]
    for id in ids:
        send(id)
        fault = chance.randrange(12)
        if fault < 3:
            proxy.cut()
            proxy.mend()
        elif fault == 3:
            node.kill()
            node.resume()
        elif fault == 4:
            agent.close(patience=chance.choice((0.01, 5.0)))
            agent = start()
    with peat.Client(node.address) as client:
        for id in ids:
            assert client.wait_command(id, timeout=PATIENCE).status in (peat.COMPLETED, peat.FAILED)
    assert set(runs.values()) == {1}
    agent.close()


def test_the_readers_place_passes_between_threads(node: Node, client: peat.Client) -> None:
    subscription = client.subscribe("notes")
    waits = later(lambda: subscription.next(PATIENCE))
    client.put("notes", "n1", {})
    for n in range(50):
        assert client.get("notes", "n1").json == "{}"
        with pytest.raises(peat.NotFound):
            client.get("notes", f"none{n}", timeout=PATIENCE)
    assert waits.result(PATIENCE) is not None


def test_a_document_longer_than_a_frame_is_read_and_followed(node: Node, client: peat.Client) -> None:
    base = client.put("notes", "big", {}).version
    # Each writer has seen the empty document, so the node merges their fields.
    for field in "abcde":
        client.put("notes", "big", {field: field * 1_000_000}, base=base, timeout=PATIENCE)
    assert client.get("notes", "big", timeout=PATIENCE).decode() == {field: field * 1_000_000 for field in "abcde"}
    with client.subscribe("notes", snapshot=True) as changes:
        change = changes.next(PATIENCE)
        assert change is not None
        assert len(change.json) > 5_000_000

    async def read() -> None:
        async with peat.AsyncClient(node.address) as other:
            assert len((await other.get("notes", "big", timeout=PATIENCE)).json) > 5_000_000

    asyncio.run(asyncio.wait_for(read(), 2 * PATIENCE))


def test_a_subscription_omits_what_it_excludes_and_names_what_is_too_long(node: Node, client: peat.Client) -> None:
    for collection, text in (("notes", "short"), ("long", "x" * 2000), ("secret", "s")):
        client.put(collection, "d", {"text": text})
    expected = {"notes": peat.ChangeType.UPSERT, "long": peat.ChangeType.OVERSIZED}
    got = {}
    with client.subscribe(snapshot=True, exclude=["secret"], max_change_bytes=1000) as changes:
        for change in changes:
            if change.type is peat.ChangeType.SNAPSHOT_END:
                break
            got[change.collection] = change.type
            assert ("max_change_bytes" in change.error) == (change.type is peat.ChangeType.OVERSIZED)
    assert got == expected

    async def follow() -> None:
        async with peat.AsyncClient(node.address) as other:
            async for change in other.subscribe(snapshot=True, exclude=["secret"], max_change_bytes=1000):
                if change.type is peat.ChangeType.SNAPSHOT_END:
                    return
                assert expected[change.collection] is change.type

    asyncio.run(asyncio.wait_for(follow(), PATIENCE))


def test_peers_are_waited_for_and_disconnected_ones_listed_on_request(client: peat.Client) -> None:
    peer = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c"
    with pytest.raises(peat.DeadlineExceeded):
        client.connect_peer(peer, ["127.0.0.1:9"], wait=True, timeout=1)
    assert [known.endpoint_id for known in client.peers()] == [peer]
    client.disconnect_peer(peer)
    assert client.peers() == []
    assert [known.endpoint_id for known in client.peers(all=True)] == [peer]


def test_commands_are_selected_by_status(client: peat.Client) -> None:
    over = client.send_command("work", agent="a1", ttl=1)
    client.wait_command(over, timeout=PATIENCE)
    open = client.send_command("work", agent="a1", ttl=None)
    assert [command.id for command in client.commands(status=[peat.EXPIRED, peat.FAILED])] == [over]
    assert [command.id for command in client.commands("a1", pending_only=True)] == [open]
    assert {command.id for command in client.commands()} == {over, open}


def test_a_polling_agent_is_listed_with_what_it_runs(node: Node, client: peat.Client) -> None:
    registration = Registration("a1", name="poller", group="g", labels={"site": "north"}, status=peat.READY)
    with pytest.raises(peat.InvalidArgument, match="polling"):
        Agent(node.address, registration, polling=0)
    # A field of another writer stays.
    client.put("platforms", "a1", {"note": "kept"})
    with Agent(node.address, registration, polling=0.02) as agent:
        terms = agent.wait_registered(PATIENCE)
        assert (terms.heartbeat_interval, terms.node_public_key.hex()) == (1.0, node.id)
        agent.report_deployment(peat.Workload("web", version="2", status="running"), timeout=PATIENCE)
        agent.report_deployment(peat.Workload("db", version="1", status="running"), timeout=PATIENCE)
        assert [(d.package, d.version) for d in client.fleet_deployments()] == [("db", "1"), ("web", "2")]
        document = client.get("platforms", "a1").decode()
        assert (document["name"], document["group"], document["note"]) == ("poller", "g", "kept")
        shows(client, "a1", peat.LIVE)
        agent.heartbeat(peat.State(status=peat.BUSY), timeout=PATIENCE)
        assert client.fleet_deployments() == []
        assert "labels" not in client.get("platforms", "a1").decode()
        with pytest.raises(peat.ResourceExhausted):
            agent.heartbeat(peat.State(labels={"large": "x" * (3 << 20)}), timeout=PATIENCE)
        agent.wait_registered(PATIENCE)

        def renewed() -> bool:
            ages.append(client.agents()[0].age_ms)
            return ages[-1] < ages[-2]

        ages = [client.agents()[0].age_ms]
        eventually("a sign of life", renewed)


def test_a_polling_agent_runs_each_command_once(node: Node, client: peat.Client, home: Path) -> None:
    runs: list[str] = []
    stop = threading.Event()

    def work(command: Command) -> object:
        runs.append(command.id)
        if command.type == "fail":
            raise ValueError("no")
        if command.type == "wait":
            stop.set()
            assert command.wait_stop(PATIENCE)
            raise RuntimeError("stopped")
        return {"n": len(runs)}

    with Agent(node.address, Registration("a1", group="g"), directory=home / "record", polling=0.02) as agent:
        agent.wait_registered(PATIENCE)
        handle(agent, work)
        done = client.send_command("work", agent="a1")
        record = client.wait_command(done, timeout=PATIENCE)
        assert (record.status, record.result_json) == (peat.COMPLETED, '{"n":1}')
        failed = client.send_command("fail", group="g")
        record = client.wait_command(failed, timeout=PATIENCE)
        assert (record.status, record.error) == (peat.FAILED, "no")
        cancelled = client.send_command("wait", agent="a1")
        assert stop.wait(PATIENCE)
        client.cancel_command(cancelled)
        assert client.wait_command(cancelled, timeout=PATIENCE).status == peat.CANCELLED
        node.kill()
        node.resume()
        again = client.send_command("work", agent="a1", ttl=None)
        assert client.wait_command(again, timeout=PATIENCE).status == peat.COMPLETED
        assert runs == [done, failed, cancelled, again]


def test_a_coroutine_handles_commands_of_a_polling_agent(node: Node) -> None:
    async def main() -> None:
        async with peat.AsyncAgent(node.address, Registration("a1"), polling=0.02) as agent:

            async def work(command: peat.AsyncCommand) -> object:
                return {"type": command.type}

            handling = asyncio.create_task(agent.handle(work))
            await agent.wait_registered(PATIENCE)
            id = await agent.client.send_command("work", agent="a1")
            record = await agent.client.wait_command(id, timeout=PATIENCE)
            assert record.result_json == '{"type":"work"}'
            await agent.close()
            await handling

    asyncio.run(asyncio.wait_for(main(), 2 * PATIENCE))


def test_an_agent_gives_signs_of_life_more_often_than_it_polls(node: Node, client: peat.Client) -> None:
    with Agent(node.address, Registration("a1"), polling=3600) as agent:
        agent.wait_registered(PATIENCE)
        ages = [client.agents()[0].age_ms]

        def renewed() -> bool:
            ages.append(client.agents()[0].age_ms)
            return ages[-1] < ages[-2]

        eventually("a sign of life", renewed)
