"""The audit finds what it is there to find: in memory, and in the logs of a real server."""

import asyncio

import pytest

from state_store import EmbeddedRedis
from state_store.logs import Logs, Looking
from worker.audit import Audit
from worker.auditor import Auditor
from worker.demo import Seen, is_clean, summary
from worker.feeding import Sent

TICKS = [("1-0", "a", 10), ("1-1", "b", 10), ("2-0", "a", 20), ("3-0", "a", 30)]


def audited(ticks, predictions, letters=()):
    audit = Audit()
    for tick_id, asset, _ in ticks:
        audit.tick(0, tick_id, asset)
    for tick_id, asset, timestamp_ns in predictions:
        audit.prediction(0, tick_id, asset, timestamp_ns)
    for tick_id, asset, _ in letters:
        audit.dead_letter(0, tick_id, asset)
    return audit.missing, audit.duplicated, audit.out_of_order


def test_one_prediction_for_each_tick_in_order_is_clean():
    assert audited(TICKS, TICKS) == (0, 0, 0)


def test_the_order_of_reading_does_not_matter():
    audit = Audit()
    for tick_id, asset, timestamp_ns in TICKS:
        audit.prediction(0, tick_id, asset, timestamp_ns)
    assert audit.duplicated == 4
    for tick_id, asset, _ in TICKS:
        audit.tick(0, tick_id, asset)
    assert audit.clean and audit.accepted == 4


def test_a_tick_without_prediction_is_missing():
    assert audited(TICKS, TICKS[:-1]) == (1, 0, 0)


def test_a_dead_letter_is_an_answer():
    assert audited(TICKS, TICKS[:-1], TICKS[-1:]) == (0, 0, 0)


def test_a_prediction_and_a_dead_letter_for_one_tick_are_one_too_many():
    assert audited(TICKS, TICKS, TICKS[-1:]) == (0, 1, 0)


def test_a_prediction_without_tick_is_a_duplicate():
    assert audited(TICKS, [*TICKS, ("4-0", "b", 40)]) == (0, 1, 0)


def test_a_second_prediction_for_one_event_time_is_one_duplicate_whether_or_not_it_has_a_tick():
    assert audited(TICKS, [*TICKS, ("4-0", "a", 30)]) == (0, 1, 0)
    assert audited([*TICKS, ("4-0", "a", 30)], [*TICKS, ("4-0", "a", 30)]) == (0, 1, 0)


def test_a_prediction_under_another_asset_is_missing_and_unexpected():
    assert audited(TICKS, [*TICKS[:-1], ("3-0", "c", 30)]) == (1, 1, 0)


def test_an_event_time_that_goes_back_is_out_of_order():
    swapped = [("1-0", "a", 20), ("1-1", "b", 10), ("2-0", "a", 10), ("3-0", "a", 30)]
    assert audited(TICKS, swapped) == (0, 0, 1)


def test_ticks_that_were_sent_and_are_not_in_the_log_are_missing():
    result = summary(Sent(ticks=3, seconds=1.0), Seen(), Audit(), 2)
    assert result["missing"] == 3
    assert not is_clean(result)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as running:
        yield running


def written(server, namespace, entries):
    """Writes entries by hand, then reads everything back, in two goes."""

    async def run():
        async with Looking(server.url) as looking:
            auditor = Auditor(Logs(looking, namespace), 2)
            for number, (partition, log, tick_id, asset, timestamp_ns) in enumerate(entries):
                key = f"{namespace}:{{{partition}}}:{log}"
                await looking.ask("XADD", key, tick_id, "a", asset, "t", str(timestamp_ns))
                if number == len(entries) // 2:
                    await auditor.advance()
            await asyncio.gather(auditor.advance(), auditor.advance())  # at the same time: nothing counts twice
            return auditor.audit

    return asyncio.run(run())


def test_clean_logs_are_clean(server):
    both = [(0, "1-0", "a", 1), (1, "1-0", "b", 1), (0, "2-0", "a", 2)]
    entries = [(p, log, *rest) for p, *rest in both for log in ("ticks", "predictions")]
    audit = written(server, "clean", [*entries, (1, "ticks", "5-0", "", "x"), (1, "rejected", "5-0", "", 0)])
    assert audit.clean
    assert (audit.accepted, audit.predictions, audit.rejected) == (3, 3, 1)


def test_faults_in_real_logs_are_found(server):
    entries = [
        (0, "ticks", "1-0", "a", 1),
        (0, "ticks", "2-0", "a", 2),
        (0, "ticks", "3-0", "a", 3),
        (0, "predictions", "1-0", "a", 2),
        (0, "predictions", "2-0", "a", 1),  # goes back in time
        (0, "predictions", "4-0", "a", 4),  # has no tick; and 3-0 has no prediction
    ]
    audit = written(server, "faulty", entries)
    assert (audit.missing, audit.duplicated, audit.out_of_order) == (1, 1, 1)
    result = summary(Sent(ticks=3, seconds=1.0), Seen(predictions=3), audit, 1)
    assert not is_clean(result)
    assert list(result) == [
        "ticks_sent",
        "ticks_accepted",
        "predictions_read",
        "missing",
        "duplicated",
        "out_of_order",
        "ticks_per_second",
        "latency_ms",
        "workers",
    ]
