"""The same agent with asyncio: a cancelled command cancels its handler's task.

usage: async_agent.py [ADDRESS [DIRECTORY]]
"""

import asyncio
import logging
import sys

import peat

address = sys.argv[1] if len(sys.argv) > 1 else "unix:///run/peat-node/peat-node.sock"
directory = sys.argv[2] if len(sys.argv) > 2 else "radar-2.state"


async def carry_out(command: peat.AsyncCommand) -> object:
    if command.type == "ping":
        return {"pong": "radar-2"}
    if command.type == "rollout":
        # The same payload again, under another id, while this one has not got through: done once.
        return await command.once(command.payload, lambda: roll_out(command))
    raise ValueError(f"this agent does not know {command.type!r}")


async def roll_out(command: peat.AsyncCommand) -> object:
    for percent in (25, 50, 75):
        command.progress(percent, f"step at {percent} %")
        await asyncio.sleep(0.05)
    return {"rolled_out": True}


async def main() -> None:
    radar = peat.Registration("radar-2", group="sensors", status=peat.READY)
    async with peat.AsyncAgent(address, radar, directory=directory) as agent:
        await agent.handle(carry_out)


logging.basicConfig(level=logging.INFO)
asyncio.run(main())
