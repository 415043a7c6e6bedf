"""Nodes that run while a test needs them, and how to ask them over HTTP."""

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

PATIENCE_S = 60


def wait_for(what, true):
    """Waits until `true()` is, and gives what it was."""
    end = time.monotonic() + PATIENCE_S
    while True:
        result = true()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"in {PATIENCE_S} s: {what}")
        time.sleep(0.05)


class Node:
    """A node of its own directory, on free ports of this machine."""

    def __init__(self, program, directory, name, *flags, listen="127.0.0.1:0"):
        self.program, self.directory, self.name = program, os.path.join(directory, name), name
        self.flags, self.listen = flags, listen
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        self.start()

    def start(self):
        self.log = os.path.join(self.directory, "log")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PEAT_NODE_")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [self.program, "run", "--data-dir", os.path.join(self.directory, "data"), "--node-id", self.name,
                 "--listen", f"tcp://{self.listen}", "--bind", "127.0.0.1:0",
                 "--insecure-api", "true", *self.flags],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        ready = wait_for(f"{self.name} is ready", self.ready)
        self.port, self.udp, self.id = int(ready[1]), ready[2], ready[3]

    def ready(self):
        text = open(self.log, encoding="utf-8").read()
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended: {text}")
        return re.search(r"ready: clients at .*tcp://127\.0\.0\.1:(\d+), nodes at (\S+), endpoint id (\w+)", text)

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(PATIENCE_S)

    def ask(self, method, path, body=None, token=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        headers = {"content-type": "application/json"} if body is not None else {}
        if token:
            headers["authorization"] = f"Bearer {token}"
        content = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def json(self, method, path, body=None):
        status, text = self.ask(method, path, body)
        assert status < 300, f"{method} {path}: {status} {text}"
        return json.loads(text)


class World:
    """A directory, and the nodes in it."""

    def __init__(self, program):
        self.program, self.nodes = os.path.abspath(program), []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="peat-web-")
        return self

    def node(self, name, *flags, **more):
        node = Node(self.program, self.directory, name, *flags, **more)
        self.nodes.append(node)
        return node

    def file(self, name, content):
        path = os.path.join(self.directory, name)
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
            file.write(content)
        return path

    def pair(self):
        """Two nodes that are connected."""
        key = self.file("key", "c2l4dGVlbiBieXRlcyBvZiBrZXk=\n")
        a = self.node("hub", "--shared-key-file", key)
        b = self.node("edge", "--shared-key-file", key, "--peer", f"{a.id}@{a.udp}")
        wait_for("the nodes meet", lambda: any(p["connected"] for p in a.json("GET", "/api/v1/overview")["peers"]))
        return a, b

    def __exit__(self, kind, error, _):
        for node in self.nodes:
            if node.process.poll() is None:
                node.process.kill()
                node.process.wait()
            if kind:
                print(f"--- {node.name}\n{open(node.log, encoding='utf-8').read()}")
        shutil.rmtree(self.directory)
