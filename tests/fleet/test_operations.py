"""The page on operations, and the worst of it for real: a damaged state, dead letters, a backup put back."""

import asyncio
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from state_store import TickProducer
from state_store.keys import partition_of
from state_store.logs import Looking
from tests.docs.pages import DOCS, ROOT, Shell, blocks

CACHE = ROOT / ".predictor" / "cache"
START_NS = 1_600_000_000_000_000_000
ASSETS = ["EURUSD", "té/1", "gold", "oil"]
FOR_A_SHELL = re.compile(r"[$>|&;(]")
CORRUPT = "the stored state of this asset is corrupt"


class Operator:
    """Gives commands to the fleet as a person would."""

    def __init__(self, fleet, folder: Path) -> None:
        self.fleet, self.folder, self.sent = fleet, folder, 0
        self.predictor = fleet.predictor

    def ask(self, *words):
        async def run():
            async with Looking(self.fleet.url) as looking:
                return await looking.ask(*words)

        return asyncio.run(run())

    def feed(self, rounds: int, assets=ASSETS) -> None:
        async def run():
            async with TickProducer(self.fleet.url) as producer:
                for _ in range(rounds):
                    self.sent += 1
                    for asset in assets:
                        await producer.send(asset, 100.0 + self.sent % 7, START_NS + self.sent)

        asyncio.run(run())

    def keys(self, asset: str) -> str:
        return f"usp:{{{partition_of(asset.encode(), self.fleet.partitions)}}}"

    def damage(self, asset: str) -> None:
        record = self.ask("HGET", f"{self.keys(asset)}:states", asset)
        self.ask("HSET", f"{self.keys(asset)}:states", asset, record[:-20] + bytes(20))

    def stop(self, worker: subprocess.Popen) -> None:
        worker.send_signal(signal.SIGTERM)
        try:
            assert worker.wait(20) == 0
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGABRT)  # it says where each of its threads stands
            pytest.fail(f"a worker did not end: {worker.communicate()}")


@pytest.fixture
def operator(fleet, tmp_path, monkeypatch) -> Operator:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USP_REDIS__URL", fleet.url)
    monkeypatch.setenv("USP_WORKER__CACHE_DIR", str(CACHE))
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    return Operator(fleet, tmp_path)


def test_a_damaged_state_is_rebuilt_under_a_running_worker_and_every_byte_is_right(fleet, operator):
    first = fleet.start_worker()
    operator.feed(30)
    fleet.wait_until_idle()
    operator.predictor("state", "export", "early.uspb")
    operator.feed(5)
    fleet.wait_until_idle()
    whole = operator.predictor("state", "show", "EURUSD")
    assert (whole["ticks"], whole["last_timestamp_ns"]) == (35, START_NS + 35)
    assert abs(sum(whole["weights"]) - 1) < 1e-3

    operator.stop(first)
    operator.damage("EURUSD")
    assert "checksum" in operator.predictor("state", "show", "EURUSD", code=1)["error"]
    fleet.start_worker()
    operator.feed(4)
    fleet.wait_until_idle()
    told = operator.predictor("rejected", "ls", "--newest", "2")
    assert [(row["reason"], row["count"]) for row in told["counts"]] == [(CORRUPT, 4)]
    assert len(told["newest"]) == 2 and told["newest"][0]["asset"] == "EURUSD"

    rebuilt = operator.predictor("state", "rebuild", "EURUSD")
    assert (rebuilt["found"], rebuilt["ticks"], rebuilt["rejected"], rebuilt["changed"]) == ("corrupt", 35, 4, True)
    assert operator.predictor("state", "show", "EURUSD") == whole
    assert operator.predictor("rejected", "requeue", "--reason", CORRUPT)["requeued"] == 4
    operator.feed(3)
    fleet.wait_until_idle()
    assert operator.predictor("rejected", "ls")["total"] == 0
    verdict = operator.predictor("verify")
    assert verdict["agrees"] and verdict["predictions"] == 42 * len(ASSETS)
    again = operator.predictor("state", "rebuild", "EURUSD", "--from", "early.uspb")
    assert (again["found"], again["ticks"], again["changed"]) == ("whole", 12, False)


def test_a_state_whose_log_is_cut_is_not_guessed(fleet, operator):
    worker = fleet.start_worker(ticks_kept=8)
    operator.feed(10)
    fleet.wait_until_idle()
    operator.predictor("state", "export", "b.uspb")
    whole = operator.predictor("state", "show", "EURUSD")
    for _ in range(4):
        operator.feed(10, ["EURUSD"])
        fleet.wait_until_idle()
    operator.ask("XTRIM", f"{operator.keys('EURUSD')}:ticks", "MAXLEN", "20")
    operator.ask("HINCRBY", f"{operator.keys('EURUSD')}:control", "trimmed", "30")
    before = operator.predictor("state", "show", "EURUSD")
    for words in ([], ["--from", "b.uspb"]):
        error = operator.predictor("state", "rebuild", "EURUSD", *words, code=1)["error"]
        assert "ticks before it are gone" in error and len(error.splitlines()) == 1
    assert operator.predictor("state", "show", "EURUSD") == before
    assert operator.predictor("state", "rebuild", "EURUSD", "--cold")["changed"]
    assert operator.predictor("state", "show", "EURUSD")["ticks"] == 0
    assert "is held by" in operator.predictor("state", "import", "b.uspb", code=1)["error"]
    operator.stop(worker)
    assert "are gone" in operator.predictor("state", "import", "b.uspb", code=1)["error"]
    operator.predictor("state", "import", "b.uspb", "--namespace", "elsewhere")
    assert operator.predictor("state", "show", "EURUSD", "--namespace", "elsewhere") == whole


def test_the_page_on_operations_does_what_it_says(fleet, operator):
    worker = fleet.start_worker()
    operator.feed(3)
    fleet.wait_until_idle()
    operator.sent -= 1
    operator.feed(1)  # late
    operator.ask("XADD", f"{operator.keys('EURUSD')}:ticks", "*", "a", "EURUSD", "y", "1", "t", str(2 * time.time_ns()))
    fleet.wait_until_idle()
    with Shell(operator.folder) as shell:
        for block in blocks(DOCS / "operations.md", "sh"):
            if "state import" in block:
                operator.stop(worker)
            if "state rebuild" in block:
                operator.damage("EURUSD")
            if FOR_A_SHELL.search(block):
                shell.type(block.replace("redis://127.0.0.1:6390", fleet.url))
                continue
            for line in block.splitlines():  # in this process; that a shell takes such lines, the guides show
                predictor, *words = shlex.split(line)
                assert predictor == "predictor"
                fleet.say(*words)
    assert len((operator.folder / "users.acl").read_text().splitlines()) == 5
    assert (operator.folder / "fleet.uspb").exists()
