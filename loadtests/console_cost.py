"""What the console costs a fleet: the same load without one, with its fleet page open, and with an asset's page open.

    python -m loadtests.console_cost [--json] [--rounds N] [--seconds S] [--rate R]

The three are measured in turns, over one fleet, so that what slows the machine slows all. A ratio is the CPU per tick
of workers, graph, server and console together, over that without a console; the browser is somebody else's machine.
"""

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from loadtests import cpu
from loadtests.results import about
from loadtests.rig import Rig, RunFailed, Shape
from loadtests.statistics import median, rounded
from loadtests.ticks import asset_names

NONE, FLEET, ASSET = "none", "fleet", "asset"
FLEET_OWN = ("graph", "worker", "server")  # whose CPU counts; producer and reader are the load's


class Page:
    """An open page as the console sees it: a stream of events that is read and thrown away."""

    def __init__(self, address: str, asset: str) -> None:
        place = urlsplit(address)
        path = f"/events?asset={quote(asset)}" if asset else "/events"
        self._socket = socket.create_connection((place.hostname, place.port))
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        self.received = 0
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        while part := self._socket.recv(1 << 16):
            self.received += len(part)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reading.join()
        self._socket.close()


@contextmanager
def watched(rig: Rig, shown: str) -> Iterator[tuple[int, Page] | None]:
    """A console's process and one page open on it; nothing for NONE."""
    if shown == NONE:
        yield None
        return
    command = [sys.executable, "-m", "worker", "console", "--redis", rig.url, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            if "http://" not in said:
                raise RunFailed(f"the console did not start: {said}")
            address = next(word for word in said.split() if word.startswith("http://"))
            page = Page(address, _an_asset(rig.shape) if shown == ASSET else "")
            yield process.pid, page
            page.close()
        finally:
            process.terminate()


def _an_asset(shape: Shape) -> str:
    return asset_names(shape.assets, shape.partitions)[0][1].decode()


def run(rig: Rig, shown: str, rate: float, seconds: float) -> dict[str, Any]:
    """One load with this much console; its own CPU as a share of a core."""
    with watched(rig, shown) as console:
        before, began = (cpu.of_process(console[0]), time.monotonic()) if console else (0.0, 0.0)
        found = rig.load(rate, 2.0, seconds)
        own = (cpu.of_process(console[0]) - before) / (time.monotonic() - began) if console else 0.0
        if console and not console[1].received:
            raise RunFailed("the page was told nothing")
    spent = sum(found["cpu_us_per_tick"][name] for name in FLEET_OWN)
    return {
        "fleet_us_per_tick": spent,
        "whole_us_per_tick": spent + 1e6 * own / rate,
        "console_cores": own,
        "latency_p99_ms": found["latency_ms"]["p99"],
        "cores_busy_with_others": found["cores_busy_with_others"],
    }


def compare(rounds: int, rate: float, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """All three in turns, as often as asked."""
    found: dict[str, list[dict]] = {NONE: [], FLEET: [], ASSET: []}
    with Rig(Shape(assets=2048)) as rig:
        for number in range(rounds):
            for shown in sorted(found, reverse=bool(number % 2)):
                found[shown].append(run(rig, shown, rate, seconds))
            say(f"round {number + 1}: " + ", ".join(f"{shown} {_ratio(found, shown)[-1]:.4f}" for shown in found))
    return {
        shown: {
            "ratio": median(_ratio(found, shown)),
            "ratios": sorted(_ratio(found, shown)),
            "console_cores": median([one["console_cores"] for one in runs]),
            "fleet_us_per_tick": median([one["fleet_us_per_tick"] for one in runs]),
            "latency_p99_ms": median([one["latency_p99_ms"] for one in runs]),
            "cores_busy_with_others": median([one["cores_busy_with_others"] for one in runs]),
        }
        for shown, runs in found.items()
    }


def _ratio(found: dict[str, list[dict]], shown: str) -> list[float]:
    pairs = zip(found[shown], found[NONE], strict=False)
    return [one["whole_us_per_tick"] / none["whole_us_per_tick"] for one, none in pairs]


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.console_cost", description="What the console costs.")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=10_000.0)
    asked = parser.parse_args(given)
    say = (lambda _: None) if asked.json else print
    figures = about() | {"rate": asked.rate} | compare(asked.rounds, asked.rate, asked.seconds, say)
    print(json.dumps(rounded(figures), indent=None if asked.json else 1))


if __name__ == "__main__":
    main()
