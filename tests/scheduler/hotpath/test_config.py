import ast
import pathlib
import threading
import time

import pytest

import scheduler.hotpath
from scheduler.hotpath import AtomicConfig, ConfigSnapshot, SafetyExecutor
from scheduler.hotpath.errors import NotTheWriter

SECONDS = 1.0


def test_the_first_generation_is_zero_and_each_change_adds_one():
    config = AtomicConfig((0.5,))
    writer = config.claim()
    assert config.snapshot() == ConfigSnapshot((0.5,), 0)
    assert [writer.update((i / 10,)) for i in range(3)] == [1, 2, 3]
    assert config.snapshot() == ConfigSnapshot((0.2,), 3)


def test_a_snapshot_is_the_object_itself():
    config = AtomicConfig((0.5,))
    assert config.snapshot() is config.snapshot()


def test_generations_never_go_back_whoever_writes():
    config, seen, done = AtomicConfig((0.0,)), [], threading.Event()
    writer = config.claim()

    def read():
        while not done.is_set():
            seen.append(config.snapshot().generation)

    def write():
        for _ in range(2_000):
            writer.update((1.0,))

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write) for _ in range(4)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert config.generation == config.snapshot().generation == 8_000


def test_a_reader_never_sees_two_generations_mixed():
    config = AtomicConfig((0.0, 0.0, 0.0))
    writer, deadline, torn = config.claim(), time.monotonic() + SECONDS, []

    def read():
        while time.monotonic() < deadline:
            snapshot = config.snapshot()
            if snapshot.params != (snapshot.generation, snapshot.generation * 2.0, snapshot.generation * 3.0):
                torn.append(snapshot)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in readers:
        thread.start()
    while time.monotonic() < deadline:
        following = config.generation + 1
        writer.update((following, following * 2.0, following * 3.0))
    for thread in readers:
        thread.join()
    assert not torn and config.generation > 100


def test_only_one_can_hold_the_right_to_publish():
    config = AtomicConfig((0.5,))
    SafetyExecutor(config)
    with pytest.raises(NotTheWriter, match="SafetyExecutor"):
        config.claim()
    with pytest.raises(NotTheWriter):
        SafetyExecutor(config)


def test_a_config_has_no_way_to_be_changed_by_a_reader():
    public = {name for name in dir(AtomicConfig) if not name.startswith("_")}
    assert public == {"snapshot", "generation", "claim"}
    with pytest.raises(AttributeError):
        AtomicConfig((0.5,)).generation = 3  # type: ignore[misc]
    with pytest.raises(AttributeError):
        AtomicConfig((0.5,)).snapshot().params = (1.0,)  # type: ignore[misc]


def test_in_the_source_only_the_executor_claims_and_publishes():
    root = pathlib.Path(scheduler.hotpath.__file__).parent
    found = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in ("claim", "_writer", "_snapshot"):
                found.add((path.name, node.attr))
    assert found == {("executor.py", "claim"), ("executor.py", "_writer"), ("config.py", "_snapshot")}


def test_a_checkpoint_cannot_take_the_generation_back():
    config = AtomicConfig((0.5,), generation=7)
    writer = config.claim()
    with pytest.raises(NotTheWriter, match="older"):
        writer.resume(ConfigSnapshot((0.1,), 6))
    writer.resume(ConfigSnapshot((0.1,), 9))
    assert config.generation == 9
