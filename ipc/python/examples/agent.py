"""An agent: it registers, reports its state, and carries out commands.

usage: agent.py [ADDRESS [DIRECTORY]]
"""

import logging
import sys
from pathlib import Path

import peat

address = sys.argv[1] if len(sys.argv) > 1 else "unix:///run/peat-node/peat-node.sock"
directory = sys.argv[2] if len(sys.argv) > 2 else "radar-1.state"


def carry_out(command: peat.Command) -> object:
    if command.type == "ping":
        return {"pong": "radar-1"}
    if command.type == "rollout":  # What this agent manages is a file.
        Path(directory, "rollout.json").write_text(command.payload)
        return {"rolled_out": True}
    raise ValueError(f"this agent does not know {command.type!r}")


logging.basicConfig(level=logging.INFO)
radar = peat.Registration("radar-1", group="sensors", version="1.4", status=peat.READY)
with peat.Agent(address, radar, directory=directory) as agent:
    agent.report_deployment(peat.Workload("tracker", version="2.0", status="running"))
    # Each command runs once, through lost connections, crashes of the node, and restarts of this process.
    agent.handle(carry_out)
