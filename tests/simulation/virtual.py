"""An event loop without a clock or a socket: time jumps to the next timer, and a seed decides who runs first.

Callbacks that are ready together run in any order that the seed chooses. Each belongs to the *process* in whose
context it was made: a process that is paused runs nothing until it wakes, and one that has crashed nothing any more,
while the others go on.
"""

import asyncio
import heapq
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any

STEPS_MAX = 400_000


class Stuck(Exception):
    """Nothing can ever run again, or time does not pass any more."""


class Process:
    """What the loop knows of one simulated process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = self.crashed = False
        self.waiting: list[asyncio.Handle] = []  # callbacks that it could not run


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs the real worker code; one seed is one exact order of events."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.faults: list[dict[str, Any]] = []  # what no task took notice of
        self.steps = 0
        self.tasks: dict[asyncio.Task, Process] = {}  # of the processes
        self._random = random
        self._now = 0.0
        self.set_exception_handler(lambda _, context: self.faults.append(context))

    def time(self) -> float:
        return self._now

    def spawn(self, work: Coroutine, process: Process | None) -> asyncio.Task:
        """Starts a task of a process; what it starts in turn belongs to the same one."""
        context = copy_context()
        context.run(PROCESS.set, process)
        return self.create_task(work, context=context)

    def create_task(self, coro: Coroutine, *, name: str | None = None, context: Context | None = None) -> asyncio.Task:
        task = super().create_task(coro, name=name, context=context)
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            self.tasks[task] = process
            task.add_done_callback(self.tasks.pop, context=Context())
        return task

    def wake(self, process: Process) -> None:
        """Lets a process run all that it has missed."""
        process.paused = process.crashed = False
        self._ready.extend(process.waiting)
        process.waiting.clear()

    def _run_once(self) -> None:
        self._advance()
        ready = list(self._ready)
        self._ready.clear()
        self._random.shuffle(ready)
        self.steps += len(ready)
        if self.steps > STEPS_MAX:
            raise Stuck(f"{STEPS_MAX} steps and no end; it is {self._now:.3f} s")
        for handle in ready:
            self._run_handle(handle)

    def _run_handle(self, handle: asyncio.Handle) -> None:
        if handle.cancelled():
            return
        process = handle._context.get(PROCESS)
        if process is not None and (process.paused or process.crashed):
            process.waiting.append(handle)
        else:
            handle._run()

    def _advance(self) -> None:
        """Moves the clock to the next timer when nothing is ready, and makes ready what is due."""
        timers = self._scheduled
        while timers and (timers[0].cancelled() or not self._ready or timers[0].when() <= self._now):
            handle = heapq.heappop(timers)
            handle._scheduled = False
            if not handle.cancelled():
                self._now = max(self._now, handle.when())
                self._ready.append(handle)
        if not self._ready:
            raise Stuck(f"everybody waits for ever; it is {self._now:.3f} s")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is skipped when its time comes."""

    def _process_events(self, event_list: list) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """No other thread calls."""
