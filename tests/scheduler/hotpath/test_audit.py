import itertools
import json

import pytest

from scheduler.errors import BadRules
from scheduler.hotpath import (
    AuditEvent,
    AuditPolicy,
    AuditQueue,
    EnqueueResult,
    EventType,
    NoChange,
    NoChangeReason,
    SafeModeReason,
    Update,
)
from scheduler.hotpath.audit import RESERVE, EventClass, Tier, check_policy
from scheduler.hotpath.audit_chain import ROOT, chain, verify
from scheduler.hotpath.errors import AuditQueueFull, InSafeMode

SECOND = 1_000_000
OK, MARK, FULL = EnqueueResult.OK, EnqueueResult.HIGH_WATER_MARK, EnqueueResult.FULL


def event(event_type=EventType.APPLY, timestamp_us=0):
    return AuditEvent(timestamp_us, event_type, 0)


def small(i):
    return Update(i, (0.001, 0.0), (0.0, 0.0))


def test_a_queue_warns_at_its_mark_and_refuses_when_full():
    queue = AuditQueue(10)
    assert [queue.enqueue(event()) for _ in range(12)] == [OK] * 7 + [MARK] * 3 + [FULL] * 2
    assert (queue.drop_count, len(queue)) == (2, 10)


@pytest.mark.parametrize(("capacity", "mark"), [(1, 1), (2, 2), (3, 3), (5, 4), (10, 8), (4096, 3277)])
def test_the_mark_is_at_four_fifths_rounded_up(capacity, mark):
    assert AuditQueue(capacity).mark == mark


def test_a_queue_without_room_is_refused():
    with pytest.raises(BadRules, match="capacity"):
        AuditQueue(0)


def test_no_change_happens_without_a_place_to_tell_of_it(executor):
    made = executor()
    made.audit_queue.capacity, made.audit_queue.mark = 5, 4
    for i in range(5):
        made.apply(small(i), i * SECOND)
    for i in (5, 6):
        with pytest.raises(AuditQueueFull):
            made.apply(small(i), i * SECOND)
    assert made.snapshot().generation == 5
    assert made.safe_mode.reason is SafeModeReason.AUDIT_QUEUE_FULL
    assert made.audit_queue.drops[EventClass.CRITICAL] == 2
    assert made.audit_queue.try_dequeue() and len(made.audit_queue) == 4
    with pytest.raises(InSafeMode):
        made.apply(small(7), 7 * SECOND)
    assert made.audit_queue.try_dequeue()
    assert made.apply(small(7), 7 * SECOND).new_generation == 6


def test_the_way_back_is_open_though_the_queue_is_full(executor):
    made = executor()
    made.audit_queue.capacity = 1
    made.apply(small(0), 0)
    for i in range(RESERVE + 3):
        made.rollback(i * SECOND, "ana", "again")
    assert made.snapshot().generation == 1 + RESERVE + 3
    assert made.audit_queue.drops[EventClass.SAFE] == 3


def test_events_come_out_in_the_order_in_which_they_happened():
    queue = AuditQueue(3)
    kinds = (EventType.APPLY, EventType.DIGEST, EventType.APPLY, EventType.ROLLBACK, EventType.ABORT, EventType.DIGEST)
    for timestamp_us, kind in enumerate(kinds):
        queue.enqueue(event(kind, timestamp_us))
    first = queue.try_dequeue()
    rest = queue.drain()
    assert [found.event_type for found in (first, *rest)] == list(kinds)
    assert [found.seq for found in (first, *rest)] == list(range(6))
    assert queue.try_dequeue() is None and queue.drain() == []


def test_a_thousand_cycles_leave_three_thousand_changes_without_a_gap(bench):
    loop = bench(world=lambda live, now_us: 1.0)
    first = loop.engine.executor.audit_queue.next_seq
    events = []
    for _ in range(1_000):
        loop.steps(11)
        events += loop.engine.drain_audit()
    assert [found.seq for found in events] == list(range(first, first + len(events)))
    applied = [found for found in events if found.event_type is EventType.APPLY]
    assert len(applied) == 3_000
    assert [found.generation for found in applied] == list(range(1, 3_001))
    assert all(found.run_id == "run" for found in applied)
    assert [found.proposal_id for found in applied[:4]] == ["run:0:plus", "run:0:minus", "run:0:update", "run:1:plus"]
    assert len({found.proposal_id for found in applied}) == 3_000
    details = json.loads(applied[2].details)
    assert {"kind", "delta", "gradient_estimate", "live", "apply_latency_us"} <= set(details)


@pytest.mark.parametrize("tier", [Tier.EXECUTOR, Tier.PROPOSER])
def test_only_offline_discovery_may_do_without_an_audit(tier):
    with pytest.raises(BadRules, match="disable"):
        check_policy(AuditPolicy.DISABLE, tier)
    assert check_policy(AuditPolicy.IN_MEMORY_REQUIRED, tier)
    assert check_policy(AuditPolicy.DISABLE, Tier.OFFLINE) is AuditPolicy.DISABLE


def test_a_flood_of_digests_stops_nothing(bench):
    loop = bench()
    queue = loop.engine.executor.audit_queue
    digest = event(EventType.DIGEST)
    for _ in range(1_000_000):
        queue.enqueue(digest)
    loop.steps(110)
    assert loop.engine.proposer.iteration() == 10 and not loop.refused
    assert queue.drops[EventClass.DIAGNOSTIC] >= 1_000_000 - queue.capacity
    assert queue.drops[EventClass.CRITICAL] == 0


def test_an_event_is_canonical_json():
    found = json.loads(event().encode())
    assert found["schema"] == 1 and found["event_type"] == "apply" and found["details"] == {}
    assert event().encode() == event().encode()


def test_operators_and_reasons_are_in_the_history(bench):
    loop = bench()
    loop.engine.pause(0, "ana", "maintenance")
    loop.engine.pause(0, "ana", "maintenance")
    loop.engine.resume(0, "bob", "done")
    told = [(e.actor, e.cause, json.loads(e.details)["command"]) for e in loop.engine.drain_audit()]
    assert told == [("ana", "maintenance", "pause"), ("bob", "done", "resume")]


RECORDS = [event(timestamp_us=i).encode() for i in range(5)]


def test_a_chained_archive_verifies_and_goes_on():
    first, head = chain(RECORDS[:2])
    rest, last = chain(RECORDS[2:], head)
    assert verify(first + rest) == (None, last) == (None, chain(RECORDS)[1])
    assert verify([]) == (None, ROOT)


@pytest.mark.parametrize("damage", ["changed", "missing", "swapped", "torn"])
def test_a_chain_shows_where_it_was_damaged(damage):
    lines, _ = chain(RECORDS)
    if damage == "changed":
        lines[2] = lines[2].replace(b'"timestamp_us":2', b'"timestamp_us":9')
    elif damage == "missing":
        del lines[2]
    elif damage == "swapped":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines[2] = lines[2][:30]
    assert verify(lines)[0] == 2


def test_a_nochange_costs_no_slot(executor):
    made = executor()
    before = len(made.audit_queue)
    for _ in itertools.repeat(None, 10):
        made.apply(NoChange(NoChangeReason.AWAITING_SAMPLES), 0)
    assert len(made.audit_queue) == before
