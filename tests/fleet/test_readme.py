"""What the README shows works as it stands there: a fleet typed line by line, and its blocks of Python."""

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FIRST_WORDS = {"redis": b"redis", "worker": b'"started"'}  # what a command in the background says once it serves


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


@pytest.fixture
def typed(tmp_path):
    """Runs lines of a shell in an empty folder, each when the one before it is done or serves; ends them in order."""
    (tmp_path / ".predictor").mkdir()
    (tmp_path / ".predictor" / "cache").symlink_to(ROOT / ".predictor" / "cache")
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    running, told = [], {}

    def run(line: str) -> str:
        words = shlex.split(line, comments=True)
        if words[0] == "source":  # the tests run in that environment already
            return ""
        if words[-1] != "&":
            done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=240)
            assert done.returncode == 0, (line, done.stderr)
            return done.stdout
        process = subprocess.Popen(words[:-1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path, env=env)
        running.append(process)
        said = b""
        for said_now in process.stdout:
            said += said_now
            if FIRST_WORDS[words[1]] in said_now:
                return said.decode()
        raise AssertionError((line, said))

    yield run
    for process in reversed(running):
        process.send_signal(signal.SIGTERM)
        told[process.args[1]] = process.communicate(timeout=60)[0]
        assert process.returncode == 0, (process.args, told)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_the_fleet_of_the_readme_runs_line_by_line_and_serves_its_blocks_of_python(typed, capsys):
    (block,) = blocks("bash")
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    told = {}
    for line in block.replace("6390", str(port)).splitlines():
        told[line.split()[1]] = typed(line)
    assert len(told["tail"].splitlines()) > 100
    assert sum("127.0.0.1" in line or "-" in line for line in told["lag"].splitlines()) >= 16, told["lag"]

    names = {}
    fleet_block, library_block = blocks("python")
    exec(compile(fleet_block, "README.md", "exec"), names)
    exec(compile(library_block, "README.md", "exec"), names)
    assert names["result"].confidence_lower < names["result"].reference_prediction < names["result"].confidence_upper

    async def send_and_read():
        reading = asyncio.create_task(names["read"](url))
        await names["send"](url)
        async with asyncio.timeout(30):
            while not re.search(r"^EURUSD 1\.0873", printed := capsys.readouterr().out, re.M):
                assert not reading.done(), (printed, reading)
                await asyncio.sleep(0.05)
        reading.cancel()

    asyncio.run(send_and_read())
