"""Every peer does the job; its tasks are those that its own client would send."""

import json
from dataclasses import replace

import hiredis
import numpy as np
import pytest

from loadtests import peers_bench
from loadtests.peers import tasks
from loadtests.peers.models import HoltWinters, Linear
from loadtests.rig import Rig
from loadtests.ticks import TickBytes
from worker.errors import BadInput

TIMES = 1_700_000_000_000_000_000 + np.arange(3)


def sent(kind):
    """The words of the commands for three ticks."""
    reader = hiredis.Reader()
    reader.feed(TickBytes(50, 16, command=tasks.COMMANDS[kind]).commands(0, TIMES))
    words = []
    while (command := reader.gets()) is not False:
        words.append(command)
    return words


WITH_LIBRARY = ["one tick at a time, library", "bytewax, library"]


@pytest.mark.parametrize("name", ["taskiq-redis", "streaq", "bytewax", "river regression", *WITH_LIBRARY])
def test_a_peer_predicts_every_tick(name):
    peer = peers_bench.PEERS[name]
    if peer.missing:
        pytest.skip(f"{peer.needs} is not installed: it has no version for this Python")
    with Rig(replace(peer.shape, workers=1, assets=64, partitions=2, waiting=200)) as rig:
        run = rig.saturate(0.0, 0.3)
    assert run["ticks_per_second"] > 0
    assert run["cpu_us_per_tick"]["worker"] > run["cpu_us_per_tick"]["reader"]


def test_a_taskiq_task_is_what_its_broker_would_send():
    broker = pytest.importorskip("taskiq_redis").RedisStreamBroker("redis://localhost:1", tasks.QUEUE)
    commands = sent(tasks.TASKIQ)
    assert len(commands) == 3
    for (name, log, _, field, data), time_ns in zip(commands, TIMES.tolist(), strict=True):
        message = broker.formatter.loads(data)
        assert (name, log, field) == (b"XADD", b"usp-tasks", b"data")
        assert broker.formatter.dumps(message).message == json.dumps(json.loads(data)).encode()
        assert message.task_id == str(time_ns) and message.args[3] == time_ns


def test_a_streaq_task_is_what_its_client_would_leave():
    worker = pytest.importorskip("streaq").Worker("redis://localhost:1", queue_name=tasks.STREAQ_QUEUE)
    commands = sent(tasks.STREAQ)
    assert len(commands) == 6
    for (_, key, data, _), (_, log, *_, task_id, _, _), time_ns in zip(
        commands[::2], commands[1::2], TIMES.tolist(), strict=True
    ):
        assert task_id.decode() == str(time_ns)
        assert key.decode() == worker.task_key + str(time_ns)
        assert log.decode() == worker.stream_key + worker.priorities[-1]
        message = json.loads(data)
        assert message.keys() == {"f", "a", "k", "t"} and message["a"][3] == time_ns


@pytest.mark.parametrize("model", [Linear, HoltWinters])
def test_a_model_of_river_goes_on_from_its_state_and_follows_a_line(model):
    pytest.importorskip("river")
    import msgpack

    state, prediction = None, b""
    for number in range(300):
        state, prediction = model().step(state, 100 + number / 10, number, number)
    middle, low, high = msgpack.unpackb(prediction)
    assert low <= middle <= high
    assert middle == pytest.approx(130, abs=1.0)


def test_a_peer_that_is_not_installed_is_named_with_the_extra(monkeypatch):
    monkeypatch.setitem(peers_bench.PEERS, "nobody", peers_bench.Peer("nobody", "no_such_library"))
    with pytest.raises(BadInput, match=r"needs nobody: install universal-predictor\[peers\]"):
        peers_bench.check_installed(("nobody",))
    with pytest.raises(BadInput, match="'somebody' is none of one tick at a time"):
        peers_bench.check_installed(("somebody",))


def test_the_table_tells_cost_ratio_and_promises():
    cpu = {"graph": 1.0, "worker": 2.0, "server": 3.0}
    run = {"ticks_per_second": 50_000.0, "cpu_us_per_tick": cpu}
    times = {"median": 31.0, "least": 29.0, "most": 33.0}
    figures = {"full_load": {"product": run, "bytewax": run}, "times": {"bytewax": times}}
    figures["keeps"] = {"product": list(peers_bench.PROMISES), "bytewax": ["order", "bytes"]}
    ours, theirs = peers_bench.table(figures).splitlines()[1:]
    assert ours.split()[-3:] == ["yes", "yes", "yes"]
    assert theirs.split()[-3:] == ["no", "yes", "yes"] and "29.0-33.0" in theirs
