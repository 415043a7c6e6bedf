"""Sends bodies over the limit with the HTTP clients of Python's library, which look for an answer only after the last byte.

usage: bodies.py HOST:PORT
"""

import http.client
import json
import sys

ADDRESS = sys.argv[1]
LIMIT = 4 << 20
PUT = "/peat.sidecar.v1.PeatSidecar/PutDocument"


def ask(path, content_type, body, connection=None):
    connection = connection or http.client.HTTPConnection(ADDRESS, timeout=60)
    connection.request("POST", path, body=body, headers={"content-type": content_type})
    response = connection.getresponse()
    return response.status, response.read(), connection


def pieces(size):
    """A body without a length, which is sent in chunks."""
    piece = b"x" * 60_000
    for at in range(0, size, len(piece)):
        yield piece[: size - at]


def main():
    answers = 0
    for size in (LIMIT + 1, LIMIT + 100_000, 3 * LIMIT, 50 << 20):
        for make in (lambda: b"x" * size, lambda: pieces(size)):
            for path, content_type in ((PUT, "application/json"), (PUT, "application/proto"), ("/api/v1/agents", "application/json")):
                status, body, connection = ask(path, content_type, make())
                error = json.loads(body)
                assert (status, error["code"]) == (413, "resource_exhausted"), (status, body)
                assert str(LIMIT) in error["message"], error
                status, _, _ = ask("/api/v1/agents", "application/json", '{"agent_id":"a1"}', connection)
                assert status == 200, "the connection goes on"
                answers += 1
            status, body, _ = ask(PUT, "application/grpc-web+proto", make())
            assert status == 200 and b"grpc-status: 8" in body, (status, body)
            answers += 1
    # Too much even to be passed over: the answer comes while the body does.
    connection = http.client.HTTPConnection(ADDRESS, timeout=60)
    try:
        connection.request("POST", PUT, body=pieces(200 << 20), headers={"content-type": "application/json"})
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert connection.getresponse().status == 413
    print(f"http.client: {answers + 1} bodies over the limit are refused in the caller's protocol")


main()
