"""Backups: what a fleet remembers, partition by partition, in one file.

    +------------+-----------+---------+---------+-----+-----------+-----+-----+-------------+
    | "USPB" 1 … | partition | entries | entries | ... | partition | ... | end | blake2b-256 |
    +------------+-----------+---------+---------+-----+-----------+-----+-----+-------------+

MessagePack arrays, one after the other: ["USPB", 1, {fleet}], then for each partition ["partition", number, {control}]
and its ["states" | "latest", number, [asset, value, ...]], and ["end", arrays before]. The digest covers all before it.
A partition's states, newest predictions and cursor are those of one moment; partitions are taken one after the other.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedReader
from pathlib import Path
from secrets import token_hex
from typing import Any

import msgpack

from state_store.contract import START, Meta
from state_store.errors import BackupRefused, BadBackup
from state_store.logs import Logs
from state_store.meta import whole_openings

MAGIC, FORMAT = "USPB", 1
DIGEST_BYTES = 32
PAIRS_AT_ONCE = 512
ARRAY_BYTES_MAX = 256 << 20
BLOCK = 1 << 20
PAIRED = ("states", "latest")
CAUGHT_UP_S, PAUSE_S = 90.0, 0.002  # Longer than a worker leaves a changed state unstored.
NOT_ONE = "it is not a backup of a fleet"


@dataclass(frozen=True, slots=True)
class Moment:
    """How far a partition was when its states were taken."""

    partition: int
    cursor: bytes
    state_cursor: bytes
    applied: int
    states: int
    latest: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a backup holds; `namespace` is the one that it was taken from."""

    namespace: str
    meta: Meta
    moments: dict[int, Moment]

    @property
    def states(self) -> int:
        return sum(moment.states for moment in self.moments.values())


async def write_backup(logs: Logs, meta: Meta, path: Path, partitions: list[int]) -> Summary:
    """Writes a file whole or not at all; the fleet may run."""
    logs, moments = logs.of(meta), {}
    with _whole_file(path) as out:
        fleet = {"partitions": meta.partitions, "layout": meta.layout, "fields": meta.fields, "schema": meta.schema}
        if meta.generation:
            fleet |= {"generation": meta.generation, "past": meta.past, "openings": meta.openings}
        out.put([MAGIC, FORMAT, {"namespace": logs.keys.namespace, **fleet}])
        for partition in partitions:
            moment, tables = await caught_up(logs, partition)
            out.put(["partition", partition, _control(moment)])
            for name, flat in tables.items():
                for start in range(0, len(flat), 2 * PAIRS_AT_ONCE):
                    out.put([name, partition, flat[start : start + 2 * PAIRS_AT_ONCE]])
            moments[partition] = moment
        out.put(["end", out.arrays])
    return Summary(logs.keys.namespace, meta, moments)


async def caught_up(logs: Logs, partition: int) -> tuple[Moment, dict[str, list[bytes]]]:
    """Waits for a moment at which the stored states are those of the cursor, which workers make again and again."""
    keys = logs.keys.of(partition)
    asked = ("HMGET", keys.control, "cursor", "state_cursor", "applied")
    for _ in range(int(CAUGHT_UP_S / PAUSE_S)):
        cursor, state_cursor, _ = await logs.looking.ask(*asked)
        if cursor == (state_cursor or cursor):
            told = await logs.looking.together(asked, ("HGETALL", keys.states), ("HGETALL", keys.latest))
            (cursor, state_cursor, applied), states, latest = told
            if cursor == (state_cursor or cursor):
                counts = int(applied or 0), len(states) // 2, len(latest) // 2
                moment = Moment(partition, cursor or START, cursor or START, *counts)
                return moment, {"states": states, "latest": latest}
        await asyncio.sleep(PAUSE_S)
    raise BackupRefused(
        f"Partition {partition}: its stored states stayed behind its cursor for {CAUGHT_UP_S:.0f} s. Is a worker at "
        "work on it (predictor lag)? One that starts catches up at once."
    )


def _control(moment: Moment) -> dict[str, Any]:
    return {name: getattr(moment, name) for name in ("cursor", "state_cursor", "applied", "states", "latest")}


