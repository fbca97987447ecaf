"""The archive holds what was decided on, so every decision can be made again, byte for byte; what was changed shows."""

import json

import pytest

from scheduler.hotpath.audit_chain import ROOT, chain
from worker.hotpath.archive import records
from worker.hotpath.replay import replay


async def history(fleet):
    """A dry run, tuning, orders, a world that turns worse, a change of leader, and one that begins anew."""
    leader = await fleet.tuning()
    await fleet.until(leader, lambda: leader.term.engine.proposer.iteration() >= 2)
    await fleet.order(leader, "pin", knob="window_ms", value=30.0, jump=False)
    await fleet.order(leader, "unpin", knob="window_ms")
    await fleet.order(leader, "pin", knob="speed", value=1.0)
    await fleet.order(leader, "pause")
    await fleet.order(leader, "resume")
    await fleet.until(leader, lambda: leader.term.engine.executor.phase == "minus")
    await fleet.end_lease()
    leader = fleet.leader("second")
    fleet.world = lambda knobs: 100.0 + 3000.0 * (knobs.window_s != 0.04)
    for _ in range(40):
        await fleet.window(leader)
    await fleet.order(leader, "freeze", on=True)
    await fleet.order(leader, "freeze", on=False)
    await fleet.order(leader, "dry-run-on")
    for _ in range(6):
        await fleet.window(leader)
    await leader.release()
    leader = fleet.leader("third")
    leader.fresh = True
    for _ in range(4):
        await fleet.window(leader)
    await leader.release()


async def test_every_decision_is_made_again_byte_for_byte(open_fleet):
    async with open_fleet() as fleet:
        await history(fleet)
        found = replay(fleet.directory)
        assert found.agrees, json.dumps(found.difference)[:3000]
        assert (found.terms, found.before_the_first_term) == (3, 0)
        assert found.proposals >= 8
        kinds = {json.loads(event)["event_type"] for _, event in records(fleet.directory)}
        assert {"apply", "rollback", "abort", "command", "proposal", "leader_changed", "baseline_set"} <= kinds
        assert found.events == sum(b'"event_type":"inputs"' not in event for _, event in records(fleet.directory))


def rewritten(directory, change):
    """The archive with other events, its chain made whole again: somebody who covers up what they did."""
    written = list(records(directory))
    for path in directory.glob("audit-*.log"):
        path.unlink()
    lines, _ = chain([name.encode() + b" " + event for name, event in change(written)], ROOT)
    head = json.dumps({"after": "0-0", "fleet": "x", "previous": ROOT.hex()}).encode() + b"\n"
    (directory / "audit-1-0.log").write_bytes(head + b"".join(lines))


def place_of(written, kind):
    return next(at for at, (_, event) in enumerate(written) if f'"event_type":"{kind}"'.encode() in event)


def changed_apply(written):
    at = place_of(written, "apply")
    written[at] = (written[at][0], written[at][1].replace(b'"kind":"ApplyPlus"', b'"kind":"ApplyMinus"'))
    return written


def left_out(written):
    del written[place_of(written, "rollback")]
    return written


def added(written):
    at = place_of(written, "apply")
    return [*written[: at + 1], ("9-9", written[at][1]), *written[at + 1 :]]


def other_measurement(written):
    at = next(at for at, (_, event) in enumerate(written) if b'"kind":"window"' in event)
    name, event = written[at]
    assert b'"p95_ms":' in event
    start = event.index(b'"p95_ms":') + len(b'"p95_ms":')
    end = event.index(b",", start)
    return [*written[:at], (name, event[:start] + b"1.0" + event[end:]), *written[at + 1 :]]


@pytest.mark.parametrize("change", [changed_apply, left_out, added, other_measurement])
async def test_the_first_difference_is_told(open_fleet, change):
    async with open_fleet() as fleet:
        await history(fleet)
        rewritten(fleet.directory, change)
        found = replay(fleet.directory)
        assert not found.agrees and found.difference["id"]
        assert found.difference["made_again"] or found.difference["written_down"]


def test_an_empty_archive_agrees(tmp_path):
    found = replay(tmp_path)
    assert found.agrees and found.terms == found.events == 0
