"""A browser without a window for tests: Chromium by its WebDriver (W3C), over plain HTTP."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.waiting import eventually

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key under which an element is named, fixed by the standard
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps")
HEADLESS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", *QUIET)


def missing_tool() -> str | None:
    """Return the program that is missing, None where all are there."""
    driver = shutil.which("chromedriver")
    return None if driver and _chromium() else "chromedriver" if not driver else "chromium"


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One window. Use it as a context; both programs end with it."""

    def __init__(self, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self._profile = tempfile.mkdtemp(prefix="litetq-browser-")
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            eventually(self._is_ready, within=60)
            words = [*HEADLESS, f"--user-data-dir={self._profile}", f"--window-size={width},{height}"]
            words += ["--blink-settings=preferredColorScheme=0"] if dark else []
            options = {"binary": _chromium(), "args": words}
            wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
            self._url += f"/session/{self._ask('POST', '/session', {'capabilities': wanted})['sessionId']}"
        except BaseException:
            self.close()
            raise

    def _is_ready(self) -> bool:
        try:
            return bool(self._ask("GET", "/status")["ready"])
        except OSError:
            return False

    def _ask(self, method: str, path: str, values: Any = None) -> Any:
        body = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(self._url + path, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def go(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def run(self, script: str, *words: Any) -> Any:
        """Run JavaScript and return what it returns."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": list(words)})

    def texts(self, selector: str) -> list[str]:
        """Return what is read in these elements."""
        return list(self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", selector))

    def click(self, selector: str) -> None:
        self._ask("POST", f"/element/{self._find(selector)}/click", {})

    def write(self, selector: str, text: str) -> None:
        """Type a text over what is in a field."""
        self._ask("POST", f"/element/{self._find(selector)}/clear", {})
        self._ask("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def _find(self, selector: str) -> str:
        return str(self._ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT])

    def complaints(self) -> list[str]:
        """Return what the console of the page has said: errors of scripts, what its policy has prevented."""
        return [str(line["message"]) for line in self._ask("POST", "/se/log", {"type": "browser"})]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self.close()

    def close(self) -> None:
        self._driver.terminate()
        self._driver.wait(30)
        shutil.rmtree(self._profile, ignore_errors=True)
