"""Every claim of the page on the wire format, tried with plain commands on a real server and a real worker."""

import asyncio
import json
import struct
from hashlib import sha1
from zlib import crc32

import msgpack
import pytest

from predictor_core import PredictorConfig, payload_fields
from state_store import RedisStateStore, StateStoreError
from state_store.logs import Looking
from tests.clients.conftest import logged
from tests.docs.pages import DOCS
from worker.settings import load

PAGE = (DOCS / "protocol.md").read_text()
CLIENTS = DOCS / "clients" / "node"
START_NS = 1_760_000_000_000_000_000
ARRAY = "array of "
TYPES = {0xCB: "float 64", 0xCA: "float 32", 0xD3: "int 64", 0xCE: "uint 32", 0xDC: ARRAY, 0xC4: "bin 8"}


def rows(heading: str) -> list[list[str]]:
    """The table under a heading of the page, without its first line; code marks taken off."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_partitions_on_the_page_are_those_of_crc32():
    for asset, checksum, of_16, of_256 in rows("Partition"):
        number = crc32(asset.encode())
        assert (number, number % 16, number % 256) == (int(checksum), int(of_16), int(of_256))


async def test_what_is_appended_by_hand_is_predicted_or_rejected_as_the_page_says(fleet):
    fleet.start_worker()
    asset, t = "EURUSD", START_NS
    home = crc32(asset.encode()) % fleet.partitions
    ticks = [
        ("a", asset, "y", "1.0873", "t", t, "r", "order-7"),
        ("a", asset, "y", "1.0873", "t", t, "r", "order-7"),  # its reply was lost: sent again
        ("t", t + 1, "note", "other fields", "y", "-1e-3", "a", asset),
        ("a", asset, "y", "1_000", "t", t + 2),
        ("a", asset, "y", "nan", "t", t + 3),
        ("a", asset, "y", "1", "t", 2**63),
        ("a", asset, "y", "1", "t", t + 4, "r", "x" * 257),
        ("a", "x" * 257, "y", "1", "t", t),
        ("a", asset, "y", "1"),
    ]
    async with Looking(fleet.url) as redis:
        key = f"usp:{{{home}}}"
        ids = [(await redis.ask("XADD", f"{key}:ticks", "*", *map(str, tick))).decode() for tick in ticks]
        other = (home + 1) % fleet.partitions
        await redis.ask("XADD", f"usp:{{{other}}}:ticks", "*", "a", asset, "y", "1", "t", str(t))
        await asyncio.to_thread(fleet.wait_until_idle)
        meta = await redis.ask("HGETALL", "usp:meta")
        types = {name: kind for name, kind, *_ in rows("Keys") if not name.endswith((":producers", ":frames"))}
        for name, kind in types.items():
            assert (await redis.ask("TYPE", name.replace("{p}", f"{{{home}}}"))).decode() == kind, name
        latest = msgpack.unpackb(await redis.ask("HGET", f"{key}:latest", asset))

    predictions = {id: fields for _, id, fields in await logged(fleet, "predictions")}
    assert list(predictions) == [ids[0], ids[2]]
    assert {name: value for name, value in predictions[ids[0]].items() if name != b"p"} == {
        b"a": asset.encode(), b"t": str(t).encode(), b"r": b"order-7"
    }  # fmt: skip
    assert kinds(predictions[ids[0]][b"p"]) == [(name, kind) for name, kind, _ in rows("A prediction")]
    assert latest == [ids[2], msgpack.unpackb(predictions[ids[2]][b"p"])]

    letters = {id: fields for p, id, fields in await logged(fleet, "rejected") if p == home}
    assert list(letters) == [ids[1], *ids[3:]]
    told = [fields[b"reason"].decode().partition(":")[0] for fields in letters.values()]
    assert told == [
        "late", "not a number", "not finite", "timestamp does not fit 64 bits", "request id is too long",
        "asset is longer than 256 bytes", "no field t",
    ]  # fmt: skip
    assert msgpack.unpackb(letters[ids[1]][b"payload"]) == [str(word).encode() for word in ticks[1]]
    (misplaced,) = [fields for p, _, fields in await logged(fleet, "rejected") if p == other]
    assert misplaced[b"reason"].startswith(b"asset belongs to partition %d" % home)

    named = {name.decode(): value.decode() for name, value in zip(meta[0::2], meta[1::2], strict=True)}
    assert (named["schema"], int(named["partitions"])) == ("1", fleet.partitions)
    assert json.loads(named["fields"]) == payload_fields(PredictorConfig().static()) and named["layout"]


def kinds(payload: bytes) -> list[tuple[str, str]]:
    """The fields of a payload in turn, each with the MessagePack type of its value."""
    found = []
    for name in msgpack.unpackb(payload):
        at = payload.index(msgpack.packb(name)) + len(msgpack.packb(name))
        kind = "fixint" if payload[at] < 0x80 else TYPES[payload[at]]
        found.append((name, kind + TYPES[payload[at + 3]] if kind == ARRAY else kind))
    return found


async def test_the_script_answers_as_the_page_says(fleet):
    async with Looking(fleet.url) as redis:
        await redis.ask("SCRIPT", "FLUSH")
        key, script = "usp:{1}", (CLIENTS / "ingest.lua").read_text()

        async def send(first: int, count: int, session: int = 5, resume: int = 0, backlog_max: int = 100) -> list:
            words = [word for k in range(count) for word in ("gold", "1.5", str(START_NS + k), "")]
            keys = [f"{key}:{name}" for name in ("ticks", "producers", "control", "frames")]
            told = map(str, ("me", session, first, resume, backlog_max, 256, 86_400_000, 0))
            code, *rest = await redis.ask("EVALSHA", sha1(script.encode()).hexdigest(), "4", *keys, *told, *words)
            return [code.decode(), *rest]

        async def in_log() -> int:
            return await redis.ask("XLEN", f"{key}:ticks")

        with pytest.raises(StateStoreError, match="NOSCRIPT"):
            await send(1, 1)
        await redis.ask("SCRIPT", "LOAD", script)
        assert (await send(1, 3), await in_log()) == (["OK", 3, b""], 3)
        assert (await send(1, 3), await in_log()) == (["OK", 3, b""], 3)  # its reply was lost: sent again
        assert (await send(2, 4), await in_log()) == (["OK", 5, b""], 5)  # the first two are there already
        assert (await send(6, 4, backlog_max=7), await in_log()) == (["FULL", 7, b""], 7)
        assert (await send(9, 1), await in_log()) == (["GAP", 7, b""], 7)
        assert (await send(9, 1, resume=1), await in_log()) == (["OK", 9, b""], 8)
        assert (await send(1, 1, session=4), await in_log()) == (["STALE", 0, b""], 8)
        assert (await send(1, 1, session=6), await in_log()) == (["OK", 1, b""], 9)  # a new start counts from 1
        kept = (await redis.ask("HGET", f"{key}:producers", "me")).decode().split(":")
        assert kept[:2] == ["6", "1"] and len(kept) == 3
        await redis.ask("HSET", f"{key}:control", "seal", "look at it")
        assert (await send(2, 1, session=6), await in_log()) == (["SEALED", 0, b"look at it"], 9)
        await redis.ask("HDEL", f"{key}:control", "seal")
        store = RedisStateStore(fleet.url)
        await store.begin_move(fleet.partitions + 1)
        await store.close_partition(1)
        await store.close()
        assert (await send(1, 4, session=6), await in_log()) == (["MOVED", 1, b"1"], 9)
        assert (await send(1, 1, session=7), await in_log()) == (["MOVED", 0, b"1"], 9)
        assert (await send(1, 1, session=5), await in_log()) == (["STALE", 0, b""], 9)
        with pytest.raises(StateStoreError, match="takes no ticks in this partition any more"):
            await redis.ask("XADD", f"{key}:ticks", "*", "a", "gold", "y", "1.5", "t", str(START_NS))
    codes = [code for code, *_ in rows("Order, and sending again")]
    assert codes == ["OK", "FULL", "GAP", "STALE", "SEALED", "MOVED"]


async def test_a_frame_made_by_the_page_is_taken_as_the_page_says(fleet):
    fleet.start_worker()
    sizes = [size for size, _ in rows("Frames")]
    assert sizes == ["1", "8 for each tick", "8 for each tick", "the rest"]
    key, script = "usp:{1}", (CLIENTS / "ingest.lua").read_text()

    def frame(times: list[int], values: list[float], assets: list[str]) -> list[str | bytes]:
        body = b"\x01" + struct.pack(f"<{len(times)}q", *times) + struct.pack(f"<{len(times)}d", *values)
        return ["", str(len(times)), body + b"\xff".join(asset.encode() for asset in assets), ""]

    async with Looking(fleet.url) as redis:
        await redis.ask("SCRIPT", "LOAD", script)
        keys = [f"{key}:{name}" for name in ("ticks", "producers", "control", "frames")]

        async def send(first: int, *words: str | bytes, backlog_max: int = 100) -> list:
            told = map(str, ("me", 5, first, 0, backlog_max, 256, 86_400_000, 0))
            code, *rest = await redis.ask("EVALSHA", sha1(script.encode()).hexdigest(), "4", *keys, *told, *words)
            return [code.decode(), *rest]

        four = frame([START_NS + k for k in range(4)], [1.5, 2.5, 3.5, 4.5], ["gold"] * 4)
        alone = ["gold", "5.5", str(START_NS + 4), "order-7"]
        assert await send(1, *four, *alone) == ["OK", 5, b""]
        assert await send(4, *frame([START_NS + 3, START_NS + 4], [4.5, 5.5], ["gold"] * 2)) == ["OK", 5, b""]
        more = [START_NS + 5 + k for k in range(2)]
        assert await send(5, *frame([START_NS + 4, *more], [5.5, 6.5, 7.5], ["gold"] * 3)) == ["OK", 5, b""]
        await asyncio.to_thread(fleet.wait_until_idle)
        assert await send(6, *frame(more, [6.5, 7.5], ["gold"] * 2), backlog_max=1) == ["FULL", 5, b"1"]
        broken = ["", "3", b"\x01 broken", ""]
        assert await send(6, *frame(more, [6.5, 7.5], ["gold"] * 2), *broken) == ["OK", 10, b""]
        await asyncio.to_thread(fleet.wait_until_idle)
        entries = await redis.ask("XRANGE", f"{key}:ticks", "-", "+")
        assert await redis.ask("HGET", f"{key}:frames", "framed") == b"6"
        asked = (await redis.ask("XREAD", "STREAMS", f"{key}:ticks", entries[0][0].replace(b"-3", b"-1")))[0][1]
        assert asked == entries
    assert [b"".join(fields[0::2]) for _, fields in entries] == [b"nf", b"aytr", b"nf", b"nf"]
    assert entries[0][0].endswith(b"-3") and entries[0][1][:3] == [b"n", b"4", b"f"]
    opening = entries[0][0].decode()[:-1]
    ids = [id for _, id, _ in await logged(fleet, "predictions")]
    assert len(ids) == 7 and ids[:4] == [f"{opening}{k}" for k in range(4)]
    ((_, _, letter),) = await logged(fleet, "rejected")
    assert letter[b"reason"].startswith(b"frame")


def test_the_page_names_the_retention_that_is_the_default():
    assert f"({load().worker.predictions_kept:,})" in PAGE
