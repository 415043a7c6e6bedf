// An agent: it registers, reports its state, and carries out commands.
// usage: node agent.js [ADDRESS [DIRECTORY]]

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Agent, type Command, connect, recordIn } from "peat-ipc/node";

const [address = "unix:///run/peat-node/peat-node.sock", directory = "radar-3.state"] = process.argv.slice(2);

async function carryOut(command: Command): Promise<unknown> {
  switch (command.type) {
    case "ping":
      return { pong: "radar-3" };
    case "rollout": // What this agent manages is a file. The same payload under another id, while this one runs, is done once.
      return await command.once(command.payload, async () => {
        await writeFile(join(directory, "rollout.json"), command.payload);
        return { rolled_out: true };
      });
    default:
      throw new Error(`this agent does not know ${JSON.stringify(command.type)}`);
  }
}

await mkdir(directory, { recursive: true });
const client = connect(address);
const radar = { id: "radar-3", group: "sensors", version: "1.4", status: "READY" } as const;
const agent = await Agent.start(client, radar, { record: recordIn(directory), log: console.error });
process.once("SIGINT", () => agent.close());
await agent.reportDeployment({ name: "tracker", version: "2.0", status: "running" });
// Each command runs once, through lost connections, crashes of the node, and restarts of this process.
await agent.handle(carryOut);
client.close();
