"""The TypeScript client in a headless Chromium, on the origin of a real node.

usage: browser.py PEAT_NODE BUNDLE, where BUNDLE is src/web.ts as one script that sets `peat`
"""

import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "web"))
from browser import Browser  # noqa: E402
from world import World  # noqa: E402

CALLS = """(async () => {
    const client = peat.connect();
    const changes = client.subscribe({ collections: ["notes"], snapshot: true });
    const seen = [(await changes.next()).value.type];
    await client.put("notes", "n1", { text: "☂" });
    const change = (await changes.next()).value;
    seen.push(change.type, change.id, change.json, (await client.get("notes", "n1")).value.text);
    await changes.return();
    try {
        await client.get("notes", "none");
    } catch (error) {
        seen.push(peat.Code[peat.codeOf(error)]);
    }
    return seen;
})()"""
AGENT = """(async () => {
    const client = peat.connect();
    const agent = await peat.Agent.start(client, { id: "page", group: "pages" });
    agent.handle((command) => ({ did: command.value.n }));
    await agent.reportDeployment({ name: "web", version: "2" });
    const id = await client.sendCommand({ agent: "page", type: "work", payload: { n: 7 } });
    const record = await client.waitCommand(id, { timeoutMs: 30000 });
    const agents = await client.agents({ liveness: peat.Liveness.LIVE });
    const deployments = await client.fleetDeployments();
    await agent.close();
    return [record.resultJson, agents.map((agent) => agent.agentId), deployments.map((deployment) => deployment.id)];
})()"""


def main():
    program, bundle = sys.argv[1:]
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
    if chromium is None:
        print("the browser is skipped: chromium is not installed (package chromium)")
        sys.exit(77)
    with World(program) as world, Browser(chromium) as browser:
        node = world.node("edge")
        tab = browser.open(f"http://127.0.0.1:{node.port}/")
        tab.wait_for("the page is there", "document.title === 'edge'")
        tab.run(pathlib.Path(bundle).read_text(encoding="utf-8") + "\nglobalThis.peat = peat; 0")
        seen = tab.run(CALLS)
        assert seen == ["snapshotEnd", "upsert", "n1", '{"text":"☂"}', "☂", "NotFound"], seen
        done = tab.run(AGENT)
        assert done == ['{"did":7}', ["page"], ["page:web"]], done
        assert not tab.complaints(), tab.complaints()
    print("the client works in a browser")


main()
