"""A real fleet with a console beside it, and a real browser in front."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from state_store import EmbeddedRedis

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".predictor" / "cache"
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
READY_S = 120.0  # a machine that has to compile first


def until(condition: Callable, what: str, seconds: float = 30.0):
    """What the condition gives once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.05)
    return found


class Commands:
    """Processes of `predictor`; what they say on standard error is read all the time."""

    def __init__(self, url: str, home: Path) -> None:
        self.env = os.environ | {"USP_REDIS__URL": url, "USP_WORKER__CACHE_DIR": str(CACHE)}
        self.env |= {"USP_WORKER__LEASE_MS": "1500"}
        self.home, self.running, self.said = home, {}, {}

    def run(self, *words: str) -> str:
        done = self._run(words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _run(self, words: tuple[str, ...]) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "worker", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.home, env=self.env, timeout=120)

    def refused(self, code: int, *words: str) -> str:
        done = self._run(words)
        assert done.returncode == code, (done.returncode, done.stderr)
        assert done.stderr.startswith("predictor: ") and len(done.stderr.splitlines()) == 1
        return done.stderr

    def start(self, name: str, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "worker", *words]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        process = self.running[name] = subprocess.Popen(command, cwd=self.home, env=self.env, **pipes)
        self.said[name] = []
        threading.Thread(target=self._listen, args=(process, self.said[name]), daemon=True).start()
        return process

    @staticmethod
    def _listen(process: subprocess.Popen, lines: list[str]) -> None:
        with process.stderr as said:
            lines.extend(iter(said.readline, ""))

    def heard(self, name: str, pattern: str, seconds: float = READY_S) -> re.Match:
        return until(lambda: re.search(pattern, "".join(self.said[name])), f"{pattern!r} from {name}", seconds)

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def console(self, name: str = "console", *words: str) -> str:
        """Starts one and gives its address, the operator's token in it."""
        self.start(name, "console", "--port", "0", *words)
        return self.heard(name, r"(http://\S+)")[1]

    def stop(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedRedis(tmp_path_factory.mktemp("redis") / "data", port=0) as server:
        yield server


@pytest.fixture(scope="module")
def commands(server, tmp_path_factory):
    made = Commands(server.url, tmp_path_factory.mktemp("home"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Opens pages, and sees to it that none complains and none asks anybody but the console."""
    contexts, troubles = [], []

    def open_page(address: str, width: int = 1200, height: int = 800, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        own = address.split("#")[0]
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda told: troubles.append(told.text) if told.type in ("error", "warning") else None)
        page.on("request", lambda asked: asked.url.startswith(own) or troubles.append(asked.url))
        page.goto(address)
        return page

    open_page.troubles = troubles
    yield open_page
    for context in contexts:
        context.close()
    assert not troubles, json.dumps(troubles, indent=1)
