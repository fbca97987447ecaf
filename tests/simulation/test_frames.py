"""The same histories with frames in the log: deaths, takeovers and the search for a deadly tick end inside of them."""

import re
from dataclasses import replace

import pytest

from state_store.contract import tick_fields
from state_store.frames import encode_frame
from tests.simulation.history import History
from tests.simulation.producers import Feed
from tests.simulation.server import Server
from tests.simulation.test_simulation import calm_and_short, doomed, play
from tests.simulation.toy import DEADLY_VALUE

PLAIN = re.compile(rb"-?\d+\.\d+")  # nothing else can be in a frame


@pytest.fixture(autouse=True)
def in_frames(monkeypatch):
    """What a producer's call brings lies in the log as one entry."""
    alone, ingest, tick, call, sizes = Server.append, Server.ingest, Feed.tick, [], []

    def append(server, home, fields):
        if call and fields.keys() == {b"a", b"y", b"t"} and PLAIN.fullmatch(fields[b"y"]):
            call[-1].append((fields[b"a"], float(fields[b"y"]), int(fields[b"t"])))
        else:
            put(server, home)
            alone(server, home, fields)

    def put(server, home):
        if call and (ticks := call[-1]):
            sizes.append(len(ticks))
            alone(server, home, {b"n": b"%d" % len(ticks), b"f": encode_frame(*zip(*ticks, strict=True))})
            server.taken[home] += in_turn(server.taken[home].pop()[0], ticks)
            ticks.clear()

    def ingest_frames(server, home, *words):
        call.append([])
        try:
            answer = ingest(server, home, *words)
            put(server, home)
            return answer
        finally:
            call.pop()

    def with_point(feed, *asset):
        fields = tick(feed, *asset)
        return fields | {b"y": repr(float(fields[b"y"])).encode()}

    def send_deadly(history):
        producer = history.numbered[0]
        producer._add(producer.feed.tick() | {b"y": repr(float(DEADLY_VALUE)).encode()})

    monkeypatch.setattr(Server, "append", append)
    monkeypatch.setattr(Server, "ingest", ingest_frames)
    monkeypatch.setattr(Feed, "tick", with_point)
    monkeypatch.setattr(History, "_send_deadly", send_deadly)
    yield
    assert max(sizes) > 3


def in_turn(entry_id, ticks):
    """A frame's ticks as the judge knows them, as if each had been sent alone."""
    opening, _, last = entry_id.partition(b"-")
    for sequence, tick in enumerate(ticks, int(last) + 1 - len(ticks)):
        words = tick_fields(*tick)
        yield opening + b"-%d" % sequence, dict(zip(words[0::2], words[1::2], strict=True))


def test_every_history_with_frames_ends_with_the_bytes_of_a_calm_process():
    for seed in range(1, 60):
        play(seed)


def test_a_deadly_tick_inside_a_frame_is_found_and_only_that():
    for seed in range(1, 8):
        play(seed, change=lambda plan: replace(calm_and_short(plan), events=("deadly tick",), workers_max=200))


@pytest.mark.parametrize("act", ["kill", "zombie"])
def test_a_fleet_survives_that_a_worker_dies_amid_a_frame(act):
    for seed in range(1, 4):
        play(seed, change=lambda plan: doomed(plan, f"{act} at a point"))
