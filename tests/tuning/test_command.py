"""`predictor tune` from the command line: on a file, on a fleet, cut short, and with every bad input."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from loadtests.processes import GENERATORS
from predictor_core.reload import read_config
from predictor_core.tuning import checkpoint
from predictor_core.tuning.lock import locked
from state_store import ConfigGeneration, EmbeddedRedis, RedisStateStore, TickProducer
from worker.exits import DONE, FAILED, USAGE
from worker.settings import Settings
from worker.tuning.take import merged, present_of

from .conftest import CACHE

LEVELS = GENERATORS["logistic"](1000, np.random.default_rng(2)).levels
SECOND = 10**9
TRIALS = ("--trials", "16")


@pytest.fixture
def predictor(command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USP_WORKER__CACHE_DIR", str(CACHE))
    return command


@pytest.fixture
def ticks(tmp_path):
    path = tmp_path / "ticks.csv"
    rows = [f"acme/{name},{(t + 1) * SECOND},{level}" for t, level in enumerate(LEVELS) for name in "xy"]
    path.write_text("\n".join(["asset,timestamp_ns,value", *rows]))
    return path


def test_a_file_is_tuned_drawn_and_written_only_on_request(predictor, ticks, tmp_path):
    code, out, err = predictor("tune", ticks, "--trials", "24", "--json", "--report", "r.html")
    assert code == DONE, err
    (group,) = json.loads(out)["groups"]
    assert group["adopted"] and group["held_back"]["high"] < 1
    assert group["assets"] == ["acme/x", "acme/y"]
    assert not list(tmp_path.glob("*.toml"))
    page = (tmp_path / "r.html").read_text()
    assert page.count("<svg") == 3 and "gain on held-back ticks" in page
    assert "24/24 trials, best 0." in err

    (tmp_path / "c.toml").write_text("# mine\n[redis]\nurl = 'redis://h:1'\n")
    code, out, err = predictor("tune", ticks, "--trials", "24", "--resume", "--write", "c.toml")
    assert code == DONE and "goes on after 24 trials" in err and "written to c.toml" in err
    assert "better numbers" in out
    written = read_config(tmp_path / "c.toml")
    assert {name: getattr(written, name) for name in group["params"]} == group["params"]
    assert "# mine" in (tmp_path / "c.toml").read_text()

    code, out, _ = predictor("tune", "--roll-back", "c.toml")
    assert code == DONE and next(iter(group["params"])) in out
    assert read_config(tmp_path / "c.toml") == read_config(_empty(tmp_path))


def _empty(folder: Path) -> Path:
    (folder / "empty.toml").write_text("")
    return folder / "empty.toml"


def test_each_asset_can_have_numbers_of_its_own(predictor, ticks):
    code, out, _ = predictor("tune", ticks, "--trials", "8", "--per", "asset", "--json")
    assert code == DONE
    assert [group["group"] for group in json.loads(out)["groups"]] == ["acme/x", "acme/y"]


@contextmanager
def killed_at_last(process: subprocess.Popen[str]) -> Iterator[None]:
    """A test that fails leaves no process to the next one."""
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_keeps_the_study_and_resume_goes_on(predictor, ticks, tmp_path):
    command = [sys.executable, "-m", "worker", "tune", ticks, "--trials", "72", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    running = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    study, deadline = tmp_path / ".predictor/studies/tune-fast.json", time.monotonic() + 90
    with running.stderr, killed_at_last(running):
        while not (study.exists() and (seen := checkpoint.read(study)["trials"])):
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGINT)
        told, code = running.stderr.read(), running.wait(30)
    assert code == 130, f"interrupted after {len(seen)} trials, it said: {told}"
    kept = checkpoint.read(study)["trials"]
    assert f"stopped after {len(kept)} trials" in told and len(kept) < 72
    code, _, _ = predictor("tune", ticks, "--trials", "72", "--resume", "--json")
    ended = checkpoint.read(study)["trials"]
    assert (code, len(ended)) == (DONE, 72)
    assert ended[: len(kept)] == kept


def test_a_fleet_is_tuned_on_its_own_ticks_and_gets_a_generation(predictor, tmp_path):
    async def fill(url):
        store = RedisStateStore(url)
        await store.open_fleet(2, bytes(8), {"telemetry": [], "quantile_levels": []})
        await store.publish_config(0, {"predictor": {"cusum_k": 0.6}})
        await store.close()
        async with TickProducer(url) as producer:
            for t, level in enumerate(LEVELS):
                await producer.send("x", level, timestamp_ns=(t + 1) * SECOND)

    async def look(url):
        store = RedisStateStore(url)
        found = await store.read_config()
        await store.close()
        return found

    with EmbeddedRedis(tmp_path / "redis", port=0) as server:
        asyncio.run(fill(server.url))
        code, out, err = predictor("tune", "--redis", server.url, *TRIALS, "--json")
        assert code == DONE, err
        assert asyncio.run(look(server.url)).number == 1
        code, out, err = predictor("tune", "--redis", server.url, *TRIALS, "--resume", "--publish", "--json")
        assert code == DONE, err
        told = json.loads(out)
        generation = asyncio.run(look(server.url))
    assert told["generation"] == generation.number == 2
    assert generation.values["predictor"] == {"cusum_k": 0.6, **told["groups"][0]["params"]}
    assert told["groups"][0]["present"]["cusum_k"] == 0.6


def test_numbers_of_groups_lie_beside_those_of_all():
    values = {"predictor": {"cusum_k": 0.6}, "other": 1}
    once = merged(values, {"acme": {"cusum_h": 4.0}})
    twice = merged(once, {"": {"cusum_k": 0.7}, "acme": {"cusum_k": 0.3}})
    assert twice == {
        "predictor": {"cusum_k": 0.7},
        "other": 1,
        "groups": {"acme": {"cusum_h": 4.0, "cusum_k": 0.3}},
    }
    assert values == {"predictor": {"cusum_k": 0.6}, "other": 1}
    asset = merged(twice, {"acme/x": {"cusum_h": 6.0}})["groups"]["acme/x"]
    assert asset == {"cusum_h": 6.0, "cusum_k": 0.3}  # the rest is its tenant's, as it was


def test_a_group_is_tuned_from_what_it_has_now():
    generation = ConfigGeneration(3, {"predictor": {"cusum_k": 0.6}, "groups": {"acme": {"cusum_k": 0.3}}})
    settings = Settings(predictor={"cusum_k": 0.5, "cusum_h": 4.0})
    found = {group: present_of(settings, generation, group) for group in ("", "acme", "acme/x", "other")}
    assert {group: config.cusum_k for group, config in found.items()} == {
        "": 0.6, "acme": 0.3, "acme/x": 0.3, "other": 0.6
    }  # fmt: skip
    assert {config.cusum_h for config in found.values()} == {4.0}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.csv"], "none.csv cannot be read"),
        (["ticks.csv", "--assets", "zz"], "no tick of 'zz' in the file"),
        (["short.csv"], "tuning needs 1000 ticks of an asset, and no asset in the file has as many"),
        (["bad.csv"], "value must be a number, found 'x'"),
        (["ticks.csv", "--publish"], "leave the file out"),
        (["ticks.csv", "--write", "c.toml", "--per", "asset"], "--write takes one set of numbers"),
        (["ticks.csv", "--resume", "--anew"], "give one of them"),
        (["ticks.csv", "--name", "a/b"], "a study's name is"),
        (["ticks.csv", "--config", "none.toml"], "none.toml cannot be read"),
        (["ticks.csv", "--tier", "slow"], "Invalid value"),
        (["ticks.csv", "--trials", "0"], "Invalid value"),
        (["--roll-back", "none.toml"], "none.toml cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(predictor, ticks, tmp_path, words, told):
    (tmp_path / "short.csv").write_text("asset,timestamp_ns,value\nx,1,1.0\n")
    (tmp_path / "bad.csv").write_text("asset,timestamp_ns,value\nx,1,x\n")
    code, out, err = predictor("tune", *words)
    assert (code, out) == (USAGE, ""), err
    assert told in err and "Traceback" not in err
    assert not (tmp_path / ".predictor/studies").exists()


def test_a_study_in_the_way_in_other_hands_or_damaged_is_told(predictor, ticks, tmp_path):
    study = tmp_path / ".predictor/studies/tune-fast.json"
    study.parent.mkdir(parents=True)
    study.write_text("{}")
    code, _, err = predictor("tune", ticks)
    assert code == USAGE and "--resume goes on with it, --anew writes over it" in err
    code, _, err = predictor("tune", ticks, "--resume")
    assert code == USAGE and "sha256 is missing" in err
    checkpoint.sidecar(study).write_text("0  tune-fast.json\n")
    code, _, err = predictor("tune", ticks, "--resume")
    assert code == FAILED and "is damaged" in err
    with locked(study):
        code, _, err = predictor("tune", ticks, "--anew")
    assert code == USAGE and "in the hands of another process" in err


def test_a_place_that_cannot_be_written_is_named(predictor, ticks, tmp_path):
    (tmp_path / ".predictor").write_text("")
    code, _, err = predictor("tune", ticks)
    assert code == USAGE and "a study cannot be kept in .predictor/studies" in err and "Traceback" not in err


def test_without_optuna_the_command_says_which_extra_to_install(predictor, ticks, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = predictor("tune", ticks)
    assert code == FAILED
    assert "pip install 'universal-predictor[tune]'" in err
