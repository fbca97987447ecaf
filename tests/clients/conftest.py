"""A fleet, and Node beside it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from state_store.logs import Looking
from tests.fleet import conftest as fleets
from tests.fleet.conftest import Fleet

fleet = fleets.fleet  # a fixture here too
FOLDER = Path(__file__).parents[2] / "docs" / "clients" / "node"


class Node:
    """Runs the two programs as their users do."""

    def __init__(self, fleet: Fleet) -> None:
        self.url = fleet.url

    def send(self, lines: list[str], url: str = "", name: str = "node-test") -> dict:
        done = self.run("producer.mjs", url or self.url, "usp", name, given="\n".join(lines))
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    def read(self) -> list[dict]:
        done = self.run("reader.mjs", self.url, "usp", "0", "0.5")
        assert done.returncode == 0 and not done.stderr, done
        return [json.loads(line) for line in done.stdout.splitlines()]

    def run(self, file: str, *words: str, given: str = "") -> subprocess.CompletedProcess:
        command = ["node", str(FOLDER / file), *words]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)


@pytest.fixture
def node(fleet) -> Node:
    if shutil.which("node") is None:
        pytest.skip("node is not installed: the client in another language cannot run here")
    return Node(fleet)


async def logged(fleet: Fleet, log: str) -> list[tuple[int, str, dict]]:
    """All that is in one kind of stream: partition, id, fields."""
    entries = []
    async with Looking(fleet.url) as looking:
        for p in range(fleet.partitions):
            for id, words in await looking.ask("XRANGE", f"usp:{{{p}}}:{log}", "-", "+"):
                entries.append((p, id.decode(), dict(zip(words[0::2], words[1::2], strict=True))))
    return entries
