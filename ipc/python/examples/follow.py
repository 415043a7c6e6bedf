"""Keeps a copy of a collection in memory, through lost connections and restarts of the node.

usage: follow.py ADDRESS COLLECTION
"""

import asyncio
import sys

import peat


async def main(address: str, collection: str) -> None:
    held: dict[str, object] = {}
    async with peat.AsyncClient(address) as client:
        async for change in client.subscribe(collection, snapshot=True):
            if change.type is peat.ChangeType.UPSERT:
                held[change.id] = change.decode()
            elif change.type is peat.ChangeType.DELETE:
                held.pop(change.id, None)
            elif change.type is peat.ChangeType.RESET:
                held.clear()
            print(change.type.name, change.id, len(held), flush=True)


asyncio.run(main(*sys.argv[1:]))
