"""What must be true when a history is over, whatever happened in it."""

from itertools import chain

import numpy as np

from predictor_core import encode_records
from state_store import Ticks
from state_store.commit import latest_value
from state_store.ticks import AssetCheck, parse
from tests.simulation.producers import NumberedProducer
from tests.simulation.server import Server
from tests.simulation.toy import COLD, DEADLY_VALUE, LAYOUT, payload_of, step
from worker.pipeline import DEADLY


class Wrong(AssertionError):
    """A history ended with something lost, doubled, out of order or different."""


class Calm:
    """One partition's ticks taken one after the other by one process that nothing happens to."""

    def __init__(self, ticks: Ticks) -> None:
        self.rows: dict[bytes, np.ndarray] = {}
        self.predictions: list = []
        self.rejected: list = []
        self.latest: dict[bytes, bytes] = {}
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


def judge_partition(server: Server, partition: int, partitions: int) -> None:
    """Compares all that the fleet wrote with what one calm process makes of the ticks that the server took."""
    kept, taken = server.memory.partition(partition), server.taken.get(partition, [])
    entries = [[entry_id, list(chain(*fields.items()))] for entry_id, fields in taken]
    calm = Calm(parse(entries, AssetCheck(partition, partitions)))
    _same(f"predictions of partition {partition}", kept.predictions.entries, calm.predictions)
    _same(f"dead letters of partition {partition}", kept.rejected.entries, calm.rejected)
    _same(f"latest of partition {partition}", sorted(kept.latest.items()), sorted(calm.latest.items()))
    # An asset whose every tick was refused may or may not have a cold state.
    seen = {asset: record for asset, record in kept.states.items() if asset in calm.latest}
    _same(f"states of partition {partition}", sorted(seen.items()), sorted(calm.states.items()))
    if taken:
        _same(f"cursor of partition {partition}", [kept.cursor, kept.applied], [taken[-1][0], len(taken)])


def judge_numbered(server: Server, producers: list[NumberedProducer]) -> None:
    """Each tick of a numbered producer was taken once, in order."""
    for producer in producers:
        for asset, sent in producer.sent.items():
            taken = [fields for entries in server.taken.values() for _, fields in entries if fields.get(b"a") == asset]
            _same(f"ticks of {asset.decode()}", taken, sent)


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
