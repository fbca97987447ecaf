"""The numbers that the predictor works with: those of the settings, and over them what the fleet's generations say.

    {"predictor": {name: number}, "groups": {tenant or asset: {name: number}},        the values of a generation
     "quotas": {tenant: ticks a second},
     "canary": {"trial": name, "numbers": {name: number}, "of": groups of partitions, "turn": the group that has them}}

Partition p is in group p mod `of`; in the group whose turn it is, the canary's numbers take the place of everyone's,
and what a tenant or an asset has of its own stays. A generation is taken over between two micro-batches. Each
prediction records what made it, numbers included, so a successor or a judge uses the same ones again; the fleet keeps
the last few generations for that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from predictor_core import PredictorConfig, Program
from predictor_core.config import Params
from scheduler.partitions import tenant_of
from state_store import ConfigGeneration
from worker.quotas import Quotas

EVERYONE, GROUPS, QUOTAS, CANARY = "predictor", "groups", "quotas", "canary"
NOBODY = -1  # has the canary's numbers: a round of comparison


class GenerationRefused(ValueError):
    """A generation asks for what this predictor cannot do."""


@dataclass(frozen=True)
class Numbers:
    """One set of numbers, and the mark that its predictions carry."""

    params: Params
    made_by: bytes


@dataclass(frozen=True)
class Side:
    """What holds for every asset of some partitions, and for some tenants or assets of them."""

    everyone: Numbers
    groups: dict[bytes, Numbers]

    def numbers_of(self, asset: bytes) -> Numbers:
        """The asset's own, else its tenant's, else everyone's."""
        if not self.groups:
            return self.everyone
        found = self.groups.get(asset) or self.groups.get(asset.partition(b"/")[0])
        return found or self.everyone


@dataclass(frozen=True)
class Canary:
    """A trial of other numbers on one group of partitions."""

    trial: str
    of: int
    turn: int
    side: Side

    def group_of(self, partition: int) -> int:
        return partition % self.of


@dataclass(frozen=True)
class Generation:
    """The numbers of all partitions, and those of a canary."""

    number: int
    everyone: Numbers
    groups: dict[bytes, Numbers]
    canary: Canary | None = None
    quotas: Quotas = Quotas()

    @property
    def control(self) -> Side:
        """What holds where no canary is."""
        return Side(self.everyone, self.groups)

    def numbers_of(self, asset: bytes) -> Numbers:
        return self.control.numbers_of(asset)

    def side_of(self, partition: int) -> Side:
        canary = self.canary
        return canary.side if canary is not None and canary.group_of(partition) == canary.turn else self.control


def of_group(values: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The numbers of a group beside everyone's; an asset without its own has its tenant's."""
    groups = values.get(GROUPS, {})
    return groups.get(group) or groups.get(tenant_of(group)) or {}


def with_numbers(config: PredictorConfig, values: Mapping[str, Any]) -> PredictorConfig:
    """The config with other numbers; raises ValueError for a wrong name, a wrong number, or another shape."""
    PredictorConfig.from_mapping(values)  # names a wrong key
    changed = replace(config, **values)
    if changed.static() != config.static():
        shapes = sorted(name for name in values if hasattr(config.static(), name))
        raise GenerationRefused(f"{', '.join(shapes)} cannot change while the fleet runs, only numbers can")
    return changed


class Generations:
    """The current generation, and every set of numbers that is known by its mark."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._known: dict[bytes, Numbers] = {}
        self._newest = self._read(ConfigGeneration(0, {}))
        self.refused = ""  # why the newest is not the current one
        self.without_canary = False  # set while the fleet is frozen, or nobody leads the trial

    @property
    def current(self) -> Generation:
        """What holds from the next micro-batch on."""
        newest = self._newest
        return replace(newest, canary=None) if self.without_canary and newest.canary else newest

    def learn(self, history: Iterable[ConfigGeneration]) -> None:
        """Remembers them all, and makes the newest that can be followed the current one."""
        for generation in sorted(history, key=lambda each: each.number):
            try:
                self._newest, self.refused = self._read(generation), ""
            except GenerationRefused as error:
                self.refused = str(error)

    def know(self, marks: Iterable[bytes | None]) -> bool:
        """Tells whether all of them are marks of this build, and of generations that were learned."""
        return self._known.keys() >= set(marks)

    def numbers_of(self, asset: bytes, made_by: bytes | None) -> Numbers:
        """Those behind a prediction's mark; where another build made it, those that hold for its asset now."""
        return self._known.get(made_by or b"") or self.current.numbers_of(asset)

    def _read(self, generation: ConfigGeneration) -> Generation:
        base = generation.values.get(EVERYONE, {})
        groups = generation.values.get(GROUPS, {})
        try:
            side = self._side(base, groups)
            canary = self._canary(generation.values.get(CANARY), base, groups)
            quotas = Quotas.of(generation.values.get(QUOTAS, {}))
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise GenerationRefused(f"generation {generation.number} of the configuration: {error}") from None
        return Generation(generation.number, side.everyone, side.groups, canary, quotas)

    def _side(self, base: Mapping[str, Any], groups: Mapping[str, Any]) -> Side:
        of_group = {name.encode(): self._make({**base, **values}) for name, values in groups.items()}
        return Side(self._make(base), of_group)

    def _canary(self, given: Any, base: Mapping[str, Any], groups: Mapping[str, Any]) -> Canary | None:
        if given is None:
            return None
        of, turn = int(given["of"]), int(given["turn"])
        if not NOBODY <= turn < of:
            raise ValueError(f"turn {turn} of a canary of {of} groups")
        return Canary(str(given["trial"]), of, turn, self._side({**base, **given["numbers"]}, groups))

    def _make(self, values: Mapping[str, Any]) -> Numbers:
        params = with_numbers(self._program.config, values).params()
        numbers = Numbers(params, self._program.made_by(params))
        return self._known.setdefault(numbers.made_by, numbers)
