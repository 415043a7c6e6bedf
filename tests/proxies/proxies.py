"""Streams and calls through nginx and HAProxy.

usage: proxies.py PEAT_NODE GENERATED, where GENERATED holds the messages that protoc has made of proto/
"""

import concurrent.futures
import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import grpc

NODE, GENERATED = sys.argv[1:]
sys.path.insert(0, GENERATED)
from peat.agent.v1 import agent_pb2  # noqa: E402
from peat.sidecar.v1 import sidecar_pb2 as pb  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SIDECAR = "/peat.sidecar.v1.PeatSidecar/"
# Both proxies end what is silent for 60 s.
SILENCE = 72
SOON = 5


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_for(port, process):
    end = time.monotonic() + 30
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens at {port}")


class World:
    """A node, and both proxies in front of it."""

    def __init__(self, home):
        self.processes = []
        log = f"{home}/log"
        arguments = ["--data-dir", f"{home}/data", "--bind", "127.0.0.1:0", "--listen", "tcp://127.0.0.1:0"]
        arguments += ["--node-id", "n1", "--insecure-api", "true"]
        node = self.start([NODE, "run", *arguments], log)
        end = time.monotonic() + 60
        found = None
        while not found and time.monotonic() < end and node.poll() is None:
            text = open(log).read()
            found = re.search(r"tcp://127\.0\.0\.1:(\d+)", text) if "ready" in text else None
            time.sleep(0.05)
        names = ("nginx_http", "nginx_grpc", "haproxy_http", "haproxy_grpc")
        self.ports = dict(zip(names, free_ports(len(names))), node=int(found[1]))
        for name in ("nginx.conf", "haproxy.cfg"):
            text = open(f"{HERE}/{name}").read().format(home=home, **self.ports)
            open(f"{home}/{name}", "w").write(text)
        nginx = self.start(["nginx", "-p", home, "-e", "stderr", "-c", f"{home}/nginx.conf"], f"{home}/nginx.log")
        haproxy = self.start(["haproxy", "-db", "-f", f"{home}/haproxy.cfg"], f"{home}/haproxy.log")
        for name in names:
            wait_for(self.ports[name], nginx if name.startswith("nginx") else haproxy)

    def start(self, command, log):
        process = subprocess.Popen(command, stdout=open(log, "w"), stderr=subprocess.STDOUT, env={"PATH": os.environ["PATH"]})
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(30)

    def channel(self, name):
        return grpc.insecure_channel(f"127.0.0.1:{self.ports[name]}", options=[("grpc.use_local_subchannel_pool", 1)])

    def ask(self, name, method, path, body=None, content_type="application/json"):
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[name], timeout=60)
        connection.request(method, path, body=body, headers={"content-type": content_type})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def put(self, collection, name):
        body = json.dumps({"collection": collection, "docId": name, "jsonData": "{}"})
        assert self.ask("node", "POST", SIDECAR + "PutDocument", body)[0] == 200


class Stream:
    """What comes on a stream, read by a thread of its own."""

    def __init__(self, items):
        self.items = queue.Queue()
        threading.Thread(target=self.read, args=(items,), daemon=True).start()

    def read(self, items):
        try:
            for item in items:
                self.items.put(item)
            self.items.put(EOFError("the stream ended"))
        except Exception as error:  # The test tells it.
            self.items.put(error)

    def expect(self, fits, within):
        end = time.monotonic() + within
        while True:
            item = self.items.get(timeout=max(end - time.monotonic(), 0.001))
            if isinstance(item, Exception):
                raise item
            if fits(item):
                return item


def method(channel, name, request, response, heartbeat):
    call = channel.unary_stream(SIDECAR + name, request.SerializeToString, response.FromString)
    return call(request, metadata=(("peat-heartbeat", str(heartbeat)),) if heartbeat else ())


def subscription(world, proxy, heartbeat=None):
    """A subscription on which nothing happens for longer than the proxy waits."""
    channel, collection = world.channel(proxy), f"quiet-{proxy}"
    request = pb.SubscribeRequest(collections=[collection], snapshot=True)
    stream = Stream(method(channel, "Subscribe", request, pb.DocumentChange, heartbeat))
    stream.expect(lambda change: change.change_type == pb.CHANGE_TYPE_SNAPSHOT_END, SOON)
    time.sleep(SILENCE)
    world.put(collection, "late")
    stream.expect(lambda change: change.doc_id == "late", SOON)


def watch(world, proxy, heartbeat=None):
    """The same of the agents of the fleet."""
    stream = Stream(method(world.channel(proxy), "WatchAgents", pb.WatchAgentsRequest(), pb.AgentChange, heartbeat))
    stream.expect(lambda change: change.change_type == pb.CHANGE_TYPE_SNAPSHOT_END, SOON)
    time.sleep(SILENCE)
    name = f"late-{proxy}"
    assert world.ask("node", "POST", "/api/v1/agents", json.dumps({"agent_id": name}))[0] == 200
    stream.expect(lambda change: change.agent.agent_id == name, SOON)


