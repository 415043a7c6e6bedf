"""Agents against a node that leaves every answer to the test."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_client import later

import peat
from fakenode import PATIENCE, FakeLink, FakeNode, eventually
from peat import Agent, Command, Method, Registration
from peat.agent.v1 import agent_pb2

Update = agent_pb2.CommandUpdate
ACCEPTED, COMPLETED = Update.STAGE_ACCEPTED, Update.STAGE_COMPLETED
FAILED, CANCELLED = Update.STAGE_FAILED, Update.STAGE_CANCELLED


@pytest.fixture
def agents(fake: FakeNode) -> Iterator[Callable[..., Agent]]:
    """Starts agents of the fake node, which end with the test."""
    started: list[Agent] = []

    def start(**options: Any) -> Agent:
        started.append(Agent(fake.address, Registration("a1", group="g"), **options))
        return started[-1]

    yield start
    for agent in started:
        agent.close(patience=0.01)


def handle(agent: Agent, handler: Callable[[Command], object]) -> None:
    threading.Thread(target=agent.handle, args=(handler,), daemon=True).start()


def beaten(link: FakeLink) -> agent_pb2.Heartbeat:
    """The agent's next heartbeat, answered."""
    beat = link.hear().heartbeat
    link.say(heartbeat_ack=agent_pb2.HeartbeatAck(number=beat.number))
    return beat


def run(link: FakeLink, id: str) -> None:
    """Pushes a command and confirms its acceptance."""
    link.push(id)
    link.update(id, ACCEPTED)
    link.ack(id, ACCEPTED)


def test_a_registration_says_all_there_is(fake: FakeNode) -> None:
    registration = Registration(
        "a1",
        name="n",
        group="g",
        version="1",
        capabilities=["c"],
        labels={"k": "v"},
        routes=["r"],
        status=peat.READY,
        workloads=[peat.Workload("w", version="2", status="up", labels={"x": "y"})],
        capacity=peat.Capacity(cpu_total=4),
    )
    with Agent(fake.address, registration) as agent:
        link = fake.link()
        register = link.register
        assert (register.agent_id, register.name, register.group, register.version) == ("a1", "n", "g", "1")
        assert (list(register.capabilities), dict(register.labels), list(register.routes)) == (["c"], {"k": "v"}, ["r"])
        assert (register.workloads[0].name, register.capacity.cpu_total) == ("w", 4)
        terms = agent.wait_registered(PATIENCE)
        assert (terms.node_id, terms.heartbeat_interval) == ("fake", 60)
        # What a registration has no place for comes with the first heartbeat.
        assert beaten(link).state.status == peat.READY
        link.connection.drop()


def test_an_agent_needs_an_id_and_what_can_be_encoded(fake: FakeNode) -> None:
    with pytest.raises(peat.InvalidArgument):
        Agent(fake.address, Registration(""))
    with pytest.raises(peat.InvalidArgument):
        Agent(fake.address, Registration("a1", labels={"n": 1}))  # type: ignore[dict-item]


