"""Computes one asset's state again from the kept ticks, and puts it back under the lease of its partition.

Which ticks were taken is known from the predictions, since a tick was taken if and only if there is one under its id;
each is made again on the way and compared. The lease is taken over from whoever has it, so that the worker that put
the asset aside loses its rows, and with them the quarantine; it goes on half a second later, nothing lost.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from predictor_core import CorruptRecord, WrongLayout, decode_record, encode_records
from predictor_core.result import RejectReason
from state_store import START, Commit, FleetMismatch, Held, Lease, Meta, Outcome, Probe, RedisStateStore, Ticks
from state_store.contract import id_order
from state_store.letters import Letters
from state_store.logs import Logs, Looking
from worker.backups import open_backup
from worker.calm import Replay
from worker.errors import NotRebuilt
from worker.reach import open_store
from worker.recall import depth_of, made_by
from worker.settings import Settings
from worker.states import home_of
from worker.verify import TICKS_AT_ONCE

LEASE_MS = 5000
TAKE_OVER_TRIES = 200
PAUSE_S = 0.01


@dataclass
class Rebuilt:
    """What was done: `found` is what lay there before, whole, corrupt or missing."""

    asset: str
    partition: int
    cursor: str = ""
    begins: str = "cold"
    ticks: int = 0
    rejected: int = 0
    other_build: int = 0  # predictions of another build or machine: they may differ in their last bits
    found: str = "missing"
    changed: bool = False


async def rebuild_state(settings: Settings, asset: str, backup: Path | None, cold: bool) -> dict[str, Any]:
    """Rebuilds the state of one asset while the fleet may run."""
    async with open_store(settings) as store, Looking(settings.redis.url) as looking:
        meta = await store.read_meta()
        logs = Logs(looking, settings.redis.namespace, meta.generation)
        history = History(settings, store, logs, Letters(logs, meta), asset, home_of(asset, meta.partitions))
        if meta.layout != history.replay.program.layout_fingerprint:
            raise FleetMismatch(
                f"the fleet {settings.redis.namespace!r} has states of layout {meta.layout.hex()}, these settings make "
                f"{history.replay.program.layout_fingerprint.hex()}: give the --config that its workers have"
            )
        history.replay.generations.learn(await store.config_history())
        if not cold:
            await history.begin(await store.probe(history.partition), backup, meta)
            await history.follow((await store.probe(history.partition)).cursor)
        lease = await _take_over(store, logs, history.partition)
        try:
            if not cold:
                await history.follow(lease.cursor)
            await _put(store, lease, history)
        finally:
            await store.release(lease)
    history.rebuilt.cursor = lease.cursor.decode()
    return asdict(history.rebuilt)


class History:
    """One asset's ticks, followed through the log."""

    def __init__(
        self, settings: Settings, store: RedisStateStore, logs: Logs, letters: Letters, asset: str, partition: int
    ) -> None:
        self.asset, self.partition = asset.encode(), partition
        self.replay = Replay(settings)
        self.replay.place(self.asset, self.replay.program.cold(1)[0])
        self.rebuilt = Rebuilt(asset, partition)
        self._store, self._logs, self._letters = store, logs, letters
        self._cursor = START

    async def begin(self, probe: Probe, path: Path | None, meta: Meta) -> None:
        """Begins cold, or where a backup stands; the log must hold all that came after."""
        applied = 0
        if path is not None:
            applied = self._begin_with(path, meta)
        elif meta.generation:
            raise NotRebuilt(
                f"{self.rebuilt.asset!r}: its state was carried over when the fleet was repartitioned, and the log of "
                f"partition {self.partition} begins there. Begin with a backup made since (--from FILE), or let the "
                "asset start anew (--cold)."
            )
        if (gone := await self._logs.ticks_gone(probe)) > applied:
            raise NotRebuilt(
                f"{self.rebuilt.asset!r}: the log of partition {self.partition} begins at {probe.first_id.decode()}, "
                f"{gone - applied} ticks before it are gone. Begin with a backup (--from FILE), or let the "
                "asset start anew (--cold)."
            )

    def _begin_with(self, path: Path, meta: Meta) -> int:
        backup = open_backup(path)
        if backup.summary.meta.generation != meta.generation:
            raise NotRebuilt(f"{path} was made before the fleet was repartitioned: its cursors are of other logs.")
        moment = backup.summary.moments.get(self.partition)
        if moment is None:
            raise NotRebuilt(f"{path} has no partition {self.partition}, where {self.rebuilt.asset!r} belongs.")
        if (record := backup.record(self.partition, self.asset)) is not None:
            self.replay.place(self.asset, decode_record(record, self.replay.program.layout_fingerprint))
        self._cursor, self.rebuilt.begins = moment.state_cursor, str(path)
        return moment.applied

    @property
    def row(self) -> np.ndarray:
        return self.replay.row(self.asset)

    async def follow(self, cursor: bytes) -> None:
        """Takes the asset's ticks from where we are to the cursor."""
        while id_order(self._cursor) < id_order(cursor):
            ticks = await self._store.read(self.partition, self._cursor, TICKS_AT_ONCE, 0)
            inside = sum(id_order(entry_id) <= id_order(cursor) for entry_id in ticks.ids)
            if not inside:
                return
            await self._take(ticks[:inside])
            self._cursor = ticks.ids[inside - 1]

    async def _take(self, ticks: Ticks) -> None:
        mine = [i for i, asset in enumerate(ticks.assets) if asset == self.asset and i not in ticks.malformed]
        predictions = {i: await self._logs.entry(self.partition, "predictions", ticks.ids[i]) for i in mine}
        taken = [i for i in mine if predictions[i] is not None]
        await self._check_absence([ticks.ids[i] for i in mine if predictions[i] is None])
        if not taken:
            return
        payloads = [(predictions[i] or {}).get(b"p", b"") for i in taken]
        depths = np.array([depth_of(payload, self.replay.config.log_sig_depth) for payload in payloads], np.int32)
        columns = (ticks.values[taken], ticks.times_ns[taken], ticks.arrivals_ns[taken])
        answers = self.replay.take([self.asset] * len(taken), *columns, depths, list(map(made_by, payloads)))
        for i, entry in enumerate(taken):
            accepted = answers.rejected[i] == RejectReason.accepted
            self._compare(ticks.ids[entry], payloads[i], answers.payloads[i].tobytes() if accepted else b"")
        self.rebuilt.ticks += len(taken)

    async def _check_absence(self, ids: Sequence[bytes]) -> None:
        """A tick without a prediction was put aside; unless its prediction is only older than what is kept."""
        self.rebuilt.rejected += len(ids)
        first = await self._logs.first_id(self.partition, "predictions") if ids else None
        old = [entry_id for entry_id in ids if first is None or id_order(entry_id) < id_order(first)]
        notes = await self._letters.notes(self.partition) if old else {}
        for entry_id in old:
            if entry_id not in notes and await self._logs.entry(self.partition, "rejected", entry_id) is None:
                raise NotRebuilt(
                    f"{self.rebuilt.asset!r}: nothing says what became of its tick {entry_id.decode()}, predictions "
                    f"are kept from {(first or b'nowhere').decode()} on. Begin with a backup (--from FILE), "
                    "or let the asset start anew (--cold)."
                )

    def _compare(self, tick_id: bytes, kept: bytes, made: bytes) -> None:
        if kept == made:
            return
        if self.replay.generations.know([made_by(kept)]):
            raise NotRebuilt(
                f"{self.rebuilt.asset!r}: its tick {tick_id.decode()} gives another prediction than the one kept, so "
                "the log is not what its workers saw. Nothing was changed; see `predictor verify`."
            )
        self.rebuilt.other_build += 1


