import hashlib
import json
import math
import os
import random
import statistics
import subprocess
import sys

import pytest

from scheduler.hotpath import AdaptiveEngine, AdaptiveEngineConfig, Spsa, SpsaConfig
from scheduler.hotpath.control_safety import ControlRules
from scheduler.hotpath.proposal import encode

PURE = SpsaConfig(k_floor=None)


def descend(seed, target, cycles, noise, config=PURE):
    """The bare optimiser on a parabola: clipped steps in the unit box; yields the centre after each cycle."""
    spsa, theta = Spsa(seed, len(target), config=config), (0.5,) * len(target)
    for _ in range(cycles):
        delta = spsa.generate_perturbation()
        spsa.start_plus_perturbation(delta)
        for side in (1, -1):
            live = [x + side * change for x, change in zip(theta, delta, strict=True)]
            clean = sum((x - best) ** 2 for x, best in zip(live, target, strict=True))
            for _ in range(5):
                spsa.record_objective(clean + noise())
            found = spsa.complete_eval_window()
        theta = tuple(min(max(x + min(max(way, -0.1), 0.1), 0.0), 1.0) for x, way in zip(theta, found[1], strict=True))
        yield theta


def distances(seeds, target, cycles, sigma):
    found = []
    for seed in seeds:
        noise = random.Random(seed)
        *_, theta = descend(seed, target, cycles, lambda noise=noise: noise.gauss(0, sigma))
        found.append(math.dist(theta, target))
    return sorted(found)


def test_two_knobs_converge_under_noise():
    found = distances(range(200), (0.3, 0.7), 200, 0.01)
    assert statistics.median(found) <= 0.04
    assert found[189] <= 0.075
    assert found[-1] <= 0.10


def test_five_knobs_converge_under_noise():
    found = distances(range(100), (0.3, 0.7, 0.4, 0.6, 0.2), 200, 0.01)
    assert statistics.median(found) <= 0.06
    assert found[-1] <= 0.12


def test_a_noisy_path_is_reproduced_to_the_ninth_digit():
    source = random.Random(42)
    path = list(descend(42, (0.3, 0.7), 200, lambda: 0.01 * (sum(source.random() for _ in range(12)) - 6)))
    assert path[0] == pytest.approx((0.464372859718, 0.535627140282), abs=1e-9)
    assert path[1] == pytest.approx((0.442472571884, 0.557527428116), abs=1e-9)
    assert path[2] == pytest.approx((0.442236559952, 0.557763440048), abs=1e-9)
    assert path[199] == pytest.approx((0.329913563452, 0.673121697962), abs=1e-9)
    assert math.dist(path[199], (0.3, 0.7)) == pytest.approx(0.040215, abs=1e-6)


def test_without_noise_the_optimum_is_reached():
    path = list(descend(42, (0.3, 0.7), 1000, lambda: 0.0))
    assert math.dist(path[199], (0.3, 0.7)) == pytest.approx(0.010807, abs=1e-6)
    assert math.dist(path[999], (0.3, 0.7)) <= 0.001


def test_on_a_constant_objective_the_centre_never_moves(bench):
    loop = bench(world=lambda live, now_us: 1.0)
    loop.steps(1_100)
    engine = loop.engine
    assert engine.proposer.iteration() == 100
    assert loop.theta == (0.5, 0.5)
    assert engine.executor.safe_mode is None and not loop.refused
    assert not any(flips.flips_us for flips in engine.executor.control_safety.flips)


