"""The commands on dead letters and backups: what they say, how they exit, that they ask before deleting."""

import asyncio
import json

import msgpack
import pytest

from state_store import EmbeddedRedis, RedisStateStore
from state_store.logs import Looking
from worker.exits import DONE, FAILED, FLEET, USAGE

TICK = [b"a", b"A\xc3\xa9", b"y", b"1.5", b"t", b"7"]  # belongs to partition 0 of 2
BROKEN = [b"a", b"A", b"y", b"x", b"t", b"7"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), port=0) as running:
        yield running


@pytest.fixture
def predictor(command, monkeypatch, tmp_path, server):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USP_REDIS__URL", server.url)
    asyncio.run(ask(server, ["FLUSHALL"]))
    asyncio.run(open_fleet(server.url))
    return command


async def open_fleet(url):
    store = RedisStateStore(url)
    await store.open_fleet(2, bytes(8), {"telemetry": [], "quantile_levels": []})
    await store.close()


async def ask(server, *commands):
    async with Looking(server.url) as looking:
        return [await looking.ask(*words) for words in commands]


@pytest.fixture
def letters(server, predictor):
    """Three dead letters: two good ticks that came late, one that is broken; one id is in both partitions."""

    def letter(partition, entry_id, reason, tick):
        words = ("a", tick[1], "reason", reason, "payload", msgpack.packb(tick))
        return ["XADD", f"usp:{{{partition}}}:rejected", entry_id, *words]

    asyncio.run(
        ask(
            server,
            letter(0, "1600000000000-0", "late", TICK),
            letter(0, "1600000000001-0", "late", TICK),
            letter(1, "1600000000001-0", "not a number: 'x'", BROKEN),
            ["XADD", "usp:{0}:ticks", "1600000000000-0", *TICK],
            ["XADD", "usp:{0}:ticks", "1600000000001-0", *TICK],
            ["XADD", "usp:{1}:ticks", "1600000000001-0", *BROKEN],
        )
    )


def length(server, key):
    return asyncio.run(ask(server, ["XLEN", key]))[0]


def test_ls_counts_and_shows_the_newest(predictor, letters):
    code, out, _ = predictor("rejected", "ls", "--newest", "2", "--json")
    told = json.loads(out)
    assert (code, told["total"]) == (DONE, 3)
    assert told["counts"] == [
        {"partition": 0, "generation": 0, "reason": "late", "count": 2},
        {"partition": 1, "generation": 0, "reason": "not a number", "count": 1},
    ]
    assert {row["id"] for row in told["newest"]} == {"1600000000001-0"}
    assert "not a number: 'x'" in predictor("rejected", "ls")[1]


