"""The description of the REST interface against a running node: schemathesis tries it, and docs/http.md names the same routes.

usage: openapi.py PEAT_NODE SCHEMATHESIS
"""

import http.client
import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "web"))
from world import PATIENCE_S, World  # noqa: E402

ROUTE = re.compile(r"`((?:GET|POST) )?(/[^`?\s]*)(?:\?[^`]*)?`")


def routes_of(document):
    named = (
        (method.upper(), re.sub(r"\{[^}]*\}", "{}", path))
        for path, item in document["paths"].items()
        for method in item
        if method != "parameters"
    )
    return set(named)


def routes_of_the_page():
    """The routes in tables of docs/http.md; a path without a method is a GET."""
    found = set()
    for line in (ROOT / "docs" / "http.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `GET") or line.startswith("| `POST"):
            for method, path in ROUTE.findall(line.split("|")[1]):
                found.add((method.strip() or "GET", re.sub(r"\{[^}]*\}", "{}", path)))
    return found


def described_as_served(node):
    status, text = node.ask("GET", "/api/v1/openapi.json")
    assert status == 200, text
    assert text == (ROOT / "proto" / "openapi.json").read_text(encoding="utf-8")
    document = json.loads(text)
    assert document["openapi"].startswith("3.1")
    missing = routes_of(document) ^ routes_of_the_page()
    assert not missing, f"in one of proto/openapi.json and docs/http.md: {sorted(missing)}"
    return document


def check(document, schema, value, where):
    """Types and required keys of a value: of one event, which schemathesis does not read."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    for key in schema.get("required", []):
        assert key in value, f"{where}: {key} is missing"
    kinds = {"string": str, "integer": int, "object": dict, "array": list, "boolean": bool}
    if isinstance(schema.get("type"), str):
        assert isinstance(value, kinds[schema["type"]]), f"{where}: {value!r}"
    for key, inner in schema.get("properties", {}).items():
        if key in value:
            check(document, inner, value[key], f"{where}.{key}")


def events_as_described(node, document):
    node.json("POST", "/api/v1/agents", {"agent_id": "a1"})
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=PATIENCE_S)
    connection.request("GET", "/api/v1/agents/a1/events")
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("content-type")) == (200, "text/event-stream")
    node.json("POST", "/api/v1/agents/a1/commands", {"type": "work", "payload": {"n": 1}})
    events, name = {}, ""
    while "command" not in events:
        field, _, value = answer.readline().decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            events[name] = json.loads(value)
    connection.close()
    check(document, {"$ref": "#/components/schemas/Registered"}, events["config"], "config")
    check(document, {"$ref": "#/components/schemas/PushedCommand"}, events["command"], "command")


def closed_without_the_token(world, document):
    token = world.file("token", "a-token-of-sixteen-characters\n")
    node = world.node("closed", "--api-token-file", token)
    for method, path in sorted(routes_of(document)):
        described = next(item for name, item in document["paths"].items() if re.sub(r"\{[^}]*\}", "{}", name) == path)
        status, text = node.ask(method, path.replace("{}", "a1"), None if method == "GET" else {})
        if described[method.lower()].get("security") == []:
            assert status in (200, 503), f"{method} {path}: {status}"
        else:
            assert status == 401, f"{method} {path}: {status} {text}"
            assert json.loads(text)["code"] == "unauthenticated", text


def main():
    program, schemathesis = sys.argv[1:]
    with World(program) as world:
        node = world.node("open")
        document = described_as_served(node)
        events_as_described(node, document)
        closed_without_the_token(world, document)
        url = f"http://127.0.0.1:{node.port}"
        options = ["--phases", "examples,coverage,fuzzing", "--max-examples", "40", "--request-timeout", "20",
                   "--warnings", "off", "--no-color", "--generation-deterministic"]
        command = [schemathesis, "--config-file", str(HERE / "schemathesis.toml"), "run", f"{url}/api/v1/openapi.json"]
        tried = subprocess.run([*command, *options], cwd=world.directory, check=False)
        assert tried.returncode == 0, "the node and its description differ"


main()
