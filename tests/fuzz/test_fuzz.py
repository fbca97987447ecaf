"""Any bytes, only errors with a name: every decoder meets some thousands of inputs, led by the code they reach."""

import subprocess
import sys

import pytest

from tests.fuzz.targets import TARGETS

RUNS = 5_000
FRAGILE = """
from tests.fuzz import targets
targets.TARGETS["letter"] = targets.Target(lambda data: data[3], (), lambda: [b"long enough"])
from tests.fuzz import __main__
__main__.main()
"""


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_fuzzing_begins_with_reaches_the_inside_of_the_decoder(name):
    first = TARGETS[name].begin_with()[0]
    assert first
    TARGETS[name].run(first)  # raises if it is refused


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="atheris, which leads the fuzzing, has no build for Python 3.13"
)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_raises_an_error_without_a_name(name, tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", name, "--runs", str(RUNS), "--found", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    sys.version_info >= (3, 13), reason="atheris, which leads the fuzzing, has no build for Python 3.13"
)
def test_an_error_without_a_name_is_found_and_its_input_kept(tmp_path):
    command = [sys.executable, "-c", FRAGILE, "letter", "--runs", "20000", "--found", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode != 0
    assert "IndexError" in done.stdout + done.stderr
    (kept,) = tmp_path.glob("letter-crash-*")
    assert len(kept.read_bytes()) < 4
