"""The memory of an accelerator: a bound set before JAX starts, and a watcher that sees it fill.

The names are those that work today. XLA_CLIENT_MEM_FRACTION bounds what is taken (set only one of it and its old name
XLA_PYTHON_CLIENT_MEM_FRACTION: both together are an error). XLA_PYTHON_CLIENT_PREALLOCATE=true, the default, takes it
in one piece at the start, so that other processes cannot break it up. XLA_PYTHON_CLIENT_ALLOCATOR=platform gives memory
back at every step and is very slow; TF_FORCE_GPU_ALLOW_GROWTH is not read at all. The canonical program has fixed
buffers that it writes over and over, so there is little to break up, and a pool of our own would have nothing to hold.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

ELEVATED, NEAR_FULL = 0.85, 0.95

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceMemory:
    """One look at a device, in bytes."""

    device: str
    used: int
    limit: int
    peak: int
    largest_free: int  # 0 where the device does not say

    @property
    def share(self) -> float:
        """How full it is, 0 to 1."""
        return self.used / self.limit if self.limit else 0.0

    @property
    def broken_up(self) -> float:
        """The share of the free memory that does not lie in one piece."""
        free = self.limit - self.used
        return 1 - self.largest_free / free if self.largest_free and free > 0 else 0.0


def device_memory(devices: list[Any] | None = None) -> list[DeviceMemory]:
    """A look at every device that tells; a CPU does not."""
    looks = []
    for device in devices if devices is not None else jax.local_devices():
        told = device.memory_stats()
        if told:
            looks.append(
                DeviceMemory(
                    str(device),
                    told.get("bytes_in_use", 0),
                    told.get("bytes_limit", 0),
                    told.get("peak_bytes_in_use", 0),
                    told.get("largest_free_block_bytes", 0),
                )
            )
    return looks


class MemoryWatch:
    """Looks at the devices now and then, in a thread of its own, until it is stopped or there is nothing to see."""

    def __init__(
        self,
        interval_s: float,
        on_look: Callable[[DeviceMemory], None],
        look: Callable[[], list[DeviceMemory]],
    ) -> None:
        self._interval_s, self._on_look, self._look = interval_s, on_look, look
        self._levels: dict[str, int] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="device-memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._look_once() and not self._stopped.wait(self._interval_s):
                pass
        except Exception:  # a lost device, or a callback of the caller's
            log.exception("device_memory_watch_failed")

    def _look_once(self) -> bool:
        """Whether there was anything to see."""
        looks = self._look()
        for seen in looks:
            self._on_look(seen)
            self._tell(seen)
        return bool(looks)

    def _tell(self, seen: DeviceMemory) -> None:
        """Once on the way up, not at every look."""
        level = (seen.share > ELEVATED) + (seen.share > NEAR_FULL)
        if level > self._levels.get(seen.device, 0):
            severity = logging.ERROR if level == 2 else logging.WARNING
            log.log(severity, "device_memory_high", extra={"device": seen.device, "share": round(seen.share, 3)})
        self._levels[seen.device] = level


def monitor_vram_fragmentation(
    interval_seconds: float = 60.0,
    on_look: Callable[[DeviceMemory], None] = lambda seen: None,
    look: Callable[[], list[DeviceMemory]] = device_memory,
) -> MemoryWatch:
    """Starts the watcher. `on_look` gets every look, for metrics; what fills up is logged as device_memory_high.

    On a machine without an accelerator it ends at once.
    """
    return MemoryWatch(interval_seconds, on_look, look)
