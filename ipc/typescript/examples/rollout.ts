// A hub: it issues a rollout to a group and shows how it ends.
// usage: node rollout.js ADDRESS GROUP JSON

import { CommandStatus, connect, Liveness } from "peat-ipc/node";

const [address = "", group = "", payload = "{}"] = process.argv.slice(2);
const client = connect(address);
const live = await client.agents({ liveness: Liveness.LIVE, group });
console.log(`${live.length} agents of ${group} are LIVE`);
// A minute to be accepted in; accepted work may take longer.
const id = await client.sendCommand({ group, type: "rollout", payload, ttlS: 60 });
for (const target of (await client.waitCommand(id)).targets) {
  console.log(target.agentId, CommandStatus[target.status], target.resultJson || target.error);
}
client.close();
