"""Worker processes that a command starts, follows by their log lines, and takes down with it."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import FleetFailed
from worker.settings import Settings

READY = "ready"
DRAIN_MAX_S = 20.0
LINE_MAX = 1 << 20


@dataclass
class Child:
    """One worker process and what it last said."""

    name: str
    process: asyncio.subprocess.Process
    phase: str = "starting"
    last_line: str = ""
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # it serves, or it has ended

    @property
    def alive(self) -> bool:
        return self.process.returncode is None


class Children:
    """All of them; each in a process group of its own, so that Ctrl-C reaches only the parent."""

    def __init__(self, on_phase: Callable[[Child], None]) -> None:
        self.all: list[Child] = []
        self.ready_s = 0.0  # how long the first took until it served
        self._on_phase = on_phase
        self._followers: list[asyncio.Task] = []

    async def start(self, count: int, settings: Settings, partitions: int, config: Path | None, logs: Path) -> None:
        """Starts them all; `ready` says when the first serves."""
        for number in range(1, count + 1):
            name = f"worker-{number}"
            process = await asyncio.create_subprocess_exec(
                *_command(name, partitions, config),
                env=_environment(settings, logs),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                process_group=0,
                limit=LINE_MAX,
            )
            child = Child(name, process)
            self.all.append(child)
            self._followers.append(asyncio.create_task(self._follow(child, logs / f"{name}.log")))

    async def ready(self) -> None:
        """Waits until the first serves; raises FleetFailed with the last words of one when all ended instead."""
        waiting = [asyncio.create_task(child.settled.wait()) for child in self.all]
        for settled in asyncio.as_completed(waiting):
            await settled
            if any(child.phase == READY for child in self.all):
                break
        else:
            last = self.all[-1]
            raise FleetFailed(f"{last.name} did not start: {last.last_line.removeprefix('predictor: ')}")
        for task in waiting:
            task.cancel()

    async def stop(self) -> list[str]:
        """Lets them drain; kills those that do not, and names them."""
        for child in self.all:
            if child.alive:
                child.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + DRAIN_MAX_S
        killed = []
        for child in self.all:
            try:
                async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                    await child.process.wait()
            except TimeoutError:
                killed.append(child.name)
                child.process.kill()
                await child.process.wait()
        await asyncio.gather(*self._followers)
        return killed

    async def _follow(self, child: Child, log: Path) -> None:
        assert child.process.stderr is not None
        try:
            with log.open("wb") as file:
                async for line in child.process.stderr:
                    file.write(line)
                    file.flush()
                    self._heard(child, line.decode(errors="replace").strip())
            await child.process.wait()
            child.phase = f"ended with {child.process.returncode}"
        finally:
            child.settled.set()  # whatever happened, nobody waits for it any longer
        self._on_phase(child)

    def _heard(self, child: Child, line: str) -> None:
        child.last_line = line
        try:
            said = json.loads(line)
        except ValueError:
            return
        if isinstance(said, dict) and said.get("event") == "phase":
            child.phase = said["phase"]
            if child.phase == READY:
                child.settled.set()
            self._on_phase(child)


def _command(name: str, partitions: int, config: Path | None) -> list[str]:
    words = [sys.executable, "-m", "worker", "worker", "--name", name, "--partitions", str(partitions)]
    words += ["--http-port", "0", "--parent", str(os.getpid())]
    return words + (["--config", str(config)] if config else [])


def _environment(settings: Settings, home: Path) -> dict[str, str]:
    """Ours, with the place of the fleet: it does not show in the list of processes. What they keep ends with them."""
    place = {"USP_REDIS__URL": settings.redis.url, "USP_REDIS__NAMESPACE": settings.redis.namespace}
    place["USP_HOTPATH__DIRECTORY"] = str(home / "hotpath")
    return {**os.environ, **place, "USP_LOG__FORMAT": "json", "USP_LOG__LEVEL": "info"}
