// Keeps a copy of a collection in memory, through lost connections and restarts of the node.
// usage: node follow.js ADDRESS COLLECTION

import { connect } from "peat-ipc/node";

const [address = "", collection = ""] = process.argv.slice(2);
const held = new Map<string, unknown>();
for await (const change of connect(address).subscribe({ collections: [collection], snapshot: true })) {
  if (change.type === "upsert") {
    held.set(change.id, JSON.parse(change.json));
  } else if (change.type === "delete") {
    held.delete(change.id);
  } else if (change.type === "reset") {
    held.clear();
  }
  console.log(change.type, change.id, held.size);
}
