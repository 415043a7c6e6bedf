"""Addresses of nodes."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import InvalidArgument

FORMS = "expected unix:///path, tcp://HOST:PORT or http://HOST:PORT"


@dataclass(frozen=True)
class Target:
    """The place a node listens at: the path of a unix socket, or a host and a port."""

    path: str = ""
    host: str = ""
    port: int = 0

    @staticmethod
    def parse(text: str) -> Target:
        """Reads an address. tcp and http are the same port: the node tells the protocol from the first bytes."""
        scheme, _, rest = text.partition("://")
        if scheme == "unix":
            if not rest.startswith("/") or rest == "/":
                raise InvalidArgument(f"{text!r} has no absolute path (three slashes); {FORMS}")
            return Target(path=rest)
        if scheme not in ("tcp", "http"):
            raise InvalidArgument(f"{text!r} is not an address of a node; {FORMS}")
        try:
            parts = urlsplit(text.rstrip("/") if scheme == "http" else text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or port is None or parts.path or parts.query or parts.fragment or "@" in rest:
            raise InvalidArgument(f"{text!r} has no HOST:PORT; {FORMS}")
        return Target(host=host, port=port)