async def _take_over(store: RedisStateStore, logs: Logs, partition: int) -> Lease:
    """Ends the holder's time and takes the lease; what the holder has in flight is fenced, and taken again later."""
    control = logs.keys.of(partition).control
    for _ in range(TAKE_OVER_TRIES):
        await logs.looking.ask("HSET", control, "until", "0")
        answer = await store.acquire(partition, "rebuild", LEASE_MS)
        if not isinstance(answer, Held):
            return answer
        await asyncio.sleep(PAUSE_S)
    raise NotRebuilt(f"Partition {partition} could not be taken over: its worker renews too often; try again.")


async def _put(store: RedisStateStore, lease: Lease, history: History) -> None:
    """Commits the state alone: the cursor stays where it is."""
    program, rebuilt = history.replay.program, history.rebuilt
    (before,) = await store.load(lease.partition, [history.asset])
    rebuilt.found = _condition(before, program.layout_fingerprint)
    record = encode_records(history.row[None], program.layout_fingerprint)
    rebuilt.changed = before != record.tobytes()
    outcome = await store.commit(
        lease,
        Commit(
            before=lease.cursor,
            after=lease.cursor,
            ids=[],
            assets=[],
            times_ns=np.empty(0, np.int64),
            payloads=np.empty(0, "V1"),
            state_assets=[history.asset],
            state_records=record,
            rejected=[],
            applied=0,
            state_cursor=lease.state_cursor,  # ticks after it come again: this row finds them late
        ),
    )
    if outcome is not Outcome.OK:
        raise NotRebuilt(f"Partition {lease.partition} was taken over meanwhile ({outcome.value}): try again.")


def _condition(record: bytes | None, layout: bytes) -> str:
    if record is None:
        return "missing"
    try:
        decode_record(record, layout)
    except CorruptRecord:
        return "corrupt"
    except WrongLayout:
        return "of another layout"
    return "whole"
