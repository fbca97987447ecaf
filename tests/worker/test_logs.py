"""Log lines: fields by name, one line each."""

import io
import json
import logging

import pytest

from worker.logs import start_logging
from worker.settings import LogSettings


@pytest.fixture
def stream():
    before, level = logging.root.handlers[:], logging.root.level
    logging.root.handlers = []
    yield io.StringIO()
    logging.root.handlers, logging.root.level = before, level


def test_json_lines_carry_the_fields(stream):
    start_logging(LogSettings(format="json"), "w1", stream)
    logging.getLogger("here").info("partition_acquired", extra={"partition": 3, "asset": b"\xc3\xa9"})
    line = json.loads(stream.getvalue())
    assert line["ts"].endswith("Z")
    del line["ts"]
    told = {"level": "info", "event": "partition_acquired", "worker": "w1", "partition": 3, "asset": "é"}
    assert line == told


def test_an_exception_stays_one_line(stream):
    start_logging(LogSettings(format="json"), "w1", stream)
    try:
        raise ValueError("bad")
    except ValueError:
        logging.getLogger("here").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: bad" in json.loads(line)["traceback"]


def test_a_stream_that_is_no_terminal_gets_json_and_levels_are_kept(stream):
    start_logging(LogSettings(level="warning"), "w1", stream)
    logging.getLogger("here").info("not shown")
    logging.getLogger("here").warning("shown")
    assert json.loads(stream.getvalue())["event"] == "shown"


def test_human_lines_are_short(stream):
    start_logging(LogSettings(format="human"), "w1", stream)
    logging.getLogger("here").info("partition_acquired", extra={"partition": 3})
    assert stream.getvalue()[13:] == "info     partition_acquired  partition=3\n"
