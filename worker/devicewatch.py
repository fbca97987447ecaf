"""The memory of this process's accelerators as metrics, looked at now and then; nothing on a machine without one."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from predictor_core import DeviceMemory, monitor_vram_fragmentation
from predictor_core.device_memory import MemoryWatch, device_memory

INTERVAL_S = 60.0


def watch_devices(
    registry: CollectorRegistry,
    interval_s: float = INTERVAL_S,
    look: Callable[[], list[DeviceMemory]] = device_memory,
) -> MemoryWatch:
    """Starts the watcher; stop it before the process ends."""

    def gauge(name: str, text: str) -> Gauge:
        return Gauge(f"predictor_device_memory_{name}", text, ["device"], registry=registry)

    used, limit = gauge("used_bytes", "Device memory in use"), gauge("limit_bytes", "Device memory that may be used")
    peak = gauge("peak_bytes", "Most device memory that was ever in use")
    broken_up = gauge("broken_up_ratio", "Share of the free device memory that does not lie in one piece")

    def on_look(seen: DeviceMemory) -> None:
        used.labels(seen.device).set(seen.used)
        limit.labels(seen.device).set(seen.limit)
        peak.labels(seen.device).set(seen.peak)
        broken_up.labels(seen.device).set(seen.broken_up)

    return monitor_vram_fragmentation(interval_s, on_look, look)
