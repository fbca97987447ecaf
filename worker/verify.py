"""Re-derives predictions and states from the ticks in the log and compares them, byte by byte, with what is stored.

Every asset begins cold, so a partition can be verified as long as its log still has the first tick. Decisions that
depended on the moment are taken from the record: the depth from each prediction, dead letters from their log.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from predictor_core import CorruptRecord, WrongLayout, decode_record
from predictor_core.result import RejectReason
from state_store import START, FleetMismatch, RedisStateStore, Ticks
from state_store.backup import caught_up
from state_store.errors import BackupRefused
from state_store.letters import Letters
from state_store.logs import Logs, Looking
from worker.calm import Replay
from worker.recall import depth_of, made_by
from worker.settings import Settings

TICKS_AT_ONCE = 4096
CORE_REASONS = frozenset(reason.name for reason in RejectReason)


@dataclass
class Verdict:
    """Counts of what was compared, and what does not agree."""

    ticks: int = 0
    rejected: int = 0
    predictions: int = 0
    not_kept: int = 0  # predictions older than the log of predictions
    differing: int = 0
    missing: int = 0
    unexpected: int = 0
    other_build: int = 0  # made by another build or machine: its bits may differ rightly
    states: int = 0
    states_differing: int = 0
    unverified: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        faults = (self.differing, self.missing, self.unexpected, self.other_build, self.states_differing)
        return not any(faults) and not self.unverified

    def add(self, other: "Verdict") -> None:
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


async def verify_fleet(settings: Settings, store: RedisStateStore, since: bytes = START) -> Verdict:
    """Verifies every partition, one after the other; where their number was changed, those before first."""
    meta = await store.read_meta()
    replay = Replay(settings)
    if meta.layout != replay.program.layout_fingerprint:
        raise FleetMismatch(
            f"the fleet {settings.redis.namespace!r} has states of layout {meta.layout.hex()}, these settings make "
            f"{replay.program.layout_fingerprint.hex()}: give the --config that its workers have"
        )
    total, history = Verdict(), await store.config_history()
    replay.generations.learn(history)
    if meta.oldest:
        total.unverified.append("the partitions before were removed, and with them the past of today's states")
        return total
    async with Looking(settings.redis.url) as looking:
        for generation in range(meta.generation + 1):
            then = meta.of(generation)
            store.follow(then)
            logs = Logs(looking, settings.redis.namespace, generation)
            letters = Letters(logs, then)
            for partition in range(then.partitions):
                if not meta.generation:  # Else the rows go with their assets to the next partitions.
                    replay = Replay(settings)
                    replay.generations.learn(history)
                total.add(await Partition(partition, store, logs, letters, replay, since).verify())
            if total.unverified:
                break
    return total


class Partition:
    """One partition's log, followed from its first tick."""

    def __init__(
        self, partition: int, store: RedisStateStore, logs: Logs, letters: Letters, replay: Replay, since: bytes
    ) -> None:
        self._partition, self._store, self._logs, self._letters, self._replay = partition, store, logs, letters, replay
        self._since = _order(since)
        self._cursor = START
        self._oldest_kept: tuple[int, int] | None = None
        self._assets: set[bytes] = set()
        self.verdict = Verdict()

    async def verify(self) -> Verdict:
        probe = await self._store.probe(self._partition)
        if probe.trimmed and (gone := await self._logs.ticks_gone(probe)):
            self.verdict.unverified.append(
                f"partition {self._partition}: its log begins at {probe.first_id.decode()}, {gone} older "
                "ticks are gone, and so is the state from then (worker.ticks_kept says how many stay)"
            )
            return self.verdict
        if probe.cursor != probe.state_cursor and not probe.lease_left_ms:
            self.verdict.unverified.append(
                f"partition {self._partition}: its stored states are behind its cursor and nobody works on it: start a "
                "worker, which catches up at once"
            )
            return self.verdict
        self._oldest_kept = await self._first_prediction()
        try:
            moment, tables = await caught_up(self._logs, self._partition)
        except BackupRefused as error:
            self.verdict.unverified.append(str(error))
            return self.verdict
        await self._follow(moment.cursor)
        records = iter(tables["states"])
        self._compare_states(dict(zip(records, records, strict=True)))
        return self.verdict

    async def _follow(self, cursor: bytes) -> None:
        """Replays and compares from where we are to the cursor."""
        while _order(self._cursor) < _order(cursor):
            ticks = await self._store.read(self._partition, self._cursor, TICKS_AT_ONCE, 0)
            inside = sum(_order(id) <= _order(cursor) for id in ticks.ids)
            if not inside:
                return
            await self._compare(ticks[:inside])
            self._cursor = ticks.ids[inside - 1]

    async def _compare(self, ticks: Ticks) -> None:
        until = ticks.ids[-1]
        predictions = {id: fields for id, fields in await self._entries("predictions", until)}
        letters = {id: fields.get(b"reason", b"").decode() for id, fields in await self._entries("rejected", until)}
        letters |= await self._letters.notes(self._partition)  # of letters that were sent again or thrown away
        put_aside = {i for i, id in enumerate(ticks.ids) if letters.get(id, "late") not in CORE_REASONS}
        kept = np.array([i for i in range(len(ticks)) if i not in ticks.malformed and i not in put_aside], np.intp)
        payloads = [predictions.get(ticks.ids[i], {}).get(b"p", b"") for i in kept]
        full = self._replay.config.log_sig_depth
        depths = np.array([depth_of(payload, full) for payload in payloads], np.int32)
        assets = [ticks.assets[i] for i in kept]
        self._assets.update(assets)
        expected: dict[bytes, bytes] = {}
        if len(kept):
            columns = (ticks.values[kept], ticks.times_ns[kept], ticks.arrivals_ns[kept])
            answers = self._replay.take(assets, *columns, depths, list(map(made_by, payloads)))
            accepted = np.flatnonzero(answers.rejected == RejectReason.accepted)
            expected = {ticks.ids[kept[i]]: answers.payloads[i].tobytes() for i in accepted}
        self.verdict.ticks += len(ticks)
        self.verdict.rejected += len(ticks) - len(expected)
        self._judge(expected, {id: fields.get(b"p", b"") for id, fields in predictions.items()})

    def _judge(self, expected: dict[bytes, bytes], found: dict[bytes, bytes]) -> None:
        verdict = self.verdict
        for id, payload in expected.items():
            if _order(id) < self._since:
                continue
            if id not in found:
                gone = self._oldest_kept is not None and _order(id) < self._oldest_kept
                verdict.not_kept += gone
                verdict.missing += not gone
                continue
            verdict.predictions += 1
            if found[id] != payload:
                ours = self._replay.generations.know([made_by(found[id])])
                verdict.differing += ours
                verdict.other_build += not ours
        verdict.unexpected += sum(_order(id) >= self._since for id in found.keys() - expected.keys())

    def _compare_states(self, records: dict[bytes, bytes]) -> None:
        for asset in self._assets:
            self.verdict.states += 1
            self.verdict.states_differing += not self._same_state(asset, records.get(asset))

    def _same_state(self, asset: bytes, record: bytes | None) -> bool:
        row = self._replay.row(asset)
        if record is None:  # an asset whose ticks were all rejected has no state
            return row.tobytes() == self._replay.program.cold(1)[0].tobytes()
        try:
            return decode_record(record, self._replay.program.layout_fingerprint).tobytes() == row.tobytes()
        except (CorruptRecord, WrongLayout):
            return False

    async def _entries(self, log: str, until: bytes) -> Sequence[Any]:
        pages = self._logs.pages(self._partition, log, self._cursor, until)
        return [entry async for page in pages for entry in page]

    async def _first_prediction(self) -> tuple[int, int] | None:
        async for page in self._logs.pages(self._partition, "predictions"):
            return _order(page[0][0])
        return None


def _order(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence or 0)
