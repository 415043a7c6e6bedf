"""Has a node watch an agent made with Python's grpcio: nothing but gRPC, no status, and no notice of what a request says.

usage: watched.py PEAT_NODE
"""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

import grpc

NODE = sys.argv[1]
PATIENCE = 60


def field(number, value):
    return bytes([number << 3 | 2, len(value)]) + value


PACKAGE = field(1, b"podinfo") + field(2, b"6.4") + bytes([3 << 3, 2])
PULLED = field(3, field(2, b"podinfo") + field(3, field(1, b"6.4") + field(2, b"amd64")))
ANSWERS = {
    "/zarfapi.v1.ZarfAPIService/ListPackages": field(1, PACKAGE),
    "/registryapi.v1.RegistryService/ListPulledPackages": field(1, PULLED),
}


class Agent(grpc.GenericRpcHandler):
    def service(self, details):
        answer = ANSWERS.get(details.method)
        return answer and grpc.unary_unary_rpc_method_handler(lambda request, context: answer)


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((Agent(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with tempfile.TemporaryDirectory(prefix="peat-watched.") as home:
        target = f"unix://{home}/socket"
        arguments = ["--data-dir", f"{home}/data", "--listen", target, "--bind", "127.0.0.1:0", "--node-id", "a1"]
        arguments += ["--agent-addr", f"http://127.0.0.1:{port}", "--agent-poll-interval", "0.1"]
        environment = {"PATH": os.environ["PATH"]}
        with open(f"{home}/log", "w") as log:
            node = subprocess.Popen([NODE, "run", *arguments], stderr=log, env=environment)

        def shows(collection, name, expected):
            end, held = time.monotonic() + PATIENCE, {}
            while time.monotonic() < end:
                got = subprocess.run([NODE, "get", "--node", target, collection, name], capture_output=True, env=environment)
                held = json.loads(got.stdout or "{}")
                if held | expected == held:
                    return
                time.sleep(0.05)
            raise AssertionError(f"{collection}/{name} is {held}\n{open(log.name).read()}")

        try:
            shows("platforms", "a1", {"platform_type": "uds-remote-agent"})
            shows("deployments", "a1:podinfo", {"status": 2, "version": "6.4"})
            shows("packages", "a1:6.4-amd64", {"package": "podinfo"})
        finally:
            node.send_signal(signal.SIGINT)
            node.wait(30)
    server.stop(None)
    print("an agent made with grpcio is watched")


main()
