"""Follows one asset while somebody looks at it: its recent past once, then what its partition's log says.

    begin      the newest prediction, and back from it through the partition's log as far as is cheap
    advance    what came since; in a partition too busy to read along, only the newest of this asset, and a gap
"""

import time
from collections.abc import Callable

from state_store import START
from state_store.glances import Glances, Made
from worker.console.asset import POINTS_MAX, Form, Trail

PAGE = 500
BACK_MAX = 4000  # entries of the partition's log looked through for this asset's past
PAST_MAX = POINTS_MAX // 2
ALONG_MAX = 250  # entries of the partition read at once; more than that, and they are left out
SKIM_S = 15.0  # until reading along is tried again
PAUSE_S = 15.0  # after something that is no prediction


class Follower:
    """One asset's trail, kept up to date by `advance`."""

    def __init__(self, glances: Glances, form: Form, asset: str, now: Callable[[], float] = time.monotonic) -> None:
        self.trail = Trail()
        self.known = False  # whether it has a prediction
        self.skims = False
        self.fault = ""  # What was found instead of a prediction.
        self.partition = glances.home(asset.encode())
        self._glances, self._form, self._name, self._now = glances, form, asset.encode(), now
        self._read_to, self._skim_until_s, self._pause_until_s = START, 0.0, 0.0

    async def advance(self) -> bool:
        """Reads what is new; tells whether there was anything."""
        before = self.trail, self.trail.count, self.fault
        try:
            if self._now() >= self._pause_until_s:
                await self._step()
                self.fault = ""
        except ValueError as error:
            self.fault, self._pause_until_s = str(error), self._now() + PAUSE_S
        return before != (self.trail, self.trail.count, self.fault)

    async def _step(self) -> None:
        if not self.known:
            await self._begin()
        elif self._now() < self._skim_until_s:
            await self._skim()
        else:
            await self._read_along()

    async def _begin(self) -> None:
        newest = await self._glances.newest(self._name)
        if newest is None:
            return
        found, until, looked = [newest], b"(" + newest.id, 0
        while len(found) < PAST_MAX and looked < BACK_MAX:
            page = await self._glances.predictions_before(self.partition, until, PAGE)
            found += [made for entry in page if (made := self._mine(entry))]
            looked += PAGE
            if len(page) < PAGE:
                break
            until = b"(" + page[-1][0]
        self.trail = Trail()
        for number, made in enumerate(reversed(found[:PAST_MAX])):
            await self._add(made, follows=number > 0)
        self._read_to, self.known = newest.id, True

    async def _read_along(self) -> None:
        page = await self._glances.predictions_after(self.partition, self._read_to, ALONG_MAX)
        if len(page) == ALONG_MAX:
            self.skims, self._skim_until_s = True, self._now() + SKIM_S
            return await self._skim()
        for entry in page:
            if made := self._mine(entry):
                await self._add(made, follows=not self.skims)
                self.skims = False
        if page:
            self._read_to = page[-1][0]
        else:
            await self._look_back()

    async def _skim(self) -> None:
        newest = await self._glances.newest(self._name)
        if newest is not None and newest.id != self._last_id:
            await self._add(newest, follows=False)
            self._read_to = newest.id

    async def _look_back(self) -> None:
        """Begins anew after the server has lost what was read from it."""
        newest = await self._glances.newest(self._name)
        if newest is None or newest.id != self._last_id:
            self.known = False

    async def _add(self, made: Made, follows: bool) -> None:
        value = await self._glances.value(self.partition, made.id)
        self.trail.add(self._form.read(made.id, made.payload, value, follows))

    def _mine(self, entry: tuple[bytes, list[bytes]]) -> Made | None:
        """The prediction of an entry, if it is this asset's; all others stay undecoded."""
        entry_id, fields = entry
        if fields[1:2] != [self._name]:
            return None
        return Made(entry_id, dict(zip(fields[0::2], fields[1::2], strict=False)).get(b"p", b""))

    @property
    def _last_id(self) -> bytes:
        return self.trail.points[-1].id.encode() if self.trail.points else START
