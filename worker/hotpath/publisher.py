"""Gives the fleet the numbers that a canary wants, and notices when somebody else gave it others.

The generations of numbers live beside the tuner's own keys, so one write cannot change both. What is wanted is written
down first; then it is published over the generation that was known, by whoever leads, until it is. A leader that was
away cannot publish over anybody: its generation is not the newest any more.
"""

from collections.abc import Callable

from state_store import StateStore
from state_store.hotpath.store import HotpathStore
from worker.generations import CANARY
from worker.hotpath.term import Term

LOOK_EVERY_S = 10.0  # while no canary is under way: one that nobody wants any more is ended


class Publisher:
    """One leader's hand on the fleet's numbers."""

    def __init__(self, numbers: StateStore, clock: Callable[[], float]) -> None:
        self._numbers, self._clock = numbers, clock
        self._looked_s = -1e9

    async def newest(self) -> dict:
        """The generation that a trial begins with."""
        found = await self._numbers.read_config()
        return {"number": found.number, "values": dict(found.values)}

    async def reconcile(self, term: Term, store: HotpathStore) -> tuple[str, dict] | None:
        """Publishes what is wanted; what came of it as an input's kind and contents, None if nothing is new."""
        canary = term.canary
        if canary.wants is not None:
            number = await self._numbers.publish_config(canary.base, canary.wants)
            if number is not None:
                await store.announce_numbers()
                return "published", {"number": number}
            newest = await self.newest()
            mine = newest["number"] == canary.base + 1 and newest["values"] == canary.wants  # the answer was lost
            return ("published", {"number": newest["number"]}) if mine else ("superseded", newest)
        idle = canary.trial is None
        if idle and self._clock() - self._looked_s < LOOK_EVERY_S:
            return None
        self._looked_s = self._clock()
        newest = await self.newest()
        foreign = CANARY in newest["values"] if idle else newest["number"] != canary.base
        return ("superseded", newest) if foreign else None


def losses_of(term: Term) -> list[dict]:
    """What workers told of a canary's forecasts, as inputs' contents."""
    told, term.merger.losses = term.merger.losses, []
    return [
        {"number": number, "groups": {str(group): list(vars(sums).values()) for group, sums in groups.items()}}
        for number, groups in told
    ]


