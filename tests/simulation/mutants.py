"""Fleets with one protection taken away. The simulation must tell each of them from the real one, and soon.

A fence is what keeps a worker that lost its lease from writing; the cursor check keeps a commit from being taken twice
or from another past; the rest are habits of clients that look harmless.
"""

from dataclasses import dataclass, replace

import numpy as np

from state_store import Commit, Lease, Meta, Outcome, StoreUnavailable
from state_store.commit import latest_value, settle
from state_store.memory import MemoryPartition
from state_store.outboxes import Outboxes
from tests.simulation.history import Cast, History
from tests.simulation.network import FaultyStore
from tests.simulation.server import Home, Server, WatchedStore
from tests.simulation.toy import LAYOUT
from worker.holding import Holding
from worker.keeping import Keeping
from worker.pipeline import Pipeline

SENDS_MAX = 8

class WithoutFence(WatchedStore):
    """Takes commits from anybody whose cursor fits."""

    def _settle(self, lease: Lease, commit: Commit) -> Outcome | None:
        control = self._kept(lease.partition).control()
        return settle(replace(control, epoch=lease.epoch, nonce=lease.nonce), lease, commit)


class WithoutNonce(WatchedStore):
    """Believes that an epoch is issued once; a failover may issue it twice."""

    def _settle(self, lease: Lease, commit: Commit) -> Outcome | None:
        control = self._kept(lease.partition).control()
        return settle(replace(control, nonce=lease.nonce), lease, commit)


class WithoutCursorCheck(WatchedStore):
    """Takes the holder's commits wherever they begin."""

    def _settle(self, lease: Lease, commit: Commit) -> Outcome | None:
        control = self._kept(lease.partition).control()
        return settle(replace(control, cursor=commit.before), lease, commit)


class SendsAgainBlindly(WatchedStore):
    """Repeats a commit whose reply was lost, as client libraries do by default."""

    async def commit(self, lease: Lease, commit: Commit) -> Outcome:
        outcome = self._settle(lease, commit)
        for _ in range(SENDS_MAX):
            if outcome is not None:
                return outcome
            try:
                await self._fault("commit.before", lease.partition)
                answer = self._apply(lease, commit)
                await self._fault("commit.after", lease.partition)
                outcome = answer
            except StoreUnavailable:
                continue
        raise StoreUnavailable("The simulated network lost every sending.")


class GeneratedIds(WatchedStore):
    """Lets the server number the predictions, as XADD * does."""

    def _write_predictions(self, kept: MemoryPartition, commit: Commit) -> None:
        columns = (commit.ids, commit.assets, commit.times_ns.tolist(), commit.payloads.tolist())
        for entry_id, asset, time_ns, payload in zip(*columns, strict=True):
            self.memory.stamp(kept.predictions, {b"a": asset, b"t": b"%d" % time_ns, b"p": payload})
            kept.latest[asset] = latest_value(entry_id, payload)


class OldRows(Keeping):
    """Trusts the rows of a holding that was lost when it gets the partition again."""

    kept: dict[tuple[int, bytes], np.ndarray]

    def _row(self, holding: Holding, code: int, record: bytes | None) -> np.ndarray | None:
        kept = self.kept.pop((holding.partition, holding.assets[code]), None)
        return Keeping._row(self, holding, code, record) if kept is None else kept


class KeepsRows(Pipeline):
    """Has such rows."""

    def __init__(self, *parts, **settings) -> None:
        Pipeline.__init__(self, *parts, **settings)
        self.rows = self.succession.rows = OldRows(self.store, self.device.table, LAYOUT, self.metrics)
        self.rows.kept = {}

    def lose(self, holding: Holding, why: str) -> None:
        for code, asset in enumerate(holding.assets):
            if holding.slots[code] >= 0:
                self.rows.kept[holding.partition, asset] = self.device.table.rows[holding.slots[code]].copy()
        Pipeline.lose(self, holding, why)


class TrustsTheStates(Pipeline):
    """Takes stored states as those of the cursor, though they may be behind it."""

    async def _recall(self, holding: Holding) -> None:
        holding.read_to = holding.cursor


class FirstRowOnly(Keeping):
    """Forgets which rows are ahead, but for one."""

    def ahead(self, holding: Holding, codes: np.ndarray) -> None:
        Keeping.ahead(self, holding, codes[:1])


class LeavesStatesBehind(Pipeline):
    """Says that states were stored with a commit that did not carry them all."""

    def __init__(self, *parts, **settings) -> None:
        Pipeline.__init__(self, *parts, **settings)
        self.rows = self.succession.rows = FirstRowOnly(self.store, self.device.table, LAYOUT, self.metrics)


class TakesAPieceForTheWhole(WatchedStore):
    """Believes that all states are stored with the first commit that carries some of them."""

    def _apply(self, lease: Lease, commit: Commit) -> Outcome:
        return WatchedStore._apply(self, lease, replace(commit, state_cursor=None) if commit.state_assets else commit)


