"""The guides do what they say: every line of shell and every block of Python, in order, on one fleet."""

import asyncio
import json
import random
import re
import runpy
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from state_store import PredictionReader
from tests.docs.conftest import GUIDES, TOOLS
from tests.docs.pages import DOCS, blocks

EXAMPLES = DOCS / "examples"


def owners(lag: str) -> set[str]:
    return {name for name in ("first", "second", "third", "new") if re.search(rf"\b{name}\b", lag)}


def test_first_ten_minutes_shows_a_fleet_that_loses_a_worker_and_nothing_else(guided):
    assert "every prediction" in guided.said or "agree" in guided.said, guided.said[-3000:]
    assert re.search(r"EURUSD.*2025-10-09", guided.said)


def test_sending_ticks_from_python_is_accepted(guided, capsys):
    guided.run_python("sending-ticks.md")
    assert capsys.readouterr().out == "3\n"
    assert "EURUSD" not in guided.type_page("sending-ticks.md")  # among the rejected


@pytest.mark.parametrize("tool", TOOLS)
def test_what_needs_another_program_runs_where_it_is_installed(guided, tool):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    others = tuple(other for other in TOOLS if other != tool and shutil.which(other) is None)
    for page in sorted(GUIDES.glob("*.md")):
        for block in blocks(page, "sh"):
            if tool in block and not any(other in block for other in others):
                guided.type(block)


def test_reading_predictions_into_pandas_and_a_database_finds_them_all(guided, capsys):
    names = guided.run_python("reading-predictions.md")
    guided.type_page("reading-predictions.md")
    lines = (guided.folder / "predictions.jsonl").read_text().splitlines()
    kept = {(line["asset"], line["timestamp_ns"]) for line in map(json.loads, lines)}
    frame = asyncio.run(names["read_frame"](guided.url))
    with sqlite3.connect(guided.folder / "predictions.db") as database:
        stored = set(database.execute("SELECT asset, timestamp_ns FROM predictions"))
    database.close()
    assert len(kept) > 1500 and kept <= stored
    assert {(asset, time.value) for asset, time in frame.index} == stored
    assert capsys.readouterr().out.startswith(("walk", "revert", "cycle", "jumps", "lattice", "EURUSD", "acme"))


def test_a_consumer_killed_again_and_again_has_every_prediction_once(guided, tmp_path):
    """Each kill comes at a moment of its own, while rows are being written."""
    database, dice, kills = tmp_path / "p.db", random.Random(7), 0
    command = [sys.executable, EXAMPLES / "predictions_to_sqlite.py", guided.url, database]
    words = ["--redis", guided.url, "--assets", "40", "--rate", "3000", "--seconds", "4"]
    feed = subprocess.Popen([sys.executable, "-m", "worker", "feed", *words], stdout=subprocess.DEVNULL)
    try:
        while feed.poll() is None or kills < 3:
            consumer = subprocess.Popen(command)
            before, deadline = count(database), time.monotonic() + 30
            while count(database) == before and feed.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(dice.uniform(0, 0.2))
            consumer.send_signal(signal.SIGKILL)
            kills += consumer.wait() == -signal.SIGKILL
        assert kills >= 3
        subprocess.run([*command, "1.5"], check=True, timeout=60)
    finally:
        feed.kill()
        feed.wait()
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT * FROM predictions").fetchall()
    connection.close()
    assert sorted(rows) == sorted(asyncio.run(everything(guided.url)))


def count(database) -> int:
    with sqlite3.connect(database) as connection:
        try:
            (rows,) = connection.execute("SELECT count(*) FROM predictions").fetchone()
        except sqlite3.OperationalError:  # not made yet
            rows = 0
    connection.close()
    return rows


async def everything(url: str) -> list[tuple]:
    async with PredictionReader(url, start="0") as reader:
        found = []
        while batch := await reader.read(0):
            found += [
                (p.asset, p.timestamp_ns, p.tick_id, p.reference_prediction, p.confidence_lower, p.confidence_upper)
                for p in batch
            ]
        return found


def test_scaling_moves_partitions_to_a_worker_and_back(guided):
    said = guided.type_page("scaling.md")
    assert owners(said) == {"second", "third"}
    assert owners(guided.type("predictor lag")) == {"second"}


def test_upgrades_replace_a_worker_and_refuse_another_layout_by_name(guided):
    said = guided.type_page("upgrades.md")
    assert said.count("refused with exit code 4") == 2
    assert "made with 16 partitions, 8 were asked for" in said and "holds states of layout" in said
    assert owners(guided.type("predictor lag")) == {"new"}


def test_backup_and_recovery_rehearses_on_the_side(guided):
    said = guided.type_page("backup-and-recovery.md")
    assert (guided.folder / "fleet.uspb").exists()
    assert re.search(r"ticks +[1-9]", said), said


def test_security_never_shows_a_password(guided):
    said = guided.type_page("security.md")
    assert "valid" in said and "***" in said and "secret" not in said


def test_troubleshooting_quotes_what_is_really_said(guided):
    said = guided.type_page("troubleshooting.md")
    quoted = re.findall(r"^`([^`]+)`$", (GUIDES / "troubleshooting.md").read_text(), re.M)
    assert len(quoted) == 5
    for line in quoted:
        assert line in said, (line, said)


def test_the_table_on_sizing_is_what_the_command_prints(monkeypatch, capsys):
    """Its lines, run in this process, where JAX is loaded already."""
    for line in "".join(blocks(GUIDES / "sizing.md", "sh")).splitlines():
        python, *argv = shlex.split(line)
        assert python == "python"
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(DOCS.parent / argv[0]), run_name="__main__")
    (on_page,) = numbers((GUIDES / "sizing.md").read_text())
    printed, smaller = numbers(capsys.readouterr().out)
    assert on_page.keys() == printed.keys() == smaller.keys()
    for assets, columns in on_page.items():
        assert columns == pytest.approx(printed[assets], rel=0.2, abs=1), "run docs/examples/sizing.py for the table"
        assert smaller[assets][-1] < columns[-1]


def numbers(text: str) -> list[dict[int, list[int]]]:
    """The tables of megabytes in a text: by assets, the columns."""
    tables = re.findall(r"^\| assets \|.*\n\|[-|]+\n((?:\|.*\n?)+)", text, re.M)
    rows = [[re.findall(r"[\d,]+", line) for line in table.splitlines()] for table in tables]
    return [{int(row[0].replace(",", "")): [int(cell.replace(",", "")) for cell in row[1:]] for row in t} for t in rows]


def test_the_settings_on_the_page_about_traces_are_taken(guided):
    (toml,) = blocks(GUIDES / "tracing.md", "toml")
    (guided.folder / "traces.toml").write_text(toml)
    assert "http://127.0.0.1:4318" in guided.type("predictor config show --config traces.toml")


def test_every_guide_is_tried_here():
    tried = set(re.findall(r'"([a-z-]+\.md)"', (DOCS.parent / "tests" / "docs" / "test_guides.py").read_text()))
    assert {page.name for page in GUIDES.glob("*.md")} == tried | {"first-ten-minutes.md"}
