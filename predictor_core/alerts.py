"""Tells the events of a predictor's ticks to `logging` and `warnings`: once when an episode begins, not at every tick.

Pure but for the telling. The events of the gates end when the predictor is no longer degraded, so that a feed that is
late every second tick is told once; the others end when their bit does.
"""

import logging
import warnings
from typing import Any

from .errors import FrequencyWarning, StalenessWarning
from .result import Event

GATES = Event.StalenessWarning | Event.FrequencyWarning | Event.FrozenSignal | Event.DegradedInference
TEXTS = {
    Event.DomainError: (logging.ERROR, "a value is catastrophically far out: it is ignored, the last forecast stands"),
    Event.OutlierDetected: (logging.WARNING, "a value is far out: it is answered, and nothing is learnt from it"),
    Event.StalenessWarning: (logging.WARNING, "ticks are older on arrival than staleness_ttl_ns: weights stand still"),
    Event.FrequencyWarning: (logging.WARNING, "the gap between ticks is far longer than usual: weights stand still"),
    Event.FrozenSignal: (logging.WARNING, "the value has not moved for longer than it ever does: weights stand still"),
    Event.ModeDegradationAlert: (logging.ERROR, "kernel B has collapsed: its weight goes to nought"),
    Event.KurtosisOutlierWarning: (logging.WARNING, "the kurtosis of the errors stays above 20: mistrust the tails"),
    Event.NormalOperationRestoredEvent: (logging.INFO, "ticks are in order again: weights move"),
    Event.RegimeChangeDetected: (logging.WARNING, "the errors have changed: weights start anew"),
    Event.EmergencyMode: (logging.CRITICAL, "the signal is singular: kernel D takes over, with a robust loss"),
    Event.IntegrityError: (logging.CRITICAL, "the numbers are not what they should be"),
    Event.Reanchored: (logging.WARNING, "values that stayed far out are believed: the level is anchored there"),
    Event.ModeCollapseWarning: (logging.ERROR, "the entropy of kernel B is below its threshold"),
}
SHOWN = {Event.StalenessWarning: StalenessWarning, Event.FrequencyWarning: FrequencyWarning}

log = logging.getLogger(__name__)


class Alerts:
    """Remembers which episodes have been told."""

    def __init__(self, asset: str) -> None:
        self._asset = asset
        self._told = Event(0)

    def begun(self, events: int) -> Event:
        """The events of this tick that begin an episode."""
        now = Event(events)
        lasting = self._told & GATES if now & Event.DegradedInference else Event(0)
        new = now & ~self._told
        self._told = now | lasting
        return new

    def tell(self, new: Event, facts: dict[str, Any], stacklevel: int = 2) -> None:
        """Logs each by its name; what deserves a warning is also shown as one, after all is logged."""
        for event, (level, text) in TEXTS.items():
            if event & new:
                log.log(level, event.name, extra={"asset": self._asset, "why": text, **facts})
        for event, category in SHOWN.items():
            if event & new:
                warnings.warn(f"{self._asset}: {TEXTS[event][1]}", category, stacklevel + 1)
