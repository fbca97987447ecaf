"""What must be true when a history is over, whatever happened in it."""

from itertools import chain

import numpy as np

from predictor_core import encode_records
from state_store import Ticks
from state_store.commit import latest_value
from state_store.keys import partition_of, tag_of
from state_store.ticks import AssetCheck, parse
from tests.simulation.producers import NumberedProducer
from tests.simulation.server import Home, Server
from tests.simulation.toy import COLD, DEADLY_VALUE, LAYOUT, payload_of, step
from worker.pipeline import DEADLY


class Wrong(AssertionError):
    """A history ended with something lost, doubled, out of order or different."""


class Calm:
    """One partition's ticks taken one after the other by one process that nothing happens to.

    It begins with the rows and the newest predictions that its assets had in the partitions before.
    """

    def __init__(self, ticks: Ticks, rows: dict[bytes, np.ndarray], latest: dict[bytes, bytes]) -> None:
        self.rows, self.latest = rows, latest
        self.predictions: list = []
        self.rejected: list = []
        for index in range(len(ticks)):
            self._take(ticks, index)

    def _take(self, ticks: Ticks, index: int) -> None:
        asset, why = ticks.assets[index], ticks.malformed.get(index)
        if why is None and ticks.values[index] == DEADLY_VALUE:
            why = DEADLY
        if why is None:
            row = self.rows.setdefault(asset, COLD.copy())
            value, time_ns, arrival_ns = (column[index].item() for column in columns(ticks))
            why = "late" if step(row, value, time_ns, arrival_ns) else None
        if why is not None:
            letter = {b"a": asset, b"reason": why.encode(), b"payload": ticks.payload(index)}
            self.rejected.append((ticks.ids[index], letter))
        else:
            self._predict(ticks, index, asset, payload_of(self.rows[asset]))

    def _predict(self, ticks: Ticks, index: int, asset: bytes, payload: bytes) -> None:
        fields = {b"a": asset, b"t": b"%d" % ticks.times_ns[index], b"p": payload}
        request = ticks.request_ids and ticks.request_ids[index]
        self.predictions.append((ticks.ids[index], fields | ({b"r": request} if request is not None else {})))
        self.latest[asset] = latest_value(ticks.ids[index], payload)

    @property
    def states(self) -> dict[bytes, bytes]:
        return {asset: bytes(encode_records(row[None], LAYOUT)[0]) for asset, row in self.rows.items()}


def columns(ticks: Ticks) -> tuple:
    return ticks.values, ticks.times_ns, ticks.arrivals_ns


def judge_fleet(server: Server) -> None:
    """Compares all that the fleet wrote with what one calm process makes of the ticks that the server took."""
    rows: dict[bytes, np.ndarray] = {}
    latest: dict[bytes, bytes] = {}
    for generation in range(server.meta.generation + 1):
        then = server.meta.of(generation)
        for partition in range(then.partitions):
            mine = [asset for asset in rows if partition_of(asset, then.partitions) == partition]
            own_rows = {asset: rows[asset].copy() for asset in mine}
            own_latest = {asset: latest[asset] for asset in mine if asset in latest}
            calm = _judge_partition(server, (generation, partition), then.partitions, own_rows, own_latest)
            rows |= calm.rows
            latest |= calm.latest


def _judge_partition(server: Server, home: Home, partitions: int, rows: dict, latest: dict) -> Calm:
    generation, partition = home
    kept, taken = server.memory.partition(partition, generation), server.taken.get(home, [])
    entries = [[entry_id, list(chain(*fields.items()))] for entry_id, fields in taken]
    calm = Calm(parse(entries, AssetCheck(partition, partitions)), rows, latest)
    where = f"partition {tag_of(generation, partition)}"
    _same(f"predictions of {where}", kept.predictions.entries, calm.predictions)
    _same(f"dead letters of {where}", kept.rejected.entries, calm.rejected)
    _same(f"latest of {where}", sorted(kept.latest.items()), sorted(calm.latest.items()))
    # An asset whose every tick was refused may or may not have a cold state.
    seen = {asset: record for asset, record in kept.states.items() if asset in calm.latest}
    expected = {asset: record for asset, record in calm.states.items() if asset in calm.latest}
    _same(f"states of {where}", sorted(seen.items()), sorted(expected.items()))
    if taken:
        _same(f"cursor of {where}", [kept.cursor, kept.applied], [taken[-1][0], len(taken)])
    return calm


def judge_numbered(server: Server, producers: list[NumberedProducer]) -> None:
    """Each tick of a numbered producer was taken once, in order."""
    entries = [fields for _, taken in sorted(server.taken.items()) for _, fields in taken]
    for producer in producers:
        for asset, sent in producer.sent.items():
            _same(f"ticks of {asset.decode()}", [fields for fields in entries if fields.get(b"a") == asset], sent)


def _same(what: str, found: list, expected: list) -> None:
    if found == expected:
        return
    place = next((i for i, pair in enumerate(zip(found, expected, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        place = min(len(found), len(expected))
    there, wanted = found[place : place + 1], expected[place : place + 1]
    raise Wrong(
        f"{what}: {len(found)} found, {len(expected)} expected; the first that differs is number {place}: "
        f"found {there}, expected {wanted}"
    )