def events(world, proxy):
    """Server-sent events: each arrives at once, and the stream stays."""
    name = f"listens-{proxy}"
    assert world.ask(proxy, "POST", "/api/v1/agents", json.dumps({"agent_id": name}))[0] == 200
    connection = http.client.HTTPConnection("127.0.0.1", world.ports[proxy], timeout=60)
    connection.request("GET", f"/api/v1/agents/{name}/events")
    answer = connection.getresponse()
    assert answer.status == 200, answer.status
    stream = Stream(iter(answer.readline, b""))
    stream.expect(lambda line: line == b"event: config\n", SOON)
    for at in (0, SILENCE):
        time.sleep(at)
        body = json.dumps({"id": f"{name}-{at}", "type": "replay"})
        assert world.ask(proxy, "POST", f"/api/v1/agents/{name}/commands", body)[0] == 202
        stream.expect(lambda line: line == f"id: {name}-{at}\n".encode(), SOON)


def agent(world, proxy):
    """An agent that sends its heartbeats, while others give up many calls on the same connection."""
    name, says = f"agent-{proxy}", queue.Queue()
    channel = world.channel(proxy)
    connect = channel.stream_stream(
        "/peat.agent.v1.AgentLink/Connect", agent_pb2.AgentMessage.SerializeToString, agent_pb2.NodeMessage.FromString
    )
    stream = Stream(connect(iter(says.get, None)))
    says.put(agent_pb2.AgentMessage(register=agent_pb2.Register(agent_id=name)))
    stream.expect(lambda message: message.HasField("registered"), SOON)
    subscribe = channel.unary_stream(SIDECAR + "Subscribe", pb.SubscribeRequest.SerializeToString, pb.DocumentChange.FromString)
    for _ in range(3):
        calls = [subscribe(pb.SubscribeRequest(collections=["none"])) for _ in range(60)]
        for call in calls:
            call.cancel()
    for number in range(1, 4):
        time.sleep(SILENCE / 3)
        says.put(agent_pb2.AgentMessage(heartbeat=agent_pb2.Heartbeat(number=number)))
        stream.expect(lambda message: message.heartbeat_ack.number == number, SOON)
    body = json.dumps({"id": f"for-{name}", "type": "replay"})
    assert world.ask("node", "POST", f"/api/v1/agents/{name}/commands", body)[0] == 202
    stream.expect(lambda message: message.command_push.command.id == f"for-{name}", SOON)
    says.put(None)


def stalled(world, proxy):
    """A request that does not come is refused; the streams beside it on the proxy's connection are the other tests."""
    connection = http.client.HTTPConnection("127.0.0.1", world.ports[proxy], timeout=60)
    connection.putrequest("POST", SIDECAR + "PutDocument")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", "1000")
    connection.endheaders()
    connection.send(b"{")
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert (answer.status, body["code"]) == (408, "deadline_exceeded"), (answer.status, body)


def large(world, proxy):
    """A body over the limit is refused in the caller's protocol."""
    for _ in range(10):
        status, body = world.ask(proxy, "POST", SIDECAR + "PutDocument", b"x" * (5 << 20))
        assert (status, json.loads(body)["code"]) == (413, "resource_exhausted"), (status, body)


def tests(world):
    for proxy in ("nginx", "haproxy"):
        yield f"server-sent events through {proxy}", events, f"{proxy}_http"
        yield f"a large body through {proxy}", large, f"{proxy}_http"
        yield f"an agent through {proxy}", agent, f"{proxy}_grpc"
        for name, quiet in (("subscription", subscription), ("watch of agents", watch)):
            # PING is activity to nginx.
            yield f"a quiet {name} through {proxy}", quiet, f"{proxy}_grpc", *(() if proxy == "nginx" else (20,))
    yield "a request that does not come, through haproxy", stalled, "haproxy_http"


def main():
    failed = 0
    with tempfile.TemporaryDirectory(prefix="peat-proxies.") as home:
        os.chmod(home, 0o755)
        world = World(home)
        try:
            with concurrent.futures.ThreadPoolExecutor(32) as pool:
                running = [(name, pool.submit(test, world, *arguments)) for name, test, *arguments in tests(world)]
                for name, test in running:
                    error = test.exception()
                    print(f"{name}: {'passes' if error is None else f'FAILED: {error!r}'}", flush=True)
                    failed += error is not None
        finally:
            world.stop()
    # Threads that still read a stream end with the program.
    sys.stdout.flush()
    os._exit(1 if failed else 0)


main()
