"""What the README shows works as it stands there: a fleet typed line by line, and its blocks of Python."""

import asyncio
import re
import socket

import pytest

from tests.docs.pages import ROOT, Shell, blocks

README = ROOT / "README.md"


@pytest.fixture
def shell(tmp_path, program):
    (tmp_path / ".predictor").mkdir()
    (tmp_path / ".predictor" / "cache").symlink_to(ROOT / ".predictor" / "cache")
    with Shell(tmp_path) as shell:
        yield shell


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_the_fleet_of_the_readme_runs_line_by_line_and_serves_its_blocks_of_python(shell, capsys):
    (block,) = blocks(README, "bash")
    port = free_port()
    url = f"redis://127.0.0.1:{port}"
    told = {line.split()[1]: shell.type(line) for line in block.replace("6390", str(port)).splitlines()}
    assert len(told["tail"].splitlines()) > 100
    assert sum("127.0.0.1" in line or "-" in line for line in told["lag"].splitlines()) >= 16, told["lag"]

    names = {}
    fleet_block, library_block = blocks(README, "python")
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