class Backup:
    """A file that was found whole."""

    def __init__(self, path: Path) -> None:
        """Reads it once from end to end; raises BadBackup."""
        self.path = path
        self._starts: dict[int, int] = {}  # Where each partition's arrays begin.
        self._size = self._check_digest()
        try:
            self.summary = self._summarise()
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise self._bad(f"its parts are not those of a backup ({error!r})") from error

    def pairs(self, partition: int) -> Iterator[tuple[str, list[bytes]]]:
        """The states and newest predictions of one partition: ("states" | "latest", [asset, value, ...])."""
        for array, _ in self._arrays(self._starts[partition]):
            if array[0] not in PAIRED:
                return
            yield array[0], array[2]

    def record(self, partition: int, asset: bytes) -> bytes | None:
        """One asset's state."""
        for name, flat in self.pairs(partition):
            if name == "states" and asset in flat[0::2]:
                return flat[2 * flat[0::2].index(asset) + 1]
        return None

    def _check_digest(self) -> int:
        """Gives the number of bytes before the digest."""
        with self._opened() as file:
            left = size = os.fstat(file.fileno()).st_size - DIGEST_BYTES
            if not file.peek(8)[:8].startswith(bytes([0x93, 0xA4]) + MAGIC.encode()):
                raise self._bad(NOT_ONE)
            digest = blake2b(digest_size=DIGEST_BYTES)
            while left > 0 and (block := file.read(min(BLOCK, left))):
                digest.update(block)
                left -= len(block)
            if left or file.read() != digest.digest():
                raise self._bad("its checksum does not match its bytes: take another copy")
        return size

    def _summarise(self) -> Summary:
        header: list[Any] = []
        moments: dict[int, Moment] = {}
        seen: dict[tuple[str, int], int] = {}
        for array, end in self._arrays():
            if array[0] == MAGIC:
                header = array
            elif array[0] == "partition":
                moments[array[1]], self._starts[array[1]] = Moment(array[1], **array[2]), end
            elif array[0] in PAIRED:
                seen[array[0], array[1]] = seen.get((array[0], array[1]), 0) + len(array[2]) // 2
        if not header or header[1] != FORMAT:
            raise self._bad(f"its format is {header[1:2]}, this version knows {FORMAT}")
        wanted = {(name, p): getattr(moments[p], name) for p in moments for name in PAIRED if getattr(moments[p], name)}
        if seen != wanted:
            raise self._bad("it does not hold as many states as it says")
        fleet = dict(header[2])
        fleet["past"] = tuple(fleet.get("past", ()))
        fleet["openings"] = whole_openings(fleet.get("openings", ()), fleet.get("generation", 0))
        return Summary(fleet.pop("namespace"), Meta(**fleet), moments)

    def _arrays(self, start: int = 0) -> Iterator[tuple[list[Any], int]]:
        """The arrays from a place on, and where each ends."""
        try:
            with self._opened() as file:
                file.seek(start)
                unpacker = msgpack.Unpacker(max_buffer_size=ARRAY_BYTES_MAX)
                left = self._size - start
                while left > 0:
                    block = file.read(min(BLOCK, left))
                    left -= len(block) or left
                    unpacker.feed(block)
                    for array in unpacker:
                        yield array, start + unpacker.tell()
        except (ValueError, TypeError, KeyError, IndexError, msgpack.UnpackException) as error:
            raise self._bad(f"it cannot be decoded ({error})") from error

    def _opened(self) -> BufferedReader:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise self._bad(f"it cannot be read: {error.strerror}") from None

    def _bad(self, why: str) -> BadBackup:
        return BadBackup(f"{self.path}: {why}.")


class _Output:
    """Packs arrays into a file and sums them up."""

    def __init__(self, file: Any) -> None:
        self.arrays = 0
        self.digest = blake2b(digest_size=DIGEST_BYTES)
        self._file = file

    def put(self, array: list[Any]) -> None:
        packed = bytes(msgpack.packb(array) or b"")
        self.digest.update(packed)
        self._file.write(packed)
        self.arrays += 1


@contextmanager
def _whole_file(path: Path) -> Iterator[_Output]:
    """A file beside `path` that takes its place when the block is done, and goes when it fails."""
    temporary = path.with_name(f"{path.name}.{token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            out = _Output(file)
            yield out
            file.write(out.digest.digest())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise BadBackup(f"{path} could not be written: {error.strerror or error}; nothing was changed.") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
