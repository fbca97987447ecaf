"""A client that shares no code with ours: what it sends is predicted once, what it reads are the same bytes."""

import asyncio
import json

import pytest

from state_store import PredictionReader, ProducerFenced, TickProducer, ingest
from state_store.keys import partition_of
from state_store.logs import Looking
from tests.clients.conftest import FOLDER, logged
from tests.store.conftest import Proxy
from worker.lines import json_line, prediction_line
from worker.reach import open_store
from worker.settings import load

LOST = 3  # replies

START_NS = 1_600_000_000_000_000_000
ASSETS = ["EURUSD", "té/1", "金", "x" * 200, "a b"]


def ticks(rounds: int, first: int = 0) -> list[str]:
    return [f"{asset},{START_NS + k},{100 + k % 7}.{k % 10}" for k in range(first, first + rounds) for asset in ASSETS]


async def raw_predictions(url: str) -> tuple[dict, dict]:
    """Every prediction's own bytes, and the names of its numbers, as the Python reader has them."""
    async with PredictionReader(url, start="0") as reader:
        found = {}
        while batches := await reader.read_raw(0):
            for batch in batches:
                found |= {(batch.partition, id.decode()): e for id, e in zip(batch.ids, batch.entries, strict=True)}
        return found, reader.meta.fields


async def test_every_tick_sent_from_node_gets_one_prediction_which_node_and_python_read_alike(fleet, node):
    fleet.start_worker()
    sent = ticks(60)
    assert node.send(["asset,timestamp_ns,value", *sent])["sent"] == len(sent)
    await asyncio.to_thread(fleet.wait_until_idle)

    found, fields = await raw_predictions(fleet.url)
    lines = await asyncio.to_thread(node.read)
    assert [(line["asset"], int(line["timestamp_ns"])) for line in lines if line["asset"] == "金"] == [
        ("金", START_NS + k) for k in range(60)
    ]
    assert len(lines) == len(found) == len(sent)
    for line in lines:
        entry = found[line["partition"], line["tick_id"]]
        assert line.pop("payload") == entry[b"p"].hex()
        assert line["partition"] == partition_of(entry[b"a"], fleet.partitions)
        named = prediction_line(entry[b"p"], fields, entry[b"a"].decode(), line["partition"], line["tick_id"])
        ours = json.loads(json_line(named))
        del ours["mode"], ours["event_names"]
        assert {**line, "timestamp_ns": int(line["timestamp_ns"])} == ours


async def test_a_batch_whose_reply_was_lost_is_sent_again_and_taken_once(fleet, node, tmp_path):
    fleet.start_worker()
    sent = ticks(300)
    await asyncio.to_thread(node.send, sent[:1], name="before")  # the server knows the script from now on
    async with Proxy(fleet.url.removeprefix("unix://"), tmp_path) as proxy:
        proxy.matches = b"EVALSHA"
        sending = asyncio.create_task(asyncio.to_thread(node.send, sent[1:], f"unix://{proxy.path}"))
        while not sending.done():
            proxy.lose = "reply" if proxy.lost < LOST else None
            await asyncio.sleep(0.005)
        assert (await sending)["sent"] == len(sent) - 1
        assert proxy.lost == LOST
    await asyncio.to_thread(fleet.wait_until_idle)
    in_log = [(fields[b"a"], fields[b"t"]) for _, _, fields in await logged(fleet, "ticks")]
    assert sorted(in_log) == sorted((f"{a}".encode(), t.encode()) for a, t, _ in (each.split(",") for each in sent))
    assert len((await raw_predictions(fleet.url))[0]) == len(sent)


