"""What /metrics says, read by the parser of Prometheus' own Python client."""

import os
import re
import sys

from prometheus_client.parser import text_string_to_metric_families

from world import World, wait_for

PAGE = os.path.join(os.path.dirname(__file__), "../../docs/operating.md")


def scrape(node):
    status, text = node.ask("GET", "/metrics")
    assert status == 200, text
    return text, {family.name: family for family in text_string_to_metric_families(text)}


def samples(families, name, **labels):
    found = [s for s in families[name].samples if labels.items() <= s.labels.items()]
    return {(s.name, *sorted(s.labels.items())): s.value for s in found}


def value(families, name, **labels):
    [only] = samples(families, name, **labels).values()
    return only


def check_shape(text, families):
    """What holds of any scrape."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    names = [line.rsplit(" ", 1)[0] for line in lines]
    assert len(names) == len(set(names)), "a sample comes twice"
    for family in families.values():
        assert family.name.startswith("peat_node_"), family.name
        assert family.documentation and family.type in ("counter", "gauge", "histogram"), family
        # The parser takes the suffix off a counter's name.
        assert (family.type == "counter") == (f"# TYPE {family.name}_total counter" in text), family.name
        for sample in family.samples:
            assert family.type == "gauge" or sample.value >= 0, sample
        if family.type == "histogram":
            assert family.name.endswith("_seconds"), family.name
            check_buckets(family)


def check_buckets(family):
    series = {}
    for sample in family.samples:
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        series.setdefault(labels, {}).setdefault(sample.name.removeprefix(family.name), []).append(sample)
    for labels, parts in series.items():
        counts = [sample.value for sample in parts["_bucket"]]
        bounds = [float(sample.labels["le"]) for sample in parts["_bucket"]]
        assert counts == sorted(counts) and bounds == sorted(bounds) and bounds[-1] == float("inf"), labels
        assert parts["_count"][0].value == counts[-1] and len(parts["_sum"]) == 1, labels


def check_documented(families):
    """Each family is on the page about operating a node, and nothing else is."""
    documented = set(re.findall(r"^\| `(peat_node_\w+)`", open(PAGE, encoding="utf-8").read(), re.MULTILINE))
    exported = {name + ("_total" if family.type == "counter" else "") for name, family in families.items()}
    assert documented == exported, f"only documented: {documented - exported}; only exported: {exported - documented}"


def main(program):
    with World(program) as world:
        hub, edge = world.pair()
        odd = 'a"\\\n'
        edge.json("POST", "/api/v1/agents", {"agent_id": "a1", "group": odd.strip()})
        edge.json("POST", "/api/v1/agents/a1/commands", {"type": "replay"})
        wait_for("the hub hears of the agent", lambda: hub.json("GET", "/api/v1/agents?status=LIVE")["agents"])
        wait_for("the hub hears of the command", lambda: value(scrape(hub)[1], "peat_node_commands", status="pending"))
        text, families = scrape(hub)
        check_shape(text, families)
        assert value(families, "peat_node_agents", state="live") == 1
        assert value(families, "peat_node_peers", state="connected") == 1
        assert value(families, "peat_node_peer_connected", peer=edge.id) == 1
        assert 0 < value(families, "peat_node_peer_rtt_seconds", peer=edge.id) < 10
        assert value(families, "peat_node_peer_path", peer=edge.id, path="direct") == 1
        assert value(families, "peat_node_peer_received_bytes", peer=edge.id, **{"class": "command"}) > 0
        assert value(families, "peat_node_udp_received_bytes") > 0
        assert value(families, "peat_node_store_commits") > 0
        assert {s.labels["thread"] for s in families["peat_node_thread_turn_seconds"].samples} == {"api", "store", "sync"}
        assert value(families, "peat_node_info", node_id="hub", endpoint=hub.id) == 1
        check_shape(*scrape(edge))
        calls = scrape(edge)[1]
        assert value(calls, "peat_node_rpcs", method="PutCommand", code="OK") == 1
        check_documented({**families, **calls})
        edge.stop()
        wait_for("the hub misses the edge", lambda: value(scrape(hub)[1], "peat_node_peers", state="away") == 1)
        text, families = scrape(hub)
        check_shape(text, families)
        assert value(families, "peat_node_peer_connected", peer=edge.id) == 0
        assert not samples(families, "peat_node_peer_rtt_seconds")
    print(f"{len(families)} families, {len(text.splitlines())} lines")


main(sys.argv[1])
