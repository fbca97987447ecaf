"""The tuner as operators see it: where it stands, what it decided and why, and how far it is from its baseline."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from scheduler.hotpath import AdaptiveEngine
from scheduler.hotpath.errors import BadCheckpoint
from scheduler.hotpath.trial import Trial
from state_store.hotpath.store import Shown
from worker.hotpath.engine import Gains, engine_config
from worker.hotpath.knobs import REGISTRY, at_bound, natives_of
from worker.settings import Settings

DECISIONS = 20
NOT_DECISIONS = ("digest",)  # and proposals, unless of a dry run: what became of them is told too


def status(settings: Settings, shown: Shown) -> dict[str, Any]:
    """Everything of note, as plain values."""
    report = json.loads(shown.report)
    facts: dict[str, Any] = {
        "leader": shown.leader.owner or None,
        "lease_left_s": shown.leader.left_ms / 1000,
        "mode": "frozen" if shown.frozen else shown.loaded.mode,
        "generation": shown.loaded.generation,
        "fence": shown.loaded.fence,
        "workers": report.get("workers", {}),
        "audit_waiting": shown.loaded.audit_length,
        "audit_archived": shown.loaded.archived,
        "replicas": report.get("replicas", {}),
    }
    state = _state(shown)
    if state is None:
        return facts | {"next": "nobody has led yet", "knobs": [], "measured": {}, "dry_run": {}}
    try:
        engine = _engine(settings, state)
    except BadCheckpoint as error:
        return facts | {"next": f"refused: {error}", "knobs": [], "measured": {}, "dry_run": {}}
    return facts | _engine_facts(settings, engine, report, shown)


def canary(shown: Shown) -> dict[str, Any]:
    """The trial or watch under way, if any, and how the last one ended."""
    state = (_state(shown) or {}).get("canary") or {}
    trial = Trial.restore(state["trial"]) if state.get("trial") else None
    proposes, trials = state.get("knobs", []), state.get("trials", 0)
    watching = state.get("former") is not None
    facts: dict[str, Any] = {"trying": bool(trial), "watching": watching, "proposes": proposes, "trials": trials}
    facts |= {"pinned": state.get("pins", [])}
    if trial is not None:
        scored = [sums.scored for sums in trial.sums]
        candidate, control = ("former", "promoted") if trial.watch else ("candidate", "control")
        facts |= {
            candidate: trial.candidate,
            control: trial.control,
            "round": trial.round + 2,
            "rounds": trial.rules.rounds + 1,
            "groups": trial.rules.groups,
            "group_trying": None if trial.turn < 0 else trial.turn,
            "in_force": state.get("wants") is None,
            "forecasts": [min(scored), trial.rules.scored_min],
            "worse_by": trial.worse_by(),
        }
    return facts | {"last": state.get("last", {})}


def model(shown: Shown) -> str:
    """Where the numbers of the predictor stand, in one line."""
    facts = canary(shown)
    if facts["trying"]:
        watching = f"watching {_pairs(facts['promoted'])}" if facts["watching"] else ""
        doing, tried = (watching, "the former numbers") if watching else (f"trying {_pairs(facts['candidate'])}", "it")
        holder = "nobody" if facts["group_trying"] is None else f"group {facts['group_trying']} of {facts['groups']}"
        return f"{doing}, round {facts['round']} of {facts['rounds']}: {holder} has {tried}"
    last = facts["last"]
    told = f"the last was {_pairs(last['candidate'])}: {last['kind']}, {last['told']}" if last else "none was tried yet"
    return "no canary is under way; " + told


def difference(settings: Settings, shown: Shown) -> list[dict[str, Any]]:
    """Each knob at its baseline, at the centre, as it is live, and as this worker's settings say."""
    state = _state(shown)
    return [] if state is None else _knobs(settings, _engine(settings, state))


def decisions(shown: Shown, count: int = DECISIONS) -> list[dict[str, Any]]:
    """The newest decisions, the newest first: what, by whom, and why."""
    return list(_decisions(shown))[:count]


def _decisions(shown: Shown) -> Iterator[dict[str, Any]]:
    for entry_id, encoded in shown.recent:
        event = json.loads(encoded)
        rehearsed = event["details"].get("dry_run")
        if event["event_type"] in NOT_DECISIONS or (event["event_type"] == "proposal" and not rehearsed):
            continue
        when = datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)
        yield {
            "at": when.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "event": event["event_type"],
            "generation": event["generation"],
            "actor": event["actor"],
            "why": _why(event),
        }


