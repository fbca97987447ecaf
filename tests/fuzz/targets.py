"""What is fuzzed: a decoder, inputs to begin with, and the errors that it may raise. Anything else is a find.

A target takes any bytes. Where a checksum guards the inner part, half of the inputs get a right one: otherwise nothing
behind it would ever be reached.
"""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import msgpack
import numpy as np
from xxhash import xxh3_64_intdigest

from predictor_core import PredictorConfig, Program, encode_payloads, encode_records
from predictor_core.errors import CorruptRecord, IntegrityError, SchemaMismatch, WrongLayout
from predictor_core.records import CHECKSUM_BYTES, decode_record
from predictor_core.snapshot import Encoder, decode
from scheduler.hotpath import LatencyHistogram
from state_store.backup import DIGEST_BYTES, Backup
from state_store.contract import START, ascending, id_order, joined
from state_store.errors import StateStoreError
from state_store.frames import encode_frame
from state_store.keys import partition_of
from state_store.letters import unpack_tick
from state_store.logs import ticks_of
from state_store.reader import PredictionReader, RawPredictions
from state_store.ticks import AssetCheck, _arrivals, _one_by_one, parse
from worker.hotpath.digest import RefusedDigest, WorkerDigest
from worker.hotpath.digest import decode as decode_digest

PARTITIONS = 4
CONFIG = PredictorConfig()
SECOND_NS = 10**9


@dataclass(frozen=True)
class Target:
    """`run` gets any bytes and may raise only `errors`."""

    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    begin_with: Callable[[], list[bytes]]


_program: list[Program] = []


def program() -> Program:
    """Never run, so it costs no compilation."""
    if not _program:
        _program.append(Program(CONFIG))
    return _program[0]


# -- ticks ------------------------------------------------------------------------------------------------------------


def ticks(data: bytes) -> None:
    """Entries of a log, both ways: the columnar way must give what the slow one gives."""
    entries = _entries(data)
    fast = parse(entries, _check())
    ids, fields = [entry[0] for entry in entries], [entry[1] for entry in entries]
    slow = _one_by_one(ids, fields, _arrivals(ids), _check())
    for name in ("ids", "assets", "request_ids", "malformed"):
        assert getattr(fast, name) == getattr(slow, name), name
    for name in ("values", "times_ns", "arrivals_ns"):
        assert getattr(fast, name).tobytes() == getattr(slow, name).tobytes(), name


def frames(data: bytes) -> None:
    """Frames as XREAD gives them: read in one go, and tick by tick from cursors within, they give the same."""
    entries = []
    for number, line in enumerate(data.split(b"\n--\n")[:8]):
        count, _, frame = line.partition(b" ")
        entries.append([b"1700000000000-%d" % (200 * number + 199), [b"n", count, b"f", frame]])
    whole, parts, after = parse(entries, _check()), [], START
    while left := [entry for entry in entries if id_order(entry[0]) > id_order(after)]:
        parts.append(parse(left[:3], _check(), after, 3))
        after = parts[-1].ids[-1]
    again = joined(parts)
    assert ascending(whole.ids) and whole.count >= len(whole)
    for name in ("ids", "assets", "malformed"):
        assert getattr(again, name) == getattr(whole, name), name
    for name in ("values", "times_ns", "arrivals_ns"):
        assert getattr(again, name).tobytes() == getattr(whole, name).tobytes(), name
    assert [again.payload(i) for i in range(len(again))] == [whole.payload(i) for i in range(len(whole))]
    for entry in entries:
        assert ticks_of(entry)[-1][0] == entry[0]


def some_frames() -> list[bytes]:
    named = [name for name in (b"%d" % i for i in range(50)) if partition_of(name, PARTITIONS) == 0]
    good = [b"%d %b" % (n, encode_frame(named[:n], [0.5 * n] * n, [SECOND_NS + n] * n)) for n in (2, 5)]
    return [b"\n--\n".join(good), good[0], b"3 " + encode_frame([b"", b"\xc3", b"0"], [float("nan")] * 3, [1, 2, 3])]


def _check() -> AssetCheck:
    """Knows some assets already, as after many batches; else the columnar way is never taken."""
    check = AssetCheck(0, PARTITIONS)
    check.known.update(name for name in (b"%d" % i for i in range(50)) if partition_of(name, PARTITIONS) == 0)
    return check


