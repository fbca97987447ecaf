"""The commands, through the real command line: what they say, how they exit, and that they are followed once."""

import asyncio
import json
import re
import shlex
from pathlib import Path

import pytest

from state_store import RedisStateStore
from worker.exits import DONE, FAILED, FLEET, STORE, USAGE

ROOT = Path(__file__).parents[2]
SAY = ("--reason", "a test", "--actor", "ana")


@pytest.fixture
def predictor(command, monkeypatch, tmp_path, server, namespace):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("USP_REDIS__URL", server.url)
    monkeypatch.setenv("USP_REDIS__NAMESPACE", namespace)
    monkeypatch.setenv("USP_HOTPATH__LEASE_MS", "200")
    monkeypatch.setenv("USP_HOTPATH__DIRECTORY", str(tmp_path / "hotpath"))
    asyncio.run(make_fleet(server.url, namespace))
    return command


async def make_fleet(url, namespace):
    store = RedisStateStore(url, namespace=namespace)
    await store.open_fleet(2, bytes(8), {"telemetry": [], "quantile_levels": []})
    await store.close()


@pytest.fixture
def observed(open_fleet):
    """A fleet whose dry run has measured enough, and whose leader is gone."""

    async def observe():
        async with open_fleet() as fleet:
            leader = fleet.leader()
            for _ in range(8):
                await fleet.window(leader)
            await leader.release()

    asyncio.run(observe())


def asked(predictor, *words):
    code, out, err = predictor("hotpath", *words, "--json")
    assert code == DONE, err
    return json.loads(out)


def test_a_fleet_that_nobody_has_led_yet(predictor):
    assert asked(predictor, "status")["mode"] == "observe"
    nobody = {"next": "nobody has led yet", "model": "no canary is under way; none was tried yet"}
    assert asked(predictor, "explain") == {"decisions": []} | nobody
    assert asked(predictor, "diff") == {"knobs": []}
    for command in ("status", "explain", "diff"):
        assert predictor("hotpath", command)[0] == DONE


def test_turning_it_on_first_reports_what_the_dry_run_measured(predictor, observed):
    code, out, _ = predictor("hotpath", "dry-run", "off", *SAY)
    assert code == DONE
    report, told = out.split("\n\n")
    assert "nothing was perturbed, so no gradient is known" in report
    assert {"sigma_y", "perturbation_scale", "learning_rate", "p95_ms", "J.cost"} <= set(report.split())
    assert told.startswith("tuning is on: probes of 0.025 of a range")
    status = asked(predictor, "status")
    assert (status["mode"], status["baseline_generation"], status["generation"]) == ("run", 0, 0)
    assert asked(predictor, "dry-run", "off", *SAY)["told"] == "tuning was on already"
    assert asked(predictor, "dry-run", "on", *SAY)["told"] == "observing: nothing is changed"


def test_every_order_changes_what_it_says_and_is_audited(predictor, observed):
    orders = [
        ("dry-run", "off"),
        ("pause",),
        ("pin", "window_ms", "25", "--jump"),
        ("set-baseline",),
        ("unpin", "window_ms"),
        ("pin", "ticks_max", "2000"),
        ("rollback",),
        ("rollback", "--to", "1"),
        ("resume",),
        ("reset-safe-mode",),
        ("freeze",),
        ("freeze", "--off"),
        ("dry-run", "on"),
        ("dry-run", "on", "--fresh"),
    ]
    for number, order in enumerate(orders):
        asked(predictor, *order, *SAY, "--id", f"order-{number}")
    decisions = asked(predictor, "explain", "-n", "100")["decisions"]
    commands = [decision for decision in decisions if decision["event"] == "command"]
    assert len(commands) == len(orders), [c["why"] for c in commands]
    assert {(decision["actor"], decision["why"].split(",")[0]) for decision in commands} == {("ana", "a test")}
    assert [decision for decision in decisions if decision["event"] == "rollback"]
    knobs = {row["knob"]: row for row in asked(predictor, "diff")["knobs"]}
    assert knobs["window_ms"]["settings"] == 0.0
    assert asked(predictor, "status")["mode"] == "observe"