async def test_frames_made_by_node_hold_the_ticks_that_were_sent(fleet, node, monkeypatch, tmp_path):
    monkeypatch.setenv("FRAMES", "1")
    sent = ticks(120)
    async with Proxy(fleet.url.removeprefix("unix://"), tmp_path) as proxy:
        proxy.matches, proxy.lose = b"EVALSHA", "reply"
        await asyncio.to_thread(node.send, sent, f"unix://{proxy.path}")
        assert proxy.lost == 1
    found = []
    async with open_store(load({"redis": {"url": fleet.url}})) as store:
        for partition in range(fleet.partitions):
            read = await store.read(partition, b"0-0", 10_000, 0)
            columns = (map(bytes.decode, read.assets), read.times_ns.tolist(), read.values.tolist())
            found += [",".join(map(str, tick)) for tick in zip(*columns, strict=True)]
            probe = await store.probe(partition)
            assert not read.malformed and probe.backlog == len(read) and probe.length <= -(-len(read) // 200)
    assert sorted(found) == sorted(sent)


async def test_a_later_producer_of_the_same_name_shuts_the_earlier_one_out(fleet, node):
    with pytest.raises(ProducerFenced):
        async with TickProducer(fleet.url, name="shared") as earlier:
            await earlier.send("EURUSD", 1.0, START_NS)
            await earlier.flush()
            await asyncio.to_thread(node.send, ticks(1, first=1), fleet.url, "shared")
            await earlier.send("EURUSD", 2.0, START_NS + 9)
    times = [fields[b"t"] for _, _, fields in await logged(fleet, "ticks") if fields[b"a"] == b"EURUSD"]
    assert times == [b"%d" % START_NS, b"%d" % (START_NS + 1)]


async def test_other_partitions_are_said_in_one_line_and_taken_at_the_next_start(fleet, node):
    async with open_store(load({"redis": {"url": fleet.url}})) as store, Looking(fleet.url) as looking:
        reading = asyncio.create_task(asyncio.to_thread(node.run, "reader.mjs", fleet.url, "usp", "0", "60"))
        async with asyncio.timeout(30):
            while b"cmd=xread" not in await looking.ask("CLIENT", "LIST"):
                await asyncio.sleep(0.02)
        await store.begin_move(7)
        for partition in range(fleet.partitions):
            assert (await store.close_partition(partition)).drained
        done = await asyncio.to_thread(node.run, "producer.mjs", fleet.url, given="EURUSD,1,1.5\nEURUSD,2,2.5\n")
        assert done.returncode == 1 and "from number 1 on (2) were not taken" in done.stderr, done
        assert len(done.stderr.splitlines()) == 1
        for partition in range(fleet.partitions):
            await store.carry(partition)
        store.follow(await store.end_move())
        done = await reading
        assert done.returncode == 1 and "the fleet has others now: start again from 0" in done.stderr, done
        assert (await asyncio.to_thread(node.send, ticks(2)))["partitions"] == 7
        backlogs = [(await store.probe(partition)).backlog for partition in range(7)]
        assert sum(backlogs) == len(ticks(2)) and backlogs[partition_of(b"EURUSD", 7)] >= 2


async def test_what_is_wrong_is_said_in_one_line(fleet, node):
    mistakes = {"redis://127.0.0.1:1": "ECONNREFUSED", "http://x": "take redis://", fleet.url: "predictor init"}
    for program in ("producer.mjs", "reader.mjs"):
        for url, told in mistakes.items():
            done = await asyncio.to_thread(node.run, program, url, "elsewhere")
            assert done.returncode == 1 and told in done.stderr and len(done.stderr.splitlines()) == 1, done


async def test_a_time_that_no_frame_can_hold_is_said_at_once(fleet, node, monkeypatch):
    monkeypatch.setenv("FRAMES", "1")
    for time in ("1.5", "9" * 19, ""):
        done = await asyncio.to_thread(node.run, "producer.mjs", fleet.url, given=f"EURUSD,1,1\nEURUSD,{time},2\n")
        assert done.returncode == 1 and f"no frame can hold the time '{time}'" in done.stderr, done
        assert len(done.stderr.splitlines()) == 1


def test_the_script_in_the_clients_folder_is_the_fleets_own():
    path = FOLDER / "ingest.lua"
    assert path.read_text() == ingest._INGEST_LUA, f"state_store/ingest.py has changed: write its script to {path} too"