def _entries(data: bytes) -> list:
    """Lines are entries, NULs stand between the names and values of one."""
    lines = data.split(b"\n")[:64]
    entries = []
    for number, line in enumerate(lines):
        pieces = line.split(b"\0")
        entries.append([b"%d-%d" % (1_700_000_000_000 + number, number), pieces[: len(pieces) // 2 * 2]])
    return entries


def some_ticks() -> list[bytes]:
    named = [name for name in (b"%d" % i for i in range(50)) if partition_of(name, PARTITIONS) == 0][:4]
    line = [b"\0".join([b"a", name, b"y", b"%d.25" % i, b"t", b"%d" % (1_700_000_000 * SECOND_NS + i)])
            for i, name in enumerate(named)]  # fmt: skip
    return [b"\n".join(line), b"\n".join(each + b"\0r\0id" for each in line), line[0].replace(b".25", b"e400"), b""]


# -- what a checksum guards -------------------------------------------------------------------------------------------


def record(data: bytes) -> None:
    decode_record(
        _sealed(data, lambda body: xxh3_64_intdigest(body).to_bytes(8, "little")), program().layout_fingerprint
    )


def some_records() -> list[bytes]:
    good = encode_records(program().cold(1), program().layout_fingerprint)[0].tobytes()
    return [b"\1" + good[:-CHECKSUM_BYTES], b"\0" + good]


def snapshot(data: bytes) -> None:
    decode(program(), CONFIG, _sealed(data, lambda body: hashlib.sha256(body).hexdigest().encode()), "here")


def some_snapshots() -> list[bytes]:
    last = np.zeros(1, program().result_dtype)[0]
    good = Encoder(program(), CONFIG).encode(program().cold(1)[0], last, 5)
    return [b"\1" + good]


def backup(data: bytes) -> None:
    def digest(body: bytes) -> bytes:
        return blake2b(body, digest_size=DIGEST_BYTES).digest()

    with tempfile.NamedTemporaryFile(dir=_memory()) as file:
        file.write(_sealed(data, digest))
        file.flush()
        whole = Backup(Path(file.name))
        for partition in whole.summary.moments:
            list(whole.pairs(partition))


def some_backups() -> list[bytes]:
    meta = {"namespace": "usp", "partitions": 1, "layout": b"12345678", "fields": {}, "schema": 1}
    control = {"cursor": b"1-0", "state_cursor": b"1-0", "applied": 1, "states": 1, "latest": 1}
    arrays: list = [
        ["USPB", 1, meta],
        ["partition", 0, control],
        ["states", 0, [b"a", b"x"]],
        ["latest", 0, [b"a", b"y"]],
    ]
    return [b"\1" + b"".join(msgpack.packb(array) for array in arrays)]


def _sealed(data: bytes, checksum: Callable[[bytes], bytes]) -> bytes:
    """The first bit decides whether the rest gets its right checksum."""
    body = data[1:]
    return body + checksum(body) if data[:1] and data[0] & 1 else body


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


# -- small documents --------------------------------------------------------------------------------------------------


def prediction(data: bytes) -> None:
    reader = PredictionReader("redis://nowhere")
    reader.decode(RawPredictions(0, [b"1-0"], [{b"a": data[:4], b"p": data[4:]}]))


def some_predictions() -> list[bytes]:
    results = np.zeros(1, program().result_dtype)
    return [b"EURU" + encode_payloads(results, 3, bytes(8))[0].tobytes()]


def some_letters() -> list[bytes]:
    return [msgpack.packb([b"a", b"EURUSD", b"y", b"nan", b"t", b"5"])]


def some_digests() -> list[bytes]:
    return [WorkerDigest(1, 2, 3, 4, LatencyHistogram()).encode()]


TARGETS = {
    "ticks": Target(ticks, (), some_ticks),
    "frames": Target(frames, (), some_frames),
    "record": Target(record, (CorruptRecord, WrongLayout), some_records),
    "snapshot": Target(snapshot, (IntegrityError, SchemaMismatch), some_snapshots),
    "backup": Target(backup, (StateStoreError,), some_backups),
    "prediction": Target(prediction, (StateStoreError,), some_predictions),
    "letter": Target(unpack_tick, (), some_letters),
    "digest": Target(decode_digest, (RefusedDigest,), some_digests),
}