def _why(event: dict[str, Any]) -> str:
    details = event["details"]
    words = [event["cause"]] if event["cause"] else []
    named = ("command", "refused", "what", "kind", "reason", "exit", "told", "candidate", "numbers", "instead_of")
    named += ("round", "turn", "number")
    words += [f"{name} {details[name]}" for name in named if details.get(name) not in (None, "", {})]
    if details.get("dry_run"):
        words.append("dry run")
    if "objective" in details:
        words.append("objective {objective:.4g} against {reference:.4g} + {threshold:.3g}".format(**details))
    if "live" in details:
        words.append(_natives(details["live"]))
    return ", ".join(map(str, words))


def _natives(vec: list[float]) -> str:
    return _pairs(REGISTRY.to_natives(tuple(vec)))


def _state(shown: Shown) -> dict[str, Any] | None:
    return json.loads(shown.loaded.checkpoint) if shown.loaded.checkpoint else None


def _engine(settings: Settings, state: dict[str, Any]) -> AdaptiveEngine:
    config = engine_config(settings.hotpath, Gains(**state["gains"]))
    return AdaptiveEngine.restore(config, state["engine"], REGISTRY)


def _engine_facts(
    settings: Settings, engine: AdaptiveEngine, report: dict[str, Any], shown: Shown
) -> dict[str, Any]:
    executor, spsa, k = engine.executor, engine.proposer.spsa, engine.proposer.iteration()
    regression, latch = executor.control_safety.regression, executor.safe_mode
    return {
        "phase": executor.phase,
        "iteration": k,
        "gain_a": spsa.learning_rate(k),
        "perturbation_c": spsa.perturbation_scale(k),
        "baseline_generation": None if executor.baseline is None else executor.baseline.generation,
        "safe_mode": None if latch is None else latch.reason.value,
        "safe_mode_manual": latch is not None and latch.manual,
        "objective_reference": regression.reference,
        "noise": regression.sigma,
        "knobs": _knobs(settings, engine),
        "measured": report.get("measured", {}),
        "digests": report.get("digests", {}),
        "dead_probes": report.get("dead_probes", {}),
        "without_influence": [REGISTRY.names[index] for index in engine.proposer.influence.without()],
        "dry_run": report.get("dry_run", {}),
        "canary": canary(shown),
        "next": _next(engine, report, shown),
    }


def _knobs(settings: Settings, engine: AdaptiveEngine) -> list[dict[str, Any]]:
    executor, own = engine.executor, natives_of(settings.worker)
    centre, live = REGISTRY.to_natives(executor.centre), REGISTRY.to_natives(engine.snapshot().params)
    baseline = REGISTRY.to_natives(executor.baseline.params) if executor.baseline else {}
    return [
        {
            "knob": knob.name,
            "unit": knob.unit,
            "settings": own[knob.name],
            "baseline": baseline.get(knob.name),
            "centre": centre[knob.name],
            "live": live[knob.name],
            "pinned": index in executor.pins,
            "at_bound": at_bound(executor.centre[index]),
        }
        for index, knob in enumerate(REGISTRY.knobs)
    ]


def _next(engine: AdaptiveEngine, report: dict[str, Any], shown: Shown) -> str:
    """What is waited for, and how long that may take."""
    now_us, mode = report.get("at_us", 0), report.get("mode", "")
    latch = engine.executor.safe_mode
    if shown.frozen:
        return "frozen: workers run with their own settings until predictor hotpath freeze --off"
    if not shown.leader.left_ms:
        return "no leader: a worker takes over when one runs"
    if latch is not None and latch.manual:
        return f"safe mode ({latch.reason.value}) until predictor hotpath reset-safe-mode"
    if latch is not None and latch.until_us is not None:
        return f"safe mode ({latch.reason.value}) for {_seconds(latch.until_us - now_us)}"
    if mode == "observe":
        return "dry run: nothing is changed until predictor hotpath dry-run off"
    if mode == "paused":
        return "paused until predictor hotpath resume"
    if report.get("gate"):
        return f"no new cycle: {report['gate']}"
    done, wanted = report.get("sides_digests", (0, 0))
    if report.get("deadline_us"):
        return f"measuring: {done} of {wanted} windows; given up in {_seconds(report['deadline_us'] - now_us)}"
    earliest_us = max(report.get("cooldown_end_us", 0), report.get("rate_end_us", 0))
    return f"the next probe in {_seconds(earliest_us - now_us)}" if earliest_us > now_us else "the next probe"


def _seconds(microseconds: int) -> str:
    return f"{max(0, microseconds) / 1e6:.0f} s"


def _pairs(numbers: dict[str, float]) -> str:
    return " ".join(f"{name}={_number(value)}" for name, value in numbers.items())


def _number(value: float) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
