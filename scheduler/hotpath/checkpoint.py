"""What an executor must not forget when another process takes over, as JSON values."""

from dataclasses import asdict

from scheduler.hotpath.config import ConfigSnapshot
from scheduler.hotpath.executor import SafetyExecutor
from scheduler.hotpath.safe_mode import SafeMode, SafeModeReason

_PLAIN = ("phase", "applied_us", "rolled_back_us", "paused_us", "margin", "objective", "defects", "now_us")


def save(executor: SafetyExecutor) -> dict:
    """Describes an executor; equal states give equal values."""
    snapshot, baseline, latch = executor.snapshot(), executor.baseline, executor.safe_mode
    return {
        **{name: getattr(executor, name) for name in _PLAIN},
        "params": snapshot.params,
        "generation": snapshot.generation,
        "centre": executor.centre,
        "baseline": None if baseline is None else [baseline.params, baseline.generation],
        "safe_mode": None if latch is None else asdict(latch) | {"reason": latch.reason.value},
        "breaker_us": list(executor.breaker.times_us),
        "accepted_us": list(executor.rate.accepted_us),
        "pins": sorted(executor.pins.items()),
        "ruler": executor.ruler,
        "told": sorted(executor.told),
        "next_seq": executor.audit_queue.next_seq,
        "control_safety": executor.control_safety.checkpoint(),
    }


def load(executor: SafetyExecutor, state: dict) -> None:
    """Fills a new executor; trackers, latch and breaker go on where they were."""
    executor.continue_from(ConfigSnapshot(tuple(state["params"]), state["generation"]))
    for name in _PLAIN:
        setattr(executor, name, state[name])
    executor.centre = tuple(state["centre"])
    if state["baseline"] is not None:
        params, generation = state["baseline"]
        executor.baseline = ConfigSnapshot(tuple(params), generation)
    if state["safe_mode"] is not None:
        executor.safe_mode = SafeMode(**state["safe_mode"] | {"reason": SafeModeReason(state["safe_mode"]["reason"])})
    executor.breaker.times_us.extend(state["breaker_us"])
    executor.rate.accepted_us.extend(state["accepted_us"])
    executor.pins = {int(index): value for index, value in state["pins"]}
    executor.ruler = state.get("ruler", "")  # not in checkpoints of versions before
    executor.told = {(kind, name) for kind, name in state["told"]}
    executor.audit_queue.next_seq = state["next_seq"]
    executor.control_safety.restore(state["control_safety"])
