"""A page as its reader uses it: its blocks, and a shell into which they are typed."""

import os
import queue
import re
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SERVING = {"redis": "redis://", "worker": '"phase": "ready"'}  # what a command in the background says once it serves
LINE_MAX_S = 180.0
SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.M)


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of one language, with the files that they take in."""
    found = re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)
    return [SNIPPET.sub(lambda match: (DOCS / match[1]).read_text(), block) for block in found]


class Shell:
    """One bash for a whole page: what fails ends it, a line that ends in & is waited for until it serves."""

    def __init__(self, folder: Path, **env: str) -> None:
        given = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120", **env}
        self._bash = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
            errors="backslashreplace", cwd=folder, env=os.environ | given,
        )  # fmt: skip
        self._lost = ""  # what was typed and did not come to its end
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = Thread(target=self._read)
        self._reader.start()
        self._write("set -emo pipefail; source() { :; }")  # the tests run in that environment already
        self._write("trap 'kill -KILL $(jobs -p) 2> /dev/null' EXIT")  # also when the tests themselves were killed

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                self.type("for job in $(jobs -p | tac); do kill -TERM $job; wait $job; done")
        finally:
            assert self._bash.stdin is not None
            self._bash.stdin.close()
            self._bash.wait(LINE_MAX_S)  # after what it is at
            self._reader.join(10)
            assert self._bash.stdout is not None
            self._bash.stdout.close()

    def type(self, block: str) -> str:
        """Types a block, gives what was said until it was done."""
        background = any(line.partition(" #")[0].rstrip().endswith("&") for line in block.splitlines())
        if background:
            return "".join(map(self._type_line, block.splitlines()))
        return self._run(block)

    def _type_line(self, line: str) -> str:
        command = line.partition(" #")[0].rstrip()
        if not command.endswith("&"):
            return self._run(line)
        self._write(command)
        return self._until(SERVING[command.split()[1]], line)

    def _run(self, text: str) -> str:
        done = f"--done-{time.monotonic_ns()}--"
        self._write(f"{text}\necho; echo {done}")
        return self._until(done, text)

    def _write(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text + "\n")
        self._bash.stdin.flush()

    def _until(self, words: str, typed: str) -> str:
        assert not self._lost, f"the shell is of no use since this was typed:\n{self._lost}"
        self._lost = typed
        said = self._said_until(words, typed)
        self._lost = ""
        return said

    def _said_until(self, words: str, typed: str) -> str:
        said, deadline = [], time.monotonic() + LINE_MAX_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {words!r} within {LINE_MAX_S} s of\n{typed}\n{''.join(said)}") from None
            assert line is not None, f"this failed:\n{typed}\n{''.join(said)}"
            if words in line:
                return "".join(said)
            said.append(line)

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            self._lines.put(line)
        self._lines.put(None)
