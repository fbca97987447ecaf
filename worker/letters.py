"""Dead letters for a person: how many of what kind, one in full, and which ones a command means."""

import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from state_store.letters import Home, Letter, Letters, Requeued
from state_store.logs import Logs, Looking
from worker.errors import BadInput
from worker.reach import open_store
from worker.settings import Settings

_PLACE = re.compile(r"(?:(?:(\d{1,5})\.)?(\d{1,5}):)?(\d{1,20}-\d{1,20})")


@asynccontextmanager
async def open_letters(settings: Settings) -> AsyncIterator[Letters]:
    """The dead letters of the fleet that the settings name."""
    async with open_store(settings) as store, Looking(settings.redis.url) as looking:
        yield Letters(Logs(looking, settings.redis.namespace), await store.read_meta())


async def overview(letters: Letters, newest: int) -> dict[str, Any]:
    """Counts by partition and kind of reason, and the newest few."""
    counts: Counter[tuple[Home, str]] = Counter()
    last: list[Letter] = []
    async for letter in letters.all():
        counts[letter.home, letter.kind] += 1
        last.append(letter)
        if len(last) > 4 * newest + 64:
            last = newest_of(last, newest)
    return {
        "total": counts.total(),
        "counts": [
            {"partition": partition, "generation": generation, "reason": kind, "count": count}
            for ((generation, partition), kind), count in sorted(counts.items())
        ],
        "newest": [brief(letter) for letter in newest_of(last, newest)],
    }


def brief(letter: Letter) -> dict[str, Any]:
    """A letter as one row."""
    return {
        "partition": letter.partition,
        "id": letter.id.decode(),
        "asset": text_of(letter.asset),
        "arrived": moment(letter.id),
        "reason": letter.reason,
        "generation": letter.generation,
    }


def full(letter: Letter) -> dict[str, Any]:
    """All that is known of a letter; `tick` has the fields as they were sent."""
    return {**brief(letter), "tick": {text_of(name): text_of(value) for name, value in letter.named.items()}}


def told(requeued: Requeued) -> dict[str, Any]:
    """What became of a letter, as one row."""
    return {**brief(requeued.letter), "outcome": requeued.outcome or None, "unfit": requeued.unfit or None}


@dataclass(frozen=True)
class Chosen:
    """The letters that a command means; `gone` says what became of those that it names and that are gone."""

    letters: list[Letter]
    gone: list[str]


async def chosen(letters: Letters, places: Sequence[str], reason: str | None, every: bool = False) -> Chosen:
    """By their ids, or by a reason, or all; the oldest first within a partition."""
    if bool(places) + (reason is not None) + every != 1:
        raise BadInput("say which dead letters: their ids, or a --reason; see `predictor rejected ls`")
    if not places:
        return Chosen([x async for x in letters.all() if every or reason in (x.reason, x.kind)], [])
    found: list[Letter] = []
    gone: list[str] = []
    for place in dict.fromkeys(places):
        letter, fate = await _at(letters, place)
        found += [letter] if letter else []
        gone += [] if letter else [f"{place} was {fate} before"]
    return Chosen(found, gone)


async def at(letters: Letters, place: str) -> Letter:
    """The one letter at `ID` or `PARTITION:ID`."""
    letter, fate = await _at(letters, place)
    if letter is None:
        raise BadInput(f"the dead letter {place} is gone: it was {fate}")
    return letter


async def _at(letters: Letters, place: str) -> tuple[Letter | None, str]:
    """The letter, or what became of it."""
    match = _PLACE.fullmatch(place)
    if match is None:
        raise BadInput(f"{place!r} is no dead letter: write its id as in 1767225600000-0, or 3:1767225600000-0")
    generation, partition, entry_id = match[1] and int(match[1]), match[2] and int(match[2]), match[3].encode()

    def meant(home: Home) -> bool:
        return generation in (None, home[0]) and partition in (None, home[1])

    found = [letter for letter in await letters.find(entry_id) if meant(letter.home)]
    if len(found) > 1:
        places = " or ".join(_shortest(letter, found) for letter in found)
        raise BadInput(f"several partitions have a dead letter {match[3]}: write {places}")
    if found:
        return found[0], ""
    fates = [fate for home, fate in (await letters.fates(entry_id)).items() if meant(home)]
    if not fates:
        raise BadInput(f"there is no dead letter {place}: see `predictor rejected ls`")
    return None, fates[0]


def _shortest(letter: Letter, found: Sequence[Letter]) -> str:
    """A name that means one of these alone."""
    same = [other for other in found if other.partition == letter.partition]
    return letter.place if len(same) > 1 else f"{letter.partition}:{letter.id.decode()}"


async def send_again(letters: Letters, these: Sequence[Letter]) -> list[Requeued]:
    """What became of each of these letters."""
    answers = [await letters.requeue(letter) for letter in these]
    for home in {home for letter in these for home in (letter.home, letters.home_of(letter.asset))}:
        await letters.tidy(home)
    return answers


async def throw_away(letters: Letters, these: Sequence[Letter]) -> int:
    """How many of these letters there were."""
    purged = 0
    for home in sorted({letter.home for letter in these}):
        purged += await letters.purge(home, [letter.id for letter in these if letter.home == home])
        await letters.tidy(home)
    return purged


def newest_of(letters: list[Letter], count: int) -> list[Letter]:
    """The last so many, the newest first."""
    return sorted(letters, key=lambda letter: _order(letter.id), reverse=True)[:count]


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def moment(entry_id: bytes) -> str | None:
    """When an entry arrived; None where its id is no moment of our time."""
    try:
        return datetime.fromtimestamp(_order(entry_id)[0] / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None


def text_of(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
