"""The names that dashboards rely on, their closed labels, and the rights that a worker needs."""

import asyncio
from pathlib import Path

from state_store.hotpath.commit import HotpathCommit
from state_store.hotpath.store import HotpathStore
from state_store.logs import Looking
from worker.hotpath.metrics import HotpathMetrics
from worker.metrics import Metrics

ACL = Path(__file__).parents[2] / "deploy" / "acl"
NAMES = {
    "generation", "phase", "iteration", "gain_a", "perturbation_c", "knob", "objective", "objective_ref", "sigma_y",
    "margin", "proposals", "violations", "digests", "rollbacks", "safe_mode", "audit_depth", "audit_dropped",
    "lease_held", "fence", "worker_lag_generations", "probe_expired", "knob_at_bound",
}  # fmt: skip


def test_every_metric_has_its_name_and_is_on_the_workers_page():
    metrics = Metrics()
    assert {f"hotpath_{name}" for name in NAMES} <= {family.name for family in metrics.registry.collect()}
    page = metrics.page().decode()
    for line in (
        'hotpath_safe_mode{reason="audit_queue_full"} 0.0',
        'hotpath_digests_total{validity="quarantined"} 0.0',
        'hotpath_violations_total{kind="DirectionFlipViolation"} 0.0',
        'hotpath_knob{kind="baseline",knob="read_ahead"} 0.0',
    ):
        assert line in page


def test_what_is_not_in_a_list_is_other():
    metrics = HotpathMetrics()
    for number in range(50):
        metrics.violations.add(f"kind {number}")
    values = {sample.labels.get("kind") for family in metrics._registry.collect() for sample in family.samples}
    assert "other" in values and not any("kind 1" in str(value) for value in values)


async def test_a_worker_may_lead_with_its_own_rights_and_a_reader_may_not(server):
    async with Looking(server.url) as looking:
        for role in ("worker", "operator", "reader"):
            _, name, *rules = (ACL / f"{role}.acl").read_text().split()
            await looking.ask("ACL", "SETUSER", name, *rules, ">secret")
    url = server.url.replace("redis://", "redis://{}:secret@")
    worker, operator = HotpathStore(url.format("usp-worker")), HotpathStore(url.format("usp-operator"))
    leadership = await worker.lead("w", "nonce", 60_000)
    commit = HotpathCommit("safe", "one", 0, 1, b"d", b"{}", "observe", (b"{}",), (("order", b"{}"),), ("old",))
    assert (await worker.commit(leadership, commit)).outcome.took_effect
    await worker.follow("w", "{}", 0, 0)
    await worker.news.hear(1)
    await worker.announce_numbers()
    assert await worker.news.hear(1000) == {"numbers"}
    assert await worker.replicas.minimum() == 0  # it may not ask
    assert (await worker.replicas.confirm("one", 0)).enough
    await worker.send_digest("w", b"x")
    await operator.give(b"x")
    await worker.look("0-0", "0-0", ["gone"])
    await worker.note([b"{}"], b"{}")
    entries = await worker.unarchived("0-0")
    assert await worker.archived(leadership, entries[-1][0], "00", 1)
    await worker.load()
    assert await operator.answer("order") == b"{}"
    await operator.freeze("why")
    assert (await operator.show(10)).frozen
    await operator.freeze("")
    await worker.leave("w")
    await worker.release(leadership)
    async with Looking(url.format("usp-reader")) as reading:
        refused = 0
        for words in (("HGETALL", worker.keys.config), ("XADD", worker.keys.commands, "*", "c", "x")):
            try:
                await reading.ask(*words)
            except Exception:
                refused += 1
        assert refused == 2
    await asyncio.gather(worker.close(), operator.close())