class SendsToTheNewServer(FaultyStore):
    """Sends a commit again over a new connection, though the ticks in it may be gone from the server."""

    async def _resolve(self, lease: Lease, commit: Commit) -> Outcome:
        self.wire.opened[lease.partition] = self.wire.server.connection
        return await self.commit(lease, commit)


class LeavesTheLogOpen(WatchedStore):
    """Moves a fleet whose old partitions go on taking ticks."""

    def _close(self, kept: MemoryPartition) -> None:
        """Does not."""


class MovesTooEarly(WatchedStore):
    """Carries over what is stored as soon as every tick has its prediction; the states may be behind."""

    def _worked_off(self, kept: MemoryPartition) -> bool:
        return not kept.backlog()


class CopiesOverTheOpen(WatchedStore):
    """Carries old states into partitions that are at work already."""

    def _may_carry(self, home: MemoryPartition) -> bool:
        return True


class TakesBeforeItIsOpen(Server):
    """Takes ticks in partitions that a failover took back to before the copying."""

    def refuses(self, home: Home, opening: int) -> bool:
        generation, partition = home
        return self.memory.partition(partition, generation).closed


class OpensWithoutNumber(Server):
    """Cannot tell partitions that were made anew from those that a failover took."""

    def refuses(self, home: Home, opening: int) -> bool:
        generation, partition = home
        kept = self.memory.partition(partition, generation)
        return kept.closed or (generation > 0 and not kept.opened)


class AsksOnce(Outboxes):
    """Believes for ever what a partition said when it was closed."""

    def may_move(self, meta: Meta) -> bool:
        self._asked = there = meta.generation, meta.opening
        here = self.generation, self.opening
        return there != here and all(outbox.closed for outbox in self.by_partition.values())


@dataclass(frozen=True)
class Mutant:
    """What is exchanged, and how many seeds from 1 on it may take until it is caught where the others are not."""

    cast: Cast
    seeds_max: int
    events: tuple[str, ...] | None = None  # instead of those that the seed draws
    beside: Cast = Cast()

    def history(self, seed: int) -> History:
        return self._play(seed, self.cast)

    def without_it(self, seed: int) -> History:
        """The same seed, and what is to be told from this mutant."""
        return self._play(seed, self.beside)

    def _play(self, seed: int, cast: Cast) -> History:
        return History(seed, cast, lambda plan: plan if self.events is None else replace(plan, events=self.events))


ZOMBIES = ("zombie at commit.before", "zombie at commit.before", "zombie at commit.before", "join")
KILLS = (*["kill at commit.before"] * 4, "join", "join")
PAUSES = ("pause at commit.before", "fail over") * 2
FAILOVERS = (*["zombie at commit.before", "fail over"] * 2, "join", "fail over")
MOVES = ("repartition", "repartition", "repartition", "pause at a point")
MOVES_UNDONE = ("repartition undone", "repartition", "repartition undone")
MUTANTS = {
    "without the fence": Mutant(Cast(store=WithoutFence), 100, ZOMBIES),
    "without the nonce": Mutant(
        Cast(store=WithoutNonce, faulty=SendsToTheNewServer), 200, FAILOVERS, Cast(faulty=SendsToTheNewServer)
    ),
    "without the cursor check": Mutant(Cast(store=WithoutCursorCheck), 20),
    "with client retries": Mutant(Cast(store=SendsAgainBlindly), 50),
    "with generated ids": Mutant(Cast(store=GeneratedIds), 2),
    "with rows kept after a lost commit": Mutant(Cast(pipeline=KeepsRows), 50),
    "with states taken as those of the cursor": Mutant(Cast(pipeline=TrustsTheStates), 50),
    "with states left behind": Mutant(Cast(pipeline=LeavesStatesBehind), 20),
    "with a piece of the states taken for all": Mutant(Cast(store=TakesAPieceForTheWhole), 50, KILLS),
    "with a repartition that leaves the old logs open": Mutant(Cast(store=LeavesTheLogOpen), 10, MOVES),
    "with a repartition before the states have caught up": Mutant(Cast(store=MovesTooEarly), 20, MOVES),
    "with copies into open partitions": Mutant(Cast(store=CopiesOverTheOpen), 100, MOVES),
    "with ticks taken before the copying": Mutant(Cast(server=TakesBeforeItIsOpen), 100, MOVES_UNDONE),
    "with partitions opened without a number": Mutant(Cast(server=OpensWithoutNumber), 100, MOVES_UNDONE),
    "with closed partitions asked once": Mutant(Cast(outboxes=AsksOnce), 100, MOVES_UNDONE),
    "with commits sent to the new server": Mutant(Cast(faulty=SendsToTheNewServer), 200, PAUSES),
}
