"""The watcher tells when a device fills up, once on the way, and is silent where there is none."""

import threading

import pytest

from predictor_core import DeviceMemory, monitor_vram_fragmentation
from predictor_core.device_memory import device_memory


class Device:
    def memory_stats(self):
        return {"bytes_in_use": 60, "bytes_limit": 100, "peak_bytes_in_use": 80, "largest_free_block_bytes": 10}

    def __str__(self):
        return "gpu:0"


class Silent:
    def memory_stats(self):
        return None


def test_a_look_tells_how_full_and_how_broken_up_a_device_is():
    (seen,) = device_memory([Device(), Silent()])
    assert seen == DeviceMemory("gpu:0", 60, 100, 80, 10)
    assert seen.share == pytest.approx(0.6) and seen.broken_up == pytest.approx(0.75)
    assert DeviceMemory("x", 0, 0, 0, 0).share == 0.0


def test_a_device_that_fills_up_is_told_once_on_the_way(caplog):
    shares, ended, looks = [50, 90, 90, 96, 97, 50, 90], threading.Event(), []

    def look():
        if not shares:
            ended.set()
            return []
        return [DeviceMemory("gpu:0", shares.pop(0), 100, 0, 0)]

    watch = monitor_vram_fragmentation(0.0, looks.append, look)
    assert ended.wait(10)
    watch.stop()
    levels = [record.levelname for record in caplog.records if record.getMessage() == "device_memory_high"]
    assert levels == ["WARNING", "ERROR", "WARNING"] and len(looks) == 7


def test_on_a_machine_without_an_accelerator_it_does_nothing():
    watch = monitor_vram_fragmentation(60.0)
    watch._thread.join(10)
    assert not watch._thread.is_alive()
    watch.stop()


def test_a_watcher_that_fails_says_so_and_ends(caplog):
    def look():
        raise OSError("the device is gone")

    watch = monitor_vram_fragmentation(0.0, look=look)
    watch._thread.join(10)
    assert not watch._thread.is_alive() and "device_memory_watch_failed" in caplog.messages
    watch.stop()
