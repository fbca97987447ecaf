"""A bench for the tuner: an engine, a clock that the test owns, and a world that answers."""

import dataclasses
import random

import pytest

from scheduler.hotpath import (
    AdaptiveEngine,
    AdaptiveEngineConfig,
    AtomicConfig,
    Guardrails,
    NoChange,
    SafetyExecutor,
    TelemetryDigest,
)
from scheduler.hotpath.control_safety import ControlRules
from scheduler.hotpath.errors import Violation

DIGEST_US = 100_000


class Bench:
    """Feeds an engine one digest every 100 ms and applies what it proposes."""

    def __init__(self, engine, world=lambda live, now_us: 1.0, sigma=0.0, seed=0):
        self.engine, self.world, self.sigma = engine, world, sigma
        self.noise = random.Random(seed)
        self.now_us = 0
        self.refused = []

    def digest(self, **changes):
        live, generation = self.engine.snapshot().params, self.engine.snapshot().generation
        value = self.world(live, self.now_us) + (self.noise.gauss(0, self.sigma) if self.sigma else 0.0)
        digest = TelemetryDigest(DIGEST_US, value, 10, self.now_us, generation)
        return dataclasses.replace(digest, **changes) if changes else digest

    def observe(self, **changes):
        """One digest, without applying the answer."""
        self.now_us += DIGEST_US
        return self.engine.observe(self.digest(**changes), self.now_us)

    def step(self, **changes):
        proposal = self.observe(**changes)
        self.apply(proposal)
        return proposal

    def steps(self, count, **changes):
        return [self.step(**changes) for _ in range(count)]

    def until(self, kind, limit=100):
        """Steps until a proposal of that kind has been applied."""
        return next(proposal for proposal in (self.step() for _ in range(limit)) if isinstance(proposal, kind))

    def apply(self, proposal):
        if isinstance(proposal, NoChange):
            return
        try:
            self.engine.apply(proposal, self.now_us)
        except Violation as violation:
            self.refused.append(violation)

    @property
    def theta(self):
        return self.engine.executor.centre


def quadratic(live, now_us=0):
    return (live[0] - 0.3) ** 2 + (live[1] - 0.7) ** 2


@pytest.fixture
def bench():
    """Makes a bench; keywords go to the engine's config, `h` to the flip hysteresis."""

    def make(world=quadratic, sigma=0.0, noise_seed=0, start=(0.5, 0.5), baseline=True, registry=None, **config):
        engine = AdaptiveEngine(AdaptiveEngineConfig(**config), start, registry)
        if baseline:
            engine.set_baseline(0)
            engine.drain_audit()
        return Bench(engine, world, sigma, noise_seed)

    return make


@pytest.fixture
def executor():
    """Makes an executor with a baseline; a preset or guardrails, `h` for the flip hysteresis."""

    def make(guardrails=None, start=(0.5, 0.5), baseline=True, h=0.03, **changes):
        guardrails = dataclasses.replace(guardrails or Guardrails(), **changes)
        made = SafetyExecutor(AtomicConfig(start), guardrails, control_rules=ControlRules(flip_hysteresis=h))
        if baseline:
            made.set_baseline(0)
            made.audit_queue.drain()
        return made

    return make