def test_a_refused_registration_is_told_and_tried_again(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent = agents()
    link = FakeLink(fake.next())
    link.connection.fail(link.call, 7, "another user's")
    with pytest.raises(peat.PermissionDenied, match="another user's"):
        agent.wait_registered(PATIENCE)
    fake.link()
    eventually("it is registered", lambda: agent.connected)


def test_heartbeats_come_as_often_as_the_node_wants(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agents()
    link = fake.link(interval_ms=100)
    for number in (1, 2, 3):
        beat = beaten(link)
        assert beat.number == number
        assert not beat.HasField("state")


def test_a_node_that_does_not_answer_heartbeats_is_left(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agents()
    fake.link(interval_ms=1000).hear()
    fake.link()


def test_a_state_is_reported_once_the_node_has_taken_it(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent = agents()
    link = fake.link()
    reported = later(lambda: agent.report_deployment(peat.Workload("w", version="1")))
    beat = link.hear().heartbeat
    assert beat.state.workloads_complete
    assert [w.name for w in beat.state.workloads] == ["w"]
    assert not reported.done()
    # Lost with the connection: said again on the next.
    link.connection.drop()
    link = fake.link()
    assert [w.name for w in link.register.workloads] == ["w"]
    assert not reported.done()
    beaten(link)
    reported.result(PATIENCE)


def test_what_the_node_refuses_is_told_and_taken_back(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent = agents()
    link = fake.link()
    reported = later(lambda: agent.report_deployment(peat.Workload("")))
    link.hear()
    link.connection.fail(link.call, 3, "a workload without a name")
    with pytest.raises(peat.InvalidArgument):
        reported.result(PATIENCE)
    assert not fake.link().register.workloads
    with pytest.raises(peat.InvalidArgument, match="keeps its id"):
        agent.update(dataclasses.replace(agent.registration, id="a2"))


def test_a_registration_that_fits_no_message_is_told_at_once(fake: FakeNode) -> None:
    with (
        Agent(fake.address, Registration("a1", labels={"huge": "x" * (4 << 20)})) as agent,
        pytest.raises(peat.ResourceExhausted),
    ):
        agent.wait_registered(PATIENCE)


def test_a_command_runs_once_the_node_has_confirmed_its_acceptance(
    fake: FakeNode, agents: Callable[..., Agent]
) -> None:
    agent, runs = agents(), []
    handle(agent, lambda command: runs.append(command.id) or {"got": command.decode()})  # type: ignore[func-returns-value]
    link = fake.link()
    link.push("c1", '{"n":1}')
    link.update("c1", ACCEPTED)
    assert not runs
    link.ack("c1", ACCEPTED)
    assert link.update("c1", COMPLETED).result_json == '{"got":{"n":1}}'
    # Pushed again, it is answered from memory; confirmed or not.
    link.push("c1", '{"n":1}')
    link.update("c1", COMPLETED)
    link.ack("c1", COMPLETED)
    link.push("c1", '{"n":1}')
    link.update("c1", COMPLETED)
    assert runs == ["c1"]


def test_a_command_whose_acceptance_is_refused_does_not_run(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent, runs = agents(), []
    handle(agent, lambda command: runs.append(command.id))
    link = fake.link()
    link.push("c1")
    link.update("c1", ACCEPTED)
    link.ack("c1", ACCEPTED, refused="it expired")
    run(link, "c2")
    link.update("c2", COMPLETED)
    assert runs == ["c2"]


def test_a_command_that_waited_too_long_is_not_given(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent = agents()
    link = fake.link()
    link.push("late", time_left_ms=1)
    jobs = agent._runner.core.jobs._jobs
    eventually("it is late", lambda: "late" in jobs and jobs["late"].late(time.monotonic()))
    link.push("c1")
    command = agent.next_command(PATIENCE)
    assert command is not None
    assert command.id == "c1"


def test_a_lost_link_cancels_no_work_and_the_result_comes_afterwards(
    fake: FakeNode, agents: Callable[..., Agent]
) -> None:
    agent, begun, finish = agents(), threading.Event(), threading.Event()

    def work(command: Command) -> object:
        begun.set()
        assert finish.wait(PATIENCE)
        return {"stopping": command.stopping}

    handle(agent, work)
    link = fake.link()
    run(link, "c1")
    assert begun.wait(PATIENCE)
    link.connection.drop()
    link = fake.link()
    assert [(u.command_id, u.stage) for u in link.register.commands] == [("c1", ACCEPTED)]
    link.ack("c1", ACCEPTED)
    finish.set()
    assert link.update("c1", COMPLETED).result_json == '{"stopping":false}'
    # Not confirmed: it is in the next registration.
    link.connection.drop()
    link = fake.link()
    assert [(u.command_id, u.stage) for u in link.register.commands] == [("c1", COMPLETED)]
    link.ack("c1", COMPLETED)
    link.connection.drop()
    assert not fake.link().register.commands


def test_an_accepted_command_that_the_node_does_not_hold_yet_runs_later(
    fake: FakeNode, agents: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peat._jobs.AGAIN_LEAST", 0.05)
    agent, runs = agents(), []
    handle(agent, lambda command: runs.append(command.id))
    link = fake.link(interval_ms=100)
    link.push("c1")
    link.update("c1", ACCEPTED)
    link.ack("c1", ACCEPTED, not_here=True)
    while True:
        message = link.hear()
        if message.HasField("command_update"):
            break
        link.say(heartbeat_ack=agent_pb2.HeartbeatAck(number=message.heartbeat.number))
    assert (message.command_update.stage, runs) == (ACCEPTED, [])
    link.ack("c1", ACCEPTED)
    while not (message := link.hear()).HasField("command_update"):
        link.say(heartbeat_ack=agent_pb2.HeartbeatAck(number=message.heartbeat.number))
    assert (message.command_update.stage, runs) == (COMPLETED, ["c1"])


def test_a_cancel_ends_the_work_and_is_confirmed_then(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent = agents()

    def work(command: Command) -> None:
        assert command.wait_stop(PATIENCE)
        raise RuntimeError("stopped")

    handle(agent, work)
    link = fake.link()
    run(link, "c1")
    link.say(cancel_push=agent_pb2.CancelPush(command_id="c1"))
    link.update("c1", CANCELLED)


def test_a_cancel_of_what_never_began_is_confirmed_at_once_and_it_never_runs(
    fake: FakeNode, agents: Callable[..., Agent]
) -> None:
    agent, runs = agents(), []
    link = fake.link()
    # Known, and unknown.
    link.push("c1")
    for id in ("c1", "c2"):
        link.say(cancel_push=agent_pb2.CancelPush(command_id=id))
        link.update(id, CANCELLED)
        link.ack(id, CANCELLED)
        link.push(id)
        link.update(id, CANCELLED)
    handle(agent, lambda command: runs.append(command.id))
    run(link, "c3")
    link.update("c3", COMPLETED)
    assert runs == ["c3"]


def test_failures_are_the_commands_own(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent = agents()

    def work(command: Command) -> object:
        if command.id == "raises":
            raise ValueError("which version?")
        if command.id == "long":
            raise ValueError("☂" * 4096)
        if command.id == "empty":
            raise ValueError
        if command.id == "large":
            return "x" * (300 << 10)
        return {"no": {"json"}}

    handle(agent, work)
    link = fake.link()
    expected = {
        "raises": "which version?",
        "empty": "ValueError",
        "large": "is not JSON",
        "other": "not JSON",
        "long": "☂…",
    }
    for id, why in expected.items():
        run(link, id)
        error = link.update(id, FAILED).error
        assert why in error
        assert len(error.encode()) <= 4096


def test_a_restart_reports_what_it_interrupted_and_never_runs_it_again(fake: FakeNode, home: Path) -> None:
    def start() -> tuple[Agent, FakeLink]:
        agent = Agent(fake.address, Registration("a1"), directory=home / "record")
        return agent, fake.link()

    agent, link = start()
    for id in ("interrupted", "done", "accepted", "waits"):
        link.push(id)
    commands = {}
    for _ in range(3):
        command = agent.next_command(PATIENCE)
        assert command is not None
        commands[command.id] = command
        accepting = later(command.accept)
        link.update(command.id, ACCEPTED)
        if command.id != "accepted":
            link.ack(command.id, ACCEPTED)
            accepting.result(PATIENCE)
    commands["done"].complete({"n": 1})
    link.update("done", COMPLETED)
    link.connection.drop()
    assert not agent.close(patience=0.01)

    agent, link = start()
    told = {update.command_id: update for update in link.register.commands}
    assert set(told) == {"interrupted", "done", "accepted"}
    assert (told["interrupted"].stage, told["done"].stage, told["accepted"].stage) == (FAILED, COMPLETED, ACCEPTED)
    assert told["interrupted"].error == "the agent was restarted while the command ran"
    assert told["done"].result_json == '{"n":1}'
    link.ack("interrupted", FAILED)
    link.ack("done", COMPLETED)
    link.ack("accepted", ACCEPTED)
    # What was accepted and had not begun runs now.
    runs: list[str] = []
    handle(agent, lambda command: runs.append(command.id))
    link.update("accepted", COMPLETED)
    for id, stage in (("interrupted", FAILED), ("done", COMPLETED)):
        link.push(id)
        link.update(id, stage)
    link.connection.drop()
    agent.close(patience=0.01)
    assert runs == ["accepted"]


def test_once_joins_work_that_runs_under_another_id(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent, finish, runs = agents(), threading.Event(), []

    def work(command: Command) -> str:
        def roll_out(_: peat.Attempt) -> object:
            runs.append(command.id)
            assert finish.wait(PATIENCE)
            return {"rolled_out": True}

        return command.once("rollout 6.5", roll_out)

    handle(agent, work)
    link = fake.link()
    run(link, "c1")
    eventually("it has begun", lambda: bool(runs))
    run(link, "c2")
    eventually("the second waits", lambda: agent._runner.core.once["rollout 6.5"].waiting == 2)
    finish.set()
    results = {(update := link.hear().command_update).command_id: update.result_json for _ in range(2)}
    assert results == {"c1": '{"rolled_out":true}', "c2": '{"rolled_out":true}'}
    for id in results:
        link.ack(id, COMPLETED)
    # Both got through: the same key begins again.
    run(link, "c3")
    link.update("c3", COMPLETED)
    assert runs == ["c1", "c3"]


def test_once_uses_the_result_of_interrupted_work_again(fake: FakeNode, home: Path) -> None:
    runs: list[str] = []

    def work(command: Command) -> str:
        return command.once("key", lambda _: runs.append(command.id) or len(runs))  # type: ignore[func-returns-value]

    agent = Agent(fake.address, Registration("a1"), directory=home / "record")
    handle(agent, work)
    link = fake.link()
    run(link, "c1")
    link.update("c1", COMPLETED)
    link.connection.drop()
    agent.close(patience=0.01)
    agent = Agent(fake.address, Registration("a1"), directory=home / "record")
    handle(agent, work)
    link = fake.link()
    link.ack("c1", COMPLETED)
    run(link, "retry")
    assert link.update("retry", COMPLETED).result_json == "1"
    link.connection.drop()
    agent.close(patience=0.01)
    assert runs == ["c1"]


def test_shared_work_ends_when_no_command_waits_for_it(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent, ended = agents(), threading.Event()

    def work(command: Command) -> str:
        def attempt(attempt: peat.Attempt) -> object:
            eventually("none waits", lambda: attempt.stopping)
            ended.set()
            raise RuntimeError("given up")

        return command.once("key", attempt)

    def waiting() -> int:
        return getattr(agent._runner.core.once.get("key"), "waiting", 0)

    handle(agent, work)
    link = fake.link()
    run(link, "c1")
    # The work runs on the thread of the first command, so the second must not overtake it.
    eventually("the first waits", lambda: waiting() == 1)
    run(link, "c2")
    eventually("both wait", lambda: waiting() == 2)
    link.say(cancel_push=agent_pb2.CancelPush(command_id="c2"))
    link.update("c2", CANCELLED)
    assert not ended.is_set()
    link.say(cancel_push=agent_pb2.CancelPush(command_id="c1"))
    link.update("c1", CANCELLED)
    assert ended.is_set()


def test_closing_ends_work_and_takes_leave(fake: FakeNode) -> None:
    agent = Agent(fake.address, Registration("a1"))
    begun = threading.Event()

    def work(command: Command) -> None:
        begun.set()
        assert command.wait_stop(PATIENCE)

    handled = later(lambda: agent.handle(work))
    link = fake.link()
    run(link, "c1")
    assert begun.wait(PATIENCE)
    closed = later(agent.close)
    link.update("c1", COMPLETED)
    link.ack("c1", COMPLETED)
    assert link.hear().HasField("goodbye")
    link.connection.drop()
    assert closed.result(PATIENCE)
    handled.result(PATIENCE)
    with pytest.raises(peat.Closed):
        agent.wait_registered()
    assert agent.close()


def test_coroutines_handle_commands_and_are_cancelled_with_them(fake: FakeNode) -> None:
    async def main() -> None:
        async with peat.AsyncAgent(fake.address, Registration("a1")) as agent:
            begun: asyncio.Queue[str] = asyncio.Queue()
            ended: list[str] = []

            async def work(command: peat.AsyncCommand) -> object:
                if command.id == "quick":
                    return {"n": 1}
                begun.put_nowait(command.id)
                try:
                    await asyncio.Event().wait()
                finally:
                    ended.append(command.id)
                return None

            handling = asyncio.create_task(agent.handle(work))
            link = await asyncio.to_thread(fake.link)
            await agent.wait_registered(PATIENCE)
            await asyncio.to_thread(run, link, "quick")
            assert (await asyncio.to_thread(link.update, "quick", COMPLETED)).result_json == '{"n":1}'
            await asyncio.to_thread(run, link, "cancelled")
            assert await begun.get() == "cancelled"
            link.say(cancel_push=agent_pb2.CancelPush(command_id="cancelled"))
            await asyncio.to_thread(link.update, "cancelled", CANCELLED)
            await asyncio.to_thread(run, link, "given up")
            assert await begun.get() == "given up"
            handling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await handling
            await asyncio.to_thread(link.update, "given up", FAILED)
            assert ended[0] == "cancelled"
            link.connection.drop()
            await agent.close(patience=0.01)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_cancelled_wait_for_a_command_takes_none(fake: FakeNode) -> None:
    async def main() -> None:
        async with peat.AsyncAgent(fake.address, Registration("a1")) as agent:
            link = await asyncio.to_thread(fake.link)
            waits = asyncio.create_task(agent.next_command())
            await asyncio.sleep(0)
            link.push("c1")
            waits.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waits
            command = await agent.next_command(PATIENCE)
            assert command is not None
            # An acceptance that is given up is given back.
            accepting = asyncio.create_task(command.accept())
            await asyncio.to_thread(link.update, "c1", ACCEPTED)
            accepting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await accepting
            link.ack("c1", ACCEPTED)
            again = await agent.next_command(PATIENCE)
            assert again is not None
            await again.accept(PATIENCE)
            await again.complete()
            await asyncio.to_thread(link.update, "c1", COMPLETED)
            link.connection.drop()
            await agent.close(patience=0.01)

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_coroutines_share_work_done_once(fake: FakeNode) -> None:
    async def main() -> None:
        async with peat.AsyncAgent(fake.address, Registration("a1")) as agent:
            finish, runs = asyncio.Event(), []

            async def work(command: peat.AsyncCommand) -> object:
                async def roll_out() -> object:
                    runs.append(command.id)
                    await finish.wait()
                    return {"rolled_out": True}

                return await command.once("key", roll_out)

            handling = asyncio.create_task(agent.handle(work))
            link = await asyncio.to_thread(fake.link)
            for id in ("c1", "c2"):
                await asyncio.to_thread(run, link, id)
            while getattr(agent._runner.core.once.get("key"), "waiting", 0) < 2:
                await asyncio.sleep(0.01)
            # The first gives up; its work goes on for the second.
            link.say(cancel_push=agent_pb2.CancelPush(command_id="c1"))
            await asyncio.to_thread(link.update, "c1", CANCELLED)
            finish.set()
            assert (await asyncio.to_thread(link.update, "c2", COMPLETED)).result_json == '{"rolled_out":true}'
            assert runs == ["c1"]
            link.connection.drop()
            await agent.close(patience=0.01)
            await handling

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_methods_of_a_link_are_named(fake: FakeNode, agents: Callable[..., Agent]) -> None:
    agent = agents()
    connection = fake.next()
    call, _ = connection.request(Method.Connect)
    connection.fail(call, 3, "no")
    with pytest.raises(peat.InvalidArgument, match=r"AgentLink\.Connect: INVALID_ARGUMENT: no"):
        agent.wait_registered(PATIENCE)
