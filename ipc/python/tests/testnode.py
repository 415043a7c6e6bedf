"""Real nodes for tests: each with its directory, on loopback ports that the system chooses, and nothing of the
caller's configuration."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

# Seconds that a node may take to become ready, and that tests wait for what must happen.
PATIENCE = 60.0
READY_LINE = re.compile(r"ready: .*nodes at ([^,\s]+),.*endpoint id ([0-9a-f]{64})")


def environment() -> dict[str, str]:
    """The caller's environment without what nodes read from it."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PEAT_NODE_", "XDG_")) and not name.endswith("_DIRECTORY") and name != "JOURNAL_STREAM"
    }


class Node:
    """A node in its own process."""

    def __init__(self, binary: str, home: Path, *flags: str) -> None:
        self.binary, self.home, self.flags = binary, home, flags
        self.id = ""
        self.bind = "127.0.0.1:0"
        self._process: subprocess.Popen[bytes] | None = None
        home.mkdir(parents=True, exist_ok=True)
        self.resume()

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"unix://{self.home}/socket"

    @property
    def log(self) -> str:
        """What the node has logged since it was started last."""
        return (self.home / "log").read_text()

    def resume(self) -> None:
        """Starts the node again, on the data and the port it had."""
        arguments = ["run", "--data-dir", f"{self.home}/data", "--listen", self.address, "--bind", self.bind]
        with (self.home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [self.binary, *arguments, *self.flags], stdout=log, stderr=log, env=environment()
            )
        end = time.monotonic() + PATIENCE
        while (found := READY_LINE.search(self.log)) is None:
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise AssertionError(f"the node did not become ready:\n{self.log}")
            time.sleep(0.01)
        self.bind, self.id = found[1], found[2]

    def kill(self) -> None:
        """Ends the node as a crash would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Asks the node to end, and waits until it has."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None
