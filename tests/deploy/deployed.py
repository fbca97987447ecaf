"""The parts of a fleet as it is deployed: where they are, and how they are started and asked."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CACHE = ROOT / ".predictor" / "cache"
PREDICTOR = Path(sys.executable).with_name("predictor")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def wait_for(condition, what: str, seconds: float = 60.0):
    """Asks until the answer is true; a place that does not listen yet counts as no."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := condition():
                return answer
        except (urllib.error.URLError, ConnectionError):
            pass
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds:.0f} s"
        time.sleep(0.1)


@contextmanager
def running(*command, log: Path, **options):
    """A process that is ended, whatever happens; what it says is in the log."""
    with open(log, "wb") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def redis_server() -> str:
    """The server of this machine, if it is one that knows the shipped users."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None or int(subprocess.check_output([found, "-v"], text=True).split("v=")[1].split(".")[0]) < 7:
        pytest.skip("deploy/redis.conf and its users need a Redis 7 or newer on the PATH")
    return found


class Site:
    """Where the parts of the deployed fleet are."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.users = folder / "users"
        self.http_port = free_port()
        self.worker: subprocess.Popen | None = None
        self.exporter_port: int | None = None

    def env(self, role: str) -> dict[str, str]:
        """What a program of this role is started with."""
        return os.environ | {"USP_CONFIG": str(self.users / f"{role}.toml"), "USP_WORKER__CACHE_DIR": str(CACHE)}

    def predictor(self, role: str, *words: object) -> subprocess.CompletedProcess:
        command = [str(PREDICTOR), *map(str, words)]
        return subprocess.run(command, env=self.env(role), capture_output=True, text=True, timeout=120, cwd=self.folder)

    def redis_cli(self, *words: str) -> str:
        """What Redis says to the user that may ask the least."""
        env = os.environ | {"REDISCLI_AUTH": (self.users / "replica.password").read_text()}
        command = ["redis-cli", "-p", str(self.port), "--user", "usp-replica", *words]
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=10).stdout.strip()

    def page(self) -> str:
        return fetch(f"http://127.0.0.1:{self.http_port}/metrics")

    def status(self) -> dict[str, float]:
        return json.loads(fetch(f"http://127.0.0.1:{self.http_port}/status"))["metrics"]


def make_users(folder: Path, host: str) -> None:
    subprocess.run(["sh", DEPLOY / "make_users.sh", folder, host], check=True, timeout=30)
