"""What the tests share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import peat
from fakenode import FakeNode
from testnode import Node

# A node notices within seconds what takes minutes by default.
QUICK = ("--heartbeat", "1", "--stale-after", "3", "--dead-after", "60")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a path that is short enough for a unix socket."""
    with tempfile.TemporaryDirectory(prefix="peat-") as directory:
        yield Path(directory)


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Node]]:
    """Starts real nodes, which end with the test."""
    binary = os.environ.get("PEAT_NODE_BINARY")
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("PEAT_NODE_BINARY is not set")
        pytest.skip("PEAT_NODE_BINARY is not set: it names the node to test against")
    nodes: list[Node] = []

    def started(*flags: str) -> Node:
        nodes.append(Node(binary, home / f"node{len(nodes)}", *QUICK, *flags))
        return nodes[-1]

    yield started
    for node in nodes:
        node.kill()
        print(node.log)


@pytest.fixture
def node(start: Callable[..., Node]) -> Node:
    """A real node."""
    return start("--node-id", "edge")


@pytest.fixture
def client(node: Node) -> Iterator[peat.Client]:
    """A client of the real node."""
    with peat.Client(node.address) as client:
        yield client


@pytest.fixture
def fake(home: Path) -> Iterator[FakeNode]:
    """A node that leaves every answer to the test."""
    with FakeNode(home / "socket") as fake:
        yield fake
