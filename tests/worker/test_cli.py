"""The command line: bad input is one clear line and an exit code; nothing is half written."""

import asyncio
import json
import subprocess
import sys

import pytest

from state_store import EmbeddedRedis, RedisStateStore
from state_store.logs import Looking
from worker.exits import DONE, FAILED, FLEET, STORE, USAGE


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), port=0) as running:
        asyncio.run(open_fleet(running.url, "usp", 4))
        yield running


async def open_fleet(url, namespace, partitions):
    store = RedisStateStore(url, namespace=namespace)
    await store.open_fleet(partitions, bytes(8), {"telemetry": [], "quantile_levels": []})
    await store.close()


@pytest.fixture
def predictor(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return command


COMMANDS = ["demo", "redis", "init", "worker", "feed", "tail", "replay", "verify", "lag", "top", "doctor", "config"]
COMMANDS += ["rejected", "state", "console"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(predictor, name):
    code, out, _ = predictor(name, "--help")
    assert code == DONE
    assert f"predictor {name}" in out


WITHOUT_JAX = """
import sys
from worker import cli
for words in (line.split() for line in sys.stdin):
    sys.argv = ["predictor", *words]
    try: cli.main()
    except SystemExit as end: assert not end.code, words
    assert "jax" not in sys.modules, words
"""


def test_help_and_what_only_asks_redis_do_not_load_jax(server, tmp_path):
    commands = ["lag --interval 0.1", "rejected ls", "repartition --status", f"state export {tmp_path / 'backup'}"]
    lines = ["--help", *(f"{command} --redis {server.url}" for command in commands)]
    given = {"input": "\n".join(lines), "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", WITHOUT_JAX], **given)
    assert done.returncode == 0, done.stderr


def test_neither_the_console_nor_an_order_loads_jax():
    """It takes seconds, in which the page would not answer."""
    code = "import sys, worker.console.site, worker.hotpath.operator; assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["lag", "--redis", "redis://127.0.0.1:1"], STORE, "refuses connections: start Redis there or check the URL"),
        (["lag", "--redis", "redis://no.such.host.invalid"], STORE, "host name is unknown: check the URL"),
        (["lag", "--redis", "http://localhost"], USAGE, "has the scheme 'http': write it as redis://"),
        (["tail", "--redis", "redis://127.0.0.1:1"], STORE, "refuses connections"),
        (["feed", "--redis", "redis://127.0.0.1:1", "--seconds", "1"], STORE, "refuses connections"),
        (["tail", "--from", "yesterday"], USAGE, "'yesterday' is not a tick id"),
        (["replay", "none.csv"], USAGE, "none.csv cannot be read"),
        (["config", "check", "--config", "none.toml"], USAGE, "none.toml cannot be read"),
        (["lag", "--namespace", "a b"], USAGE, "--namespace: must be 1 to 64 letters"),
        (["worker", "--http-port", "70000"], USAGE, "--http-port: should be less than or equal to 65535"),
    ],
)
def test_bad_input_is_one_line(predictor, words, code, told):
    found, out, err = predictor(*words)
    assert found == code
    assert told in err
    assert err.startswith("predictor: ") and len(err.splitlines()) == 1
    assert not out


def test_a_wrong_password_is_told_and_not_shown(predictor, tmp_path):
    async def guard(url):
        async with Looking(url) as looking:
            await looking.ask("CONFIG", "SET", "requirepass", "right")

    with EmbeddedRedis(tmp_path / "guarded", port=0) as server:
        asyncio.run(guard(server.url))
        for url in (server.url, server.url.replace("redis://", "redis://:secret@")):
            code, _, err = predictor("lag", "--redis", url)
            assert code == STORE
            assert "password" in err and "secret" not in err
        code, _, err = predictor("lag", "--redis", server.url.replace("redis://", "redis://:right@"))
        assert code == FLEET  # let in, and nothing there


def test_a_namespace_without_a_fleet_says_how_to_make_one(predictor, server):
    code, _, err = predictor("lag", "--redis", server.url, "--namespace", "empty")
    assert code == FLEET
    assert "predictor init" in err


