"""Holds the live configuration: one frozen object, replaced as a whole, read without a lock.

Whoever claims the config first is its only writer. In a fleet's leader that is the SafetyExecutor, and nobody else.
"""

import threading
from dataclasses import dataclass

from scheduler.hotpath.errors import NotTheWriter
from scheduler.hotpath.knobs import Vec


@dataclass(frozen=True)
class ConfigSnapshot:
    """The parameters in force, and the number of the change that brought them."""

    params: Vec
    generation: int = 0


class AtomicConfig:
    """Readers see either the old snapshot or the new one, never a mixture, and never an older one again."""

    def __init__(self, initial: Vec, generation: int = 0):
        self._snapshot = ConfigSnapshot(tuple(initial), generation)
        self._lock = threading.Lock()
        self._claimed = False

    def snapshot(self) -> ConfigSnapshot:
        """Returns the current object itself: one attribute read."""
        return self._snapshot

    @property
    def generation(self) -> int:
        return self._snapshot.generation

    def claim(self) -> "ConfigWriter":
        """Hands out the right to publish, once."""
        with self._lock:
            if self._claimed:
                raise NotTheWriter("this config has a writer already; changes go through its SafetyExecutor")
            self._claimed = True
        return ConfigWriter(self)


class ConfigWriter:
    """The right to publish; its holder is the only one who can change the config."""

    def __init__(self, config: AtomicConfig):
        self._config = config

    def update(self, params: Vec) -> int:
        """Publishes new parameters and returns their generation; number and parameters change together."""
        config = self._config
        with config._lock:
            config._snapshot = ConfigSnapshot(tuple(params), config._snapshot.generation + 1)
            return config._snapshot.generation

    def resume(self, snapshot: ConfigSnapshot) -> None:
        """Takes over where a checkpoint ends; the generation never becomes smaller."""
        config = self._config
        with config._lock:
            if snapshot.generation < config._snapshot.generation:
                raise NotTheWriter(
                    f"generation {snapshot.generation} of the checkpoint is older than {config._snapshot.generation}"
                )
            config._snapshot = snapshot
