"""One fleet for all guides: the one that the first of them makes, typed as it stands there."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, Shell, blocks

GUIDES = DOCS / "guides"
CACHE = ROOT / ".predictor" / "cache"
TOOLS = ("node", "redis-cli")  # not everywhere


@dataclass
class Guided:
    """A shell in which the first guide was typed, and where its fleet is."""

    shell: Shell
    folder: Path
    port: int
    said: str = ""

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def type(self, block: str) -> str:
        return self.shell.type(block.replace("6390", str(self.port))).replace(str(self.port), "6390")

    def type_page(self, name: str, without: tuple[str, ...] = TOOLS) -> str:
        """Types the blocks of a guide, but for those that need a tool which may be missing."""
        page = [block for block in blocks(GUIDES / name, "sh") if not any(tool in block for tool in without)]
        return "".join(map(self.type, page))

    def run_python(self, name: str) -> dict:
        """Runs the Python of a guide in order, as one program."""
        names = {"__name__": name}
        for block in blocks(GUIDES / name, "python"):
            exec(compile(block.replace("6390", str(self.port)), name, "exec"), names)
        return names


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def guided(tmp_path_factory, program):
    folder = tmp_path_factory.mktemp("guides")
    (folder / ".predictor").mkdir()
    (folder / ".predictor" / "cache").symlink_to(CACHE)
    for name in ("docs", "deploy"):
        (folder / name).symlink_to(ROOT / name)
    given = sorted(name for name in os.environ if name.startswith("USP_"))
    assert not given, f"the guides begin without settings in the environment, here are {given}"
    with Shell(folder) as shell:
        guided = Guided(shell, folder, free_port())
        guided.said = guided.type_page("first-ten-minutes.md")
        yield guided
