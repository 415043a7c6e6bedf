"""Evaluates every expression of the dashboard and of the alert rules in a Prometheus that scrapes two nodes."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.parse
import urllib.request

from world import World, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))
MONITORING = os.path.join(HERE, "../../cross/monitoring")
SCRAPE_INTERVAL_S = 1

# Panels that have nothing to show while nothing is wrong.
EMPTY_WHILE_WELL = {"Calls that failed"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Prometheus:
    """A server that scrapes the nodes and has the alert rules."""

    def __init__(self, world):
        self.port = free_port()
        targets = [f"127.0.0.1:{node.port}" for node in world.nodes]
        config = world.file("prometheus.yml", json.dumps({
            "global": {"scrape_interval": f"{SCRAPE_INTERVAL_S}s", "evaluation_interval": "1s"},
            "rule_files": [os.path.join(MONITORING, "alerts.yaml")],
            "scrape_configs": [{"job_name": "peat-node", "static_configs": [{"targets": targets}]}]}))
        with open(os.path.join(world.directory, "prometheus.log"), "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={world.directory}/tsdb",
                 f"--web.listen-address=127.0.0.1:{self.port}"], stdout=log, stderr=log)

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        except OSError:
            return None

    def query(self, expression):
        data = self.get("query", query=expression)
        return data and data["result"]

    def end(self):
        self.process.terminate()
        self.process.wait()


def panels():
    with open(os.path.join(MONITORING, "dashboard.json"), encoding="utf-8") as file:
        dashboard = json.load(file)
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)), "two panels have one id"
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, f"{panel['title']} is wider than the page"
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def shown(expression):
    """The expression as Grafana sends it."""
    for variable, value in {"$job": ".*", "$instance": ".*", "$__rate_interval": f"{4 * SCRAPE_INTERVAL_S}s"}.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"an unknown variable: {expression}"
    return expression


def names(text):
    return {re.sub("_(bucket|sum|count)$", "", name) for name in re.findall(r"peat_node_\w+", text)}


def exported(nodes):
    """Names of all families that the nodes export."""
    return {line.split()[2] for node in nodes for line in node.ask("GET", "/metrics")[1].splitlines() if line.startswith("# TYPE ")}


def busy(hub, edge):
    """Something of everything that the dashboard shows."""
    edge.json("POST", "/api/v1/agents", {"agent_id": "a1", "group": "north"})
    edge.json("POST", "/api/v1/agents/a1/commands", {"type": "replay"})
    wait_for("the hub hears of the agent", lambda: hub.json("GET", "/api/v1/agents?status=LIVE")["agents"])
    for number in range(20):
        document = json.dumps({"n": number})
        hub.json("POST", "/peat.sidecar.v1.PeatSidecar/PutDocument",
                 {"collection": "notes", "docId": f"n{number}", "jsonData": document})


def check_rules(prometheus):
    loaded = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert loaded and all(rule["health"] == "ok" for rule in loaded), loaded
    firing = [rule["name"] for rule in loaded if rule["state"] == "firing"]
    assert not firing, f"firing on two healthy nodes: {firing}"
    return len(loaded)


def main(program):
    with World(program) as world:
        hub, edge = world.pair()
        prometheus = Prometheus(world)
        try:
            busy(hub, edge)
            wait_for("Prometheus has scraped both nodes", lambda: prometheus.query("sum(up)") and
                     prometheus.query("sum(up)")[0]["value"][1] == "2")
            rates = shown("sum(rate(peat_node_store_commits_total[$__rate_interval]))")
            wait_for("there are rates", lambda: prometheus.query(rates))
            wait_for("the rules were evaluated", lambda: all(
                rule["health"] == "ok" for group in prometheus.get("rules")["groups"] for rule in group["rules"]))
            known = exported(world.nodes)
            with open(os.path.join(MONITORING, "alerts.yaml"), encoding="utf-8") as file:
                unknown = names(file.read()) - known
            assert not unknown, f"alerts.yaml uses {unknown}, which no node exports"
            count = 0
            for title, expression in panels():
                unknown = names(expression) - known
                assert not unknown, f"{title} uses {unknown}, which no node exports"
                result = prometheus.query(shown(expression))
                assert result or title in EMPTY_WHILE_WELL, f"{title} shows nothing: {expression}"
                count += 1
            rules = check_rules(prometheus)
            edge.stop()
            wait_for("Prometheus misses the edge", lambda: prometheus.query('ALERTS{alertname="PeatNodeDown"}'))
        finally:
            prometheus.end()
    print(f"{count} expressions of the dashboard, {rules} alert rules")


main(sys.argv[1])