def test_a_fleet_of_other_partitions_or_layout_is_refused_and_left_alone(predictor, server):
    code, _, err = predictor("init", "--redis", server.url, "--partitions", "8")
    assert code == FLEET
    assert "was made with 4 partitions, 8 were asked for" in err
    code, _, err = predictor("init", "--redis", server.url, "--partitions", "4")
    assert code == FLEET
    assert f"holds states of layout {bytes(8).hex()}" in err
    assert asyncio.run(meta_of(server.url)).partitions == 4


async def meta_of(url):
    store = RedisStateStore(url)
    try:
        return await store.read_meta()
    finally:
        await store.close()


def test_init_twice_with_the_same_values_is_fine(predictor, server):
    words = ("init", "--redis", server.url, "--namespace", "twice", "--partitions", "2", "--json")
    for _ in range(2):
        code, out, _ = predictor(*words)
        assert code == DONE
        assert json.loads(out)["partitions"] == 2


def test_a_port_in_use_is_told(predictor, server):
    code, _, err = predictor("redis", "--port", server.port, "--dir", "other")
    assert code == STORE
    assert f"Port {server.port} on 127.0.0.1 cannot be had" in err


def test_a_bad_line_of_a_file_is_told_before_any_tick_is_sent(predictor, server, tmp_path):
    asyncio.run(open_fleet(server.url, "file", 1))
    path = tmp_path / "ticks.csv"
    path.write_text("asset,timestamp_ns,value\nA,1,1.0\nA,2,nan\n")
    code, _, err = predictor("feed", "--redis", server.url, "--namespace", "file", "--csv", path)
    assert code == USAGE
    assert "ticks.csv line 3: value must be finite, found 'nan'" in err
    code, out, _ = predictor("lag", "--redis", server.url, "--namespace", "file", "--interval", "0.1", "--json")
    assert json.loads(out)["total"]["backlog"] == 0


def test_a_file_is_fed_whole_and_lag_shows_it(predictor, server, tmp_path):
    asyncio.run(open_fleet(server.url, "fed", 2))
    path = tmp_path / "ticks.csv"
    path.write_text("asset,timestamp_ns,value\n" + "".join(f"A{i % 7},{i},{i / 3}\n" for i in range(100)))
    code, out, _ = predictor("feed", "--redis", server.url, "--namespace", "fed", "--csv", path, "--json")
    assert code == DONE
    assert json.loads(out)["ticks_taken"] == 100
    code, out, _ = predictor("lag", "--redis", server.url, "--namespace", "fed", "--interval", "0.1", "--json")
    told = json.loads(out)
    assert told["total"]["backlog"] == 100
    assert {part["owner"] for part in told["partitions"]} == {""}


def test_a_synthetic_feed_ends_by_itself(predictor, server):
    asyncio.run(open_fleet(server.url, "made", 2))
    words = ("--namespace", "made", "--assets", "10", "--rate", "500", "--seconds", "0.5", "--json")
    code, out, _ = predictor("feed", "--redis", server.url, *words)
    told = json.loads(out)
    assert code == DONE
    assert 200 <= told["ticks_sent"] == told["ticks_taken"] <= 260


def test_without_a_url_commands_meet_in_the_embedded_server(predictor):
    code, _, err = predictor("lag")
    assert (code, "does not exist yet" in err) == (FLEET, True)
    with EmbeddedRedis(".predictor/redis") as running:
        asyncio.run(open_fleet(running.url, "usp", 1))
        assert predictor("lag", "--interval", "0.1")[0] == DONE


def test_doctor_exits_one_on_an_error(predictor, monkeypatch):
    monkeypatch.setattr("worker.doctor._device_facts", lambda: {"devices": ["cpu: a"]})
    code, out, _ = predictor("doctor", "--redis", "redis://127.0.0.1:1", "--json")
    assert code == FAILED
    findings = {finding["what"]: finding["level"] for finding in json.loads(out)["findings"]}
    assert (findings["redis"], findings["device"], findings["python"]) == ("error", "ok", "ok")


def test_config_show_masks_the_password(predictor, monkeypatch):
    monkeypatch.setenv("USP_REDIS__URL", "redis://u:secret@h")
    code, out, _ = predictor("config", "show")
    assert code == DONE
    assert "redis://u:***@h" in out and "secret" not in out