def run(bench, seed, seconds, sigma, world=None, **config):
    """A full engine for a while; returns the bench, and how often it was frozen and rolled back."""
    options = {"spsa": PURE, **config}
    loop = bench(sigma=sigma, noise_seed=seed, seed=seed, **({"world": world} if world else {}), **options)
    counts = {"safe_mode_entered": 0, "rollback": 0}
    for _ in range(seconds // 10):
        loop.steps(100)
        for event in loop.engine.drain_audit():
            if event.event_type.value in counts:
                counts[event.event_type.value] += 1
    return loop, counts


def test_a_quiet_world_is_tuned_without_a_single_alarm(bench):
    for seed in range(16):
        loop, counts = run(bench, seed, 600, 0.01)
        assert loop.engine.proposer.iteration() == 545
        assert counts == {"safe_mode_entered": 0, "rollback": 0}
        assert math.dist(loop.theta, (0.3, 0.7)) <= 0.07


def moving(live, now_us):
    best = (0.3, 0.7) if now_us < 300_000_000 else (0.8, 0.2)
    return sum((x - there) ** 2 for x, there in zip(live, best, strict=True))


def test_a_world_that_changes_costs_one_rollback_and_one_pause_and_is_tuned_again(bench):
    for seed in range(8):
        loop, counts = run(bench, seed, 900, 0.01, world=moving)
        assert counts == {"safe_mode_entered": 1, "rollback": 2}, seed
        assert len(loop.engine.executor.breaker.times_us) == 1
        assert math.dist(loop.theta, (0.8, 0.2)) <= 0.10


def test_a_threshold_that_knows_the_noise_rarely_rolls_back_for_nothing(bench):
    rollbacks = []
    for seed in range(8):
        loop, counts = run(bench, seed, 600, 0.03)
        assert not (loop.engine.executor.safe_mode and loop.engine.executor.safe_mode.manual)
        rollbacks.append(len(loop.engine.executor.breaker.times_us))
    assert max(rollbacks) <= 1 and sum(rollbacks) <= 3


def test_a_threshold_blind_to_the_noise_trips_the_breaker(bench):
    for seed in range(4):
        loop, _ = run(bench, seed, 600, 0.03, control=ControlRules(regression_z=0.0))
        assert len(loop.engine.executor.breaker.times_us) == 5
        assert loop.engine.executor.safe_mode.manual


def tracking_error(seed, k_floor):
    """How far behind a moving optimum the centre stays, second half of 2000 cycles."""
    noise, spsa = random.Random(seed), Spsa(seed, 2, config=SpsaConfig(k_floor=k_floor))
    theta, errors = (0.5, 0.5), []
    for k in range(2_000):
        best = 0.5 + 0.2 * math.sin(2 * math.pi * k / 500)
        delta = spsa.generate_perturbation()
        spsa.start_plus_perturbation(delta)
        for side in (1, -1):
            clean = sum((x + side * change - best) ** 2 for x, change in zip(theta, delta, strict=True))
            for _ in range(5):
                spsa.record_objective(clean + noise.gauss(0, 0.005))
            found = spsa.complete_eval_window()
        theta = tuple(min(max(x + way, 0.0), 1.0) for x, way in zip(theta, found[1], strict=True))
        if k >= 1_000:
            errors.append(sum((x - best) ** 2 for x in theta))
    return math.sqrt(statistics.fmean(errors))


def test_a_moving_optimum_is_followed_thanks_to_the_floor_of_the_gains():
    assert statistics.median(tracking_error(seed, 20) for seed in range(10)) <= 0.11
    assert statistics.median(tracking_error(seed, None) for seed in range(10)) >= 0.17


def fingerprint(loop, count, shift_us=0):
    """The hash of all proposals and audit events of a run."""
    loop.now_us += shift_us
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(encode(loop.step()))
    return digest.hexdigest()


def test_the_same_seed_and_digests_give_the_same_bytes(bench):
    runs = [bench(sigma=0.01, seed=seed) for seed in (1, 1, 2)]
    first, second, other = (fingerprint(loop, 400) for loop in runs)
    assert first == second != other
    histories = [b"\n".join(event.encode() for event in loop.engine.drain_audit()) for loop in runs]
    assert histories[0] == histories[1] != histories[2]


def test_a_shift_of_the_clock_changes_no_proposal(bench):
    assert fingerprint(bench(sigma=0.01), 400) == fingerprint(bench(sigma=0.01), 400, shift_us=10**12)


CONTINUE = """
import json, sys
from scheduler.hotpath import AdaptiveEngine, AdaptiveEngineConfig, NoChange, TelemetryDigest
from scheduler.hotpath.proposal import encode
given = json.load(sys.stdin)
engine = AdaptiveEngine.restore(AdaptiveEngineConfig(), given["checkpoint"])
for now_us, value in given["digests"]:
    digest = TelemetryDigest(100_000, value, 10, now_us, engine.snapshot().generation)
    proposal = engine.observe(digest, now_us)
    print(encode(proposal).decode())
    if not isinstance(proposal, NoChange):
        engine.apply(proposal, now_us)
print(json.dumps(engine.checkpoint()))
"""


@pytest.mark.parametrize("after", [0, 1, 3, 6, 8, 11, 25])
def test_a_checkpoint_continues_in_another_process_as_if_nothing_had_happened(bench, after):
    loop = bench()
    loop.steps(after)
    checkpoint = json.loads(json.dumps(loop.engine.checkpoint()))
    values = random.Random(after)
    digests = [(loop.now_us + 100_000 * i, values.random()) for i in range(1, 40)]
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    given = json.dumps({"checkpoint": checkpoint, "digests": digests})
    found = subprocess.run(
        [sys.executable, "-c", CONTINUE], input=given, env=environment, capture_output=True, text=True, check=True
    )
    expected = [encode(loop.step(objective_value=value)).decode() for _, value in digests]
    *proposals, state = found.stdout.splitlines()
    assert proposals == expected
    assert json.loads(state) == json.loads(json.dumps(loop.engine.checkpoint()))


def test_a_restored_engine_goes_on_with_the_generation(bench):
    loop = bench()
    loop.steps(12)
    restored = AdaptiveEngine.restore(AdaptiveEngineConfig(), json.loads(json.dumps(loop.engine.checkpoint())))
    assert restored.snapshot() == loop.engine.snapshot()
