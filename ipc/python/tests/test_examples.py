"""The programs in examples and the README."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_node import shows

import peat
from fakenode import PATIENCE, eventually
from testnode import Node

HERE = Path(__file__).parents[1]


@pytest.fixture
def run(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts examples, which end with the test."""
    running: list[subprocess.Popen[str]] = []

    def started(name: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "examples" / f"{name}.py"), *arguments]
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        return running[-1]

    yield started
    for process in running:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def test_the_readmes_agent_is_the_one_that_runs() -> None:
    readme = (HERE / "README.md").read_text()
    assert (HERE / "examples" / "agent.py").read_text() in readme


def test_the_readmes_first_program_runs(node: Node) -> None:
    program = re.search(r"```python\n(import peat\n.*?)```", (HERE / "README.md").read_text(), re.DOTALL)
    assert program is not None
    text = program[1].replace("unix:///run/peat-node/peat-node.sock", node.address)
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.stdout, done.stderr) == ("{'text': 'hello'}\nUPSERT n1\nSNAPSHOT_END \n", "")


def test_the_agents_carry_out_a_rollout(
    node: Node, client: peat.Client, home: Path, run: Callable[..., subprocess.Popen[str]]
) -> None:
    run("agent", node.address, str(home / "one"))
    run("async_agent", node.address, str(home / "two"))
    for id in ("radar-1", "radar-2"):
        shows(client, id, peat.LIVE)
    eventually("the workload", lambda: [d.package for d in client.fleet_deployments()] == ["tracker"])
    rollout = run("rollout", node.address, "sensors", '{"version": "6.5"}')
    said, _ = rollout.communicate(timeout=PATIENCE)
    lines = said.splitlines()
    assert lines[0] == "2 agents of sensors are LIVE"
    assert sorted(lines[1:]) == [f'radar-{n} COMMAND_STATUS_COMPLETED {{"rolled_out":true}}' for n in (1, 2)]
    assert (home / "one" / "rollout.json").read_text() == '{"version": "6.5"}'
    id = client.send_command("dance", agent="radar-1")
    assert client.wait_command(id, timeout=PATIENCE).error == "this agent does not know 'dance'"


def test_a_collection_is_followed(node: Node, client: peat.Client, run: Callable[..., subprocess.Popen[str]]) -> None:
    client.put("notes", "n1", {})
    out = run("follow", node.address, "notes").stdout
    assert out is not None
    assert [out.readline() for _ in range(2)] == ["UPSERT n1 1\n", "SNAPSHOT_END  1\n"]
    client.delete("notes", "n1")
    assert out.readline() == "DELETE n1 0\n"
