"""A worker believes only what is whole, newer and within its limits, and leaves a probe by itself."""

import hashlib
import json
from dataclasses import replace

import pytest

from scheduler.batching import BatchLimits
from worker.hotpath.document import Document
from worker.hotpath.follower import Follower
from worker.hotpath.knobs import REGISTRY, Knobs, turned

BASE = Knobs(BatchLimits(), 0.0)
CENTRE = {"window_ms": 10.0, "ticks_max": 1000, "read_ahead": 5000}
LIVE = {"window_ms": 12.5, "ticks_max": 1100, "read_ahead": 6000}
DOCUMENT = Document("usp", 7, 100, "plus", CENTRE, LIVE, 30_000, 0, REGISTRY.hash64, 1)


@pytest.fixture
def follower(tmp_path):
    swaps = []
    made = Follower("usp", BASE, lambda knobs, now_s: swaps.append((knobs, now_s)), tmp_path / "kept" / "document.json")
    made.swaps = swaps
    return made


def sealed(body):
    """A document of these fields with a checksum that fits."""
    text = json.dumps({k: v for k, v in body.items() if k != "sha256"}, sort_keys=True, separators=(",", ":"))
    return json.dumps(body | {"sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()


def changed(**changes):
    body = json.loads(DOCUMENT.encode())
    return sealed(body | changes)


def test_a_sound_document_becomes_one_new_value(follower):
    assert follower.offer(DOCUMENT.encode(), 5.0)
    knobs = follower.knobs
    assert (knobs.window_s, knobs.limits.ticks_max, knobs.limits.buffered_max) == (0.0125, 1100, 6000)
    assert (knobs.pair, follower.swaps) == ((100, 7), [(knobs, 5.0)])
    assert sealed(json.loads(DOCUMENT.encode())) == changed()


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [
        (b"not JSON", "unreadable"),
        (b"[" * 100_000, "unreadable"),
        (b"[1]", "unreadable"),
        (changed(surprise=1), "unreadable"),
        (changed(schema=2), "schema"),
        (DOCUMENT.encode().replace(b"12.5", b"12.6"), "checksum"),
        (changed(fleet="other"), "fleet"),
        (changed(registry=1), "registry"),
        (changed(live=LIVE | {"window_ms": 100.1}), "limits"),
        (changed(centre=CENTRE | {"ticks_max": 63}), "limits"),
        (changed(live=LIVE | {"ticks_max": 100.5}), "limits"),
        (changed(live=LIVE | {"ticks_max": True}), "limits"),
        (changed(live=LIVE | {"window_ms": float("nan")}), "limits"),
        (changed(live={"window_ms": 1.0}), "limits"),
        (changed(fence=99, generation=9), "order"),
        (changed(generation=6), "order"),
        (changed(), "order"),
    ],
)
def test_what_is_not_sound_or_not_newer_is_counted_and_changes_nothing(follower, encoded, kind):
    follower.offer(DOCUMENT.encode(), 0.0)
    before = follower.knobs
    assert not follower.offer(encoded, 1.0)
    assert follower.refused == {kind: 1}
    assert follower.knobs is before and len(follower.swaps) == 1


def test_a_smaller_generation_of_a_newer_leader_is_newer(follower):
    follower.offer(DOCUMENT.encode(), 0.0)
    assert follower.offer(replace(DOCUMENT, fence=101, generation=2).encode(), 1.0)


def test_cut_off_in_a_probe_it_returns_to_the_centre_by_itself(follower):
    follower.offer(DOCUMENT.encode(), 0.0)
    follower.check(30.0)
    assert follower.knobs.window_s == 0.0125
    follower.check(30.001)
    assert follower.knobs == replace(turned(BASE, CENTRE, 0, 0))
    assert follower.expired == 1
    follower.check(99.0)
    assert follower.expired == 1 and len(follower.swaps) == 2


def test_word_of_a_live_leader_keeps_the_probe(follower):
    follower.offer(DOCUMENT.encode(), 0.0)
    for now_s in range(1, 100):
        follower.hear(float(now_s), confirmed=True, frozen=False, configured=True)
        follower.check(now_s + 29.0)
    assert follower.expired == 0
    follower.hear(100.0, confirmed=False, frozen=False, configured=True)
    follower.check(130.0)
    assert follower.expired == 1


def test_cut_off_at_a_centre_it_stays_for_ever(follower):
    follower.offer(replace(DOCUMENT, phase="centre", live=CENTRE).encode(), 0.0)
    follower.check(1e9)
    assert follower.expired == 0 and follower.knobs.window_s == 0.01


def test_frozen_it_runs_with_its_own_settings_and_follows_again_afterwards(follower):
    follower.offer(DOCUMENT.encode(), 0.0)
    follower.hear(1.0, True, True, True)
    assert follower.knobs is BASE
    assert follower.offer(replace(DOCUMENT, generation=8).encode(), 2.0)
    assert follower.knobs is BASE
    follower.hear(3.0, True, False, True)
    assert follower.knobs.pair == (100, 8)


def test_started_without_redis_it_takes_the_centre_of_the_last_good_document(follower):
    follower.offer(DOCUMENT.encode(), 0.0)
    again = Follower("usp", BASE, lambda knobs, now_s: None, follower.file)
    again.remember(0.0)
    assert again.knobs.window_s == 0.01
    follower.file.write_bytes(b"torn")
    torn = Follower("usp", BASE, lambda knobs, now_s: None, follower.file)
    torn.remember(0.0)
    assert torn.knobs is BASE


def test_a_fleet_made_anew_means_its_own_settings(follower):
    follower.offer(DOCUMENT.encode(), 0.0)
    follower.hear(1.0, True, False, configured=False)
    assert follower.knobs is BASE and follower.pair == (0, 0)


def test_read_ahead_is_never_less_than_a_micro_batch_may_take():
    knobs = turned(BASE, {"window_ms": 0.0, "ticks_max": 9000, "read_ahead": 300}, 1, 1)
    assert knobs.limits.buffered_max == 9000
