"""A headless Chromium of our own, told what to do over a pipe (chromedevtools.github.io/devtools-protocol)."""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

from world import PATIENCE_S, wait_for

QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


class Browser:
    def __init__(self, program):
        self.program = program

    def __enter__(self):
        self.profile = tempfile.mkdtemp(prefix="peat-chromium-")
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pipe in (os.pipe(), os.pipe()) for end in pipe]
        theirs_in, self.out, self.into, theirs_out = ends
        # The browser reads its descriptor 3 and writes its 4.
        shell = f'exec 3<&{theirs_in} 4>&{theirs_out} {theirs_in}<&- {theirs_out}>&-; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "-", self.program, "--headless", "--no-sandbox", "--disable-gpu", *QUIET,
             f"--user-data-dir={self.profile}", "--remote-debugging-pipe", "about:blank"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.number, self.events = b"", 0, []
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def read(self, seconds):
        """The next message, if one comes in time."""
        end = time.monotonic() + seconds
        while b"\0" not in self.rest:
            if not select.select([self.into], [], [], max(0, end - time.monotonic()))[0]:
                return None
            more = os.read(self.into, 1 << 16)
            assert more, "the browser is gone"
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, session=None, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            message = self.read(PATIENCE_S)
            assert message, f"{method} is not answered"
            if message.get("id") == self.number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def open(self, url, width=800, height=1000, dark=True):
        return Tab(self, url, width, height, dark)


class Tab:
    """One page, what it asked for and what it complained of."""

    def __init__(self, browser, url, width, height, dark):
        self.browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height, dark)
        # A page that nobody sees does not ask its node.
        self.call("Page.bringToFront")
        self.call("Page.navigate", url=url)

    def call(self, method, **parameters):
        return self.browser.call(method, session=self.session, **parameters)

    def resize(self, width, height, dark):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def run(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def wait_for(self, what, expression):
        # What it asks about may not be there yet.
        tried = f"(() => {{ try {{ return {expression} }} catch {{ return null }} }})()"
        try:
            return wait_for(what, lambda: self.run(tried))
        except AssertionError:
            raise AssertionError(f"{what}: {self.run('document.body.innerText')}") from None

    def of(self, method):
        return [e["params"] for e in self.browser.events if e.get("sessionId") == self.session and e["method"] == method]

    def asked(self):
        return [event["request"]["url"] for event in self.of("Network.requestWillBeSent")]

    def complaints(self):
        """Exceptions, and what the browser logs as an error, failed requests aside."""
        logged = [e["entry"] for e in self.of("Log.entryAdded") if e["entry"]["level"] == "error"]
        return self.of("Runtime.exceptionThrown") + [e for e in logged if e["source"] != "network"]

    def shoot(self, path):
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture))