def test_the_same_id_is_followed_once(predictor, observed):
    asked(predictor, "dry-run", "off", *SAY)
    first = asked(predictor, "rollback", *SAY, "--id", "mine")
    assert asked(predictor, "rollback", *SAY, "--id", "mine") == first
    assert asked(predictor, "status")["generation"] == first["generation"] == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["pause"], USAGE, "Missing option"),
        (["pause", "--reason", " "], USAGE, "--reason and --actor: 1 to 500 letters"),
        (["rollback", *SAY], FAILED, "there is no baseline: predictor hotpath set-baseline"),
        (["rollback", *SAY, "--to", "77"], USAGE, "generation 77 is not in the history"),
        (["pin", "speed", "1", *SAY], FAILED, "there is no knob 'speed': window_ms, ticks_max, read_ahead"),
        (["pin", "window_ms", "1000", *SAY], FAILED, "window_ms must be in 0 to 100 ms, got 1000"),
        (["dry-run", "off", *SAY, "--namespace", "none"], FLEET, "predictor init"),
        (["dry-run", "maybe", *SAY], USAGE, "say dry-run on"),
        (["dry-run", "off", "--fresh", *SAY], USAGE, "say dry-run on"),
        (["pause", *SAY, "--expect", "5"], FAILED, "the generation is 0, not 5: look again"),
        (["pause", *SAY, "--redis", "redis://127.0.0.1:1"], STORE, "refuses connections"),
        (["canary", "on"], USAGE, "No such command"),
        (["canary", "promote", *SAY], FAILED, "no canary is under way"),
        (["canary", "start", "cusum_k=0.9", *SAY], FAILED, "a canary tries no 'cusum_k'"),
        (["canary", "start", "volatility_alpha=9", *SAY], FAILED, "volatility_alpha must be in 0.02 to 0.3, got 9"),
        (["canary", "start", "volatility_alpha", *SAY], USAGE, "'volatility_alpha' is not NAME=NUMBER"),
        (["canary", "start", "volatility_alpha=", *SAY], USAGE, "volatility_alpha needs a number to be tried"),
        (["canary", "start", "volatility_alpha=0.2", "--knob", "learning_rate", *SAY], USAGE, "not both"),
        (["audit", "replay", "--dir", "/nowhere"], USAGE, "/nowhere is no directory"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(predictor, words, code, told):
    found, out, err = predictor("hotpath", *words)
    assert found == code, err
    assert told in " ".join(err.split()) and not out
    if "Usage" not in err:
        assert err.startswith("predictor: ") and len(err.splitlines()) == 1
    assert asked(predictor, "status")["generation"] == 0


def test_the_dry_run_must_have_measured_something(predictor):
    code, _, err = predictor("hotpath", "dry-run", "off", *SAY)
    assert (code, "has not measured enough yet" in err) == (FAILED, True)


def test_leaving_safe_mode_shows_why_it_is_on_and_asks(predictor, open_fleet):
    async def latch():
        async with open_fleet() as fleet:
            leader = await fleet.tuning()
            leader.term.engine.enter_safe_mode(leader.term.now_us(), "ana", "to look")
            await leader.step()
            await leader.release()

    asyncio.run(latch())
    code, _, err = predictor("hotpath", "reset-safe-mode", *SAY)
    assert (code, "Safe mode is on because of manual_trigger. Leave it? Say so with --yes" in err) == (USAGE, True)
    assert asked(predictor, "status")["safe_mode"] == "manual_trigger"
    assert asked(predictor, "reset-safe-mode", *SAY, "--yes")["told"] == "left safe mode (manual_trigger)"
    assert asked(predictor, "status")["safe_mode"] is None


def test_verify_follows_the_chain_and_sees_a_change(predictor, observed, tmp_path):
    found = asked(predictor, "audit", "verify")
    assert found["whole"] and found["newest_is_here"] and found["events"] >= 5
    path = next((tmp_path / "hotpath").glob("audit-*.log"))
    whole = path.read_bytes()
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))  # the end is gone
    code, out, _ = predictor("hotpath", "audit", "verify", "--json")
    assert (code, json.loads(out)["newest_is_here"]) == (FAILED, False)
    path.write_bytes(whole)
    path.write_bytes(path.read_bytes().replace(b'"dry_run":true', b'"dry_run":null', 1))
    code, out, _ = predictor("hotpath", "audit", "verify", "--dir", tmp_path / "hotpath")
    assert code == FAILED and "does not follow from the one before" in out


def test_a_canary_is_started_shown_and_ended_by_commands(predictor, observed):
    idle = {"trying": False, "watching": False, "proposes": [], "trials": 0, "pinned": [], "last": {}}
    assert asked(predictor, "canary", "status") == idle
    told = asked(predictor, "canary", "start", "sinkhorn_epsilon_0=0.2", *SAY, "--id", "go")["told"]
    assert told == "trying sinkhorn_epsilon_0=0.2 on one of 2 groups of partitions, in 20 rounds"
    assert asked(predictor, "canary", "start", "sinkhorn_epsilon_0=0.2", *SAY, "--id", "go")["told"] == told
    facts = asked(predictor, "canary", "status")
    assert facts["candidate"] == {"sinkhorn_epsilon_0": 0.2} and facts["in_force"]
    assert asked(predictor, "status")["canary"]["round"] == 1
    assert predictor("hotpath", "canary", "status")[0] == predictor("hotpath", "status")[0] == DONE
    assert "for everyone" in asked(predictor, "canary", "promote", *SAY)["told"]
    facts = asked(predictor, "canary", "status")
    assert facts["last"]["kind"] == "better" and facts["watching"] and facts["promoted"] == {"sinkhorn_epsilon_0": 0.2}
    assert asked(predictor, "explain")["model"].startswith("watching sinkhorn_epsilon_0=0.2, round 1 of 21: nobody")
    assert "no canary is under way" in predictor("hotpath", "canary", "promote", *SAY)[2]
    told = asked(predictor, "canary", "rollback", *SAY, "--id", "back")["told"]
    assert told == "sinkhorn_epsilon_0=0.1 for everyone again"
    assert asked(predictor, "canary", "abort", *SAY)["told"] == "no canary was under way"
    decisions = asked(predictor, "explain")["decisions"]
    assert {"canary", "canary_ended", "rollback"} <= {decision["event"] for decision in decisions}
    assert "sinkhorn_epsilon_0" in asked(predictor, "explain")["model"]


def test_replay_agrees_and_sees_a_change(predictor, observed, tmp_path):
    found = asked(predictor, "audit", "replay")
    assert found["agrees"] and found["terms"] == 1 and found["proposals"] >= 1
    path = next((tmp_path / "hotpath").glob("audit-*.log"))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"dry_run":true', b'"dry_run":null', 1))
    code, out, _ = predictor("hotpath", "audit", "replay", "--json")
    assert (code, json.loads(out)["agrees"]) == (FAILED, False)
    assert json.loads(out)["difference"]["written_down"]


def test_every_command_of_the_page_runs(predictor, observed, tmp_path):
    page = (ROOT / "docs" / "hotpath.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.S) for line in block.splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("predictor hotpath")]
    assert len(commands) >= 15
    for words in commands:
        code, _, err = predictor(*words)
        assert code == DONE, (words, err)
