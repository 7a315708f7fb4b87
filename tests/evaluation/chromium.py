"""Headless Chromium by its DevTools protocol, over a pipe; for tests of pages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
    "--disable-dev-shm-usage",  # which may be too small for a page in a container
)  # fmt: skip


class Chromium:
    """One page of one browser; `complaints` holds what it logged or wanted from elsewhere."""

    def __init__(self, profile: Path, page: Path, width: int = 1000, height: int = 800) -> None:
        command_end, self._write = os.pipe()
        self._read, answer_end = os.pipe()
        command = [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            # The browser reads commands from descriptor 3 and answers on 4.
            ["bash", "-c", f'exec "$@" 3<&{command_end} 4>&{answer_end}', "bash", *command],
            pass_fds=(command_end, answer_end), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(command_end)
        os.close(answer_end)
        self._buffer, self._number, self._session = b"", 0, None
        self.complaints: list[Any] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        self._address = page.as_uri()
        self.send("Page.navigate", url=self._address)
        self.evaluate("new Promise(done => document.readyState === 'complete' ? done() : "
                      "addEventListener('load', done))")  # fmt: skip

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._listen(answer.get("method", ""), answer.get("params", {}))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._read, 1 << 20)
            assert data, "Chromium ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _listen(self, event: str, details: dict[str, Any]) -> None:
        wanted = details.get("request", {}).get("url", "")
        elsewhere = wanted and not wanted.startswith((self._address, "data:"))
        logged = event in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        if logged or elsewhere:
            self.complaints.append(details)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        os.close(self._write)
        os.close(self._read)