def test_ls_fits_a_narrow_terminal_and_sends_it_nothing_to_obey(predictor, letters, server, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    tick = [b"a", b"\x1b[31m\nx" * 9, b"y", b"\x1b[0m", b"t", b"7"]
    reason = "this tick ended its worker each time it was tried"
    words = ("a", tick[1], "reason", reason, "payload", msgpack.packb(tick))
    asyncio.run(ask(server, ["XADD", "usp:{0}:rejected", "1795225600000-0", *words]))
    out = predictor("rejected", "ls")[1]
    assert "\x1b" not in out and max(map(len, out.splitlines())) <= 80
    assert "1795225600000-0" in out and "2026-11-21T01:46:40Z" in out and "\\x1b[31m" in out
    shown = predictor("rejected", "show", "1795225600000-0")[1]
    assert "\x1b" not in shown and "\\x1b[0m" in shown


def test_ls_of_a_clean_fleet_says_so(predictor):
    assert predictor("rejected", "ls")[1] == "no dead letters\n"


def test_show_gives_every_field_of_the_tick(predictor, letters):
    code, out, _ = predictor("rejected", "show", "1600000000000-0", "--json")
    told = json.loads(out)
    assert (code, told["tick"], told["reason"]) == (DONE, {"a": "Aé", "y": "1.5", "t": "7"}, "late")
    assert told["arrived"] == "2020-09-13T12:26:40.000+00:00"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["rejected", "show", "now"], USAGE, "'now' is no dead letter: write its id"),
        (["rejected", "show", "1-1"], USAGE, "there is no dead letter 1-1: see `predictor rejected ls`"),
        (["rejected", "show", "1600000000001-0"], USAGE, "write 0:1600000000001-0 or 1:1600000000001-0"),
        (["rejected", "requeue"], USAGE, "say which dead letters"),
        (["rejected", "requeue", "1-1", "--reason", "late"], USAGE, "say which dead letters"),
        (["rejected", "purge", "--all"], USAGE, "3 dead letters would be thrown away for good: say so with --yes"),
        (["rejected", "ls", "--namespace", "none"], FLEET, "predictor init"),
        (["state", "import", "none.uspb"], USAGE, "none.uspb is not a file"),
        (["state", "import", "text"], FAILED, "text: it is not a backup of a fleet"),
        (["state", "export", "b", "--partition", "7"], USAGE, "the fleet has no partition 7: it has 0 to 1"),
        (["state", "export", "none/b"], FAILED, "none/b could not be written"),
        (["state", "rebuild", "A", "--cold", "--from", "b"], USAGE, "exclude each other"),
        (["state", "show", ""], USAGE, "asset is empty"),
        (["state", "show", "A"], USAGE, "'A' has no state"),
    ],
)
def test_bad_input_is_one_line(predictor, letters, tmp_path, words, code, told):
    (tmp_path / "text").write_text("this is a text, not a backup, and longer than a checksum")
    found, out, err = predictor(*words)
    assert (found, out) == (code, "")
    assert told in err
    assert err.startswith("predictor: ") and len(err.splitlines()) == 1


def test_requeue_sends_the_good_once_and_leaves_the_broken(predictor, letters, server):
    code, out, _ = predictor("rejected", "requeue", "--reason", "late", "--json")
    assert (code, json.loads(out)["requeued"]) == (DONE, 2)
    assert length(server, "usp:{0}:ticks") == 4
    code, out, err = predictor("rejected", "requeue", "1600000000000-0")
    assert (code, out) == (DONE, "requeued 0, left 0\n")
    assert "1600000000000-0 was requeued as" in err
    code, out, err = predictor("rejected", "requeue", "--reason", "not a number")
    assert (code, out) == (FAILED, "requeued 0, left 1\n")
    assert "1:1600000000001-0 stays: no worker could take it: not a number: 'x'" in err
    assert length(server, "usp:{0}:ticks") == 4


def test_purge_deletes_what_was_named(predictor, letters, server):
    assert predictor("rejected", "purge", "0:1600000000001-0", "--yes")[:2] == (DONE, "purged 1\n")
    assert length(server, "usp:{0}:rejected") == length(server, "usp:{1}:rejected") == 1
    assert "was purged before" in predictor("rejected", "purge", "0:1600000000001-0", "--yes")[2]
    assert json.loads(predictor("rejected", "purge", "--all", "--yes", "--json")[1]) == {"purged": 2, "gone": []}


def test_a_backup_goes_out_and_in_by_command(predictor, server):
    states = ["HSET", "usp:{0}:states", "A", "a record"]
    asyncio.run(ask(server, states, ["HSET", "usp:{0}:control", "cursor", "5-0", "applied", "1"]))
    code, out, _ = predictor("state", "export", "b", "--json")
    assert (code, json.loads(out)["states"]) == (DONE, 1)
    code, out, _ = predictor("state", "import", "b", "--namespace", "new", "--partition", "0", "--json")
    assert (code, json.loads(out)["partitions"]) == (DONE, [0])
    assert asyncio.run(ask(server, ["HGET", "new:{0}:states", "A"])) == [b"a record"]
