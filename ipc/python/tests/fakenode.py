"""A node that leaves every answer to the test."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from peat import Method
from peat._frames import PREFACE, Decoder, encode
from peat.agent.v1 import agent_pb2
from peat.ipc.v1.ipc_pb2 import Error, Frame, Request

# Seconds that a test waits for what must happen; only a failing one waits it out.
PATIENCE = 30.0


def eventually(what: str, condition: Callable[[], bool]) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"it did not happen: {what}"
        time.sleep(0.01)


class FakeNode:
    """Listens on a unix socket."""

    def __init__(self, path: Path) -> None:
        self.address = f"unix://{path}"
        self._connections: queue.Queue[FakeConnection] = queue.Queue()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._open: list[FakeConnection] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> FakeNode:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.drop()

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            connection = FakeConnection(accepted)
            self._open.append(connection)
            self._connections.put(connection)

    def next(self) -> FakeConnection:
        """The next connection that a client makes."""
        return self._connections.get(timeout=PATIENCE)

    def link(self, interval_ms: int = 60_000) -> FakeLink:
        """The next agent's stream, its registration answered."""
        link = FakeLink(self.next())
        link.say(registered=agent_pb2.Registered(heartbeat_interval_ms=interval_ms, node_id="fake"))
        return link


class FakeConnection:
    """A client's connection, seen from the node."""

    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        # None: the client has gone.
        self._frames: queue.Queue[Frame | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        decoder, preface = Decoder(), b""
        try:
            while len(preface) < len(PREFACE):
                preface += self.socket.recv(len(PREFACE) - len(preface))
            assert preface == PREFACE
            while data := self.socket.recv(65536):
                for frame in decoder.feed(data):
                    self._frames.put(frame)
        except OSError:
            pass
        self._frames.put(None)

    def frame(self) -> Frame:
        """The next frame that the client sends."""
        frame = self._frames.get(timeout=PATIENCE)
        assert frame is not None, "the client has gone"
        return frame

    def gone(self) -> None:
        """Waits until the client has gone."""
        while self._frames.get(timeout=PATIENCE) is not None:
            pass

    def quiet(self) -> bool:
        """Whether the client has sent nothing that the test did not take."""
        return self._frames.empty()

    def request(self, method: Method) -> tuple[int, Request]:
        """The next request, which must be for this method."""
        frame = self.frame()
        assert frame.request.method == method, frame
        return frame.call, frame.request

    def send(self, frame: Frame) -> None:
        """Sends a frame."""
        self.socket.sendall(encode(frame))

    def respond(self, call: int, payload: bytes = b"") -> None:
        """Answers a unary call."""
        self.send(Frame(call=call, response=payload))

    def fail(self, call: int, code: int, message: str) -> None:
        """Ends a call with an error."""
        self.send(Frame(call=call, error=Error(code=code, message=message)))

    def drop(self) -> None:
        """Closes the connection without a word."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class FakeLink:
    """An agent's stream, seen from the node."""

    def __init__(self, connection: FakeConnection) -> None:
        self.connection = connection
        self.call, request = connection.request(Method.Connect)
        self.register = agent_pb2.AgentMessage.FromString(request.payload).register

    def say(
        self,
        registered: agent_pb2.Registered | None = None,
        command_push: agent_pb2.CommandPush | None = None,
        cancel_push: agent_pb2.CancelPush | None = None,
        heartbeat_ack: agent_pb2.HeartbeatAck | None = None,
        update_ack: agent_pb2.UpdateAck | None = None,
    ) -> None:
        """Sends a message to the agent."""
        message = agent_pb2.NodeMessage(
            registered=registered,
            command_push=command_push,
            cancel_push=cancel_push,
            heartbeat_ack=heartbeat_ack,
            update_ack=update_ack,
        )
        self.connection.send(Frame(call=self.call, item=message.SerializeToString()))

    def push(self, id: str, payload: str = "{}", time_left_ms: int = 0) -> None:
        """Pushes a command."""
        push = agent_pb2.CommandPush(time_left_ms=time_left_ms)
        push.command.id, push.command.command_type, push.command.payload_json = id, "work", payload
        self.say(command_push=push)

    def hear(self) -> agent_pb2.AgentMessage:
        """The agent's next message; credit is passed over."""
        while True:
            frame = self.connection.frame()
            if frame.HasField("upload"):
                return agent_pb2.AgentMessage.FromString(frame.upload)

    def update(self, id: str, stage: int) -> agent_pb2.CommandUpdate:
        """The agent's next message, which must be this update."""
        update = self.hear().command_update
        assert (update.command_id, update.stage) == (id, stage), update
        return update

    def ack(self, id: str, stage: agent_pb2.CommandUpdate.Stage, refused: str = "", not_here: bool = False) -> None:
        """Confirms or refuses an update."""
        self.say(update_ack=agent_pb2.UpdateAck(command_id=id, stage=stage, refused=refused, not_here=not_here))
