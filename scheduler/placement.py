"""Decides who should hold which partition, and what one worker does about it now.

Every worker computes the same table from the same view: who is alive, with what capacity, and who holds what.

* An owner keeps what it holds, up to its share rounded up. So a worker that leaves moves its own partitions only.
* What is left goes by rendezvous hash, weighted by capacity, first to those below their share rounded down.
* With more workers than partitions the rest are spares: they hold nothing, ask for nothing, and wait.

Workers whose views differ get less balance for a while, never less safety: the lease decides who may commit.
Pure: time is an argument, in milliseconds.
"""

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from scheduler.errors import BadRules


@dataclass(frozen=True)
class Member:
    """A live worker. Capacity is relative; with 0 it takes nothing and gives away all that it is asked for."""

    name: str
    capacity: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.capacity) and self.capacity >= 0):
            raise BadRules(f"capacity of {self.name!r} must be finite and not negative, got {self.capacity}")


@dataclass(frozen=True)
class View:
    """What a worker sees of the fleet at one moment."""

    partitions: int
    members: Sequence[Member]
    owners: Mapping[int, str] = field(default_factory=dict)  # Live leases only.
    wanted_by: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlacementRules:
    """How long a partition stays where it is before it may be handed over."""

    hold_ms: int = 3_000
    hold_jitter_ms: int = 1_000  # Keeps the hand-overs of a fleet apart.

    def __post_init__(self) -> None:
        if self.hold_ms < 0 or self.hold_jitter_ms < 0:
            raise BadRules(f"hold times must not be negative, got {self.hold_ms} and {self.hold_jitter_ms}")


@dataclass(frozen=True)
class Moves:
    """What to do now: take free partitions, give some away, ask the owners of others. Ascending."""

    acquire: tuple[int, ...] = ()
    release: tuple[int, ...] = ()
    want: tuple[int, ...] = ()


def assign(partitions: int, workers: Sequence[Member], owners: Mapping[int, str] | None = None) -> dict[int, str]:
    """Gives each partition one wanted owner; an empty table when nobody can take any."""
    able = sorted((w for w in workers if w.capacity > 0), key=lambda w: w.name)
    if not able:
        return {}
    shares = _shares(partitions, able)
    most = {w.name: math.ceil(share) for w, share in zip(able, shares, strict=True)}
    least = {w.name: math.floor(share) for w, share in zip(able, shares, strict=True)}
    scores = {w.name: _scores(w, partitions) for w in able}
    table = _keep(partitions, owners or {}, scores, most, least)
    _fill(table, partitions, scores, least)
    _fill(table, partitions, scores, most)
    return table


def plan(me: str, held: Mapping[int, int], view: View, now_ms: int, rules: PlacementRules) -> Moves:
    """Says what `me` does now; `held` maps each partition that it holds to the time since when."""
    if not any(member.name == me for member in view.members):
        return Moves()  # Not registered yet, or forgotten: my share is not known.
    owners = {**view.owners, **dict.fromkeys(held, me)}
    table = assign(view.partitions, view.members, owners)
    mine = [p for p in range(view.partitions) if table.get(p) == me and p not in held]
    return Moves(
        acquire=tuple(p for p in mine if owners.get(p) in (None, me)),
        release=tuple(p for p in sorted(held) if table.get(p) != me and _may_go(me, p, held[p], view, now_ms, rules)),
        want=tuple(p for p in mine if owners.get(p) not in (None, me)),
    )


def _may_go(me: str, partition: int, since_ms: int, view: View, now_ms: int, rules: PlacementRules) -> bool:
    """Somebody alive asked for it, and it has been here long enough."""
    asker = view.wanted_by.get(partition)
    asked = asker != me and any(member.name == asker for member in view.members)
    return asked and now_ms - since_ms >= rules.hold_ms + _jitter(me, partition, rules.hold_jitter_ms)


def _shares(partitions: int, able: Sequence[Member]) -> list[float]:
    """Splits the partitions in proportion to capacity; rounds away the noise that would turn 4.0 into 4.0000001."""
    total = math.fsum(w.capacity for w in able)
    return [round(partitions * (w.capacity / total), 9) for w in able]


def _keep(
    partitions: int,
    owners: Mapping[int, str],
    scores: Mapping[str, np.ndarray],
    most: Mapping[str, int],
    least: Mapping[str, int],
) -> dict[int, str]:
    """Leaves to each owner what it prefers of what it holds, up to its share."""
    kept = {name: [p for p, owner in owners.items() if owner == name and p < partitions] for name in scores}
    for name, held in kept.items():
        held.sort(key=lambda p: (-scores[name][p], p))
        del held[most[name] :]
    free = partitions - sum(map(len, kept.values()))
    short = sum(max(0, least[name] - len(held)) for name, held in kept.items())
    # Those one above their lower share give it up when somebody would otherwise stay below theirs.
    spare = sorted((scores[name][held[-1]], name) for name, held in kept.items() if len(held) > least[name])
    for _, name in spare[: max(0, short - free)]:
        kept[name].pop()
    return {p: name for name, held in kept.items() for p in held}


def _fill(table: dict[int, str], partitions: int, scores: Mapping[str, np.ndarray], limit: Mapping[str, int]) -> None:
    """Gives free partitions to workers below their limit, the best matching pair first."""
    room = {name: limit[name] for name in scores}
    for name in table.values():
        room[name] -= 1
    names = [name for name in scores if room[name] > 0]
    free = [p for p in range(partitions) if p not in table]
    if not names or not free:
        return
    pairs = np.stack([scores[name][free] for name in names])
    for pair in np.argsort(-pairs, axis=None, kind="stable").tolist():
        worker, place = divmod(pair, len(free))
        name, partition = names[worker], free[place]
        if room[name] > 0 and partition not in table:
            table[partition] = name
            room[name] -= 1


def _scores(worker: Member, partitions: int) -> np.ndarray:
    """Scores every partition for one worker: the highest score wins in proportion to capacity."""
    return -worker.capacity / np.log(_uniforms(worker.name, partitions))


@functools.lru_cache(maxsize=4096)
def _uniforms(name: str, partitions: int) -> np.ndarray:
    """Hashes (name, partition) to numbers strictly between 0 and 1 (splitmix64 of a seed taken from the name)."""
    seed = np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()))
    with np.errstate(over="ignore"):
        z = seed + np.arange(1, partitions + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    uniforms = ((z >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    uniforms.flags.writeable = False
    return uniforms


def _jitter(me: str, partition: int, jitter_ms: int) -> float:
    return jitter_ms * float(_uniforms(me, partition + 1)[partition])
