"""Calls every method of a node with Python's grpcio, on TCP and on the unix socket.

usage: clients.py PEAT_NODE GENERATED, where GENERATED holds the messages that protoc has made of proto/
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time

import grpc

NODE, GENERATED = sys.argv[1:]
sys.path.insert(0, GENERATED)
from peat.agent.v1 import agent_pb2  # noqa: E402
from peat.sidecar.v1 import sidecar_pb2 as pb  # noqa: E402

SERVICE = pb.DESCRIPTOR.services_by_name["PeatSidecar"]
PATIENCE = 20


class Client:
    def __init__(self, target):
        self.channel = grpc.insecure_channel(target)
        self.called = set()

    def method(self, name):
        self.called.add(name)
        described = SERVICE.methods_by_name[name]
        kind = self.channel.unary_stream if described.server_streaming else self.channel.unary_unary
        request, response = (getattr(pb, message.name) for message in (described.input_type, described.output_type))
        call = kind(f"/{SERVICE.full_name}/{name}", request.SerializeToString, response.FromString)
        return lambda **options: (request, lambda message: call(message, **options))

    def __call__(self, name, **fields):
        request, call = self.method(name)(timeout=PATIENCE)
        return call(request(**fields))


def refused(code, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, error
        return
    raise AssertionError(f"not refused with {code}")


def every_method(client, mark):
    peer = mark.encode().hex().ljust(64, "7")[:64]
    assert client("GetStatus").node_id == "n1"
    version = client("PutDocument", collection="notes", doc_id=mark, json_data='{"a":1}').version
    client("PatchDocument", collection="notes", doc_id=mark, patch_json='{"b":2}', base=version)
    client("CompactDocument", collection="notes", doc_id=mark)
    assert client("GetDocument", collection="notes", doc_id=mark).json_data == '{"a":1,"b":2}'
    assert not client("GetDocument", collection="notes", doc_id="none").HasField("json_data")
    assert mark in client("ListDocuments", collection="notes").doc_ids
    platform = pb.Platform(id=mark, name="naïve ☂", latitude=-12.5, callsign="", capabilities=["a"])
    client("PutPlatform", platform=platform)
    held = next(held for held in client("GetPlatforms").platforms if held.id == mark)
    assert (held.name, held.latitude, held.HasField("callsign")) == ("naïve ☂", -12.5, True), held
    client("PutCell", cell=pb.Cell(id=mark, platform_count=7))
    assert any(cell.platform_count == 7 for cell in client("GetCells").cells)
    client("PutTrack", track=pb.Track(id=mark, altitude_m=0))
    assert any(track.HasField("altitude_m") for track in client("GetTracks").tracks)
    client("PutCommand", command=pb.Command(id=mark, target_id="nobody", command_type="replay", payload_json="{}"))
    assert len(client("GetCommands", id=mark).commands) == 1
    client("CancelCommand", id=mark)
    client("ConnectPeer", endpoint_id=peer, addresses=["127.0.0.1:9"])
    assert any(known.endpoint_id == peer for known in client("ListPeers").peers)
    client("DisconnectPeer", endpoint_id=peer)
    client("StopSync")
    assert not client("GetSyncStats").sync_active
    client("StartSync")
    assert client("GetHealth").sequence > 0
    client("ListAgents")
    for change in client("WatchAgents"):
        if change.change_type == pb.CHANGE_TYPE_SNAPSHOT_END:
            break
    client("DeleteDocument", collection="notes", doc_id=mark)
    refused(grpc.StatusCode.NOT_FOUND, lambda: client("CancelCommand", id="no such"))
    refused(grpc.StatusCode.INVALID_ARGUMENT, lambda: client("GetDocument", collection="", doc_id="x"))


def cut_and_resumed(client, collection):
    def put(name):
        client("PutDocument", collection=collection, doc_id=name, json_data="{}")

    put("a")
    changes = client("Subscribe", collections=[collection], snapshot=True)
    assert next(changes).doc_id == "a"
    assert next(changes).change_type == pb.CHANGE_TYPE_SNAPSHOT_END
    put("b")
    last = next(changes)
    assert last.doc_id == "b"
    changes.cancel()
    put("c")
    resumed = client("Subscribe", collections=[collection], resume_after=last.sequence, resume_run=last.run)
    assert next(resumed).doc_id == "c"
    resumed.cancel()
    stale = client("Subscribe", resume_after=1 << 60, resume_run=last.run)
    refused(grpc.StatusCode.OUT_OF_RANGE, lambda: next(stale))


def agent(client, name):
    connect = client.channel.stream_stream(
        "/peat.agent.v1.AgentLink/Connect",
        agent_pb2.AgentMessage.SerializeToString,
        agent_pb2.NodeMessage.FromString,
    )
    register = agent_pb2.AgentMessage(register=agent_pb2.Register(agent_id=name))
    answers = connect(iter([register]), timeout=PATIENCE)
    assert next(answers).registered.node_id == "n1"
    assert any(agent.agent_id == name for agent in client("ListAgents").agents)


def serve(home):
    log = open(f"{home}/log", "w+")
    listens = [f"unix://{home}/socket", "tcp://127.0.0.1:0"]
    arguments = [part for listen in listens for part in ("--listen", listen)]
    node = subprocess.Popen(
        [NODE, "run", "--data-dir", f"{home}/data", "--bind", "127.0.0.1:0", "--node-id", "n1", "--insecure-api", "true", *arguments],
        stderr=log,
        env={"PATH": os.environ["PATH"]},
    )
    end = time.monotonic() + 60
    while time.monotonic() < end and node.poll() is None:
        text = open(f"{home}/log").read()
        found = re.search(r"tcp://(127\.0\.0\.1:\d+)", text)
        if found and "ready" in text:
            return node, [found[1], f"unix:{home}/socket"]
        time.sleep(0.05)
    node.kill()
    raise SystemExit(f"the node is not ready: {open(f'{home}/log').read()}")


def main():
    with tempfile.TemporaryDirectory(prefix="peat-clients.") as home:
        node, targets = serve(home)
        try:
            for number, target in enumerate(targets):
                client = Client(target)
                every_method(client, f"python{number}")
                cut_and_resumed(client, f"cut{number}")
                agent(client, f"agent{number}")
                missing = {method.name for method in SERVICE.methods} - client.called
                assert not missing, f"not called: {missing}"
                client.channel.close()
                if ":" in target and not target.startswith("unix"):
                    bodies = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bodies.py")
                    subprocess.run([sys.executable, bodies, target], check=True, timeout=300)
                print(f"grpcio {grpc.__version__}, {target.split(':')[0]}: every method answers")
        finally:
            node.send_signal(signal.SIGTERM)
            node.wait(30)


main()
