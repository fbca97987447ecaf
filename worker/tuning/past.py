"""The past that a tuning runs on: the ticks of a file, or those that a fleet still has in its logs."""

from collections.abc import Sequence

import numpy as np

from predictor_core.tuning.folds import TICKS_MIN
from predictor_core.tuning.history import History, history_of
from state_store import START, StateStore
from worker.errors import BadInput
from worker.exits import notice
from worker.ticksfile import TicksFile

PAGE = 4096
TICKS_MAX = 5_000_000


def file_history(file: TicksFile, assets: Sequence[str] = ()) -> History:
    """The ticks of a file, asset by asset in its order."""
    return _usable(history_of(file.assets, file.values, file.times_ns, file.arrivals_ns), assets, "the file")


async def fleet_history(store: StateStore, assets: Sequence[str] = ()) -> History:
    """The ticks in the logs of a fleet; what is malformed or was trimmed away is not there. Changes nothing."""
    meta, names, columns = await store.read_meta(), [], [[], [], []]
    for partition in range(meta.partitions):
        after = START
        while page := await store.read(partition, after, PAGE, 0):
            kept = [at for at in range(len(page)) if at not in page.malformed]
            names += [page.assets[at].decode() for at in kept]
            for column, given in zip(columns, (page.values, page.times_ns, page.arrivals_ns), strict=True):
                column.append(given[kept])
            after = page.ids[-1]
            if len(names) > TICKS_MAX:
                raise BadInput(f"the fleet's logs hold more than {TICKS_MAX:,} ticks: name some --assets")
    if not names:
        raise BadInput("the fleet's logs hold no ticks to tune on")
    return _usable(history_of(names, *map(np.concatenate, columns)), assets, "the fleet's logs")


def _usable(history: History, wanted: Sequence[str], where: str) -> History:
    """The wanted assets, or all; those with too short a past are left out, and named."""
    unknown = [asset for asset in wanted if asset not in history.assets]
    if unknown:
        raise BadInput(f"no tick of {', '.join(map(repr, unknown))} in {where}")
    chosen = [at for at, asset in enumerate(history.assets) if not wanted or asset in wanted]
    enough = [at for at in chosen if history.lengths[at] >= TICKS_MIN]
    if not enough:
        raise BadInput(f"tuning needs {TICKS_MIN} ticks of an asset, and no asset in {where} has as many")
    if len(enough) < len(chosen):
        notice(f"left out, with fewer than {TICKS_MIN} ticks: {len(chosen) - len(enough)} of {len(chosen)} assets")
    return history.only(enough)
