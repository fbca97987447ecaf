"""What an accelerator's memory does is on the metrics page."""

import threading

from prometheus_client import CollectorRegistry

from predictor_core import DeviceMemory
from worker.devicewatch import watch_devices


def test_every_look_is_on_the_metrics_page():
    registry, looked_twice, looks = CollectorRegistry(), threading.Event(), []

    def look():
        looks.append(1)
        if len(looks) > 1:
            looked_twice.set()
        return [DeviceMemory("gpu:0", used=60, limit=100, peak=80, largest_free=10)]

    watch = watch_devices(registry, 0.001, look)
    assert looked_twice.wait(10)
    watch.stop()
    named = {name: registry.get_sample_value(f"predictor_device_memory_{name}", {"device": "gpu:0"})
             for name in ("used_bytes", "limit_bytes", "peak_bytes", "broken_up_ratio")}  # fmt: skip
    assert named == {"used_bytes": 60, "limit_bytes": 100, "peak_bytes": 80, "broken_up_ratio": 0.75}
