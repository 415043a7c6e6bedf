"""A hub: it issues a rollout to a group and shows how it ends.

usage: rollout.py ADDRESS GROUP JSON
"""

import sys

import peat

address, group, payload = sys.argv[1:]
with peat.Client(address) as client:
    live = client.agents(liveness=peat.LIVE, group=group)
    print(f"{len(live)} agents of {group} are LIVE")
    # A minute to be accepted in; accepted work may take longer.
    id = client.send_command("rollout", payload, group=group, ttl=60)
    for target in client.wait_command(id).targets:
        print(target.agent_id, peat.CommandStatus.Name(target.status), target.result_json or target.error)
