"""A study as a file: JSON, and beside it the SHA-256 of what may lie there.

    1  NAME.sha256  <- the sum of the old content and of the new      a kill after any step leaves a file
    2  NAME         <- the new content                                whose sum is in its sidecar
    3  NAME.sha256  <- the sum of the new content

Every step replaces a whole file. JSON keeps floats to the last digit, and reading it runs no code.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ..errors import IntegrityError
from ..files import sweep, write_atomically

SCHEMA = 1


def write(path: Path, content: dict[str, Any]) -> None:
    """Replaces the study at `path`, whole or not at all."""
    data = json.dumps({"schema": SCHEMA, **content}, indent=1, allow_nan=False).encode()
    new = _line(data, path)
    old = _line(path.read_bytes(), path) if path.exists() else ""
    write_atomically(sidecar(path), (old + new).encode())
    write_atomically(path, data)
    write_atomically(sidecar(path), new.encode())
    sweep(path.parent)


def read(path: Path) -> dict[str, Any]:
    """The study at `path`; FileNotFoundError, IntegrityError or ValueError where it cannot be had."""
    if not path.exists():
        raise FileNotFoundError(f"there is no study at {path}.")
    if not sidecar(path).exists():
        raise FileNotFoundError(f"{sidecar(path)} is missing: without its sum the study {path} is not to be trusted.")
    data = path.read_bytes()
    while _line(data, path) not in sidecar(path).read_text(encoding="utf-8").splitlines(keepends=True):
        data, before = path.read_bytes(), data
        if data == before:  # else a writer was at work, and this is what it wrote
            raise IntegrityError(
                f"{path} is damaged: its sum is not in {sidecar(path).name}. Restore it, or start anew."
            )
    content = json.loads(data)
    if content.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {content.get('schema')!r}, this version reads {SCHEMA}. Start anew.")
    return content


def sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _line(data: bytes, path: Path) -> str:
    return f"{hashlib.sha256(data).hexdigest()}  {path.name}\n"
